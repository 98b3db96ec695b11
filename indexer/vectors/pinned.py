"""The opened segments of a generation, and exact search over all or some of them.

What this module does not know: index files, SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.errors import CorruptionError
from indexer.types import Ids, Vectors
from indexer.vectors.exact import ExactIndex
from indexer.vectors.protocol import Pinned
from indexer.vectors.segments import READ_BELOW, SegmentFile, open_segment


@dataclass(frozen=True, eq=False)
class Part:
    """A segment with its vectors (rows, dim) float32 and ids (rows,) int64."""

    file: SegmentFile
    vectors: Vectors
    ids: Ids


class PinnedSegments:
    """The segments of a generation. A segment's name is its sha256.

    Args:
        folder: The folder of segments.
        pinned: The vectors to open.
        before: The open segments of an earlier generation; those still in use are reused.

    Attributes:
        space: The space's digest.
        dim: Length of a vector.
        parts: The opened segments.
        names: The names of all segments.
        exact: Exact search over all rows.

    Raises:
        FileNotFoundError: A segment is missing.
        CorruptionError: A segment is damaged, or holds an id that was never assigned.
        StoreError: A segment is a link, or cannot be read.
        FormatError: A newer release wrote one.
    """

    def __init__(self, folder: Path, pinned: Pinned, before: PinnedSegments | None = None) -> None:
        opened = {} if before is None else {part.file: part for part in before.parts}
        self.space, self.dim = pinned.space, pinned.dim
        self.parts: Sequence[Part] = [
            opened.get(each) or Part(each, *open_segment(folder, each, pinned.space, pinned.dim))
            for each in pinned.segments
        ]
        self.names = [part.file.sha256 for part in self.parts]
        for part in self.parts:
            _require_ids(part, pinned.next_id)
        self.exact = exact_over(self.parts)

    @property
    def size(self) -> int:
        """Rows, dead ones included."""
        return self.exact.size

    def include(self, names: Iterable[str]) -> bool:
        """Whether these are all among its segments."""
        return set(self.names).issuperset(names)

    def share(self, names: Iterable[str]) -> float:
        """The share of all rows that these segments hold."""
        return sum(part.file.rows for part in self._covered(names)) / max(self.size, 1)

    def inside(self, names: Iterable[str]) -> ExactIndex:
        """Exact search over these segments."""
        return exact_over(self._covered(names))

    def outside(self, names: Iterable[str]) -> ExactIndex:
        """Exact search over all other segments."""
        inside = set(names)
        return exact_over([part for part in self.parts if part.file.sha256 not in inside])

    def _covered(self, names: Iterable[str]) -> list[Part]:
        wanted = set(names)
        return [part for part in self.parts if part.file.sha256 in wanted]


def exact_over(parts: Sequence[Part]) -> ExactIndex:
    """Exact search over the parts.

    Segments that were read rather than mapped are joined into one part: every part costs time in each search.
    """
    small = [part for part in parts if part.file.size < READ_BELOW]
    if len(small) < 2:
        return ExactIndex([(part.vectors, part.ids) for part in parts])
    vectors, ids = np.concatenate([part.vectors for part in small]), np.concatenate([part.ids for part in small])
    if not (ids[1:] > ids[:-1]).all():
        order = np.argsort(ids, kind="stable")
        vectors, ids = vectors[order], ids[order]
    return ExactIndex([(vectors, ids), *((part.vectors, part.ids) for part in parts if part.file.size >= READ_BELOW)])


def _require_ids(part: Part, below: int) -> None:
    if len(part.ids) and not 0 <= int(part.ids[0]) <= int(part.ids[-1]) < below:
        raise CorruptionError(
            f"The segment {part.file.file} is damaged: its ids go from {part.ids[0]} to {part.ids[-1]}, and "
            f"{below:,} were assigned.",
            "Run `underdrawing check --repair`, and index its documents again.",
        )
