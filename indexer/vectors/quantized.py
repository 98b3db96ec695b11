"""Exact search through SQ8 codes, 8 bits per dimension: a quarter of the bytes to read, the same answer.

Each dimension is divided by its largest value, s, and stored as one of 256 levels from -1 to 1. So the score
of a row's code c differs from its true score by at most a bound that is known when the codes are made:

    |q.x - (q*s).c|  <=  min(|q| max|r|, |q*s| max|r/s|) + rounding,     r = x - s*c

FAISS scans the codes on every core. The best of them are scored again from the segments; if the last of those,
plus the bound, stays below the k-th true score, no row that was not looked at can be among the k best or tie with
them. If that cannot be shown, more rows are looked at, and finally all, by `ExactIndex`. Batches go straight to
`ExactIndex`: a matrix product reads each row once for all queries.

What this module does not know: documents, where its file is stored, which vectors were added later.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from indexer.errors import CorruptionError, StoreError
from indexer.types import Vectors
from indexer.vectors.checked import CheckedIndex
from indexer.vectors.exact import ExactIndex, no_neighbors
from indexer.vectors.faiss_index import faiss, scores_of_rows
from indexer.vectors.protocol import Ids, IndexKind, Neighbors, Plan, Scores
from indexer.vectors.selection import Codes

FEW_QUERIES = 16
"""With more queries at once, a matrix product is faster than one scan of the codes per query."""
SPARSE = 0.1
"""Up to this share of the rows, matching rows are fetched; above it, the codes are scanned.

