"""Search on GPUs, through a flat index (exact) or an inverted file, with the rows split over all GPUs.

GPUs find candidates, and `ExactIndex` scores them. FAISS's GPU indexes accept a filter and silently ignore it, so they
get none: more rows are fetched than the filter excludes, and excluded ones are dropped. The answer of a flat index is
proven: a row that was not fetched scores at most as much as the last one that was, and the rounding of float32 or fp16
is bounded. Where more than 2,048 rows would have to be fetched, exact search on the CPU answers.

If a GPU fails, the CPU answers this and all later searches, and `warning` says so.

What this module does not know: how a GPU is reached (`gpus.py`), documents, files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from indexer.errors import DeviceError
from indexer.types import Vectors
from indexer.vectors.checked import CheckedIndex
from indexer.vectors.exact import ExactIndex, rounding_error
from indexer.vectors.faiss_index import FaissIndex, faiss
from indexer.vectors.gpus import MOST, Copies, CopyKey, Gpus, Share
from indexer.vectors.protocol import NO_ID, Ids, IndexKind, Neighbors, Plan, Scores
from indexer.vectors.rescoring import FLAT_SPARE, SPARE, RescoredIndex
from indexer.vectors.selection import Codes, estimate_bytes

FEW_ROWS = 20_000
"""Rows that a CPU scores while a GPU scores all; a rule of thumb, not measured on a GPU."""
CHUNK = 1 << 16
HALF = 2.0**-11
SMALLEST_HALF = 2.0**-25
"""The rounding error of fp16: relative to the number, or absolute near zero."""


class GpuIndex(RescoredIndex):
    """An index on GPUs; a `VectorIndex`. Threads may search it together.

    Use `flat` or `inverted`.

    Attributes:
        metadata: That of the index it was copied from.
        warning: Why the CPU is searched, once a GPU has failed; empty before.

    Args:
        copies: The copies on the GPUs.
        exact: Exact search over the same vectors.
        metadata: See above.
        instead: The index to search once a GPU has failed.
    """

    def __init__(self, copies: Copies, exact: ExactIndex, metadata: Mapping[str, Any], instead: CheckedIndex) -> None:
        super().__init__(exact, metadata)
        self.plan = Plan.GPU_SCAN if self._kind is IndexKind.EXACT else Plan.GPU_IVF
        self._copies, self._instead = copies, instead

    @classmethod
    def flat(cls, gpus: Gpus, key: CopyKey, exact: ExactIndex, codes: Codes) -> GpuIndex:
        """All vectors, as they are or rounded to fp16. While a GPU's share is copied, it is in main memory, too.

        Args:
            gpus: At least one.
            key: Identifies these vectors in this encoding.
            exact: Exact search over the vectors; not empty.
            codes: `float32` or `fp16`.

        Raises:
            DeviceError: A GPU fails or is out of memory.
        """
        facts: dict[str, Any] = {
            "kind": IndexKind.EXACT.value,
            "codes": codes.value,
            "rows": exact.size,
            "dim": exact.dim,
        }
        facts |= {"faiss": faiss.__version__, "gpus": len(gpus), "recall_at_10": 1.0}

        def shares(count: int) -> list[Share]:
            ids = exact.all_ids()
            parts = [part for part in np.array_split(ids, count) if len(part)]
            return [Share(_flat(exact, part, codes), part) for part in parts]

        size = estimate_bytes(IndexKind.EXACT, exact.size, exact.dim, codes)
        return cls(gpus.hold(key, shares, size), exact, facts, exact)

    @classmethod
    def inverted(cls, gpus: Gpus, key: CopyKey, index: FaissIndex) -> GpuIndex:
        """A copy of a non-empty inverted file, which stays in memory in case a GPU fails.

        Raises:
            DeviceError: A GPU fails or is out of memory.
        """
        codes = Codes(index.metadata["codes"])

        def shares(count: int) -> list[Share]:
            parts = [_part_of(index.index, number, count) for number in range(count)]
            return [Share(part) for part in parts if part.ntotal]

        size = estimate_bytes(IndexKind.IVF, index.size, index.exact.dim, codes)
        copies = gpus.hold(key, shares, size)
        return cls(copies, index.exact, {**index.metadata, "gpus": len(gpus)}, index)

    @property
    def few(self) -> int:
        """Up to this many rows that a filter leaves are scored one by one."""
        return FEW_ROWS

    def nearest(self, queries: Vectors, k: int, allowed: Ids | None = None) -> Neighbors:
        """As `RescoredIndex.nearest`, on the CPU once a GPU has failed."""
        if not self.warning:
            try:
                return super().nearest(queries, k, allowed)
            except DeviceError as error:
                self.warning = f"The CPU is searched: {error.message}"
        return self._instead.nearest(queries, k, allowed)

    def _plan(self, wanted: int, share: float, growth: int) -> tuple[int, int] | None:
        effort = self._deeper(wanted, share, growth)
        fetch = wanted + FLAT_SPARE if self._kind is IndexKind.EXACT else wanted * SPARE[self._codes]
        fetch = math.ceil(fetch * growth / share)
        return None if fetch > MOST or effort > min(self._lists, MOST) else (fetch, math.ceil(effort))

    def _candidates(self, queries: Vectors, fetch: int, effort: int, held: Ids | None) -> tuple[Ids, Scores]:
        # fp16 ends at 65,504 and is coarse near zero. Scaling by a power of two, which is exact, brings any length
        # to between 0.5 and 1.
        powers = np.frexp(np.linalg.norm(queries, axis=1))[1]
        scaled = np.ldexp(queries, -powers[:, None])
        scores, ids = self._copies.search(scaled, fetch, effort)
        unseen = np.full(len(queries), -np.inf, np.float32)
        if self._kind is IndexKind.EXACT:
            more = ids[:, -1] != NO_ID
            last = np.ldexp(scores[:, -1].astype(np.float64) + self._error(scaled), powers)
            unseen[more] = np.nextafter(last.astype(np.float32), np.float32(np.inf))[more]
        if held is not None:
            place = np.minimum(np.searchsorted(held, ids), len(held) - 1)
            ids = np.where(held[place] == ids, ids, NO_ID)
        return ids, unseen

    def _error(self, queries: Vectors) -> Any:
        """The largest difference between a GPU's score and the true one, for each query: (n,) float64.

        In fp16, queries are rounded too: |q'.x' - q.x| <= (2u + u^2) |q| |x| for normal numbers, and the smallest
        ones add their absolute error. Products are summed in float32.
        """
        summed = rounding_error(queries).astype(np.float64)
        if self._codes is Codes.FLOAT32:
            return summed
        norms = np.linalg.norm(queries.astype(np.float64), axis=1)
        smallest = 2 * math.sqrt(queries.shape[1]) * SMALLEST_HALF
        return summed + 1.01 * ((2 * HALF + HALF**2) * norms + smallest)


def _flat(exact: ExactIndex, ids: Ids, codes: Codes) -> Any:
    """A flat index of some rows, on the CPU; its positions are those of `ids`."""
    metric = faiss.METRIC_INNER_PRODUCT
    if codes is Codes.FLOAT32:
        index = faiss.IndexFlat(exact.dim, metric)
    else:
        index = faiss.IndexScalarQuantizer(exact.dim, faiss.ScalarQuantizer.QT_fp16, metric)
    index.codes.resize(len(ids) * index.code_size)  # at once: growing would double it
    index.codes.resize(0)
    for start in range(0, len(ids), CHUNK):
        index.add(exact.vectors(ids[start : start + CHUNK]))
    return index


def _part_of(whole: Any, number: int, count: int) -> Any:
    """The rows of an inverted file whose ids are `number` modulo `count`, with all of its lists."""
    if count == 1:
        return whole
    lists, metric = whole.nlist, whole.metric_type
    if isinstance(whole, faiss.IndexIVFFlat):
        part = faiss.IndexIVFFlat(whole.quantizer, whole.d, lists, metric)
    else:
        part = faiss.IndexIVFScalarQuantizer(
            whole.quantizer, whole.d, lists, whole.sq.qtype, metric, whole.by_residual
        )  # fmt: skip
        part.sq = whole.sq
    part.is_trained = True
    whole.copy_subset_to(part, faiss.InvertedLists.SUBSET_TYPE_ID_MOD, count, number)
    return part
