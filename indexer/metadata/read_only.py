"""SQLite for readers who may write nothing beside the file, while others go on writing.

Where a log and its index lie beside the file, SQLite reads them all, and its own locks keep a reader's state together.
Where a log lies there without its index, as after a crash, SQLite could not make one: both are copied aside and read
there. Where no log is, all is in the file, and SQLite must be told not to want one (`immutable`): then it takes no lock
either, and a writer that starts meanwhile and moves its log into the file changes pages under the reader. That is
noticed by the file's time: what was read is thrown away, and `undisturbed` reads again.

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
"""How often a disturbed reading is begun, and the seconds before it is begun again the first time."""

P = ParamSpec("P")
T = TypeVar("T")


class DisturbedError(StoreError):
    """The file was written while it was read without a lock: what was read may be of two states."""


class LonelyConnection(sqlite3.Connection):
    """A connection that takes no lock, and what the file was when it was made; None where SQLite locks as usual."""

    before: str | None = None


def only_readable(url: URL) -> bool:
    """Whether this user may read SQLite's file, but write nothing beside it."""
    return (
        url.database is not None and Path(url.database).exists() and not os.access(Path(url.database).parent, os.W_OK)
    )


def read_only_engine(path: Path, busy_milliseconds: int, to_json: Callable[[Any], str]) -> Engine:
    """An engine that looks anew for each connection whether there is a log, and so keeps none."""
    aside = _Aside(path)

    def connect() -> sqlite3.Connection:
        before = file_identity(path)  # first: what comes between this and the opening counts as a disturbance
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
    """Refuse what was read if the file changed since the connection was made.

    Raises:
        DisturbedError: It did, and the connection took no lock.
    """
    before = getattr(connection, "before", None)
    if before is not None and file_identity(path) != before:
        raise DisturbedError(f"{path} was written while it was read.", "Try again.")


def undisturbed(method: Callable[P, T]) -> Callable[P, T]:
    """Have a method that reads, and does nothing else, begin again where it was disturbed."""

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
    """Whether SQLite finds what it needs to read with locks: a log with something in it, or one that is in use."""
    log, index = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))
    try:
        return log.stat().st_size > 0 or index.exists()
    except FileNotFoundError:
        return False


def _stranded(path: Path) -> bool:
    """Whether there is a log with something in it, and no index, which only a writer could make."""
    log, index = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))
    try:
        return log.stat().st_size > 0 and not index.exists()
    except FileNotFoundError:
        return False


class _Aside:
    """A copy of a database and its log, made anew when either changes; it goes with the object."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._copied: tuple[str, str] | None = None
        self._place: Path | None = None

    def current(self) -> Path:
        """Where the copy is."""
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
