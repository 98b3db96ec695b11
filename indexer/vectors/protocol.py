"""The protocols of vector stores, their views of generations, and their answers.

Conventions: scores are inner products of unit vectors (cosines); larger is better. Vector ids are int64,
dense, never reused, never a position. A row of results is ordered by score, best first, ties by ascending id. If
fewer than k vectors exist (or are allowed), the row is padded with id -1 and score -inf.

What this module does not know: documents, SQL, models, where vectors are stored.
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
"""Called with the step, the amount done, and the total."""


class Plan(HelpfulEnum):
    """One way to find an answer; all are exact except graphs and inverted files."""

    SCAN = "scan"
    """Every row, in full."""
    CODES = "codes"
    """SQ8 codes of every row (or of every row that matches a filter), then the shortlist in full."""
    PICK = "pick"
    """The rows that match a filter, in full."""
    HNSW = "hnsw"
    """A graph."""
    IVF = "ivf"
    """The nearest lists of an inverted file."""
    GPU_SCAN = "gpu-scan"
    """Every row on GPUs, then the shortlist in full."""
    GPU_IVF = "gpu-ivf"
    """The nearest lists of an inverted file on GPUs."""


@dataclass(frozen=True)
class Neighbors:
    """The answer to a batch of n queries.

    Attributes:
        ids: (n, k) int64, padded with -1.
        scores: (n, k) float32, padded with -inf.
        plans: The ways in which they were found, each once.
        unseen: (n,) float32: the highest possible score of a row that was not looked at. None if all were.
    """

    ids: Ids
    scores: Scores
    plans: tuple[Plan, ...] = (Plan.SCAN,)
    unseen: Scores | None = None

    @property
    def plan(self) -> str:
        """The plans as results show them."""
        return " and ".join(self.plans)

    @property
    def bound(self) -> Scores:
        """The highest possible score of a row that was not returned, for each query: (n,) float32; -inf if all were.

        A merge of several shards' answers is exact if the last score it keeps is not below any shard's bound.
        """
        full = self.ids[:, -1] != NO_ID
        bound = np.where(full, self.scores[:, -1], np.float32(-np.inf))
        return bound if self.unseen is None else np.maximum(bound, self.unseen)

    def without(self, hidden: Ids, k: int) -> tuple[Neighbors, bool]:
        """The k best that are not among the ascending ids (m,), and whether each query's answer is complete."""
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
            allowed: Ascending ids to choose from, or None for all. If at least k of them are held, k are returned.
        """
        ...


class VectorView(Protocol):
    """All vectors of one space in one pinned generation. Later writes are not visible.

    Threads may share one. It also holds the vectors of deleted documents; the caller says which ids to leave out.
    """

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        ...

    @property
    def scans(self) -> bool:
        """Whether a search reads every row in this process; `scan` then costs no more than `search`."""
        ...

    @property
    def reason(self) -> str:
        """A sentence on how it searches and why."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings for all who search it; empty if it searches as the settings say."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """How its index was made, as JSON, with its measured recall; empty if there is none."""
        ...

    @property
    def outdated(self) -> bool:
        """Whether a newly opened view of the same generation would be faster."""
        ...

    def all_ids(self) -> Ids:
        """Every id, ascending: (size,) int64."""
        ...

    def held(self, ids: Ids) -> Ids:
        """The given ids that it holds, in the given order."""
        ...

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None, hidden: Ids = NOTHING) -> Neighbors:
        """The k best of the allowed rows that are not hidden, and a bound on all others.

        Args:
            queries: (n, dim) float32.
            k: At least 1; may exceed `size`. If at least k rows are eligible, k are returned.
            allowed: Ascending ids, or None for all. Ids that are not held are ignored.
            hidden: Ascending ids that are never returned.
        """
        ...

    def score(self, queries: Vectors, ids: Ids) -> Scores:
        """The scores of ids, equal to those of `search`: (n, len(ids)) float32.

        A document's score depends neither on how it is found nor on what else is scored.

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
        segments: The segments of one generation, as SQL records them.
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
    """What an approximate index is tuned by, in addition to the vectors themselves.

    Attributes:
        samples: Query vectors of unit length, by kind.
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
        seconds: How long the build took.
        facts: How it was made: the tuned effort, and for an approximate kind `recall_by_kind`.
    """

    kind: IndexKind
    rows: int
    seconds: float
    facts: Mapping[str, Any]


class VectorStore(Protocol):
    """Searches the segments of one collection with given settings.

    Segments are written by the collection's writer and named in SQL; a store reads them and adds indexes. A store is
    registered under a name in `indexer/vectors/stores.py`, as a function of the collection's `Layout` and
    `IndexSettings`.
    """

    def open(self, pinned: Pinned, before: VectorView | None = None) -> VectorView:
        """A view of a generation. Nothing is built.

        Args:
            pinned: The vectors to open.
            before: A view of an earlier generation, whose parts it may reuse.

        Raises:
            FileNotFoundError: A segment is missing.
            CorruptionError: A segment is damaged, or holds an id that was never assigned.
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
        """Build the indexes that searches of a view would use, if existing ones cover less than a share of its rows.

        Args:
            view: A view of this store.
            tuning: Called if an approximate index is built.
            coverage: The share, above 0 and at most 1.
            only: Build no other kind.
            on_progress: See `OnProgress`.

        Raises:
            LockedError: Another process or thread is building.
            StoreError: A file cannot be written.
            MissingExtraError: A package is not installed.
        """
        ...

    def explain(self, pinned: Pinned) -> dict[str, Any]:
        """How a view would be searched and why, as plain JSON; nothing is built. `info --explain` shows it.

        The keys are `device`, `allowed_bytes`, `kind`, `codes`, `bytes`, `reason` and `alternatives`.
        """
        ...
