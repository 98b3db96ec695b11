"""The collection as the ways in see it.

What this module does not know: the collection itself, which is above it.
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
        catalog: What SQL knows of it.
        open_spaces: Its spaces with their models.
        settings: How it is searched.
        store: What opens and builds its vectors, with these settings.
        snapshots: Of its newest generation, by that store.
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
        """The one writer; `with` it, the lock is held. It waits so many seconds for another one."""
        ...

    def keep_index(
        self,
        on_progress: OnProgress | None = None,
        only: IndexKind | None = None,
        spaces: Sequence[str] | None = None,
    ) -> Sequence[object]:
        """Build what searches would use and lack; fails at nothing."""
        ...
