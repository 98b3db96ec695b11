"""`QuantizedIndex`: its bound holds and is used, and unproven answers are still exact."""

import os
import signal

import numpy as np
import pytest

from indexer.errors import CallError, CorruptionError, QueryError
from indexer.vectors import exact
from indexer.vectors import quantized as codes
from indexer.vectors.exact import ExactIndex
from indexer.vectors.protocol import Plan
from indexer.vectors.quantized import QuantizedIndex
from indexer.vectors.unit import unit_rows

ROWS, DIM = 4_000, 48


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def spread(rng, rows=ROWS, dim=DIM):
    return unit_rows(rng.standard_normal((rows, dim)))


def uneven(rng, rows=ROWS, dim=DIM):
    """As CLIP's vectors are: a few dimensions hold most of the length."""
    return unit_rows(rng.standard_normal((rows, dim)) * np.where(np.arange(dim) < 3, 40, 1) + (np.arange(dim) < 2) * 60)


def crowded(rng, rows=ROWS, dim=DIM):
    """All within less than a step of the codes: they cannot tell these apart."""
    return unit_rows(spread(rng, 1, dim) + 1e-4 * rng.standard_normal((rows, dim)))


def agree(index, vectors, queries, k, allowed=None):
    truth = ExactIndex([(vectors, np.arange(len(vectors)))]).search(queries, k, allowed)
    found = index.search(queries, k, allowed)
    np.testing.assert_array_equal(found.ids, truth.ids)
    np.testing.assert_array_equal(found.scores, truth.scores)
    return found.plan


@pytest.mark.parametrize("make", [spread, uneven, crowded])
def test_no_code_is_farther_from_its_vector_than_the_bound_says(make, rng):
    vectors = make(rng)
    index = QuantizedIndex.build([(vectors, np.arange(ROWS))])
    worst = 0.0
    for query in (*vectors[:20], *unit_rows(rng.standard_normal((20, DIM))), 7 * vectors[0]):
        scores, rows = index._scan((query * index._scale)[None], ROWS, None)
        far = np.abs(scores - vectors[rows].astype(np.float64) @ query.astype(np.float64)).max()
        assert far <= index.error(query)
        worst = max(worst, far / index.error(query))
    assert worst > 0.05  # a bound that is always met by far would make every search slow


@pytest.mark.parametrize("make", [spread, uneven, crowded])
def test_what_is_told_of_the_codes_is_what_they_lose_and_little_more(make, rng):
    vectors = make(rng)
    vectors[:, 7] = 0
    index = QuantizedIndex.build([(vectors, np.arange(ROWS))])
    told, levels = index.metadata, index._index.reconstruct_n(0, ROWS).astype(np.float64)
    scale = np.abs(vectors).max(axis=0)
    scale[7] = 1
    np.testing.assert_array_equal(np.array(told["scale"], np.float32), scale)
    truth = {
        "lost": vectors - levels * scale,
        "lost_scaled": vectors / scale.astype(np.float64) - levels,
        "longest": levels,
    }
    for name, rows in truth.items():
        most = np.linalg.norm(rows, axis=1).max()
        assert most <= told[name] <= most * (1 + 1e-4) + 1e-5, name
    rest = {name: told[name] for name in ("kind", "codes", "rows", "dim", "recall_at_10")}
    assert rest == {"kind": "exact", "codes": "sq8", "rows": ROWS, "dim": DIM, "recall_at_10": 1.0}


@pytest.mark.parametrize(("lost", "lost_scaled", "least"), [(0.01, 0.9, 0.05), (0.9, 0.02, 0.02 * 3.25**0.5)])
def test_the_bound_by_hand(lost, lost_scaled, least, rng):
    vectors = spread(rng, 50, 4)
    index = QuantizedIndex.build([(vectors, np.arange(50))])
    facts = {"scale": [0.5, 1.0, 1.0, 0.25], "lost": lost, "lost_scaled": lost_scaled, "longest": 3.0}
    index = QuantizedIndex(index._index, ExactIndex([(vectors, np.arange(50))]), facts)
    # The query's length is 5, and that of (1.5, 0, 0, 1), its product with the scale, the root of 3.25.
    rounded = (4 + 16) * 3 * 3.25**0.5 + 8 * 2 * 3.25**0.5 + 4 * 5
    found = index.error(np.array([3, 0, 0, 4], np.float32))
    assert found == pytest.approx(least * (1 + 1e-9) + 1.01 * 2.0**-24 * rounded, rel=1e-10, abs=0)


