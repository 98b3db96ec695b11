"""Exact re-scoring of an index's candidates: the search shared by approximate indexes and GPUs.

Candidates are scored from the segments, so scores equal those of exact search and ties go by id. Where an index may
return fewer than k neighbors (a selective filter, a large k, a GPU, which ignores filters), the search is widened for
the queries that lack some, and finally replaced by exact search.

What this module does not know: FAISS, files, documents.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.types import Vectors
from indexer.vectors.checked import CheckedIndex
from indexer.vectors.exact import ExactIndex, no_neighbors
from indexer.vectors.protocol import Ids, IndexKind, Neighbors, Plan, Scores
from indexer.vectors.selection import EXACT_ROWS, Codes

TUNE_K = 10  # neighbors for which the effort was tuned
FLAT_SPARE = 32  # neighbors fetched beyond k, to prove that rounding has not changed the k best
SPARE = {Codes.FLOAT32: 1, Codes.FP16: 2, Codes.SQ8: 4}
"""Candidates in multiples of k: compressed vectors find the right neighbors, but in a rough order."""
GROWTH = 4
EFFORT = {IndexKind.IVF: "nprobe", IndexKind.HNSW: "ef_search"}


class RescoredIndex(CheckedIndex):
    """Base of a `VectorIndex` that only has to find candidates.

    Attributes:
        metadata: How it was made, as JSON; it names at least the kind, the codes, and the tuned effort.
        exact: Exact search over the same vectors.

    Args:
        exact: Exact search over the same vectors.
        metadata: See above.
    """

    plan: Plan
    """The plan that finds its candidates."""
    warning = ""
    """Why the search is not on the device of the settings; empty while it is."""

    def __init__(self, exact: ExactIndex, metadata: Mapping[str, Any]) -> None:
        self.metadata = dict(metadata)
        self.exact = exact
        self._kind = IndexKind(metadata["kind"])
        self._codes = Codes(metadata["codes"])
        self._lists = int(metadata.get("lists", 0))
        self._effort = int(metadata.get(EFFORT.get(self._kind, ""), 0))

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        return self.exact.size

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.exact.dim

    @property
    def few(self) -> int:
        """Up to this many rows that a filter leaves are scored one by one."""
        return EXACT_ROWS

    def nearest(self, queries: Vectors, k: int, allowed: Ids | None = None) -> Neighbors:
        """Approximately the k best of each query (kind `exact`: the k best); see `search`."""
        held = None if allowed is None else self.exact.held(allowed)
        eligible = self.size if held is None else len(held)
        if eligible == 0 or (held is not None and eligible <= self.few):
            return self.exact.nearest(queries, k, held)
        wanted = min(k, eligible)
        found, plans = no_neighbors(len(queries), k), set[Plan]()
        # An approximate index may miss a row of any score; no row is missed if all come back.
        unsure = np.float32(-np.inf if self._kind is IndexKind.EXACT or wanted == eligible else np.inf)
        unseen = np.full(len(queries), unsure)
        todo, growth = np.arange(len(queries)), 1
        while len(todo):
            batch = queries[todo]
            plan = self._plan(wanted, eligible / self.size, growth)
            if plan is None:
                answer, complete = self.exact.nearest(batch, k, held), np.ones(len(todo), np.bool_)
                plans.update(answer.plans)
                unseen[todo] = -np.inf
            else:
                candidates, beyond = self._candidates(batch, *plan, held)
                answer = self.exact.rerank(batch, candidates, k)
                complete = answer.scores[:, wanted - 1] > beyond
                plans.add(self.plan)
            if growth == 1 and complete.all():  # nearly always at the first try
                return Neighbors(answer.ids, answer.scores, tuple(plans), unseen)
            found.ids[todo[complete]] = answer.ids[complete]
            found.scores[todo[complete]] = answer.scores[complete]
            todo = todo[~complete]
            growth *= GROWTH
        return Neighbors(found.ids, found.scores, tuple(sorted(plans)), unseen)

    def doubtful(self, queries: Vectors, found: Neighbors) -> npt.NDArray[np.bool_]:
        """The queries for which this index is known to miss neighbors, and which need exact search: (n,) bool.

        Args:
            queries: The queries.
            found: The answers of `search`.
        """
        sure_above = self.metadata.get("sure_above")
        if sure_above is None or self.plan not in found.plans:
            return np.zeros(len(queries), np.bool_)
        return np.asarray(found.scores[:, 0] < float(sure_above) * np.linalg.norm(queries, axis=1))

    @abstractmethod
    def _plan(self, wanted: int, share: float, growth: int) -> tuple[int, int] | None:
        """How many neighbors to fetch and with which nprobe or efSearch; None if exact search is better.

        Args:
            wanted: Neighbors to find.
            share: The share of the rows that a filter lets pass.
            growth: The factor over the first try.
        """

    @abstractmethod
    def _candidates(self, queries: Vectors, fetch: int, effort: int, held: Ids | None) -> tuple[Ids, Scores]:
        """One search for candidates.

        Returns:
            The ids found, (n, fetch), -1 for none; and for each query the bound that the exact score of its last
                neighbor must exceed for the answer to be complete, (n,). For approximate kinds, any neighbor exceeds
                it.
        """

    def _deeper(self, wanted: int, share: float, growth: int) -> float:
        """The effort for a number of neighbors.

        The tuned effort is for 10 neighbors out of all. It is divided by the share that a filter lets pass, so
            that as many eligible vectors are seen as without a filter, and grows with the square root of k. These
            are rules of thumb; if neighbors are still missing, the search is repeated with `growth`.
        """
        return self._effort * math.sqrt(max(wanted / TUNE_K, 1)) * growth / share
