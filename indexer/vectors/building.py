"""Builds index files: aside, while searches go on, and published by a rename.

What this module does not know: which index a collection wants, models, where readers are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from indexer.vectors.cache import CachedIndex, save_index
from indexer.vectors.protocol import IndexKind, IndexSettings, OnProgress, Tuning
from indexer.vectors.selection import Codes

if TYPE_CHECKING:
    from indexer.vectors.faiss_index import FaissIndex
    from indexer.vectors.pinned import PinnedSegments
    from indexer.vectors.quantized import QuantizedIndex


def build(
    folder: Path,
    segments: PinnedSegments,
    kind: IndexKind,
    codes: Codes,
    settings: IndexSettings,
    tuning: Tuning,
    on_progress: OnProgress,
) -> CachedIndex:
    """Build an index and write its file; until that is whole, nobody sees it.

    Args:
        folder: The collection's `indexes`, whose lock the caller holds.
        segments: All of them are built from.
        kind: `exact` for SQ8 codes, `hnsw` or `ivf`.
        codes: What the index stores of the vectors.
        settings: The recall to reach.
        tuning: The queries that it is to be reached for.
        on_progress: See `OnProgress`.

    Raises:
        StoreError: The disk refuses.
        MissingExtraError: There is no FAISS.
    """
    from indexer.vectors.faiss_index import FaissIndex
    from indexer.vectors.quantized import QuantizedIndex

    index: QuantizedIndex | FaissIndex
    parts = [(part.vectors, part.ids) for part in segments.parts]
    if kind is IndexKind.EXACT:
        on_progress("SQ8 codes", 0, segments.size)
        index = QuantizedIndex.build(parts)
    else:
        index = FaissIndex.build(
            kind, parts, settings, codes=codes, samples=tuning.samples, groups=tuning.groups, on_progress=on_progress
        )
    built_with = {"kind": kind.value, "codes": codes.value, "recall": settings.recall}
    cached = CachedIndex(Path(), segments.space, tuple(segments.names), built_with, "", index.metadata)
    return save_index(folder, cached, index.save)
