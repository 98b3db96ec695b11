"""Building, storing, tuning and refusing a `FaissIndex`. Tests marked `differential` check its answers."""

import importlib
import json
import sys

import numpy as np
import pytest

from indexer.errors import CallError, CorruptionError, MissingExtraError, StoreError, UnderdrawingError
from indexer.vectors import faiss_index, rescoring
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_index import FaissIndex, describe, faiss
from indexer.vectors.protocol import IndexKind, IndexSettings
from indexer.vectors.selection import Codes, estimate_bytes
from indexer.vectors.unit import unit_rows

KINDS = [IndexKind.EXACT, IndexKind.HNSW, IndexKind.IVF]
ROWS, DIM = 2_000, 32
CPU = IndexSettings()


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((20, DIM))
    return unit_rows(centres[rng.integers(0, 20, ROWS)] + 0.5 * rng.standard_normal((ROWS, DIM)))


@pytest.fixture(scope="module")
def parts(vectors):
    ids = np.arange(ROWS) + 100
    return [(vectors[:700], ids[:700]), (vectors[700:], ids[700:])]


@pytest.fixture(scope="module")
def queries(vectors):
    rng = np.random.default_rng(4)
    return unit_rows(vectors[rng.integers(0, ROWS, 20)] + 0.05 * rng.standard_normal((20, DIM)))


@pytest.fixture(scope="module")
def built(parts):
    return {kind: FaissIndex.build(kind, parts, CPU) for kind in KINDS}


@pytest.fixture
def no_shortcut(monkeypatch):
    """Filters are few rows here, and would all be answered by exact search."""
    monkeypatch.setattr(rescoring, "EXACT_ROWS", 0)


@pytest.fixture
def exact_calls(monkeypatch):
    """How many queries each call of exact search was asked."""
    calls = []
    nearest = ExactIndex.nearest

    def counted(self, queries, k, allowed=None):
        calls.append(len(queries))
        return nearest(self, queries, k, allowed)

    monkeypatch.setattr(ExactIndex, "nearest", counted)
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_of_the_right_make_and_size(kind, built, tmp_path):
    built[kind].save(tmp_path / "index")
    index = faiss.read_index(str(tmp_path / "index"))
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    if kind is IndexKind.IVF:
        assert isinstance(index, faiss.IndexIVFFlat)
        assert index.quantizer.metric_type == faiss.METRIC_INNER_PRODUCT
    else:
        # Not IDMap2, whose reverse map is rebuilt at each load and costs more memory than the ids.
        assert isinstance(index, faiss.IndexIDMap)
        assert not isinstance(index, faiss.IndexIDMap2)
        inner = faiss.downcast_index(index.index)
        assert isinstance(inner, faiss.IndexHNSWFlat if kind is IndexKind.HNSW else faiss.IndexFlat)
        assert inner.metric_type == faiss.METRIC_INNER_PRODUCT
    estimate = estimate_bytes(kind, ROWS, DIM)
    assert (tmp_path / "index").stat().st_size == pytest.approx(estimate, rel=0.07)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_index_answers_as_the_one_saved(kind, built, parts, queries, tmp_path, no_shortcut):
    built[kind].save(tmp_path / "index")
    metadata = json.loads(json.dumps(built[kind].metadata))
    loaded = FaissIndex.load(tmp_path / "index", ExactIndex(parts), metadata)
    assert loaded.metadata == built[kind].metadata
    for allowed in (None, np.arange(100, 2_100, 3)):
        before, after = (index.search(queries, 12, allowed) for index in (built[kind], loaded))
        np.testing.assert_array_equal(before.ids, after.ids)
        np.testing.assert_array_equal(before.scores, after.scores)


def test_metadata_says_how_it_was_tuned(built):
    assert built[IndexKind.EXACT].metadata["recall_at_10"] == 1.0
    for kind, effort in ((IndexKind.HNSW, "ef_search"), (IndexKind.IVF, "nprobe")):
        metadata = built[kind].metadata
        assert metadata["recall_at_10"] >= 0.95
        assert metadata[effort] >= 1
        assert (metadata["rows"], metadata["dim"], metadata["seed"]) == (ROWS, DIM, 0)
        assert metadata["faiss"] == faiss.__version__


def test_more_recall_takes_more_probes(parts):
    probes = [
        FaissIndex.build(IndexKind.IVF, parts, IndexSettings(recall=recall)).metadata["nprobe"]
        for recall in (0.5, 0.9, 1.0)
    ]
    assert probes == sorted(set(probes))


def test_the_seed_settles_an_ivf_index(parts, tmp_path):
    def content(seed):
        FaissIndex.build(IndexKind.IVF, parts, CPU, seed).save(tmp_path / "index")
        return (tmp_path / "index").read_bytes()

    assert content(1) == content(1) != content(2)


def test_eight_bit_codes_are_scored_again_from_the_segments(parts, queries, tmp_path):
    index = FaissIndex.build(IndexKind.IVF, parts, CPU, codes=Codes.SQ8)
    index.save(tmp_path / "index")
    estimate = estimate_bytes(IndexKind.IVF, ROWS, DIM, Codes.SQ8)
    assert (tmp_path / "index").stat().st_size == pytest.approx(estimate, rel=0.1)
    assert index.metadata["recall_at_10"] >= 0.95
    found = index.search(queries, 10)
    for place in range(len(queries)):
        scores = ExactIndex(parts).scores(queries[place : place + 1], found.ids[place])[0]
        np.testing.assert_array_equal(found.scores[place], scores)


