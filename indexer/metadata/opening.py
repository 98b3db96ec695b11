"""Opening what a collection's folder holds: its tables, brought up to date.

What this module does not know: models, vectors.
"""

from __future__ import annotations

from pathlib import Path

from indexer.files.layout import Layout
from indexer.metadata.connecting import connect
from indexer.metadata.database import Database
from indexer.metadata.identity import identify
from indexer.metadata.upgrading import current


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
