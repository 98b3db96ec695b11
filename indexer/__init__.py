"""Storage and search of documents and vectors. Names are imported on first use, so this import is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.collection import Collection
    from indexer.corpus.columns import Columns
    from indexer.corpus.readers import open_corpus
    from indexer.embed import load_embedder
    from indexer.embed.base import Embedder
    from indexer.errors import UnderdrawingError
    from indexer.ingest.adding import Added
    from indexer.ingest.filling import Filled
    from indexer.ingest.job import Progress, Summary, index_corpus
    from indexer.ingest.spaces import SpaceStatus
    from indexer.snapshot import Snapshot, StoredDocument
    from indexer.types import Document, Item, Modality, Parts, Rejected
    from indexer.vectors.protocol import Device, IndexKind, IndexSettings

_HOMES = {
    "Added": "indexer.ingest.adding",
    "Collection": "indexer.collection",
    "Columns": "indexer.corpus.columns",
    "Device": "indexer.vectors.protocol",
    "Document": "indexer.types",
    "Embedder": "indexer.embed.base",
    "Filled": "indexer.ingest.filling",
    "IndexKind": "indexer.vectors.protocol",
    "IndexSettings": "indexer.vectors.protocol",
    "Item": "indexer.types",
    "Modality": "indexer.types",
    "Parts": "indexer.types",
    "Progress": "indexer.ingest.job",
    "Rejected": "indexer.types",
    "Snapshot": "indexer.snapshot",
    "SpaceStatus": "indexer.ingest.spaces",
    "StoredDocument": "indexer.snapshot",
    "Summary": "indexer.ingest.job",
    "UnderdrawingError": "indexer.errors",
    "index_corpus": "indexer.ingest.job",
    "load_embedder": "indexer.embed",
    "open_corpus": "indexer.corpus.readers",
}

__all__ = [
    "Added",
    "Collection",
    "Columns",
    "Device",
    "Document",
    "Embedder",
    "Filled",
    "IndexKind",
    "IndexSettings",
    "Item",
    "Modality",
    "Parts",
    "Progress",
    "Rejected",
    "Snapshot",
    "SpaceStatus",
    "StoredDocument",
    "Summary",
    "UnderdrawingError",
    "index_corpus",
    "load_embedder",
    "open_corpus",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'indexer' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
