"""Approximate search with FAISS, and exact search on a GPU: the one module that imports faiss.

FAISS proposes, `ExactIndex` disposes. What FAISS finds is scored again from the segments, so that scores are
those of exact search and ties go by id. Where FAISS cannot promise k neighbours (a selective filter, a large
k, a GPU, which ignores filters silently), the search is widened, and in the end replaced by an exact one.

An index file is a cache: made from the segments, and of use only beside the very same ones.

What this module does not know: documents, where its file lies, which vectors came after the index was built.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from indexer.errors import CallError, CorruptionError, MissingExtraError, StoreError, UnderdrawingError
from indexer.index.choose import EXACT_ROWS, HNSW_LINKS, Codes, ivf_lists
from indexer.index.exact import ExactIndex, checked_search, no_neighbours, rounding_error
from indexer.index.protocol import NO_ID, Device, Ids, IndexKind, IndexSettings, Neighbours, Plan, Scores
from indexer.index.tuning import DEPTH, TuningQueries
from indexer.types import JsonValue, Vectors

# They all install the same folder `faiss`: one of them works, two overwrite each other's files.
DISTRIBUTIONS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu12", "faiss-gpu-cu11", "faiss-cuda")
INSTALL = "Run: pip install 'underdrawing[cpu]'\nor, with a CUDA device: pip install 'underdrawing[gpu]'"

ADD_ROWS = 1 << 16
TRAIN_ROWS_PER_LIST = 64  # FAISS wants 39 at least, and uses no more than 256
EF_CONSTRUCTION = 80
EF_MOST = 4096  # where the graph is so broken that this is not enough, metadata tells of the recall
TUNE_K = 10  # neighbours that the tuned effort is for
FLAT_SPARE = 32  # neighbours fetched beyond k, to prove that float32 has not swapped any of the k
SQ8_SPARE = 4  # times k: 8-bit codes find the right neighbours, but in a rough order
GPU_MOST = 2048  # the largest k and nprobe of FAISS's own GPU kernels
GROWTH = 4
EFFORT = {IndexKind.IVF: "nprobe", IndexKind.HNSW: "ef_search"}
_PLANS = {IndexKind.EXACT: Plan.SCAN, IndexKind.HNSW: Plan.HNSW, IndexKind.IVF: Plan.IVF}


def installed() -> dict[str, str]:
    """The FAISS distributions of this environment and their versions."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def import_faiss() -> Any:
    """The module `faiss`.

    Raises:
        MissingExtraError: No FAISS is installed.
        UnderdrawingError: Two are, or the one that is cannot be loaded.
    """
    found = installed()
    names = " and ".join(f"{name} {version}" for name, version in found.items())
    if len(found) > 1:
        raise UnderdrawingError(
            f"{names} are both installed, and overwrite each other's files.",
            f"Run: pip uninstall -y {' '.join(found)}\nthen {INSTALL[0].lower()}{INSTALL[1:]}",
        )
    try:
        return importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        missing = MissingExtraError("faiss", "cpu", "This index")
        missing.remedy = INSTALL
        raise missing from error
    except ImportError as error:
        raise UnderdrawingError(f"{names or 'faiss'} cannot be loaded: {error}.", INSTALL) from error


faiss = import_faiss()


def describe() -> dict[str, JsonValue]:
    """What `underdrawing doctor` shows of FAISS."""
    return {
        "version": faiss.__version__,
        "packages": dict(installed()),
        "compile_options": faiss.get_compile_options().strip(),
        "gpus": faiss.get_num_gpus(),
    }


def scores_of_rows(queries: Vectors, vectors: Vectors, rows: Ids) -> Scores:
    """Inner products with some rows, (n, len(rows)) float32, read where they lie; NumPy would copy them first."""
    out = np.empty((len(queries), len(rows)), np.float32)
    rows = np.ascontiguousarray(rows)
    for query, scores in zip(queries, out, strict=True):
        pointers = (faiss.swig_ptr(each) for each in (scores, query, vectors, rows))
        faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], 1, len(rows))
    return out


