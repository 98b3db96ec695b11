"""The opened segments of a generation, and exact search over them.

What this module does not know: index files, SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.errors import CorruptionError
from indexer.types import Ids, Vectors
from indexer.vectors.exact import ExactIndex
from indexer.vectors.segments import READ_BELOW, SegmentFile, open_segment


@dataclass(frozen=True, eq=False)
class Part:
    """A segment with its vectors (rows, dim) float32 and ids (rows,) int64."""

    file: SegmentFile
    vectors: Vectors
    ids: Ids


def open_parts(
    folder: Path, segments: Sequence[SegmentFile], digest: str, dim: int, before: Sequence[Part] = ()
) -> list[Part]:
    """The segments, opened; those that were open before are taken over. Raises as `open_segment`."""
    opened = {part.file: part for part in before}
    return [opened.get(each) or Part(each, *open_segment(folder, each, digest, dim)) for each in segments]


def exact_over(parts: Sequence[Part]) -> ExactIndex:
    """Exact search over the parts.

    Those that were read and not mapped become one: a search pays for each part, and there may be many small ones.
    """
    small = [part for part in parts if part.file.size < READ_BELOW]
    if len(small) < 2:
        return ExactIndex([(part.vectors, part.ids) for part in parts])
    vectors, ids = np.concatenate([part.vectors for part in small]), np.concatenate([part.ids for part in small])
    if not (ids[1:] > ids[:-1]).all():
        order = np.argsort(ids, kind="stable")
        vectors, ids = vectors[order], ids[order]
    return ExactIndex([(vectors, ids), *((part.vectors, part.ids) for part in parts if part.file.size >= READ_BELOW)])


def require_ids(parts: Sequence[Part], below: int) -> None:
    """See that all vector ids are ones that were given out.

    Raises:
        CorruptionError: A segment has another.
    """
    for part in parts:
        if len(part.ids) and not 0 <= int(part.ids[0]) <= int(part.ids[-1]) < below:
            raise CorruptionError(
                f"The segment {part.file.file} is damaged: its ids go from {part.ids[0]} to {part.ids[-1]}, and "
                f"{below:,} were given out.",
                "Run `underdrawing check --repair`, and index its documents again.",
            )
