"""Exact search over a collection's segments: the ground truth for all other indexes.

Segments are read-only and usually memory-mapped; a search copies only the rows that a filter selects.
It works in two steps. A scan in float32, through BLAS, keeps every row that could be among the k best, given
how far BLAS may round. Those few are then scored in float64 and ordered. So a score does not depend on where
a row lies, nor on the block, the batch or the number of threads; equal rows tie, and the lower id goes first.

What this module does not know: files, documents, FAISS, which rows are deleted (callers pass `allowed`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from indexer.errors import CorruptionError
from indexer.types import Vectors
from indexer.vectors.checked import CheckedIndex
from indexer.vectors.protocol import NO_ID, Ids, Neighbors, Plan, Scores
from indexer.vectors.shortlist import Shortlist, place_in_group, reached_by_k

SCORES_PER_BLOCK = 1 << 22  # 16 MB of float32; selecting from them takes the same again
QUERIES_PER_BLOCK = 512
GATHER_BYTES = 1 << 20  # selected rows are scored while they are still in the second-level cache
FEW_PAIRS = 1 << 18
"""Up to this many pairs of a query and an allowed row are all scored before the best are selected."""
LOWEST = np.finfo(np.float32).min
CHECK = "Run: underdrawing check COLLECTION"
PICKED = (Plan.PICK,)

RowScorer: TypeAlias = "Callable[[Vectors, Vectors, Ids], Scores]"
"""From queries (n, dim), vectors and row numbers to float32 scores (n, len(rows)), summed in any order."""
Places: TypeAlias = "slice | Ids"
"""Positions in an array; a slice if they are consecutive."""


@dataclass(frozen=True)
class _Part:
    """One segment: its vectors, their ascending ids, and whether the ids are consecutive."""

    vectors: Vectors
    ids: Ids
    dense: bool

    def rows(self, wanted: Ids) -> tuple[Places, Ids]:
        """Which of the ascending ids are here, and their rows; all lie between this part's first and last id."""
        if self.dense:
            return slice(0, len(wanted)), wanted - self.ids[0]
        rows = np.searchsorted(self.ids, wanted)
        held = self.ids[rows] == wanted
        return held.nonzero()[0], rows[held]


