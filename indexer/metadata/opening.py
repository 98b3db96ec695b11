"""Opening what a collection's folder holds: its tables, brought up to date, and its embedding space.

What this module does not know: models, vectors.
"""

from __future__ import annotations

from pathlib import Path

from indexer.errors import CorruptionError
from indexer.files.layout import Layout
from indexer.metadata.catalog import Catalog, Space
from indexer.metadata.connecting import connect
from indexer.metadata.database import Database
from indexer.metadata.identity import identify
from indexer.metadata.upgrading import current


def open_metadata(folder: Path, database: str | None) -> tuple[Layout, Database, Space]:
    """The layout, the database and the space of a collection.

    Raises:
        StoreError: One of its kinds; nothing stays open.
        CallError: `database` does not fit.
    """
    layout = Layout.read(folder)
    base = connect(layout, database)
    try:
        base = current(base, layout.lock)
        return identify(layout, base), base, space_of(base)
    except BaseException:
        base.close()
        raise


def space_of(database: Database) -> Space:
    """The embedding space of a collection, with its means as of now.

    Raises:
        CorruptionError: It names none.
    """
    catalog = Catalog(database)
    spaces = catalog.spaces(catalog.generation().number)
    if not spaces:
        raise CorruptionError(f"{database.shown} names no embedding space.", "Delete the folder and index again.")
    return spaces[0]
