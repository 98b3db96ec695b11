"""Build index files beside running searches and publish them by a rename.

What this module does not know: which index a collection needs, models, readers.
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
    """Build an index and write its file. Readers see the file only once it is complete.

    Args:
        folder: The collection's `indexes` folder; the caller holds its lock.
        segments: The segments that the index is built from.
        kind: `exact` for SQ8 codes, `hnsw` or `ivf`.
        codes: What the index stores of the vectors.
        settings: They name the recall to reach.
        tuning: The queries for which to reach it.
        on_progress: See `OnProgress`.

    Raises:
        StoreError: The file cannot be written.
        MissingExtraError: FAISS is not installed.
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