class ExactIndex(CheckedIndex):
    """Exact inner-product search; a `VectorIndex`.

    Args:
        parts: For each segment its vectors, (n, dim) float32 with rows of unit length, and their ids, (n,) int64,
            ascending. Parts may come in any order and their id ranges may interleave, but no id occurs twice.

    Raises:
        CorruptionError: A part's arrays do not match each other or the other parts.
    """

    def __init__(self, parts: Sequence[tuple[Vectors, Ids]]) -> None:
        self._dim = parts[0][0].shape[-1] if parts else 0
        checked = [_checked_part(place, vectors, ids, self._dim) for place, (vectors, ids) in enumerate(parts)]
        self._parts = sorted((part for part in checked if len(part.ids)), key=lambda part: int(part.ids[0]))
        self._firsts = np.array([part.ids[0] for part in self._parts], np.int64)
        self._lasts = np.array([part.ids[-1] for part in self._parts], np.int64)
        self._size = sum(len(part.ids) for part in self._parts)
        self._score_picked: RowScorer | None = None  # not a bound method, which would make a reference cycle

    def picking_by(self, scorer: RowScorer) -> ExactIndex:
        """The same index with another function to score the few rows that a filter selects for one query."""
        other = copy.copy(self)
        other._score_picked = scorer
        return other

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        return self._size

    @property
    def dim(self) -> int:
        """Length of a vector; 0 if there are no parts."""
        return self._dim

    def nearest(self, queries: Vectors, k: int, allowed: Ids | None = None) -> Neighbors:
        """The k best of each query, ties at rank k included; see `search`."""
        if allowed is not None and self._size and len(allowed) * len(queries) <= FEW_PAIRS:
            return self._pick(queries, allowed, k)
        if allowed is None and len(self._parts) == 1 and self._size * len(queries) <= SCORES_PER_BLOCK:
            part = self._parts[0]
            return self._lead(queries, queries @ part.vectors.T, part.ids, k)
        found = no_neighbors(len(queries), k)
        for start in range(0, len(queries), QUERIES_PER_BLOCK):
            batch = slice(start, start + QUERIES_PER_BLOCK)
            shortlist = Shortlist(k, rounding_error(queries[batch]))
            for scores, ids in self._scan(queries[batch], allowed):
                shortlist.offer(scores, ids)
            best = self._best(queries[batch], *shortlist.all(), k)
            found.ids[batch], found.scores[batch] = best.ids, best.scores
        return found if allowed is None else Neighbors(found.ids, found.scores, PICKED)

    def rerank(self, queries: Vectors, candidates: Ids, k: int) -> Neighbors:
        """The k best of each query among its own candidates, with the scores that `search` gives.

        Args:
            queries: (n, dim) float32.
            candidates: (n, m) int64 ids, in any order, each at most once per row; -1 stands for none.
            k: At least 1.

        Raises:
            CorruptionError: A candidate is not held.
        """
        if len(queries) == 1:
            ids = candidates[0]
            return self._best_of_one(queries, ids[ids != NO_ID], k)
        owner, column = np.nonzero(candidates != NO_ID)
        return self._best(queries, owner, candidates[owner, column], k)

    def scores(self, queries: Vectors, ids: Ids) -> Scores:
        """The scores of given ids, equal to those of `search`: (n, len(ids)) float32.

        Raises:
            CorruptionError: An id is not held.
        """
        out = np.empty((len(queries), len(ids)), np.float32)
        self._score_exactly(queries, ids, out)
        return out

    def scan(self, queries: Vectors) -> tuple[Ids, Scores]:
        """Every id, ascending, and the scores of all rows, (n, size).

        They are float32 sums, which may differ in the last digits from those of `search`.
        """
        out = np.empty((len(queries), self.size), np.float32)
        end = 0
        for scores, ids in self._scan(queries, None):
            start, end = end, end + len(ids)
            out[:, start:end] = scores
        ids = self._stored_ids()
        if _ascend(ids):
            return ids, out
        order = np.argsort(ids)
        return ids[order], out[:, order]

    def vectors(self, ids: Ids) -> Vectors:
        """The vectors of given ids, in their order: (len(ids), dim) float32.

        Raises:
            CorruptionError: Some ids are not held; the message names them.
        """
        out, found = self._gathered(ids)
        if found < len(ids):
            missing = np.setdiff1d(ids, self.held(ids))
            names = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
            raise CorruptionError(
                f"No segment holds the vectors {names} ({len(missing)} of {len(ids)} asked for).",
                CHECK,
            )
        return out

    def held(self, ids: Ids) -> Ids:
        """The given ids that are held, in the given order."""
        mask = np.zeros(len(ids), np.bool_)
        for _, places, _ in self._located(ids):
            mask[places] = True
        return ids[mask]

    def all_ids(self) -> Ids:
        """Every id, ascending: (size,) int64."""
        ids = self._stored_ids()
        return ids if _ascend(ids) else np.sort(ids)

    def _gathered(self, ids: Ids) -> tuple[Vectors, int]:
        """The vectors of the ids that are held, each in its id's row, and how many there are."""
        out, found = np.empty((len(ids), self.dim), np.float32), 0
        for part, places, rows in self._located(ids):
            if isinstance(places, slice):
                # Any mode but "raise" lets NumPy write straight into `out`; no row is out of range.
                part.vectors.take(rows, 0, out[places], "clip")
            else:
                out[places] = part.vectors[rows]
            found += len(rows)
        return out, found

    def _score_exactly(self, queries: Vectors, ids: Ids, out: Scores, rows: Vectors | None = None) -> None:
        """Write the scores of all ids with all queries, summed in float64; `rows` as in `_best`."""
        wide = queries.astype(np.float64)
        for chunk in _chunks(len(ids), self._rows_in_cache):
            these = (self.vectors(ids[chunk]) if rows is None else rows[chunk]).astype(np.float64)
            for place, query in enumerate(wide):
                # Not BLAS: einsum sums each row in the same order wherever it lies, so that equal rows tie.
                out[place, chunk] = np.einsum("ij,j->i", these, query)

    def _located(self, ids: Ids) -> Iterator[tuple[_Part, Places, Ids]]:
        """The parts that hold some of the ids, with the positions of those in `ids` and their rows in the part."""
        if len(self._parts) == 1 and self._parts[0].dense and len(ids):  # nothing to look for, as after a compaction
            rows = ids - self._firsts[0]
            if rows.min() >= 0 and rows.max() < self._size:
                yield self._parts[0], slice(0, len(ids)), rows
                return
        order = None if _ascend(ids) else np.argsort(ids)
        ascending = ids if order is None else ids[order]
        starts, stops = np.searchsorted(ascending, self._firsts), np.searchsorted(ascending, self._lasts, "right")
        within = (starts < stops).nonzero()[0]
        for number, start, stop in zip(within.tolist(), starts[within].tolist(), stops[within].tolist(), strict=True):
            part = self._parts[number]
            places, rows = part.rows(ascending[start:stop])
            places = slice(start, stop) if isinstance(places, slice) else start + places
            yield part, places if order is None else order[places], rows

    @property
    def _rows_in_cache(self) -> int:
        return max(GATHER_BYTES // (4 * max(self.dim, 1)), 1)

    def _stored_ids(self) -> Ids:
        return np.concatenate([part.ids for part in self._parts] or [np.empty(0, np.int64)])

    def _scan(self, queries: Vectors, allowed: Ids | None) -> Iterator[tuple[Scores, Ids]]:
        """float32 scores (n, b) and ids (b,) of every allowed row, block by block; blocks may share one buffer."""
        n = len(queries)
        step = max(SCORES_PER_BLOCK // max(n, 1), 1)
        buffer = np.empty(n * min(step, self.size) if allowed is None else 0, np.float32)
        for part in self._parts:
            for chunk in _chunks(len(part.ids), step):
                ids, vectors = part.ids[chunk], part.vectors[chunk]
                if allowed is None:
                    block = buffer[: n * len(ids)].reshape(n, len(ids))
                    yield np.matmul(queries, vectors.T, out=block), ids
                    continue
                first, last = np.searchsorted(allowed, ids[0]), np.searchsorted(allowed, ids[-1], "right")
                rows = part.rows(allowed[first:last])[1] - chunk.start
                if len(rows):
                    yield self._score_rows(queries, vectors, rows), ids[rows]

    def _score_rows(self, queries: Vectors, vectors: Vectors, rows: Ids) -> Scores:
        """float32 scores of some rows of a block: (n, len(rows))."""
        n, total = len(queries), len(vectors)
        if len(rows) == total:
            return queries @ vectors.T
        # Fetching a single row costs about four times as much as a row in a scan; multiplying it, a 64th per query.
        if len(rows) * (64 + n) > total * (16 + n):
            return np.take(queries @ vectors.T, rows, axis=1)
        out = np.empty((n, len(rows)), np.float32)
        if not len(rows):
            return out
        buffer = np.empty((min(self._rows_in_cache, len(rows)), self.dim), np.float32)
        for chunk in _chunks(len(rows), len(buffer)):
            picked = buffer[: chunk.stop - chunk.start]
            # Any mode but "raise" lets NumPy write straight into `out`; no row is out of range.
            np.take(vectors, rows[chunk], axis=0, out=picked, mode="clip")
            out[:, chunk] = queries @ picked.T
        return out

    def _pick(self, queries: Vectors, allowed: Ids, k: int) -> Neighbors:
        """The k best of a few allowed rows, whose scores all fit in memory."""
        picked: Vectors | None = None
        if len(allowed) <= self._rows_in_cache:
            picked, found = self._gathered(allowed)
            if found < len(allowed):
                allowed = self.held(allowed)
                picked = self.vectors(allowed)
            scores = queries @ picked.T
        else:
            # Fetched once, rows serve all queries.
            score = (self._score_picked if len(queries) == 1 else None) or self._score_rows
            scores = np.full((len(queries), len(allowed)), -np.inf, np.float32)
            for part, places, rows in self._located(allowed):
                scores[:, places] = score(queries, part.vectors, rows)
        best = self._lead(queries, scores, allowed, k, picked)
        return Neighbors(best.ids, best.scores, PICKED)

    def _lead(self, queries: Vectors, scores: Scores, ids: Ids, k: int, rows: Vectors | None = None) -> Neighbors:
        """The k best ids by float32 scores (n, len(ids)); -inf stands for an id that is not held."""
        floor = np.full(len(queries), LOWEST, np.float32)
        if len(ids) > k:
            floor = np.maximum(floor, reached_by_k(scores, k) - 2 * rounding_error(queries))
        if len(queries) == 1:
            column = (scores[0] >= floor[0]).nonzero()[0]
            return self._best_of_one(queries, ids[column], k, None if rows is None else rows[column])
        # Flat: in two dimensions, NumPy takes forty times as long to find the few that are left.
        owner, column = np.divmod((scores >= floor[:, None]).ravel().nonzero()[0], len(ids) or 1)
        return self._best(queries, owner, ids[column], k, None if rows is None else rows[column])

    def _best_of_one(self, queries: Vectors, ids: Ids, k: int, rows: Vectors | None = None) -> Neighbors:
        """`_best` for a single query with a third of the calls, which dominate the time when few rows are scored."""
        scores = np.empty((1, len(ids)), np.float32)
        self._score_exactly(queries, ids, scores, rows)
        first = np.lexsort((ids, -scores[0]))[:k]
        found = no_neighbors(1, k)
        found.ids[0, : len(first)], found.scores[0, : len(first)] = ids[first], scores[0, first]
        return found

    def _best(self, queries: Vectors, owner: Ids, ids: Ids, k: int, rows: Vectors | None = None) -> Neighbors:
        """Score pairs of a query (its row is in `owner`) and an id in float64; the k best of each query, in order.

        `rows` are the vectors of the ids, if they are already in memory.
        """
        scores = np.empty(len(ids), np.float32)
        wide = queries.astype(np.float64)
        for chunk in _chunks(len(ids), self._rows_in_cache):
            these = self.vectors(ids[chunk]) if rows is None else rows[chunk]
            # Not BLAS: einsum sums each row in the same order wherever it lies, so that equal rows tie.
            scores[chunk] = np.einsum("ij,ij->i", these.astype(np.float64), wide[owner[chunk]])
        order = np.lexsort((ids, -scores, owner))
        owner, ids, scores = owner[order], ids[order], scores[order]
        place = place_in_group(owner)
        found, first = no_neighbors(len(queries), k), place < k
        found.ids[owner[first], place[first]] = ids[first]
        found.scores[owner[first], place[first]] = scores[first]
        return found


def rounding_error(queries: Vectors) -> Scores:
    """The largest difference between a float32 score of a unit row and the exact one, for each query: (n,) float32.

    The classic bound dim * 2^-24 * |x| * |y| of an inner product summed in any order (Higham, Accuracy and
    Stability of Numerical Algorithms, 2nd ed., section 3.1), with a little room for rounding the result and
    the bound itself.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", queries, queries))
    return np.asarray((queries.shape[1] + 8) * 2.0**-24 * 1.01 * norms, np.float32)


def no_neighbors(n: int, k: int) -> Neighbors:
    """An empty answer: all ids -1, all scores -inf."""
    return Neighbors(np.full((n, k), NO_ID, np.int64), np.full((n, k), -np.inf, np.float32))


def _checked_part(place: int, vectors: Vectors, ids: Ids, dim: int) -> _Part:
    if vectors.dtype != np.float32 or ids.dtype != np.int64:
        raise CorruptionError(f"Segment {place} is {vectors.dtype} with {ids.dtype} ids, not float32 with int64.")
    if vectors.ndim != 2 or vectors.shape != (len(ids), dim):
        raise CorruptionError(f"Segment {place} has the shape {vectors.shape}, not ({len(ids)}, {dim}).")
    if not _ascend(ids):
        raise CorruptionError(f"The ids of segment {place} are not in ascending order.", CHECK)
    return _Part(vectors, ids, dense=len(ids) > 0 and int(ids[-1] - ids[0]) == len(ids) - 1)


def _ascend(ids: Ids) -> bool:
    return bool((ids[1:] > ids[:-1]).all())


def _chunks(total: int, step: int) -> Iterator[slice]:
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))
