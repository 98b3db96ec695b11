"""Verify that an open collection is still the one that was opened.

Files are reached by path, rows through an open database. If the folder is renamed, replaced, restored
from a backup or deleted meanwhile, the two belong to different collections: a sweep would delete the segments of the
new one, and nobody would see a commit. So before each sweep and each commit, and when a snapshot is taken,
the folder and the database file are compared with those that were opened (device and inode), and a random id in
`collection.json` with the one in the tables.

What this module does not know: the content of commits.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from indexer.errors import CorruptionError, StoreError
from indexer.files.layout import Layout
from indexer.files.lock import WriterLock
from indexer.metadata.database import Database

AGAIN = "Open the collection again. Nothing was written."


def identify(layout: Layout, database: Database) -> Layout:
    """Verify that folder and tables belong together, and make the database refuse writes once they no longer do.

    If an earlier release wrote `collection.json` without the id, the id is added.

    Returns:
        The layout, with the id.

    Raises:
        CorruptionError: The ids differ, or the tables have none.
    """
    known = database.known_id()
    if layout.id is None:
        layout = replace(layout, id=known)
        if not database.only_readable and database.copy_of is None:
            with suppress(StoreError), WriterLock(layout.lock):  # the next opening does it
                layout.publish()
    if layout.id != known:
        raise CorruptionError(
            f"{layout.folder / 'collection.json'} is of the collection {layout.id}, {database.shown} of {known}.",
            "Restore both from the same backup.",
        )
    standing = _Standing(layout)
    database.id, database.standing = known, standing.require
    return layout


class _Standing:
    """The identity of the folder and the files that were opened."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._description = layout, layout.description
        self._tables = layout.database if layout.backend == "sqlite" else None
        self._folder = _place(layout.folder)
        self._database = None if self._tables is None else _place(self._tables)
        self._described = _stamp(self._description)

    def require(self) -> None:
        """Raise an error if something has replaced the collection.

        Raises:
            StoreError: It says what happened.
        """
        folder = self._layout.folder
        place = _place(folder)
        if place is None:
            raise StoreError(f"{folder} is gone: it was renamed or deleted while it was open.", AGAIN)
        if place != self._folder:
            raise StoreError(f"{folder} is another folder than the one that was opened: it was replaced.", AGAIN)
        described = _stamp(self._description)
        if described != self._described:
            if described is None or Layout.read(folder).id not in (self._layout.id, None):
                raise StoreError(f"{folder} holds another collection than the one that was opened.", AGAIN)
            self._described = described
        if self._tables is not None and _place(self._tables) != self._database:
            raise StoreError(
                f"{self._tables} is another file than the one that was opened: it was restored or replaced.",
                AGAIN,
            )


def _place(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_mtime_ns
