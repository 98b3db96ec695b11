"""The shortlist of a scan: the rows that can still be among the k best of each query.

What this module does not know: where scores come from, and how ties are broken.
"""

from __future__ import annotations

import numpy as np

from indexer.vectors.protocol import Ids, Scores

GROUP = 16


class Shortlist:
    """The rows of a scan that can still be among the k best of each query.

    If at least k rows reach a float32 score s, then each of the k best in exact arithmetic reaches s minus
        twice the rounding error. `_floor` holds that bound, which rises during the scan.

    Args:
        k: At least 1.
        error: (n,) float32, the rounding error of each query's float32 scores.
    """

    def __init__(self, k: int, error: Scores) -> None:
        self._k = k
        self._slack = 2 * error
        self._floor = np.full(len(error), -np.inf, np.float32)
        self._listed: list[tuple[Ids, Ids, Scores]] = []
        self._count = 0
        self._roomy = 4 * k * len(error)

    def offer(self, scores: Scores, ids: Ids) -> None:
        """Add one block: contiguous scores (n, b) of ids (b,)."""
        keep = scores >= self._floor[:, None]
        if len(ids) > self._k and np.count_nonzero(keep) > self._roomy:
            self._raise_floor(np.arange(len(scores)), reached_by_k(scores, self._k))
            keep = scores >= self._floor[:, None]
        # Flat: in two dimensions, NumPy takes forty times as long to find the few that are left.
        flat = keep.ravel().nonzero()[0]
        owner, column = np.divmod(flat, len(ids))
        self._listed.append((owner, ids[column], scores.ravel()[flat]))
        self._count += len(owner)
        if self._count > self._roomy:
            self._shrink()

    def all(self) -> tuple[Ids, Ids]:
        """The query's row and the id of each entry of the shortlist."""
        self._shrink()
        return self._listed[0][0], self._listed[0][1]

    def _raise_floor(self, queries: Ids, reached: Scores) -> None:
        self._floor[queries] = np.maximum(self._floor[queries], reached - self._slack[queries])

    def _shrink(self) -> None:
        empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        owner, ids, scores = (np.concatenate(column) for column in zip(empty, *self._listed, strict=True))
        order = np.lexsort((-scores, owner))
        owner, ids, scores = owner[order], ids[order], scores[order]
        kth = place_in_group(owner) == self._k - 1
        self._raise_floor(owner[kth], scores[kth])
        keep = scores >= self._floor[owner]
        self._listed = [(owner[keep], ids[keep], scores[keep])]
        self._count = int(np.count_nonzero(keep))
        # If thousands of rows tie, all of them stay; sort again only once there are twice as many.
        self._roomy = max(self._roomy, 2 * self._count)


def place_in_group(owner: Ids) -> Ids:
    """The position, from 0, of each element among those of equal value; `owner` is ascending."""
    return np.arange(len(owner)) - np.searchsorted(owner, owner)


def reached_by_k(scores: Scores, k: int) -> Scores:
    """For each row of scores (n, b), a value near the k-th largest that at least k scores reach: (n,).

    In a long row it is the k-th largest of the maxima of groups, a tenth of the cost of partitioning all.
    """
    n, width = scores.shape
    groups = width // GROUP
    if groups >= 4 * k:
        scores = scores[:, : groups * GROUP].reshape(n, GROUP, groups).max(axis=1)
    return np.partition(scores, -k, axis=1)[:, -k]
