"""Approximate search with FAISS. Only this module imports faiss.

An index file is a cache: it is built from segments and is valid only with exactly those segments.

What this module does not know: documents, where its file is stored, which vectors were added later.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.errors import CallError, CorruptionError, MissingExtraError, StoreError, UnderdrawingError
from indexer.types import JsonValue, Vectors
from indexer.vectors.exact import ExactIndex, rounding_error
from indexer.vectors.protocol import NO_ID, Ids, IndexKind, IndexSettings, Neighbors, Plan, Scores
from indexer.vectors.rescoring import EFFORT, FLAT_SPARE, SPARE, TUNE_K, RescoredIndex
from indexer.vectors.selection import HNSW_LINKS, Codes, ivf_lists
from indexer.vectors.tuning import DEPTH, TuningQueries, tune

# They all install the same folder `faiss`, so two of them overwrite each other's files.
DISTRIBUTIONS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu12", "faiss-gpu-cu11", "faiss-cuda")
INSTALL = "Run: pip install 'underdrawing[cpu]'\nor, with a CUDA device: pip install 'underdrawing[gpu]'"

ADD_ROWS = 1 << 16
TRAIN_ROWS_PER_LIST = 64  # FAISS needs at least 39 and uses at most 256
EF_CONSTRUCTION = 80
FLAT_MOST = 2048  # beyond this many neighbors, a flat index is no faster than exact search
EF_MOST = 4096  # if even this is not enough for a graph, the metadata shows its recall
FEW_ROWS = 1000
"""Rows up to which an inverted file reads all of its lists, so that its answers are exact."""
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
        UnderdrawingError: Two are installed, or it cannot be loaded.
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
    """What `underdrawing doctor` shows about FAISS."""
    return {
        "version": faiss.__version__,
        "packages": dict(installed()),
        "compile_options": faiss.get_compile_options().strip(),
        "gpus": faiss.get_num_gpus(),
    }


def scores_of_rows(queries: Vectors, vectors: Vectors, rows: Ids) -> Scores:
    """Inner products with some rows, (n, len(rows)) float32, read in place; NumPy would copy the rows first."""
    out = np.empty((len(queries), len(rows)), np.float32)
    rows = np.ascontiguousarray(rows)
    for query, scores in zip(queries, out, strict=True):
        pointers = (faiss.swig_ptr(each) for each in (scores, query, vectors, rows))
        faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], 1, len(rows))
    return out


class FaissIndex(RescoredIndex):
    """A FAISS index over the segments of a collection; a `VectorIndex`. Threads may search it together.

    Use `build` or `load`.

    Attributes:
        metadata: How it was made, as JSON: kind, codes, rows, dim, FAISS version, seed, lists or links, the
            chosen nprobe or ef_search, and the recall@10 measured with it. `load` takes it.
        index: The FAISS index, with int64 ids.

    Args:
        index: See above.
        exact: Exact search over the same vectors.
        metadata: See above.
    """

    def __init__(self, index: Any, exact: ExactIndex, metadata: Mapping[str, Any]) -> None:
        super().__init__(exact, metadata)
        self.index = index
        self.plan = _PLANS[self._kind]

    @classmethod
    def build(
        cls,
        kind: IndexKind,
        parts: Sequence[tuple[Vectors, Ids]],
        settings: IndexSettings,
        seed: int = 0,
        codes: Codes = Codes.FLOAT32,
        samples: Mapping[str, Vectors] | None = None,
        groups: Mapping[str, Ids] | None = None,
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> FaissIndex:
        """Build an index and tune it to the recall of the settings, for every kind of query; see `tuning.py`.

        IVF is the same for the same seed. HNSW is built by several threads and differs slightly each time.

        Args:
            kind: `exact`, `hnsw` or `ivf`; the settings' own kind is not read.
            parts: The segments, as `ExactIndex` takes them.
            settings: They name the recall to reach.
            seed: For the training sample, the clustering, the graph's levels and the tuning queries.
            codes: How IVF stores vectors.
            samples: Query vectors to tune by, of unit length, by kind, in addition to those made from the stored
                vectors.
            groups: Ids by modality; documents of each are held out.
            on_progress: Called with the step, the amount done, and the total.

        Raises:
            CallError: `kind` is `auto`, which is not an index.
            CorruptionError: The parts do not match each other.
        """
        if kind is IndexKind.AUTO:
            raise CallError("kind='auto' is a rule, not an index.", "Ask choose_kind which index it means.")
        exact = ExactIndex(parts)
        report = on_progress or (lambda what, done, total: None)
        rng = np.random.default_rng(seed)
        facts: dict[str, Any] = {"kind": kind.value, "codes": codes.value, "seed": seed}
        facts |= {"rows": exact.size, "dim": exact.dim, "faiss": faiss.__version__}
        if kind is IndexKind.HNSW:
            facts["links"] = HNSW_LINKS
        if kind is IndexKind.IVF:
            facts["lists"] = ivf_lists(exact.size)
        index = _trained(kind, codes, exact, seed, rng)
        tuned = kind is not IndexKind.EXACT and exact.size
        queries = TuningQueries(exact, rng, samples, groups) if tuned else None
        held_out = np.empty(0, np.int64) if queries is None else queries.held_out
        done = 0
        for vectors, ids in parts:
            for start in range(0, len(ids), ADD_ROWS):
                report("adding vectors", done, exact.size)
                chunk = slice(start, start + ADD_ROWS)
                kept = ~np.isin(ids[chunk], held_out)
                index.add_with_ids(np.ascontiguousarray(vectors[chunk][kept]), np.ascontiguousarray(ids[chunk][kept]))
                done += len(kept)
        report("tuning", exact.size, exact.size)
        facts |= {"recall_at_10": 1.0} if queries is None else _tuned(index, exact, facts, settings.recall, queries)
        if len(held_out):
            index.add_with_ids(exact.vectors(held_out), held_out)
        return cls(index, exact, facts)

    @classmethod
    def load(cls, path: Path, exact: ExactIndex, metadata: Mapping[str, Any]) -> FaissIndex:
        """Map a file that `save` wrote; the file must stay as long as the index.

        FAISS checks such files only in part, so a caller compares the file's checksum first.

        Raises:
            CorruptionError: The file cannot be read, or holds other vectors than `exact`.
        """
        rebuild = "Delete the file; Collection.build_index() or `underdrawing index` makes it again from the segments."
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise CorruptionError(f"FAISS cannot read the index file {path}: {error}", rebuild) from error
        if (index.ntotal, index.d) != (exact.size, exact.dim):
            raise CorruptionError(
                f"The index file {path} holds {index.ntotal} vectors of {index.d} dimensions, "
                f"the segments {exact.size} of {exact.dim}.",
                rebuild,
            )
        return cls(index, exact, metadata)

    def save(self, path: Path) -> None:
        """Write the index to `path`, not atomically or durably: pass a temporary name, then rename it.

        Raises:
            StoreError: The file cannot be written.
        """
        try:
            faiss.write_index(self.index, str(path))
        except RuntimeError as error:
            raise StoreError(f"The index file {path} cannot be written: {error}") from error

    def _plan(self, wanted: int, share: float, growth: int) -> tuple[int, int] | None:
        fetch, effort, most = float(wanted), self._deeper(wanted, share, growth), 0
        if self._kind is IndexKind.EXACT:
            fetch = (wanted + FLAT_SPARE) * growth
            if fetch > FLAT_MOST:
                return None
        elif self._kind is IndexKind.HNSW:
            effort = max(effort, wanted * growth / share)
            most = max(self._effort, self.size // 16)
        else:
            fetch = wanted * SPARE[self._codes]
            most = self._lists
        return None if effort > most else (math.ceil(fetch), math.ceil(effort))

    def _candidates(self, queries: Vectors, fetch: int, effort: int, held: Ids | None) -> tuple[Ids, Scores]:
        scores, ids = self.index.search(queries, fetch, params=self._parameters(effort, held))
        unseen = np.full(len(queries), -np.inf, np.float32)
        if self._kind is IndexKind.EXACT:
            more = ids[:, -1] != NO_ID
            unseen[more] = (scores[:, -1] + rounding_error(queries))[more]
        return ids, unseen

    def _parameters(self, effort: int, selected: Ids | None) -> Any:
        """Search parameters of one call: IndexIDMap swaps the selector inside them, so each call makes its own."""
        options = {} if selected is None else {"sel": _selector(selected)}
        if self._kind is IndexKind.HNSW:
            return faiss.SearchParametersHNSW(efSearch=effort, **options)
        if self._kind is IndexKind.IVF:
            return faiss.SearchParametersIVF(nprobe=effort, **options)
        return faiss.SearchParameters(**options) if options else None


def _trained(kind: IndexKind, codes: Codes, exact: ExactIndex, seed: int, rng: np.random.Generator) -> Any:
    """An empty FAISS index that takes `add_with_ids`, trained if its kind needs training."""
    metric = faiss.METRIC_INNER_PRODUCT  # the default of most kinds is L2
    dim = exact.dim
    if kind is IndexKind.IVF:
        lists = ivf_lists(exact.size)
        quantizer = faiss.IndexFlat(dim, metric)
        if codes is Codes.FLOAT32:
            index = faiss.IndexIVFFlat(quantizer, dim, lists, metric)
        else:
            stored = faiss.ScalarQuantizer.QT_8bit if codes is Codes.SQ8 else faiss.ScalarQuantizer.QT_fp16
            index = faiss.IndexIVFScalarQuantizer(quantizer, dim, lists, stored, metric)
        index.cp.seed = seed
        index.cp.min_points_per_centroid = 1  # no warning for tiny collections
        if exact.size:
            sample = rng.choice(exact.size, min(exact.size, TRAIN_ROWS_PER_LIST * lists), replace=False)
            index.train(exact.vectors(exact.all_ids()[np.sort(sample)]))
        return index  # IVF stores ids itself; IDMap would store them twice
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
    return faiss.IndexIDMap(index)  # IDMap2 would add a map from ids to positions, which nothing here uses


def _tuned(
    index: Any, exact: ExactIndex, facts: Mapping[str, Any], target: float, queries: TuningQueries
) -> dict[str, Any]:
    """The least effort that is enough for all kinds of queries, some answered exactly, and their recalls."""
    kind = IndexKind(facts["kind"])
    inverted = kind is IndexKind.IVF
    least, most = (1, facts["lists"]) if inverted else (TUNE_K, EF_MOST)
    if inverted and exact.size <= FEW_ROWS:
        least = most  # reading all lists is as fast as reading some
    # Above a quarter of the lists, or a sixteenth of a graph's rows, a scan of SQ8 codes is no slower.
    worth = max(facts["lists"] // 4, 1) if inverted else max(exact.size // 16, 64)

    def ask(effort: int) -> Neighbors:
        return FaissIndex(index, exact, {**facts, EFFORT[kind]: effort}).search(queries.vectors, DEPTH)

    found = tune(ask, queries, target, least, most, min(worth, most))
    return {EFFORT[kind]: found.effort, **found.facts()}


def _selector(ids: Ids) -> Any:
    """A FAISS selector of ascending ids: a bitmap where they are dense, a hash set where they are sparse."""
    top = int(ids[-1]) + 1
    if top > 64 * len(ids):
        return faiss.IDSelectorBatch(ids)
    chosen = np.zeros(top, np.bool_)
    chosen[ids] = True
    return faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
