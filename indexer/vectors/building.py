"""Builds index files: aside, while searches go on, and published by a rename.

What this module does not know: which index a collection wants, models, where readers are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from indexer.types import Ids, Vectors
from indexer.vectors.cache import Stored, save_index
from indexer.vectors.protocol import IndexKind, IndexSettings
from indexer.vectors.selection import Codes

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class Source:
    """What an index is built from.

    Attributes:
        space: The space's digest.
        segments: The sha256 of each segment.
        parts: Of each segment the vectors, (n, dim) float32, and their ids, (n,) int64.
    """

    space: str
    segments: Sequence[str]
    parts: Sequence[tuple[Vectors, Ids]]


@dataclass(frozen=True)
class Tuning:
    """What an approximate index is tuned by, beside the vectors themselves.

    Attributes:
        samples: Query vectors of unit length, by what they are.
        groups: Ids by modality.
    """

    samples: Mapping[str, Vectors] = field(default_factory=dict)
    groups: Mapping[str, Ids] = field(default_factory=dict)


def build(
    folder: Path,
    source: Source,
    kind: IndexKind,
    codes: Codes,
    settings: IndexSettings,
    tuning: Tuning,
    on_progress: OnProgress,
) -> Stored:
    """Build an index and write its file; until that is whole, nobody sees it.

    Args:
        folder: The collection's `indexes`, whose lock the caller holds.
        source: The segments.
        kind: `exact` for 8-bit codes, `hnsw` or `ivf`.
        codes: What the index stores of the vectors.
        settings: The recall to reach.
        tuning: The queries that it is to be reached for.
        on_progress: See `OnProgress`.

    Raises:
        StoreError: The disk refuses.
        MissingExtraError: There is no FAISS.
    """
    from indexer.vectors.faiss_index import FaissIndex
    from indexer.vectors.quantized import CodedIndex

    index: CodedIndex | FaissIndex
    if kind is IndexKind.EXACT:
        on_progress("8-bit codes", 0, sum(len(ids) for _, ids in source.parts))
        index = CodedIndex.build(source.parts)
    else:
        index = FaissIndex.build(
            kind,
            source.parts,
            settings,
            codes=codes,
            samples=tuning.samples,
            groups=tuning.groups,
            on_progress=on_progress,
        )
    kept = {"kind": kind.value, "codes": codes.value, "recall": settings.recall}
    stored = Stored(Path(), source.space, tuple(source.segments), kept, "", index.metadata)
    return save_index(folder, stored, index.save)
