"""A collection's folder and a URL make a database: SQLite in the folder, or PostgreSQL.

What this module does not know: tables.
"""

from __future__ import annotations

from indexer.errors import CallError
from indexer.files.layout import Layout
from indexer.metadata.database import Database


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
            "Give its URL: database=… or --database URL.",
        )
