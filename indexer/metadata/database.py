"""The database, SQLite or PostgreSQL: engine, migrations, transactions for reading and writing.

What this module does not know: any table.
"""

from __future__ import annotations

import json
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine import URL

from indexer.errors import CorruptionError, FormatError, StoreError
from indexer.metadata.connections import (
    BUSY_MILLISECONDS,
    LonelyConnection,
    begin_sqlite,
    mapped,
    only_readable,
    parse_url,
    postgres_engine,
    read_only_engine,
    require_undisturbed,
    sqlite_engine,
    undisturbed,
)
from indexer.metadata.filter_functions import add_functions
from indexer.metadata.migrations import known, newest, upgrade


def storable(text: str) -> bool:
    """Whether the databases can store a text: neither can store a NUL or half a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def to_json(value: Any) -> str:
    """JSON for both databases.

    Not escaped, since older SQLite compares the names in a JSON path with the raw text. Large floats are written with
    all digits: PostgreSQL would turn 1e+3 into the whole number 1000, and 2.0**60 into a rounded one.
    """
    if not _has_large(value):
        return json.dumps(value, ensure_ascii=False)
    match value:
        case dict():
            return "{" + ", ".join(f"{to_json(str(key))}: {to_json(inner)}" for key, inner in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(to_json, value)) + "]"
        case _:
            return f"{value:.1f}"


def _has_large(value: Any) -> bool:
    """Whether it contains a float that `repr` writes with an exponent above 0."""
    match value:
        case float():
            return 1e16 <= abs(value) < float("inf")
        case dict():
            return any(map(_has_large, value.values()))
        case list() | tuple():
            return any(map(_has_large, value))
        case _:
            return False


class Database:
    """One collection's tables.

    Args:
        url: A SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`.
        schema: The PostgreSQL schema that holds the tables, so that many collections share a database.
    """

    def __init__(self, url: str | URL, schema: str | None = None) -> None:
        self.url = parse_url(url)
        self.schema = schema
        self.only_readable = only_readable(self.url)
        self.copy_of: str | None = None
        """The database of which this is an upgraded, read-only copy; None for an original."""
        self.id: str | None = None
        """The id of the collection that was opened; None until it is known."""
        self.standing: Callable[[], None] = lambda: None
        """Raises `StoreError` if the collection that was opened has been replaced."""
        self._file: tuple[int, int] | None = None
        if self.url.get_backend_name() == "sqlite":
            if self.only_readable:
                self.engine = read_only_engine(Path(str(self.url.database)), to_json)
                event.listen(self.engine, "connect", _add_functions)
            else:
                self.engine = sqlite_engine(self.url, to_json)
                event.listen(self.engine, "connect", _add_functions)
            self._reading = self.engine
            event.listen(self.engine, "begin", begin_sqlite)
            same = _weakly(self)
            event.listen(self.engine, "do_connect", same)
            event.listen(self.engine, "connect", same)
        else:
            self.engine = postgres_engine(self.url, schema, to_json)
            # PostgreSQL's default gives each statement a state of its own.
            self._reading = self.engine.execution_options(isolation_level="REPEATABLE READ")
        weakref.finalize(self, self.engine.dispose)

    @classmethod
    def in_file(cls, path: Path) -> Database:
        """SQLite in a file. The path is passed as such, since `?` and `%` have a meaning in a URL."""
        return cls(URL.create("sqlite", database=str(path.absolute())))

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.copy_of or self.url.render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; it sees the state at its first statement.

        Raises:
            DisturbedError: The file changed while it was read; the calling method is `undisturbed` and starts again.
        """
        with mapped(self.shown), self._reading.connect() as connection, connection.begin():
            with self._in_peace(connection.connection.dbapi_connection):
                yield connection

    @contextmanager
    def _in_peace(self, connection: Any) -> Iterator[None]:
        try:
            yield
        finally:  # the error may come from the same change of the file
            if isinstance(connection, LonelyConnection):
                require_undisturbed(Path(str(self.url.database)), connection)

    def read_directly(self, statement: str, values: Sequence[Any]) -> list[Any] | None:
        """Rows of one statement straight from SQLite's driver, for statements of every search; None on PostgreSQL.

        A connection's transaction and SQLAlchemy's rows cost more than such a statement does. CPU time of one call,
        direct and through SQLAlchemy: the newest generation 13 and 146 µs, 10 documents 57 and 540 µs, the contents of
        16 documents of a job 0.2 and 0.46 ms.

        Args:
            statement: With `?` for each value.
            values: In that order.
        """
        if self.engine.dialect.name != "sqlite":
            return None
        return self._lonely_rows(statement, values) if self.only_readable else self._rows(statement, values)

    @undisturbed
    def _lonely_rows(self, statement: str, values: Sequence[Any]) -> list[Any]:
        return self._rows(statement, values)

    def _rows(self, statement: str, values: Sequence[Any]) -> list[Any]:
        with mapped(self.shown):
            connection = self.engine.raw_connection()
            try:
                with self._in_peace(connection.dbapi_connection):
                    return list(connection.cursor().execute(statement, values).fetchall())
            finally:
                connection.close()  # back to the pool

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A writing transaction: durable when the block ends, rolled back if it raises."""
        if self.copy_of is not None:
            raise StoreError(
                f"{self.copy_of} was opened as a read-only, upgraded copy.", "To write, open the collection again."
            )
        self.standing()
        with (
            mapped(self.shown),
            self.engine.connect().execution_options(underdrawing_write=True) as connection,
            connection.begin(),
        ):
            self._require_same_tables(connection)
            yield connection
            self.standing()

    def known_id(self) -> str:
        """The random id of the collection.

        Raises:
            CorruptionError: The tables have none.
        """
        return self._known_id()

    @undisturbed
    def _known_id(self) -> str:
        with self.read() as connection:
            known = connection.execute(text("SELECT id FROM identity WHERE number = 1")).scalar()
        if not isinstance(known, str) or not known:
            raise CorruptionError(
                f"{self.shown} is damaged: the table identity has no id.", "Restore it from a backup."
            )
        return known

    def _require_same_tables(self, connection: Connection) -> None:
        if self.id is None:
            return
        found = connection.execute(
            text("SELECT (SELECT id FROM identity WHERE number = 1), (SELECT version_num FROM alembic_version)")
        ).one()
        if found[0] != self.id:
            raise StoreError(
                f"{self.shown} holds the collection {found[0]}; opened was {self.id}.",
                "Open the collection again. Nothing was written.",
            )
        if found[1] != newest():
            raise FormatError(
                f"{self.shown} has schema {found[1]} now, and had {newest()} when it was opened.",
                "Another release upgraded it: open it with that one.",
            )

    def require_same_file(self) -> None:
        """Check for new connections that SQLite's file is the one that the first connection opened."""
        try:
            state = os.stat(str(self.url.database))  # noqa: PTH116  # the name of a database need be no path
        except OSError:
            state = None
        found = None if state is None else (state.st_dev, state.st_ino)
        if self._file is None:
            self._file = found
        elif found != self._file:
            raise StoreError(
                f"{self.shown} is gone, or another file than the one that was opened.", "Open the collection again."
            )

    def create(self) -> None:
        """Create the tables, or upgrade older ones, in one transaction.

        Raises:
            FormatError: The tables are newer than this release.
        """
        if self.version() == newest():
            return
        with self._migrating() as connection:
            if self.schema:
                connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": self.schema})
                connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{self.schema}"'))
            self._refuse_unknown(_version(connection, self.schema))
            upgrade(connection)

    def drop_empty(self) -> None:
        """Drop the PostgreSQL schema, if no document was ever stored in it."""
        with self.write() as connection:
            tables = set(inspect(connection).get_table_names(schema=self.schema))
            filled = "documents" in tables and connection.execute(text("SELECT 1 FROM documents LIMIT 1")).first()
            if self.schema and not filled:
                connection.execute(text(f'DROP SCHEMA IF EXISTS "{self.schema}" CASCADE'))

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        """`write`, but on SQLite tables may be recreated; foreign keys are checked at the end."""
        if self.engine.dialect.name != "sqlite":
            with self.write() as connection:
                yield connection
            return
        with mapped(self.shown), self.engine.connect() as connection:
            driver: Any = connection.connection.dbapi_connection
            # Altering a table drops it on the way. The pragma has no effect inside a transaction.
            driver.execute("PRAGMA foreign_keys=OFF")
            try:
                connection = connection.execution_options(underdrawing_write=True)
                with connection.begin():
                    before = _dangling(connection)
                    yield connection
                    if broken := _dangling(connection) - before:
                        table, referred = min(broken)
                        raise CorruptionError(
                            f"{self.shown} cannot be upgraded: rows of {table} would refer to rows of {referred} "
                            "that are not there.",
                            "Restore it from a backup, or index again into a new folder.",
                        )
            finally:
                driver.execute("PRAGMA foreign_keys=ON")

    def required_version(self) -> str:
        """The schema's version, if this release knows it.

        Raises:
            CorruptionError: There are no tables, or no release made them.
            FormatError: They are newer.
        """
        version = self.version()
        if version is None:
            raise CorruptionError(
                f"{self.shown} holds no collection: the table alembic_version is missing.",
                "Restore it from a backup, name the right database, or index again into a new folder.",
            )
        self._refuse_unknown(version)
        return version

    @undisturbed
    def version(self) -> str | None:
        """The newest migration applied, or None if there are no tables."""
        with self.read() as connection:
            return _version(connection, self.schema)

    def _refuse_unknown(self, version: str | None) -> None:
        if version is None or version in known():
            return
        if version > newest():
            raise FormatError(
                f"{self.shown} has schema {version}; this release knows up to {newest()}.",
                "Upgrade: pip install -U underdrawing",
            )
        raise CorruptionError(
            f"{self.shown} has schema {version!r}, which no release made.",
            "Restore it from a backup, or index again into a new folder.",
        )

    @undisturbed
    def problems(self) -> list[str]:
        """The problems that SQLite's integrity check finds in its file; none for PostgreSQL.

        Raises:
            CorruptionError: It is too damaged to be checked.
        """
        if self.engine.dialect.name != "sqlite":
            return []
        with self.read() as connection:
            lines = connection.execute(text("PRAGMA integrity_check")).scalars().all()
        return [line for line in lines if line != "ok"]

    def tidy(self) -> None:
        """Move SQLite's log into its file, as far as readers allow."""
        if self.engine.dialect.name == "sqlite":
            with mapped(self.shown), self.engine.connect() as connection:
                # Through the driver: a checkpoint must run outside of any transaction.
                cursor = connection.connection.cursor()
                cursor.execute("PRAGMA busy_timeout=1000")
                try:
                    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                finally:  # the connection goes back to the pool
                    cursor.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
                    cursor.close()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _weakly(database: Database) -> Callable[..., None]:
    """`require_same_file` for an engine's events; holds no reference to the database."""
    known = weakref.ref(database)

    def require(*_: Any) -> None:
        if (own := known()) is not None:
            own.require_same_file()

    return require


def _dangling(connection: Connection) -> Counter[tuple[str, str]]:
    """On SQLite, the number of rows of a table that refer to missing rows of another."""
    found = connection.exec_driver_sql("PRAGMA foreign_key_check")
    return Counter((str(row[0]), str(row[2])) for row in found)


def _version(connection: Connection, schema: str | None) -> str | None:
    if not inspect(connection).has_table("alembic_version", schema=schema):
        return None
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def _add_functions(connection: Any, _record: Any) -> None:
    add_functions(connection)
