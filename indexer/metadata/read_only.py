"""SQLite for readers without write access to the folder, while others write.

If there is a write-ahead log with its index, SQLite reads both, and its locks keep a reader's state consistent. If
there is a log without its index, as after a crash, SQLite cannot create the index: file and log are copied elsewhere
and read there. If there is no log, SQLite must be opened as `immutable`, or it would try to create one. It then takes
no locks, and a writer that starts meanwhile may change pages under the reader. The file's time shows that: what was
read is discarded, and `undisturbed` reads again.

What this module does not know: any table.
"""

from __future__ import annotations

import functools
import os
import shutil
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from indexer.errors import StoreError
from indexer.files.atomic import file_identity

TRIES, PAUSE = 20, 0.02
"""How often a disturbed read is attempted, and the seconds before the second attempt."""

P = ParamSpec("P")
T = TypeVar("T")


class DisturbedError(StoreError):
    """The file was written while it was read without a lock, so the result may mix two states."""


class LonelyConnection(sqlite3.Connection):
    """A connection without locks, and the file's identity when it was made; None if SQLite locks as usual."""

    before: str | None = None


def only_readable(url: URL) -> bool:
    """Whether this user may read SQLite's file, but not write to its folder."""
    return (
        url.database is not None and Path(url.database).exists() and not os.access(Path(url.database).parent, os.W_OK)
    )


def read_only_engine(path: Path, busy_milliseconds: int, to_json: Callable[[Any], str]) -> Engine:
    """An engine that checks for a log at each connection, and so pools none."""
    aside = _Aside(path)

    def connect() -> sqlite3.Connection:
        before = file_identity(path)  # first: a change between this and the opening counts as a disturbance
        lonely = not _logged(path)
        if _stranded(path):
            place, options = aside.current(), "?mode=rw"
        else:
            place, options = path, "?mode=ro&immutable=1" if lonely else "?mode=ro"
        connection = sqlite3.connect(f"{place.as_uri()}{options}", uri=True, factory=LonelyConnection)
        connection.before = before if lonely else None
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={busy_milliseconds}")
        return connection

    return create_engine("sqlite://", creator=connect, poolclass=NullPool, json_serializer=to_json)


def require_undisturbed(path: Path, connection: Any) -> None:
    """Raise an error if the file changed since the connection was made.

    Raises:
        DisturbedError: It did, and the connection took no lock.
    """
    before = getattr(connection, "before", None)
    if before is not None and file_identity(path) != before:
        raise DisturbedError(f"{path} was written while it was read.", "Try again.")


def undisturbed(method: Callable[P, T]) -> Callable[P, T]:
    """Decorator of methods that only read: if disturbed, they start again."""

    @functools.wraps(method)
    def reading(*arguments: P.args, **options: P.kwargs) -> T:
        for number in range(TRIES - 1):
            try:
                return method(*arguments, **options)
            except DisturbedError:
                time.sleep(PAUSE * (number + 1))
        return method(*arguments, **options)

    return reading


def _logged(path: Path) -> bool:
    """Whether SQLite can read with locks: there is a log that is not empty, or one in use."""
    log, index = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))
    try:
        return log.stat().st_size > 0 or index.exists()
    except FileNotFoundError:
        return False


def _stranded(path: Path) -> bool:
    """Whether there is a non-empty log without an index, which only a writer could create."""
    log, index = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))
    try:
        return log.stat().st_size > 0 and not index.exists()
    except FileNotFoundError:
        return False


class _Aside:
    """A copy of a database and its log, renewed when either changes, and deleted with the object."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._copied: tuple[str, str] | None = None
        self._place: Path | None = None

    def current(self) -> Path:
        """The path of the copy."""
        log = self._path.with_name(f"{self._path.name}-wal")
        with self._lock:
            now = file_identity(self._path), file_identity(log)
            if self._place is None or now != self._copied:
                folder = Path(tempfile.mkdtemp(prefix="underdrawing-"))
                weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                for source in (self._path, log):
                    shutil.copyfile(source, folder / source.name)
                self._place, self._copied = folder / self._path.name, now
            return self._place
