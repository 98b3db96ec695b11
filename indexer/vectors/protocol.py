"""What a vector store promises: views of generations, and their answers.

Conventions, stated once: scores are inner products of unit vectors (cosines), larger is better. Vector ids are int64,
dense, never reused, never a position. A row of results is ordered by score, best first, ties by ascending id; where
fewer than k vectors exist (or are allowed) the row ends in id -1 and score -inf.

What this module does not know: documents, SQL, models, where vectors are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from indexer.types import HelpfulEnum, Ids, Scores, Vectors
from indexer.vectors.segments import SegmentFile
from indexer.vectors.settings import Device, IndexKind, IndexSettings, parse_bytes

__all__ = [
    "NOTHING",
    "NO_ID",
    "BuiltIndex",
    "Device",
    "Ids",
    "IndexKind",
    "IndexSettings",
    "Neighbors",
    "OnProgress",
    "Pinned",
    "Plan",
    "Scores",
    "Tuning",
    "VectorIndex",
    "VectorStore",
    "VectorView",
    "parse_bytes",
]

NO_ID = -1
NOTHING: Ids = np.empty(0, np.int64)
NOTHING.setflags(write=False)

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and of how much."""


class Plan(HelpfulEnum):
    """One way to find an answer; all but graphs and inverted files are exact."""

    SCAN = "scan"
    """Every row, in full."""
    CODES = "codes"
    """SQ8 codes of every row, or of every row that matches a filter; the shortlist, in full."""
    PICK = "pick"
    """The rows that match a filter, in full."""
    HNSW = "hnsw"
    """A graph."""
    IVF = "ivf"
    """The nearest lists of an inverted file."""
    GPU_SCAN = "gpu-scan"
    """Every row, on GPUs; the shortlist, in full."""
    GPU_IVF = "gpu-ivf"
    """The nearest lists of an inverted file on GPUs."""


@dataclass(frozen=True)
class Neighbors:
    """The answer to a batch of n queries.

    Attributes:
        ids: (n, k) int64, padded with -1.
        scores: (n, k) float32, padded with -inf.
        plans: How they were found, each way once.
        unseen: (n,) float32: what a row that was not looked at may score at most. None where all were looked at.
    """

    ids: Ids
    scores: Scores
    plans: tuple[Plan, ...] = (Plan.SCAN,)
    unseen: Scores | None = None

    @property
    def plan(self) -> str:
        """The plans in words, as results show them."""
        return " and ".join(self.plans)

    @property
    def bound(self) -> Scores:
        """What a row that was not returned scores at most, for each query: (n,) float32; -inf where all were returned.

        Whoever merges the answers of several shards has the k best of all of them if the last score kept is not
        below any shard's bound.
        """
        full = self.ids[:, -1] != NO_ID
        bound = np.where(full, self.scores[:, -1], np.float32(-np.inf))
        return bound if self.unseen is None else np.maximum(bound, self.unseen)

    def without(self, hidden: Ids, k: int) -> tuple[Neighbors, bool]:
        """The k best that are not among ids, (m,) ascending, and whether each query has all that it can have."""
        places = np.minimum(np.searchsorted(hidden, self.ids), len(hidden) - 1)
        visible = (hidden[places] != self.ids) & (self.ids != NO_ID)
        order = np.argsort(~visible, axis=1, kind="stable")[:, :k]
        first = np.take_along_axis(visible, order, 1)
        ids = np.where(first, np.take_along_axis(self.ids, order, 1), NO_ID)
        scores = np.where(first, np.take_along_axis(self.scores, order, 1), np.float32(-np.inf))
        exhausted = self.ids[:, -1] == NO_ID
        return Neighbors(ids, scores, self.plans, self.unseen), bool((first.all(axis=1) | exhausted).all())

    @staticmethod
    def merged(found: Sequence[Neighbors], k: int) -> Neighbors:
        """The k best of several answers to the same queries, ties by ascending id."""
        ids = np.concatenate([each.ids for each in found], axis=1)
        scores = np.concatenate([each.scores for each in found], axis=1)
        # Padding has score -inf and id -1: it must come after every id.
        keys = np.where(ids < 0, np.iinfo(np.int64).max, ids)
        order = np.lexsort((keys, -scores), axis=1)[:, :k]
        plans = tuple(dict.fromkeys(plan for each in found for plan in each.plans))
        unseen = [each.unseen for each in found if each.unseen is not None]
        highest = np.maximum.reduce(unseen) if unseen else None
        return Neighbors(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1), plans, highest)


class VectorIndex(Protocol):
    """Nearest neighbors by inner product."""

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        ...

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> Neighbors:
        """The k best of each query.

        Args:
            queries: (n, dim) float32. Rows need not be of unit length: scores are inner products.
            k: At least 1; may exceed `size`.
            allowed: Sorted ids to choose from, or None for all. If at least k of them are held, k come back.
        """
        ...


