"""What a collection is and holds, and how it is searched, as plain JSON. Nothing is built or changed.

What this module does not know: how any of it is shown.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from indexer.metadata.jobs import jobs
from indexer.vectors.local import COVERED, available_memory, choose
from indexer.vectors.protocol import Device
from indexer.vectors.selection import allowed_bytes, alternatives

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
        "index": " ".join((*snapshot.remarks, snapshot.index)),
        "recall_at_10": snapshot.index_facts.get("recall_at_10"),
        "recall_by_kind": snapshot.index_facts.get("recall_by_kind"),
        "jobs": jobs(collection.database),
    }


def explain(collection: Collection) -> dict[str, Any]:
    """What `Collection.explain` returns."""
    generation = collection.catalog.generation().number
    rows = sum(each.rows for each in collection.catalog.segments(generation, collection.space_id))
    dim = collection.space.dim
    chosen, settings, remark = choose(rows, dim, collection.settings, lambda: collection.cards)
    available = available_memory() if settings.device is Device.CPU else collection.cards.available
    return {
        "vectors": rows,
        "dim": dim,
        "device": settings.device.value,
        "allowed_bytes": allowed_bytes(settings, available),
        "kind": chosen.kind.value,
        "codes": chosen.codes.value,
        "bytes": chosen.bytes,
        "reason": chosen.reason if remark is None else f"{remark} {chosen.reason}",
        "built": not rows or not collection.snapshot().searcher.wants(COVERED),
        "alternatives": [asdict(each) for each in alternatives(rows, dim, settings, available)],
    }