@pytest.mark.parametrize("make", [spread, uneven])
@pytest.mark.parametrize("k", [1, 10, 60])
def test_codes_are_enough_and_the_answer_is_exact(make, k, rng):
    vectors = make(rng)
    index = QuantizedIndex.build([(vectors, np.arange(ROWS))])
    queries = unit_rows(vectors[:6] + 0.05 * rng.standard_normal((6, DIM)))
    for query in queries:
        assert agree(index, vectors, query[None], k) == Plan.CODES.value
    assert agree(index, vectors, queries, k, np.arange(0, ROWS, 2)) == Plan.CODES.value


def test_where_codes_tell_nothing_apart_every_row_is_scored(rng, monkeypatch):
    monkeypatch.setattr(codes, "MOST", 2_000)
    vectors = crowded(rng)
    index = QuantizedIndex.build([(vectors, np.arange(ROWS))])
    assert agree(index, vectors, vectors[:2], 10) == Plan.SCAN.value
    assert agree(index, vectors, vectors[:2], 10, np.arange(1, ROWS, 2)) == Plan.SCAN.value


def test_the_last_of_the_k_must_be_out_of_reach_of_all_rows_that_were_not_seen(rng, monkeypatch):
    monkeypatch.setattr(codes, "MOST", codes.LOOKED_AT)  # no second, deeper look
    vectors = spread(rng)
    index = QuantizedIndex.build([(vectors, np.arange(ROWS))])
    scores, _ = index._scan((vectors[0] * index._scale)[None], codes.LOOKED_AT, None)
    _, ninth, tenth = index.search(vectors[:1], 10).scores[0, -3:] - scores.min()
    monkeypatch.setattr(index, "error", lambda query: (ninth + tenth) / 2)
    assert agree(index, vectors, vectors[:1], 10) == Plan.SCAN.value
    monkeypatch.setattr(index, "error", lambda query: tenth - 1e-4)
    assert agree(index, vectors, vectors[:1], 10) == Plan.CODES.value


@pytest.mark.parametrize("gaps", [False, True])
def test_a_filter_s_ids_become_rows_up_to_both_ends(gaps, rng):
    ids = np.arange(ROWS) * (3 if gaps else 1) + 17
    index = QuantizedIndex.build([(spread(rng), ids)])
    allowed = np.array([0, 16, 17, ids[1], ids[-2], ids[-1], ids[-1] + 1, 10**6])
    np.testing.assert_array_equal(index._places(allowed), [0, 1, ROWS - 2, ROWS - 1])


@pytest.mark.parametrize(
    ("total", "parts", "expected"),
    [(10, 4, [(0, 2), (2, 5), (5, 7), (7, 10)]), (10, 1, [(0, 10)]), (2, 3, [(0, 0), (0, 1), (1, 2)])],
)
def test_threads_share_the_rows_without_overlap(total, parts, expected):
    assert codes._ranges(total, parts) == expected


def test_a_filter_of_which_few_are_held(rng):
    vectors = spread(rng)
    index = QuantizedIndex.build([(vectors, np.arange(ROWS))])
    agree(index, vectors, vectors[:2], 5, np.union1d(np.arange(0, ROWS, 40), np.arange(10_000, 13_000)))


def test_copies_tie_by_id_whatever_the_number_looked_at(rng, monkeypatch):
    monkeypatch.setattr(codes, "LOOKED_AT", 4)
    monkeypatch.setattr(codes, "LOOKED_AT_PER_K", 1)
    vectors = spread(rng, 20)[rng.integers(0, 20, 2_000)]
    index = QuantizedIndex.build([(vectors, np.arange(2_000))])
    for k in (1, 5, 130):
        agree(index, vectors, vectors[:4], k)


