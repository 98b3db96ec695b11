"""Create and open a collection's tables.

Creation makes the tables first and `collection.json` last, so that an interrupted creation leaves no collection. If
processes create the same collection at once, one creates it, and the others wait and open it. The next creation clears
away what an interrupted one left in the folder, and its PostgreSQL schema, whose name is written down first.

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
"""Seconds to wait for another process that creates the same collection, and between two checks."""


def open_metadata(folder: Path, database: str | None) -> tuple[Layout, Database]:
    """The layout and the database of a collection.

    Raises:
        StoreError: The collection cannot be opened; nothing stays open.
        CallError: `database` does not match the collection.
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
    """Create a collection, or wait until another process has created it.

    Raises:
        StoreError: The folder holds other files, or the disk or the database fails.
        LockedError: Another process is still creating it after a minute.
        CallError: `database` does not match the collection.
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
            if not Layout.exists(folder):  # otherwise another process finished between two checks
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
        with suppress(StoreError):  # the server is unreachable: the next creation drops it
            _drop_unfinished(layout, record, database)
        raise
    record.unlink(missing_ok=True)


def _drop_unfinished(layout: Layout, record: Path, database: str | None) -> None:
    """Drop the schema of an interrupted creation."""
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
        CallError: A URL is given although its metadata is in SQLite, or missing although it is in PostgreSQL.
    """
    require_fitting(layout, database)
    return Database.in_file(layout.database) if database is None else Database(database, layout.schema)


def require_fitting(layout: Layout, database: str | None) -> None:
    """Check that a URL is given exactly if the collection needs one.

    Raises:
        CallError: It is missing or superfluous.
    """
    if layout.backend == "sqlite" and database is not None:
        raise CallError(
            f"{layout.folder} keeps its metadata in SQLite, in the collection's folder; it takes no URL.",
            "Leave database out.",
        )
    if layout.backend != "sqlite" and database is None:
        raise CallError(
            f"{layout.folder} keeps its metadata in PostgreSQL.",
            "Give its URL with `database`.",
        )
