"""Describe a collection, its content and its index as plain JSON. Nothing is built or changed.

What this module does not know: how a description is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from indexer.metadata.jobs import jobs
from indexer.vectors.opening import COVERED
from indexer.vectors.protocol import Pinned

if TYPE_CHECKING:
    from indexer.collection import Collection


def info(collection: Collection) -> dict[str, Any]:
    """What `Collection.info` returns."""
    snapshot = collection.snapshot()
    segments = collection.catalog.segments(snapshot.generation, snapshot.space.id)
    return {
        "path": str(collection.path),
        "metadata": collection.database.shown,
        "model": snapshot.space.model,
        "parts": snapshot.space.parts.value,
        "dim": snapshot.space.dim,
        "device": collection.device,
        "fingerprint": dict(snapshot.space.fingerprint),
        "generation": snapshot.generation,
        "published": snapshot.published.created.isoformat(timespec="seconds"),
        "documents": snapshot.published.documents,
        "by_modality": collection.catalog.counts(snapshot.generation),
        "segments": len(segments),
        "vector_bytes": sum(each.size for each in segments),
        "tombstones": sum(each.rows for each in segments) - len(snapshot),
        "index": " ".join((*snapshot.notes, snapshot.index)),
        "recall_at_10": snapshot.index_facts.get("recall_at_10"),
        "recall_by_kind": snapshot.index_facts.get("recall_by_kind"),
        "jobs": jobs(collection.database),
    }


def explain(collection: Collection) -> dict[str, Any]:
    """What `Collection.explain` returns."""
    newest, space = collection.catalog.generation(), collection.space
    segments = collection.catalog.segments(newest.number, space.id)
    pinned = Pinned(space.digest, space.dim, segments, newest.next_vector)
    explained = collection.store.explain(pinned)
    built = not pinned.rows or not collection.store.lacks(collection.snapshot().view, COVERED)
    return {"vectors": pinned.rows, "dim": space.dim, **explained, "built": built}
