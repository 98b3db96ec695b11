"""Queries to tune an approximate index by, and how many of their neighbours it finds.

Each query is the sum of two stored vectors, as composed queries are; the two themselves do not count as neighbours. A
stored vector on its own would be too easy: on clustered data a graph whose efSearch of 10 finds 99 % of the neighbours
of those finds 58 % of the neighbours of sums. Counting the two would be, too: they are found almost always, and make
a fifth of ten neighbours.

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
K = 10
PARENTS = 2
DEPTH = K + PARENTS
"""Neighbours to search for: ten, and the two that do not count."""


@dataclass(frozen=True)
class Recall:
    """The share of the ten nearest that were found.

    Attributes:
        mean: Over all queries.
        low: The lower end of its 95 % interval: what other queries can count on.
    """

    mean: float
    low: float


class TuningQueries:
    """Queries and their true neighbours.

    Args:
        exact: Holds the vectors; not empty.
        rng: Chooses them.
    """

    def __init__(self, exact: ExactIndex, rng: np.random.Generator) -> None:
        parents = rng.choice(exact.all_ids(), PARENTS * QUERIES)
        self._parents = parents.reshape(PARENTS, QUERIES)
        vectors = exact.vectors(parents).reshape(PARENTS, QUERIES, exact.dim)
        self.vectors: Vectors = unit_rows(vectors.sum(axis=0))
        truth = exact.search(self.vectors, DEPTH)
        counted = self._counted(truth.ids)
        counted &= np.cumsum(counted, axis=1) <= K
        self._wanted = counted.sum(axis=1)
        self._last: Scores = np.where(counted, truth.scores, np.float32(np.inf)).min(axis=1)

    def recall(self, found: Neighbours) -> Recall:
        """Of an answer to `vectors` with `DEPTH` neighbours each."""
        # By score, not by id: of equal vectors any will do.
        right = self._counted(found.ids) & (found.scores >= self._last[:, None])
        asked = self._wanted > 0
        if not asked.any():
            return Recall(1.0, 1.0)
        shares = np.minimum(right.sum(axis=1), self._wanted)[asked] / self._wanted[asked]
        mean = float(shares.mean())
        return Recall(mean, mean - 1.96 * float(shares.std()) / math.sqrt(len(shares)))

    def _counted(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return np.asarray((ids != NO_ID) & (ids != self._parents[0][:, None]) & (ids != self._parents[1][:, None]))
