"""Queries to tune an approximate index by, and how many of their neighbours it finds.

They are of two kinds, and the recall is that of the kind which has less of it. One is vectors held out: taken from the
collection, and added to the index only after it is tuned, so that it has never seen them, as it has not seen a query.
The other is sums of two stored vectors, as composed queries are; the two themselves do not count as neighbours.

A stored vector that the index has seen would be too easy: on clustered data a graph whose efSearch of 10 finds 99 % of
the neighbours of those finds 58 % of the neighbours of sums. Counting the two would be, too: they are found almost
always, and make a fifth of ten neighbours. Sums alone are not enough, either: where vectors have few neighbours near
them, a sum lies nearer to its neighbours than a vector does.

What this module does not know: any index but the exact one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.index.exact import ExactIndex
from indexer.index.protocol import NO_ID, Ids, Neighbours, Scores
from indexer.types import Vectors
from indexer.vectors import unit_rows

QUERIES = 200
"""Of each kind."""
LEAST_SHARE = 20
"""At most every twentieth vector is held out: a small index without many of its vectors would be another index."""
K = 10
PARENTS = 2
DEPTH = K + PARENTS
"""Neighbours to search for: ten, and the two that do not count."""


@dataclass(frozen=True)
class Recall:
    """The share of the ten nearest that were found, of the kind of queries that has fewer found.

    Attributes:
        mean: Over its queries.
        low: The lower end of its 95 % interval: what other queries can count on.
    """

    mean: float
    low: float


class TuningQueries:
    """Queries and their true neighbours.

    Args:
        exact: Holds the vectors; not empty.
        rng: Chooses them.

    Attributes:
        vectors: The queries, (n, dim) float32: the vectors held out, then the sums.
        held_out: Ascending ids that the index must not hold yet when it is asked.
    """

    def __init__(self, exact: ExactIndex, rng: np.random.Generator) -> None:
        ids = exact.all_ids()
        self.held_out: Ids = np.sort(rng.choice(ids, min(QUERIES, len(ids) // LEAST_SHARE), replace=False))
        kept = np.setdiff1d(ids, self.held_out, assume_unique=True)
        # A vector that is held out is the sum of itself and itself, neither of which is there to be found.
        self._parents = np.concatenate(
            [np.stack([self.held_out] * PARENTS), rng.choice(kept, (PARENTS, QUERIES))], axis=1
        )
        vectors = exact.vectors(self._parents.ravel()).reshape(*self._parents.shape, exact.dim)
        self.vectors: Vectors = unit_rows(vectors.sum(axis=0))
        truth = exact.search(self.vectors, DEPTH, kept)
        counted = self._counted(truth.ids)
        counted &= np.cumsum(counted, axis=1) <= K
        self._wanted = counted.sum(axis=1)
        self._last: Scores = np.where(counted, truth.scores, np.float32(np.inf)).min(axis=1)

    def recall(self, found: Neighbours) -> Recall:
        """Of an answer to `vectors` with `DEPTH` neighbours each."""
        # By score, not by id: of equal vectors any will do.
        right = (self._counted(found.ids) & (found.scores >= self._last[:, None])).sum(axis=1)
        kinds = slice(0, len(self.held_out)), slice(len(self.held_out), None)
        return min((self._of(right[kind], self._wanted[kind]) for kind in kinds), key=lambda recall: recall.low)

    @staticmethod
    def _of(right: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> Recall:
        asked = wanted > 0
        if not asked.any():
            return Recall(1.0, 1.0)
        shares = np.minimum(right, wanted)[asked] / wanted[asked]
        mean = float(shares.mean())
        return Recall(mean, mean - 1.96 * float(shares.std()) / math.sqrt(len(shares)))

    def _counted(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return np.asarray((ids != NO_ID) & (ids != self._parents[0][:, None]) & (ids != self._parents[1][:, None]))
