"""The parts of an open collection that writing needs.

What this module does not know: `Collection`, which is in a higher layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from indexer.files.layout import Layout
from indexer.ingest.writer import Writer
from indexer.metadata.catalog import Catalog
from indexer.open_spaces import OpenSpaces, Snapshots
from indexer.snapshot import Snapshot
from indexer.vectors.protocol import IndexKind, IndexSettings, OnProgress, VectorStore


class Target(Protocol):
    """An open collection.

    Attributes:
        layout: Its folder.
        catalog: Its metadata.
        open_spaces: Its spaces with their models.
        settings: Its index settings.
        store: Its vector store, with these settings.
        snapshots: Its newest snapshots, by that store.
    """

    layout: Layout
    catalog: Catalog
    open_spaces: OpenSpaces
    settings: IndexSettings
    store: VectorStore
    snapshots: Snapshots

    def snapshot(self, space: str | None = None) -> Snapshot:
        """The newest generation of a space, or of the default one."""
        ...

    def writer(self, patience: float = 0.0) -> Writer:
        """The writer, which holds the lock in a `with` block and waits `patience` seconds for another."""
        ...

    def keep_index(
        self,
        on_progress: OnProgress | None = None,
        only: IndexKind | None = None,
        spaces: Sequence[str] | None = None,
    ) -> Sequence[object]:
        """Build the indexes that searches would use and that are missing; never fails."""
        ...
