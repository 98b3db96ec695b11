"""Upgrade a collection of an older schema when it is opened.

A user with write access takes the writer's lock and migrates. A user with read access to a SQLite collection gets a
migrated copy of its metadata, as of the opening.

What this module does not know: any table.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
import weakref
from contextlib import closing
from pathlib import Path

from indexer.errors import FormatError, LockedError, StoreError
from indexer.files.lock import WriterLock
from indexer.metadata.connections import undisturbed
from indexer.metadata.database import Database
from indexer.metadata.migrations import newest

PATIENCE, PAUSE = 10.0, 0.05
"""Seconds that an upgrade waits for another writer, and between two checks."""


def current(database: Database, lock: Path) -> Database:
    """The database, or an upgraded copy, with the tables of this release.

    Args:
        database: Its owner closes it, even if a copy is returned.
        lock: The collection's lock file.

    Raises:
        CorruptionError: There are no tables, or the tables to be upgraded are damaged.
        FormatError: They are newer; or they are older, and the user cannot write.
        LockedError: They are older, and another writer holds the collection.
    """
    if (version := database.required_version()) == newest():
        return database
    if database.only_readable:
        return _copied(database)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with WriterLock(lock):
                database.create()
            return database
        except LockedError as error:
            if database.required_version() == newest():  # the holder of the lock has upgraded it
                return database
            if time.monotonic() > until:
                raise LockedError(
                    f"{database.shown} has schema {version} and is upgraded to {newest()} at the next opening. "
                    f"{error.message}",
                    error.remedy,
                ) from error
        except StoreError as error:
            if database.url.get_backend_name() == "sqlite" or database.required_version() != version:
                raise
            raise FormatError(
                f"{database.shown} has schema {version}; this release needs {newest()}, and could not upgrade it: "
                f"{error.message}",
                f"Let somebody who may write to {lock.parent} and to the database run: underdrawing info {lock.parent}",
            ) from error
        time.sleep(PAUSE)


def _copied(database: Database) -> Database:
    """An upgraded copy of the current metadata in a temporary file, deleted with the object."""
    folder = tempfile.TemporaryDirectory(prefix="underdrawing-", ignore_cleanup_errors=True)
    target = Path(folder.name) / "metadata.db"
    try:
        _copy(database, target)
        copy = Database.in_file(target)
        copy.create()
        copy.copy_of = database.shown
    except StoreError as error:
        folder.cleanup()
        raise FormatError(
            f"{database.shown} has an older schema, and a copy of it could not be upgraded: {error.message}",
            f"Let somebody who may write there open it: underdrawing info {Path(str(database.url.database)).parent}",
        ) from error
    weakref.finalize(copy, folder.cleanup)
    return copy


@undisturbed
def _copy(database: Database, target: Path) -> None:
    target.unlink(missing_ok=True)
    with database.read() as connection, closing(sqlite3.connect(target)) as copy:
        source = connection.connection.dbapi_connection
        assert isinstance(source, sqlite3.Connection)
        source.backup(copy)