class VectorView(Protocol):
    """All vectors of one space in one generation, pinned: what is written later, it does not see.

    Threads may share one. It holds the vectors of deleted documents too; who asks says which ids to leave out.
    """

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        ...

    @property
    def scans(self) -> bool:
        """Whether a search looks at every row in this process; `scan` is then no dearer than `search`."""
        ...

    @property
    def reason(self) -> str:
        """How it searches, and why, in a sentence."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings for everyone who searches it; none where all is as the settings say."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """How its index was made, as JSON, with the recall measured then; empty where there is none."""
        ...

    @property
    def outdated(self) -> bool:
        """Whether a view of the same generation, opened now, would be faster."""
        ...

    def all_ids(self) -> Ids:
        """Every id, ascending: (size,) int64."""
        ...

    def held(self, ids: Ids) -> Ids:
        """Those of the given ids that it holds, in their order."""
        ...

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None, hidden: Ids = NOTHING) -> Neighbors:
        """The k best of the allowed rows that are not hidden, and a bound on all others.

        Args:
            queries: (n, dim) float32.
            k: At least 1; may exceed `size`. If at least k rows may be found, k come back.
            allowed: Ascending ids, or None for all. Ids that are not held are ignored.
            hidden: Ascending ids, of which none is found.
        """
        ...

    def score(self, queries: Vectors, ids: Ids) -> Scores:
        """The scores of ids, as `search` gives them: (n, len(ids)) float32.

        A document's score does not depend on how it is found, nor on what is scored with it.

        Raises:
            CorruptionError: An id is not held.
        """
        ...

    def scan(self, queries: Vectors, allowed: Ids | None = None) -> tuple[Ids, Scores]:
        """Every allowed id, ascending, and its scores, (n, ids) float32.

        They may differ from those of `score` in the last digits.

        Args:
            queries: (n, dim) float32.
            allowed: Ascending ids, or None for all. Ids that are not held are ignored.
        """
        ...

    def fetch(self, ids: Ids) -> Vectors:
        """The vectors of ids, in their order: (len(ids), dim) float32; raises `CorruptionError` if one is not held."""
        ...


@dataclass(frozen=True)
class Pinned:
    """The vectors that a view is opened over.

    Attributes:
        space: The space's digest.
        dim: Length of a vector.
        segments: Those of one generation, as SQL records them.
        next_id: All vector ids are below it.
    """

    space: str
    dim: int
    segments: Sequence[SegmentFile]
    next_id: int

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return sum(each.rows for each in self.segments)


@dataclass(frozen=True)
class Tuning:
    """What an approximate index is tuned by, beside the vectors themselves.

    Attributes:
        samples: Query vectors of unit length, by what they are.
        groups: Ids by modality.
    """

    samples: Mapping[str, Vectors] = field(default_factory=dict)
    groups: Mapping[str, Ids] = field(default_factory=dict)


@dataclass(frozen=True)
class BuiltIndex:
    """One index that was built.

    Attributes:
        kind: `exact` for SQ8 codes, `hnsw` or `ivf`.
        rows: Vectors that it holds.
        seconds: What building it took.
        facts: How it was made: the tuned effort, and for an approximate kind `recall_by_kind`.
    """

    kind: IndexKind
    rows: int
    seconds: float
    facts: Mapping[str, Any]


class VectorStore(Protocol):
    """Searches the segments of one collection with given settings.

    Segments are written by the collection's writer and named in SQL; a store reads them and adds what makes searches
    fast. A store is registered under a name in `indexer/vectors/stores.py`, as a function of the collection's `Layout`
    and `IndexSettings`.
    """

    def open(self, pinned: Pinned, before: VectorView | None = None) -> VectorView:
        """A view of a generation. Nothing is built.

        Args:
            pinned: What it is opened over.
            before: A view of an earlier generation, of which it may take over what still serves.

        Raises:
            FileNotFoundError: A segment is not there.
            CorruptionError: A segment is damaged, or holds an id that was never given out.
        """
        ...

    def lacks(self, view: VectorView, coverage: float) -> bool:
        """Whether `build` would build something that covers more than this share of a view's rows."""
        ...

    def build(
        self,
        view: VectorView,
        tuning: Callable[[], Tuning],
        coverage: float,
        only: IndexKind | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[BuiltIndex]:
        """Build what searches of a view would use, where what there is covers less than a share of its rows.

        Args:
            view: Of this store.
            tuning: Called where an approximate index is built.
            coverage: Above 0, at most 1.
            only: Build no other kind.
            on_progress: See `OnProgress`.

        Raises:
            LockedError: Another process or thread is building.
            StoreError: The disk refuses.
            MissingExtraError: A package is not installed.
        """
        ...

    def explain(self, pinned: Pinned) -> dict[str, Any]:
        """How a view would be searched and why, as plain JSON; nothing is built. `info --explain` shows it.

        The keys are `device`, `allowed_bytes`, `kind`, `codes`, `bytes`, `reason` and `alternatives`.
        """
        ...