`python -m benchmarks.speed_search --part crossover` measures both plans. On two cores the two plans break even between
10 and 20 %; a scan of codes uses every core, fetching uses one.
"""
LOOKED_AT = 128
LOOKED_AT_PER_K = 8
MORE = 8
MOST = 8192
CHUNK = 1 << 12
ROUNDING = 2.0**-24


class QuantizedIndex(CheckedIndex):
    """Exact inner-product search through codes; a `VectorIndex`. Threads may search it together.

    Use `build` or `load`.

    Attributes:
        metadata: How the codes were made, as JSON: the scale of each dimension and the bounds. `load` takes it.
        sparse: `SPARSE`, for measuring.

    Args:
        index: FAISS's index of the codes, a row for each id of `exact`, in ascending order.
        exact: Exact search over the same vectors.
        metadata: See above.
    """

    def __init__(self, index: Any, exact: ExactIndex, metadata: Mapping[str, Any]) -> None:
        self.metadata = dict(metadata)
        self.sparse = SPARSE
        self._index, self._exact = index, exact.picking_by(scores_of_rows)
        self._ids = exact.all_ids()
        self._scale = np.asarray(metadata["scale"], np.float32)
        self._workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._pool, self._pid = self._scanners(), os.getpid()

    def _scanners(self) -> ThreadPoolExecutor:
        # FAISS searches one query on one core. Each thread scans a range of rows and starts no threads of its own.
        return ThreadPoolExecutor(self._workers, "scan", initializer=faiss.omp_set_num_threads, initargs=(1,))

    @classmethod
    def build(cls, parts: Sequence[tuple[Vectors, Ids]]) -> QuantizedIndex:
        """Make the codes.

        Args:
            parts: The segments, as `ExactIndex` takes them.

        Raises:
            CorruptionError: The parts do not match each other.
        """
        exact = ExactIndex(parts)
        largest = np.zeros(exact.dim, np.float32)
        for rows in _in_order(exact):
            np.maximum(largest, np.abs(rows).max(axis=0), out=largest)
        scale = np.where(largest > 0, largest, np.float32(1))
        # One range for all dimensions, which FAISS decodes twice as fast; `scale` fits it to each dimension.
        index = faiss.IndexScalarQuantizer(exact.dim, faiss.ScalarQuantizer.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT)
        index.train(np.repeat(np.array([[-1], [1]], np.float32), max(exact.dim, 1), axis=1))
        index.codes.resize(exact.size * exact.dim)  # at once: growing would double it
        index.codes.resize(0)
        lost = lost_scaled = longest = 0.0
        for rows in _in_order(exact):
            scaled = rows / scale
            codes = index.sa_encode(scaled)
            levels = index.sa_decode(codes)
            # In float32: the last lines leave room for its three roundings of numbers of at most 1.
            lost = max(lost, _longest(rows - levels * scale))
            lost_scaled = max(lost_scaled, _longest(scaled - levels))
            longest = max(longest, _longest(levels))
            index.add_sa_codes(codes)
        facts = {
            "kind": IndexKind.EXACT.value,
            "codes": Codes.SQ8.value,
            "rows": exact.size,
            "dim": exact.dim,
            "faiss": faiss.__version__,
            "scale": scale.tolist(),
            "lost": lost + 4 * ROUNDING * 1.01,
            "lost_scaled": lost_scaled + 4 * ROUNDING * math.sqrt(max(exact.dim, 1)),
            "longest": longest,
            "recall_at_10": 1.0,
        }
        return cls(index, exact, facts)

    @classmethod
    def load(cls, path: Path, exact: ExactIndex, metadata: Mapping[str, Any]) -> QuantizedIndex:
        """Map a file that `save` wrote; the file must stay as long as the index.

        A caller compares the file's checksum first: damaged codes would miss neighbors.

        Raises:
            CorruptionError: The file cannot be read, or holds other vectors than `exact`.
        """
        rebuild = "Delete the file; Collection.build_index() or `underdrawing index` makes it again from the segments."
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise CorruptionError(f"FAISS cannot read the file of SQ8 codes {path}: {error}", rebuild) from error
        if (index.ntotal, index.d) != (exact.size, exact.dim):
            raise CorruptionError(
                f"The file {path} holds SQ8 codes of {index.ntotal} vectors of {index.d} dimensions, "
                f"the segments {exact.size} of {exact.dim}.",
                rebuild,
            )
        return cls(index, exact, metadata)

    def save(self, path: Path) -> None:
        """Write the codes to `path`, not atomically or durably: pass a temporary name, then rename it.

        Raises:
            StoreError: The file cannot be written.
        """
        try:
            faiss.write_index(self._index, str(path))
        except RuntimeError as error:
            raise StoreError(f"The file of SQ8 codes {path} cannot be written: {error}") from error

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        return self._exact.size

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._exact.dim

    def nearest(self, queries: Vectors, k: int, allowed: Ids | None = None) -> Neighbors:
        """The k best of each query: the ids, scores and ties of `ExactIndex`."""
        look = max(LOOKED_AT, LOOKED_AT_PER_K * k)
        eligible, share = (self.size, 0.0) if allowed is None else (len(allowed), self.sparse)
        if len(queries) > FEW_QUERIES or look > MOST or eligible <= max(look, self.size * share):
            return self._exact.nearest(queries, k, allowed)
        places = None if allowed is None else self._places(allowed)
        found, plans = no_neighbors(len(queries), k), set()
        for place, query in enumerate(queries):
            answer = self._one(query, k, places, look)
            plans.add(Plan.CODES if answer else Plan.SCAN)
            answer = answer or self._exact.nearest(query[None], k, allowed)
            found.ids[place], found.scores[place] = answer.ids[0], answer.scores[0]
        return Neighbors(found.ids, found.scores, tuple(sorted(plans)))

    def error(self, query: Vectors) -> float:
        """The largest difference between a code's score and its row's true score, for one query: (dim,) float32."""
        wide = query.astype(np.float64)
        length, scaled = float(np.linalg.norm(wide)), float(np.linalg.norm(wide * self._scale))
        bounds = self.metadata
        lost = min(length * bounds["lost"], scaled * bounds["lost_scaled"])
        # Three roundings: of the sum in float32 (see `rounding_error`) and the product of query and scale, of the
        # levels (a scan may round once less), and of the true scores.
        rounding = (len(query) + 16) * bounds["longest"] * scaled + 8 * math.sqrt(len(query)) * scaled + 4 * length
        return float(1.01 * ROUNDING * rounding + (1 + 1e-9) * lost)

    def _one(self, query: Vectors, k: int, places: Ids | None, look: int) -> Neighbors | None:
        """The answer to one query, or None if too many rows would have to be looked at to prove it."""
        error = self.error(query)
        eligible = self.size if places is None else len(places)
        while look <= min(MOST, eligible):
            scores, rows = self._scan((query * self._scale)[None], look, places)
            answer = self._exact.rerank(query[None], self._ids[rows][None], k)
            if scores.min() + error < answer.scores[0, k - 1]:
                return answer
            look *= MORE
        return None

    def _scan(self, query: Vectors, look: int, places: Ids | None) -> tuple[Scores, Ids]:
        """The scores and rows of the `look` best codes, unordered."""

        def work(part: tuple[int, int]) -> tuple[Scores, Ids]:
            if places is None:
                selector = faiss.IDSelectorRange(*part)
            else:
                selector = faiss.IDSelectorBitmap(_bits(places[part[0] : part[1]]))
            scores, rows = self._index.search(query, look, params=faiss.SearchParameters(sel=selector))
            return scores[0], rows[0]

        if self._pid != os.getpid():  # threads do not cross a fork
            self._pool, self._pid = self._scanners(), os.getpid()
        found = list(self._pool.map(work, _ranges(self.size if places is None else len(places), self._workers)))
        scores, rows = (np.concatenate(column) for column in zip(*found, strict=True))
        scores, rows = scores[rows >= 0], rows[rows >= 0]
        best = np.argpartition(-scores, look - 1)[:look]
        return scores[best], rows[best]

    def _places(self, allowed: Ids) -> Ids:
        """The rows of the ids that are held."""
        first = self._ids[0] if len(self._ids) else 0
        if len(self._ids) and self._ids[-1] - first == len(self._ids) - 1:
            low, high = np.searchsorted(allowed, (first, self._ids[-1] + 1))
            return allowed[low:high] - first
        rows = np.searchsorted(self._ids, allowed)
        rows = np.minimum(rows, max(len(self._ids) - 1, 0))
        return rows[self._ids[rows] == allowed] if len(self._ids) else rows[:0]


def _in_order(exact: ExactIndex) -> Iterator[Vectors]:
    """All vectors by ascending id, in blocks."""
    ids = exact.all_ids()
    for start in range(0, len(ids), CHUNK):
        yield exact.vectors(ids[start : start + CHUNK])


def _longest(rows: Any) -> float:
    dim = int(rows.shape[1])
    return (1 + dim * ROUNDING) * math.sqrt(float(np.einsum("ij,ij->i", rows, rows).max()))


def _bits(places: Ids) -> Any:
    """A bitmap of all rows, set for the given ones, in FAISS's layout."""
    chosen = np.zeros(int(places[-1]) + 1 if len(places) else 1, np.bool_)
    chosen[places] = True
    return np.packbits(chosen, bitorder="little")


def _ranges(total: int, parts: int) -> list[tuple[int, int]]:
    """0 to `total` in nearly equal ranges."""
    edges = [total * part // parts for part in range(parts + 1)]
    return list(zip(edges, edges[1:], strict=False))
