"""Connections to SQLite and PostgreSQL, and their errors converted into ours.

SQLite for writers: connections are pooled, and closed before a fork.

SQLite for readers without write access to the folder, while others write: if there is a write-ahead log with its index,
SQLite reads both, and its locks keep a reader's state consistent. If there is a log without its index, as after a
crash, SQLite cannot create the index: file and log are copied elsewhere and read there. If there is no log, SQLite must
be opened as `immutable`, or it would try to create one. It then takes no locks, and a writer that starts meanwhile may
change pages under the reader. The file's time shows that: what was read is discarded, and `undisturbed` reads again.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DisconnectionError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import NullPool, QueuePool

from indexer.errors import CallError, CorruptionError, MissingExtraError, StoreError
from indexer.files.atomic import file_identity

BUSY_MILLISECONDS = 30_000
POOLED = 32
TRIES, PAUSE = 20, 0.02
"""How often a disturbed read is attempted, and the seconds before the second attempt."""
_DAMAGE = ("malformed", "not a database", "disk image", "Could not decode to UTF-8")
"""Messages of SQLite and its driver about a damaged file."""
_OPERATIONAL = (OperationalError, sqlite3.OperationalError)

P = ParamSpec("P")
T = TypeVar("T")


def parse_url(url: str | URL) -> URL:
    """Parse the URL of one of the two databases; plain `postgresql://` means psycopg 3.

    Raises:
        CallError: It does not parse, or is for another database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # a port that is not a number
        raise CallError(f"{url!r} is not a database URL.", "Write postgresql://USER:PASSWORD@HOST/NAME.") from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise CallError(f"Collections keep metadata in SQLite or PostgreSQL, not {backend}.")
    return parsed.set(drivername="postgresql+psycopg") if backend == "postgresql" else parsed


def postgres_engine(url: URL, schema: str | None, to_json: Callable[[Any], str]) -> Engine:
    """An engine that sees one collection's tables.

    Raises:
        MissingExtraError: psycopg is not installed.
    """
    # The search path makes only one collection's tables visible; no statement names a schema.
    options: dict[str, Any] = {"options": f"-csearch_path={schema}"} if schema else {}
    try:
        return create_engine(url, connect_args=options, pool_pre_ping=True, json_serializer=to_json)
    except (ImportError, NoSuchModuleError):
        raise MissingExtraError("psycopg", "postgres", "A PostgreSQL collection") from None


def sqlite_engine(url: URL, to_json: Callable[[Any], str]) -> Engine:
    """An engine with a pool of up to POOLED connections: a new connection costs as much as a search."""
    engine = create_engine(url, poolclass=QueuePool, pool_size=POOLED, max_overflow=-1, json_serializer=to_json)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "checkout", _refuse_inherited)
    _close_before_forks(engine)
    return engine


def begin_sqlite(connection: Connection) -> None:
    """Begin a transaction; a writing one takes the write lock at once."""
    write = connection.get_execution_options().get("underdrawing_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _prepare_sqlite(connection: Any, record: Any) -> None:
    record.info["pid"] = os.getpid()
    # Transactions are begun explicitly below: the driver would start a read transaction and upgrade it later,
    # which fails immediately if another process has written meanwhile.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_MILLISECONDS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _refuse_inherited(_connection: Any, record: Any, proxy: Any) -> None:
    """Refuse, in a child, a connection that was in use at the fork; idle ones were closed before it."""
    if record.info["pid"] != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None
        raise DisconnectionError("The connection belongs to another process.")


def _close_before_forks(engine: Engine) -> None:
    """Register a hook that closes idle connections before this process forks.

    SQLite counts the locks of a file within a process, and that count crosses the fork: a child whose parent had idle
    connections assumes locks that only the parent holds, and its commits can be lost.
    """
    if not hasattr(os, "register_at_fork"):
        return
    known = weakref.ref(engine)

    def close() -> None:
        if (own := known()) is not None:
            own.dispose()

    os.register_at_fork(before=close)


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


def read_only_engine(path: Path, to_json: Callable[[Any], str]) -> Engine:
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
        connection.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
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


@contextmanager
def mapped(shown: str) -> Iterator[None]:
    """Convert errors of SQLAlchemy and SQLite's driver in the block into ours, which name the database."""
    try:
        yield
    except (DatabaseError, sqlite3.Error) as error:  # SQLite's own errors come from the driver used without SQLAlchemy
        if any(sign in str(error) for sign in _DAMAGE):
            raise CorruptionError(
                f"{shown} is damaged: {_cause(error)}.",
                "Restore it from a backup, or index again into a new folder.",
            ) from error
        remedy = "Is the database reachable, writable and not full?" if isinstance(error, _OPERATIONAL) else None
        raise StoreError(f"{shown}: {_cause(error)}.", remedy) from error
    except SQLAlchemyError as error:
        raise StoreError(f"{shown}: {_cause(error)}.") from error
    except ValueError as error:
        # A damaged value is not a text, JSON or time; found by flipping bits of the file.
        raise CorruptionError(
            f"{shown} is damaged: {error}.", "Restore it from a backup, or index again into a new folder."
        ) from error


def _cause(error: SQLAlchemyError | sqlite3.Error) -> str:
    original = getattr(error, "orig", None) or error
    return (str(original).strip() or type(original).__name__).splitlines()[0]