class FaissIndex:
    """A FAISS index over the segments of a collection; a `VectorIndex`. Threads may search it together.

    Use `build` or `load`.

    Attributes:
        metadata: How it was made, as JSON: kind, codes, rows, dim, FAISS version, seed, lists or links, the
            chosen nprobe or ef_search, and the recall@10 measured with it. `load` wants it back.

    Args:
        index: A FAISS index with int64 ids, on the CPU.
        exact: Exact search over the same vectors.
        metadata: As above.
        device: Where to search; a GPU holds a copy of the index.
    """

    def __init__(self, index: Any, exact: ExactIndex, metadata: Mapping[str, Any], device: Device = Device.CPU) -> None:
        self.metadata = dict(metadata)
        self._exact = exact
        self._kind = IndexKind(metadata["kind"])
        self._codes = Codes(metadata["codes"])
        self._lists = int(metadata.get("lists", 0))
        self._effort = int(metadata.get(EFFORT.get(self._kind, ""), 0))
        self._on_gpu = device is Device.CUDA
        self._lock: AbstractContextManager[Any] = nullcontext()
        self._index = index
        if self._on_gpu:
            require_device(self._kind, device)
            # GPU indexes are not safe even for concurrent searches: they share the resources' memory.
            self._lock = threading.Lock()
            self._resources = faiss.StandardGpuResources()
            self._index = faiss.index_cpu_to_gpu(self._resources, 0, index)

    @classmethod
    def build(
        cls,
        kind: IndexKind,
        parts: Sequence[tuple[Vectors, Ids]],
        settings: IndexSettings,
        seed: int = 0,
        codes: Codes = Codes.FLOAT32,
    ) -> FaissIndex:
        """Build an index and tune it to the recall of the settings.

        IVF is the same for the same seed; HNSW is built by several threads, and differs a little each time.

        Args:
            kind: `exact`, `hnsw` or `ivf`; the settings' own kind is not read.
            parts: The segments, as `ExactIndex` takes them.
            settings: The recall to reach, and the device.
            seed: Of the training sample, the clustering, the graph's levels and the tuning queries.
            codes: How IVF stores vectors.

        Raises:
            CallError: A device or kind that cannot be had.
            CorruptionError: The parts do not fit each other.
        """
        require_device(kind, settings.device)
        exact = ExactIndex(parts)
        rng = np.random.default_rng(seed)
        facts: dict[str, Any] = {"kind": kind.value, "codes": codes.value, "seed": seed}
        facts |= {"rows": exact.size, "dim": exact.dim, "faiss": faiss.__version__}
        if kind is IndexKind.HNSW:
            facts["links"] = HNSW_LINKS
        if kind is IndexKind.IVF:
            facts["lists"] = ivf_lists(exact.size)
        index = _trained(kind, codes, exact, seed, rng)
        queries = TuningQueries(exact, rng) if kind is not IndexKind.EXACT and exact.size else None
        held_out = np.empty(0, np.int64) if queries is None else queries.held_out
        for vectors, ids in parts:
            for start in range(0, len(ids), ADD_ROWS):
                chunk = slice(start, start + ADD_ROWS)
                kept = ~np.isin(ids[chunk], held_out)
                index.add_with_ids(np.ascontiguousarray(vectors[chunk][kept]), np.ascontiguousarray(ids[chunk][kept]))
        facts |= {"recall_at_10": 1.0} if queries is None else _tuned(index, exact, facts, settings.recall, queries)
        if len(held_out):
            index.add_with_ids(exact.vectors(held_out), held_out)
        return cls(index, exact, facts, settings.device)

    @classmethod
    def load(
        cls, path: Path, exact: ExactIndex, metadata: Mapping[str, Any], device: Device = Device.CPU
    ) -> FaissIndex:
        """Open a file that `save` wrote. On the CPU it is memory-mapped: keep it until the index is gone.

        FAISS checks such files only in part, so a caller compares the file's checksum first.

        Raises:
            CorruptionError: The file cannot be read, or was made from other vectors than `exact` holds.
            CallError: A device that cannot be had.
        """
        require_device(IndexKind(metadata["kind"]), device)
        flags = 0 if device is Device.CUDA else faiss.IO_FLAG_MMAP_IFC
        rebuild = "Delete the file: it is made again from the segments."
        try:
            index = faiss.read_index(str(path), flags)
        except RuntimeError as error:
            raise CorruptionError(f"FAISS cannot read the index file {path}: {error}", rebuild) from error
        if (index.ntotal, index.d) != (exact.size, exact.dim):
            raise CorruptionError(
                f"The index file {path} holds {index.ntotal} vectors of {index.d} dimensions, "
                f"the segments {exact.size} of {exact.dim}.",
                rebuild,
            )
        return cls(index, exact, metadata, device)

    def save(self, path: Path) -> None:
        """Write the index to `path`, neither atomically nor durably: pass a temporary name, then rename it.

        Raises:
            StoreError: The file cannot be written.
        """
        index = faiss.index_gpu_to_cpu(self._index) if self._on_gpu else self._index
        try:
            faiss.write_index(index, str(path))
        except RuntimeError as error:
            raise StoreError(f"The index file {path} cannot be written: {error}") from error

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        return self._exact.size

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> Neighbours:
        """Near the k best of each query (kind `exact`: the k best), as `VectorIndex.search` promises.

        Args:
            queries: (n, dim) float32.
            k: At least 1; may exceed `size`.
            allowed: Ascending ids to choose from, or None for all. Ids that are not held are ignored.

        Raises:
            QueryError: k below 1, another dimension, or a value that is not finite.
            CallError: `allowed` does not ascend.
        """
        queries = checked_search(queries, k, self._exact, allowed)
        held = None if allowed is None else self._exact.held(allowed)
        eligible = self.size if held is None else len(held)
        if eligible == 0 or (held is not None and eligible <= EXACT_ROWS):
            return self._exact.search(queries, k, held)
        wanted = min(k, eligible)
        found, plans = no_neighbours(len(queries), k), set()
        todo, growth = np.arange(len(queries)), 1
        while len(todo):
            batch = queries[todo]
            plan = self._plan(wanted, eligible / self.size, growth)
            if plan is None:
                answer, complete = self._exact.search(batch, k, held), np.ones(len(todo), np.bool_)
                plans.add(answer.plan)
            else:
                candidates, unseen = self._propose(batch, *plan, held)
                answer = self._exact.rerank(batch, candidates, k)
                complete = answer.scores[:, wanted - 1] > unseen
                plans.add(_PLANS[self._kind].value)
            if growth == 1 and complete.all():  # at the first try, as nearly always
                return Neighbours(answer.ids, answer.scores, " and ".join(plans))
            found.ids[todo[complete]] = answer.ids[complete]
            found.scores[todo[complete]] = answer.scores[complete]
            todo = todo[~complete]
            growth *= GROWTH
        return Neighbours(found.ids, found.scores, " and ".join(sorted(plans)))

    def _plan(self, wanted: int, share: float, growth: int) -> tuple[int, int] | None:
        """How many neighbours to fetch and with which nprobe or efSearch; None where exact search is better.

        The tuned effort is for 10 neighbours out of all. It is divided by the share that a filter lets pass, so
        that as many eligible vectors are seen as without a filter, and grows with the square root of k. These
        are rules of thumb; where neighbours are still missing, the search is repeated with `growth`.
        """
        fetch, effort, most = float(wanted), 0.0, 0
        depth = max(wanted / TUNE_K, 1)
        if self._kind is IndexKind.EXACT:
            fetch = wanted + FLAT_SPARE
        elif self._kind is IndexKind.HNSW:
            effort = max(self._effort * math.sqrt(depth), wanted)
            most = max(self._effort, self.size // 16)
        else:
            fetch = wanted * (SQ8_SPARE if self._codes is Codes.SQ8 else 1)
            effort = self._effort * math.sqrt(depth)
            most = self._lists
        effort *= growth / share
        if self._on_gpu:
            fetch, most = fetch / share, min(most, GPU_MOST)
        if self._on_gpu or self._kind is IndexKind.EXACT:
            fetch *= growth
            if fetch > GPU_MOST:
                return None
        if effort > most:
            return None
        return math.ceil(fetch), math.ceil(effort)

    def _propose(self, queries: Vectors, fetch: int, effort: int, held: Ids | None) -> tuple[Ids, Scores]:
        """One FAISS search.

        Returns:
            The ids found, (n, fetch), -1 for none; and what the exact score of the last neighbour wanted must
            exceed for the answer to be complete, (n,): for approximate kinds, only that there is one.
        """
        selected = None if self._on_gpu else held
        with self._lock:
            scores, ids = self._index.search(queries, fetch, params=self._parameters(effort, selected))
        unseen = np.full(len(queries), -np.inf, np.float32)
        if self._kind is IndexKind.EXACT:
            more = ids[:, -1] != NO_ID
            unseen[more] = (scores[:, -1] + rounding_error(queries))[more]
        if held is not None and self._on_gpu:
            place = np.minimum(np.searchsorted(held, ids), len(held) - 1)
            ids = np.where(held[place] == ids, ids, NO_ID)
        return ids, unseen

    def _parameters(self, effort: int, selected: Ids | None) -> Any:
        """Search parameters of one call: IndexIDMap swaps the selector inside them, so none are shared."""
        options = {} if selected is None else {"sel": _selector(selected)}
        if self._kind is IndexKind.HNSW:
            return faiss.SearchParametersHNSW(efSearch=effort, **options)
        if self._kind is IndexKind.IVF:
            return faiss.SearchParametersIVF(nprobe=effort, **options)
        return faiss.SearchParameters(**options) if options else None


def require_device(kind: IndexKind, device: Device) -> None:
    """Refuse what FAISS cannot do here.

    Raises:
        CallError: `auto` is no index of its own; or `cuda` with HNSW, without a GPU build, or without a GPU.
    """
    if kind is IndexKind.AUTO:
        raise CallError("kind='auto' is a rule, not an index.", "Ask choose_kind which index it means.")
    if device is Device.CPU:
        return
    if kind is IndexKind.HNSW:
        raise CallError("FAISS has no GPU form of HNSW.", "Choose kind='exact' or 'ivf', or device='cpu'.")
    if not hasattr(faiss, "StandardGpuResources"):
        names = " ".join(installed()) or "faiss"
        raise CallError(
            f"device='cuda' needs a GPU build of FAISS; {names} {faiss.__version__} is for the CPU.",
            f"Run: pip uninstall -y {names}\nthen: pip install 'underdrawing[gpu]'",
        )
    if faiss.get_num_gpus() == 0:
        raise CallError("FAISS sees no CUDA device.", "Choose device='cpu', or see what nvidia-smi says.")


def _trained(kind: IndexKind, codes: Codes, exact: ExactIndex, seed: int, rng: np.random.Generator) -> Any:
    """An empty FAISS index that takes `add_with_ids`, trained where its kind needs training."""
    metric = faiss.METRIC_INNER_PRODUCT  # the default of most kinds is L2
    dim = exact.dim
    if kind is IndexKind.IVF:
        lists = ivf_lists(exact.size)
        quantizer = faiss.IndexFlat(dim, metric)
        if codes is Codes.SQ8:
            index = faiss.IndexIVFScalarQuantizer(quantizer, dim, lists, faiss.ScalarQuantizer.QT_8bit, metric)
        else:
            index = faiss.IndexIVFFlat(quantizer, dim, lists, metric)
        index.cp.seed = seed
        index.cp.min_points_per_centroid = 1  # a tiny collection is no reason to print a warning
        if exact.size:
            sample = rng.choice(exact.size, min(exact.size, TRAIN_ROWS_PER_LIST * lists), replace=False)
            index.train(exact.vectors(exact.all_ids()[np.sort(sample)]))
        return index  # IVF keeps ids itself; IDMap around it would keep them twice
    if kind is IndexKind.HNSW:
        index = faiss.IndexHNSWFlat(dim, HNSW_LINKS, metric)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        index.hnsw.rng = faiss.RandomGenerator(seed)
        flat = faiss.downcast_index(index.storage)
    else:
        index = flat = faiss.IndexFlat(dim, metric)
    # The vector doubles as it grows, so that memory peaks at three times the data; this reserves it at once.
    flat.codes.resize(exact.size * dim * 4)
    flat.codes.resize(0)
    return faiss.IndexIDMap(index)  # IDMap2 adds a map from ids to positions, for calls that are not made here


def _tuned(
    index: Any, exact: ExactIndex, facts: Mapping[str, Any], target: float, queries: TuningQueries
) -> dict[str, Any]:
    """The least effort at which recall@10 is sure to reach the target, or the most there is, and the recall with it."""
    kind = IndexKind(facts["kind"])
    effort, most = (1, facts["lists"]) if kind is IndexKind.IVF else (TUNE_K, EF_MOST)
    while True:
        tuned = {EFFORT[kind]: effort}
        recall = queries.recall(FaissIndex(index, exact, {**facts, **tuned}).search(queries.vectors, DEPTH))
        if recall.low >= target or recall.mean == 1 or effort == most:
            return tuned | {"recall_at_10": round(recall.mean, 4), "recall_at_10_low": round(recall.low, 4)}
        effort = min(math.ceil(effort * 1.2), most)


def _selector(ids: Ids) -> Any:
    """A FAISS selector of ascending ids: a bitmap where they are dense, a hash set where they are sparse."""
    top = int(ids[-1]) + 1
    if top > 64 * len(ids):
        return faiss.IDSelectorBatch(ids)
    chosen = np.zeros(top, np.bool_)
    chosen[ids] = True
    return faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
