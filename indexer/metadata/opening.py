"""Start a collection's tables, and open them.

A start makes the tables first and `collection.json` last, so that what a broken start leaves behind is no collection.
Processes that start the same one at once all go on: one makes it, the others wait and open it. What a start that broke
off left in the folder is cleared away by the next, and so is its PostgreSQL schema, whose name is written down first.

What this module does not know: what is stored in a collection.
"""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path

from indexer.embed.base import Embedder
from indexer.errors import CallError, LockedError, StoreError
from indexer.files.atomic import atomic_write
from indexer.files.layout import SCHEMA_NAME, STARTING, Layout, own_path
from indexer.files.lock import WriterLock
from indexer.metadata.connections import parse_url
from indexer.metadata.database import Database
from indexer.metadata.identity import identify
from indexer.metadata.publish import create_first_generation
from indexer.metadata.space_changes import create_space
from indexer.metadata.upgrading import current
from indexer.types import Parts

PATIENCE, PAUSE = 60.0, 0.05
"""Seconds that a start waits for another one of the same collection, and between two looks."""


def open_metadata(folder: Path, database: str | None) -> tuple[Layout, Database]:
    """The layout and the database of a collection.

    Raises:
        StoreError: One of its kinds; nothing stays open.
        CallError: `database` does not fit.
    """
    layout = Layout.read(folder)
    base = connect(layout, database)
    try:
        base = current(base, layout.lock)
        return identify(layout, base), base
    except BaseException:
        base.close()
        raise


def start(folder: Path, embedder: Embedder, parts: Parts, database: str | None) -> None:
    """Make a collection, or wait until another process has made it.

    Raises:
        StoreError: The folder holds other things, or the disk or the database refuses.
        LockedError: Another process is still at it after a minute.
        CallError: `database` does not fit.
    """
    until = time.monotonic() + PATIENCE
    while not Layout.exists(folder):
        try:
            layout = Layout.plan(folder, parse_url(database).get_backend_name() if database else "sqlite")
            require_fitting(layout, database)
            with WriterLock(layout.lock):
                if not Layout.exists(folder):
                    _make(layout, embedder, parts, database)
            return
        except LockedError:
            if time.monotonic() > until:
                raise
        except StoreError:
            if not Layout.exists(folder):  # else another process finished between two looks
                raise
        time.sleep(PAUSE)


def _make(layout: Layout, embedder: Embedder, parts: Parts, database: str | None) -> None:
    fingerprint = embedder.fingerprint()
    record = own_path(layout.folder, STARTING)
    _drop_unfinished(layout, record, database)
    layout.clear()
    if layout.schema is not None:
        atomic_write(record, layout.schema.encode())
    try:
        with closing(connect(layout, database)) as base:
            base.create()
            create_first_generation(base)
            create_space(
                base, embedder.name, fingerprint.digest, embedder.name, embedder.dim, parts, asdict(fingerprint)
            )
            layout = replace(layout, id=base.known_id())
        layout.publish()
    except BaseException:
        with suppress(StoreError):  # a server that is gone: the next start drops it
            _drop_unfinished(layout, record, database)
        raise
    record.unlink(missing_ok=True)


def _drop_unfinished(layout: Layout, record: Path, database: str | None) -> None:
    """Drop the schema of a start that broke off."""
    if layout.schema is None or Layout.exists(layout.folder):
        return
    try:
        name = record.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return
    if SCHEMA_NAME.fullmatch(name):
        with closing(connect(replace(layout, schema=name), database)) as base:
            base.drop_empty()
    record.unlink(missing_ok=True)


def connect(layout: Layout, database: str | None) -> Database:
    """The database of a collection.

    Raises:
        CallError: There is a URL where it keeps metadata in SQLite, or none where it does not.
    """
    require_fitting(layout, database)
    return Database.in_file(layout.database) if database is None else Database(database, layout.schema)


def require_fitting(layout: Layout, database: str | None) -> None:
    """See that there is a URL where a collection wants one, and only there.

    Raises:
        CallError: It is not so.
    """
    if layout.backend == "sqlite" and database is not None:
        raise CallError(
            f"{layout.folder} keeps its metadata in SQLite, in the collection's folder; it has no use for a URL.",
            "Leave database out.",
        )
    if layout.backend != "sqlite" and database is None:
        raise CallError(
            f"{layout.folder} keeps its metadata in PostgreSQL.",
            "Give its URL with `database`.",
        )
