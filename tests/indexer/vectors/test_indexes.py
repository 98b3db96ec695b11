"""Every `VectorIndex` against one naive ground truth: ids, values, ties.

Exact kinds must give the truth itself. Approximate ones must give only eligible ids, each with its true
score, in order, and as many as exist; and they must find 95 % of the nearest.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cpu_gpus import CpuGpu

from indexer.vectors import faiss_gpu as gpu_index
from indexer.vectors import quantized as codes
from indexer.vectors import rescoring
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_gpu import GpuIndex
from indexer.vectors.faiss_index import FaissIndex
from indexer.vectors.gpus import CopyKey, Gpus
from indexer.vectors.protocol import IndexKind, IndexSettings
from indexer.vectors.quantized import QuantizedIndex
from indexer.vectors.selection import Codes
from indexer.vectors.unit import unit_rows

pytestmark = pytest.mark.differential

ROWS, DIM, QUERIES = 5_000, 32, 40
KEY = CopyKey((), ())


def two_gpus():
    return Gpus([CpuGpu(0), CpuGpu(1)])


def on_gpus(parts, codes):
    exact = ExactIndex(parts)
    return GpuIndex.flat(two_gpus(), KEY, exact, codes) if exact.size else exact


def inverted_on_gpus(parts):
    built = FaissIndex.build(IndexKind.IVF, parts, IndexSettings(), codes=Codes.FP16)
    return GpuIndex.inverted(two_gpus(), KEY, built) if built.size else built


SHARES = [0.5, 0.1, 0.01, 0.001]
MAKERS = {
    "exact": lambda parts: ExactIndex(parts),
    "codes": lambda parts: QuantizedIndex.build(parts),
    "faiss-exact": lambda parts: FaissIndex.build(IndexKind.EXACT, parts, IndexSettings()),
    "hnsw": lambda parts: FaissIndex.build(IndexKind.HNSW, parts, IndexSettings()),
    "ivf": lambda parts: FaissIndex.build(IndexKind.IVF, parts, IndexSettings()),
    "ivf-sq8": lambda parts: FaissIndex.build(IndexKind.IVF, parts, IndexSettings(), codes=Codes.SQ8),
    "gpus": lambda parts: on_gpus(parts, Codes.FLOAT32),
    "gpus-fp16": lambda parts: on_gpus(parts, Codes.FP16),
    "gpus-ivf": lambda parts: inverted_on_gpus(parts),
}
EXACT = {"exact", "codes", "faiss-exact", "gpus", "gpus-fp16"}
LOADERS = {"codes": QuantizedIndex.load}


@pytest.fixture(scope="module")
def data():
    """Clustered unit vectors, every twentieth a copy of another; ids with gaps, in parts that interleave."""
    rng = np.random.default_rng(11)
    centres = rng.standard_normal((50, DIM))
    vectors = unit_rows(centres[rng.integers(0, 50, ROWS)] + 0.4 * rng.standard_normal((ROWS, DIM)))
    vectors[::20] = vectors[rng.integers(0, ROWS, ROWS // 20)]
    queries = unit_rows(vectors[rng.integers(0, ROWS, QUERIES)] + 0.05 * rng.standard_normal((QUERIES, DIM)))
    queries[:5] = vectors[:100:20]
    ids = np.sort(rng.choice(3 * ROWS, ROWS, replace=False))
    owner = np.sort(rng.integers(0, 3, ROWS))
    owner[::9] = 3
    parts = [(vectors[owner == part], ids[owner == part]) for part in (3, 1, 0, 2)]
    return vectors, ids, parts, queries


@pytest.fixture(scope="module")
def indexes(data):
    return {name: make(data[2]) for name, make in MAKERS.items()}


@pytest.fixture(autouse=True)
def no_shortcut(monkeypatch):
    """At this size every filter and batch would be answered by exact search, and FAISS never asked."""
    monkeypatch.setattr(rescoring, "EXACT_ROWS", 0)
    monkeypatch.setattr(gpu_index, "FEW_ROWS", 0)
    monkeypatch.setattr(codes, "SPARSE", 0)
    monkeypatch.setattr(codes, "FEW_QUERIES", QUERIES)
    monkeypatch.setattr(codes, "LOOKED_AT", 16)


def naive(data, k, allowed=None, queries=None):
    vectors, ids, _, own = data
    scores = ((own if queries is None else queries).astype(np.float64) @ vectors.astype(np.float64).T).astype(
        np.float32
    )
    eligible = np.ones(len(ids), bool) if allowed is None else np.isin(ids, allowed)
    found = np.full((len(scores), k), -1), np.full((len(scores), k), -np.inf, np.float32)
    for row, line in enumerate(scores):
        best = np.lexsort((ids[eligible], -line[eligible]))[:k]
        found[0][row, : len(best)] = ids[eligible][best]
        found[1][row, : len(best)] = line[eligible][best]
    return found


def check(name, index, data, k, allowed=None):
    """The answer to all queries, checked; returns its recall, by score since equal vectors are as good."""
    _, ids, _, queries = data
    found = index.search(queries, k, allowed)
    true_ids, true_scores = naive(data, k, allowed)
    assert (found.ids.dtype, found.scores.dtype) == (np.int64, np.float32)
    if name in EXACT:
        np.testing.assert_array_equal(found.ids, true_ids)
        np.testing.assert_array_equal(found.scores, true_scores)
        return 1.0
    present = true_ids >= 0
    np.testing.assert_array_equal(found.ids >= 0, present)
    assert np.isneginf(found.scores[~present]).all()
    assert np.isin(found.ids[present], ids if allowed is None else allowed).all()
    everything = naive(data, len(ids))
    for row in range(len(queries)):
        mine, scores = found.ids[row][present[row]], found.scores[row][present[row]]
        assert len(set(mine)) == len(mine)
        value = dict(zip(everything[0][row], everything[1][row], strict=True))
        np.testing.assert_array_equal(scores, [value[i] for i in mine])
        np.testing.assert_array_equal(mine, mine[np.lexsort((mine, -scores))])
    last = np.where(present, true_scores, np.inf).min(axis=1, keepdims=True)
    return float((found.scores >= last)[present].mean()) if present.any() else 1.0


@pytest.mark.parametrize("name", MAKERS)
def test_without_a_filter(name, indexes, data):
    for k in (1, 10, 100):
        assert check(name, indexes[name], data, k) >= 0.95


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", MAKERS)
def test_with_a_filter(name, share, indexes, data):
    ids = data[1]
    chosen = np.random.default_rng(5).choice(ids, int(share * ROWS), replace=False)
    strangers = np.setdiff1d(np.arange(0, 4 * ROWS, 50), ids)
    for k in (1, 10):
        assert check(name, indexes[name], data, k, np.union1d(chosen, strangers)) >= 0.95


@pytest.mark.parametrize("name", MAKERS)
def test_a_filter_that_leaves_a_corner_of_the_space(name, indexes, data):
    # The vectors farthest from the first query: where a graph or the nearest lists never look.
    far = np.sort(naive(data, ROWS)[0][0, -300:])
    check(name, indexes[name], data, 10, far)


@pytest.mark.parametrize("name", MAKERS)
def test_more_asked_for_than_there_is(name, indexes, data):
    check(name, indexes[name], data, ROWS + 3)
    check(name, indexes[name], data, 30, data[1][:20])
    check(name, indexes[name], data, 3, np.empty(0, np.int64))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("rows", [0, 1, 3, 40])
def test_tiny_indexes(name, rows, data):
    vectors, ids, _, queries = data
    small = (vectors[:rows], ids[:rows], [(vectors[:rows], ids[:rows])], queries)
    index = MAKERS[name](small[2])
    assert index.size == rows
    for k in (1, 5):
        assert check(name, index, small, k) >= 0.95


@pytest.mark.parametrize("name", MAKERS)
def test_threads_with_filters_of_their_own_do_not_disturb_each_other(name, indexes, data):
    _, ids, _, queries = data
    filters = [None, ids[::2], ids[1::3], ids[: ROWS // 2], ids[::10], ids[5::11], ids[-800:], ids[::97]]

    def ask(place):
        found = indexes[name].search(queries[place % QUERIES :], 10, filters[place % len(filters)])
        return found.ids, found.scores

    places = range(32)
    alone = [ask(place) for place in places]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ask, places))
    for (ids_alone, scores_alone), (ids_together, scores_together) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(ids_alone, ids_together)
        np.testing.assert_array_equal(scores_alone, scores_together)


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "exact" and not name.startswith("gpus")])
def test_saved_and_loaded(name, indexes, data, tmp_path):
    index = indexes[name]
    index.save(tmp_path / "index")
    told = json.loads(json.dumps(index.metadata))
    loaded = LOADERS.get(name, FaissIndex.load)(tmp_path / "index", ExactIndex(data[2]), told)
    for k, allowed in ((10, None), (10, data[1][::4]), (1, data[1][::500])):
        before, after = (each.search(data[3], k, allowed) for each in (index, loaded))
        np.testing.assert_array_equal(before.ids, after.ids)
        np.testing.assert_array_equal(before.scores, after.scores)
        assert check(name, loaded, data, k, allowed) >= 0.95