def test_eight_bits_may_muddle_the_nearest_but_not_lose_them():
    # Forty vectors closer together than the step of a code: codes order them at random.
    rng = np.random.default_rng(8)
    centre = unit_rows(rng.standard_normal((1, DIM)))
    near, far = centre + 0.003 * rng.standard_normal((60, DIM)), rng.standard_normal((1_960, DIM))
    vectors = unit_rows(np.vstack([near[:40], far]))
    parts = [(vectors, np.arange(ROWS))]
    index = FaissIndex.build(IndexKind.IVF, parts, IndexSettings(recall=1.0), codes=Codes.SQ8)
    queries = unit_rows(near[40:])
    np.testing.assert_array_equal(index.search(queries, 10).ids, ExactIndex(parts).search(queries, 10).ids)


def test_a_search_leaves_the_shared_index_as_it_was(built, queries, tmp_path, no_shortcut):
    for kind in KINDS:
        built[kind].save(tmp_path / "before")
        built[kind].search(queries, 150, np.arange(100, 2_100, 2))
        built[kind].save(tmp_path / "after")
        assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


def test_a_filter_that_leaves_few_is_answered_exactly(built, queries, exact_calls, monkeypatch):
    allowed = np.arange(100, 600)
    monkeypatch.setattr(rescoring, "EXACT_ROWS", 500)
    built[IndexKind.IVF].search(queries, 5, allowed)
    assert exact_calls == [20]
    monkeypatch.setattr(rescoring, "EXACT_ROWS", 499)
    built[IndexKind.IVF].search(queries, 5, allowed)
    assert exact_calls == [20]


def test_the_search_grows_for_those_queries_alone_that_lack_neighbors(
    built, parts, queries, tmp_path, no_shortcut, exact_calls, monkeypatch
):
    asked = []
    candidates = FaissIndex._candidates

    def noted(self, batch, fetch, effort, held):
        asked.append((len(batch), effort))
        return candidates(self, batch, fetch, effort, held)

    built[IndexKind.IVF].save(tmp_path / "index")
    narrow = built[IndexKind.IVF].metadata | {"nprobe": 1}
    index = FaissIndex.load(tmp_path / "index", ExactIndex(parts), narrow)
    near_the_first = np.sort(ExactIndex(parts).search(queries[:1], 500).ids[0])
    exact_calls.clear()
    monkeypatch.setattr(FaissIndex, "_candidates", noted)
    assert (index.search(queries, 10, near_the_first).ids >= 0).all()
    counts, efforts = zip(*asked, strict=True)
    assert list(efforts) == sorted(set(efforts))
    assert counts[0] == 20 > counts[1]
    assert sum(exact_calls) < counts[-1]


def test_more_neighbors_than_flat_can_prove_are_left_to_exact_search(queries, exact_calls):
    # 3,000 copies of one vector tie; FAISS may return any of them.
    vectors = np.repeat(unit_rows(np.ones((1, DIM))), 3_000, axis=0)
    index = FaissIndex.build(IndexKind.EXACT, [(vectors, np.arange(3_000))], CPU)
    np.testing.assert_array_equal(index.search(queries, 10).ids, np.tile(np.arange(10), (20, 1)))
    assert exact_calls == [20]


def test_ids_far_apart_are_filtered_too(vectors, queries, no_shortcut, exact_calls):
    ids = np.arange(ROWS) * 1_000_003
    index = FaissIndex.build(IndexKind.EXACT, [(vectors, ids)], CPU)
    found = index.search(queries, 10, ids[::7])
    assert exact_calls == []
    expected = ExactIndex([(vectors, ids)]).search(queries, 10, ids[::7])
    np.testing.assert_array_equal(found.ids, expected.ids)


def test_a_damaged_or_foreign_file_is_refused(built, parts, tmp_path):
    index = built[IndexKind.IVF]
    index.save(tmp_path / "index")
    content = (tmp_path / "index").read_bytes()
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    for name in ("half", "absent"):
        with pytest.raises(CorruptionError, match=rf"cannot read the index file .*{name}.* makes it again"):
            FaissIndex.load(tmp_path / name, ExactIndex(parts), index.metadata)
    with pytest.raises(CorruptionError, match=r"holds 2000 vectors of 32 dimensions, the segments 700 of 32\."):
        FaissIndex.load(tmp_path / "index", ExactIndex(parts[:1]), index.metadata)
    with pytest.raises(StoreError, match="cannot be written"):
        index.save(tmp_path / "no such folder" / "index")


def test_auto_is_not_an_index(parts):
    with pytest.raises(CallError, match="choose_kind"):
        FaissIndex.build(IndexKind.AUTO, parts, CPU)


def test_describe_is_json_for_the_doctor():
    described = json.loads(json.dumps(describe()))
    assert described["version"] == faiss.__version__
    assert set(described) == {"version", "packages", "compile_options", "gpus"}
    assert len(described["packages"]) == 1


def test_without_faiss_the_module_names_both_extras(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.delitem(sys.modules, "indexer.vectors.faiss_index")
    with pytest.raises(MissingExtraError, match=r"(?s)package faiss.*underdrawing\[cpu\].*underdrawing\[gpu\]"):
        importlib.import_module("indexer.vectors.faiss_index")


def test_two_distributions_of_faiss_are_refused_by_name(monkeypatch):
    both = {"faiss-cpu": "1.15.1", "faiss-gpu": "1.15.0"}
    monkeypatch.setattr(faiss_index, "installed", lambda: both)
    with pytest.raises(
        UnderdrawingError,
        match=r"(?s)faiss-cpu 1.15.1 and faiss-gpu 1.15.0 are both.*uninstall -y faiss-cpu faiss-gpu",
    ):
        faiss_index.import_faiss()


def test_a_faiss_that_cannot_be_loaded_says_why(monkeypatch):
    def broken(name):
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(faiss_index.importlib, "import_module", broken)
    with pytest.raises(UnderdrawingError, match="cannot be loaded: libcudart"):
        faiss_index.import_faiss()