def test_few_matches_are_fetched_and_large_batches_are_a_matrix_product(rng, monkeypatch):
    vectors = spread(rng)
    index = QuantizedIndex.build([(vectors, np.arange(ROWS))])
    monkeypatch.setattr(index, "_scan", None)  # anything that asks for the codes fails
    assert agree(index, vectors, vectors[:1], 3, np.arange(70)) == Plan.PICK.value
    assert agree(index, vectors, vectors[: codes.FEW_QUERIES + 1], 3) == Plan.SCAN.value
    assert agree(index, vectors, vectors[:1], ROWS) == Plan.SCAN.value


@pytest.mark.parametrize("gaps", [False, True])
def test_ids_are_not_rows(gaps, rng):
    vectors = spread(rng)
    ids = np.arange(ROWS) * (3 if gaps else 1) + 17
    index = QuantizedIndex.build([(vectors[2_000:], ids[2_000:]), (vectors[:2_000], ids[:2_000])])
    truth = ExactIndex([(vectors, ids)])
    allowed = np.union1d(ids[::3], [0, 16, 18, 10**6])
    for query in vectors[5:8]:
        for some in (None, allowed):
            found, expected = index.search(query[None], 9, some), truth.search(query[None], 9, some)
            assert found.plan == Plan.CODES.value
            np.testing.assert_array_equal(found.ids, expected.ids)


@pytest.mark.parametrize("gaps", [False, True])
def test_rows_that_faiss_scores_where_they_lie_are_those_of_the_ids(gaps, rng, monkeypatch):
    monkeypatch.setattr(exact, "GATHER_BYTES", 1)
    vectors = spread(rng)
    ids = np.arange(ROWS) * 3 if gaps else np.arange(ROWS) + 7
    parts = [(vectors[at : at + 500], ids[at : at + 500]) for at in range(0, ROWS, 500)]
    index, plain = QuantizedIndex.build(parts), ExactIndex(parts)
    index.sparse = 1
    for count in (1, 300, 900):
        allowed = np.union1d(rng.choice(ids, count, replace=False), [1, 5, 10**6])
        queries = unit_rows(rng.standard_normal((2, DIM)))
        for few in (queries[:1], queries):
            found, truth = index.search(few, 10, allowed), plain.search(few, 10, allowed)
            np.testing.assert_array_equal(found.ids, truth.ids)
            np.testing.assert_array_equal(found.scores, truth.scores)
            assert found.plan == Plan.PICK.value


def test_dimensions_that_are_zero_everywhere(rng):
    vectors = spread(rng)
    vectors[:, 5:20] = 0
    vectors = unit_rows(vectors)
    index = QuantizedIndex.build([(vectors, np.arange(ROWS))])
    query = unit_rows(rng.standard_normal((1, DIM)))
    assert agree(index, vectors, query, 5) == Plan.CODES.value
    agree(index, vectors, np.zeros((1, DIM), np.float32), 5)


def test_other_vectors_and_calls_are_refused(rng, tmp_path):
    vectors = spread(rng)
    index = QuantizedIndex.build([(vectors, np.arange(ROWS))])
    index.save(tmp_path / "codes")
    with pytest.raises(CorruptionError, match="holds SQ8 codes of 4000 vectors"):
        QuantizedIndex.load(tmp_path / "codes", ExactIndex([(vectors[1:], np.arange(ROWS - 1))]), index.metadata)
    with pytest.raises(QueryError, match="k is 0"):
        index.search(vectors[:1], 0)
    with pytest.raises(CallError, match="must be in ascending order"):
        index.search(vectors[:1], 3, np.arange(ROWS)[::-1])
    (tmp_path / "codes").write_bytes(b"none")
    with pytest.raises(CorruptionError, match="cannot read"):
        QuantizedIndex.load(tmp_path / "codes", ExactIndex([(vectors, np.arange(ROWS))]), index.metadata)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are of POSIX systems")
def test_a_forked_child_searches_with_threads_of_its_own(rng):
    vectors = spread(rng)
    index = QuantizedIndex.build([(vectors, np.arange(ROWS))])
    index.search(vectors[:1], 5, None)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(20)  # a hang would be one for good
            code = int(index.search(vectors[1:2], 5, None).ids[0, 0] != 1)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
