"""`ExactIndex` against naive float64, ties included. Tiny blocks make small data span several."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import CallError, CorruptionError, QueryError
from indexer.vectors import exact
from indexer.vectors.exact import ExactIndex
from indexer.vectors.unit import unit_rows


def truth(vectors, ids, queries, k, allowed=None):
    """The naive answer: score everything in float64, sort everything by (-score, id)."""
    scores = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    chosen = np.flatnonzero(np.isin(ids, ids if allowed is None else allowed))
    out_ids = np.full((len(queries), k), -1)
    out_scores = np.full((len(queries), k), -np.inf, np.float32)
    for row, line in enumerate(scores):
        best = chosen[np.lexsort((ids[chosen], -line[chosen]))][:k]
        out_ids[row, : len(best)] = ids[best]
        out_scores[row, : len(best)] = line[best]
    return out_ids, out_scores


def agree(found, expected):
    np.testing.assert_array_equal(found.ids, expected[0])
    np.testing.assert_array_equal(found.scores, expected[1])
    assert found.ids.dtype == np.int64
    assert found.scores.dtype == np.float32


def unit(rng, n, dim):
    return unit_rows(rng.standard_normal((n, dim)))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def tiny_blocks(monkeypatch):
    monkeypatch.setattr(exact, "SCORES_PER_BLOCK", 300)
    monkeypatch.setattr(exact, "QUERIES_PER_BLOCK", 3)
    monkeypatch.setattr(exact, "GATHER_BYTES", 640)


@pytest.fixture
def messy(rng):
    """Vectors, ids and parts: gaps, interleaved id ranges, parts out of order, one of them empty."""
    vectors = unit(rng, 500, 16)
    ids = np.sort(rng.choice(np.arange(3, 2_000), 500, replace=False))
    owner = rng.integers(0, 3, 500)
    parts = [(vectors[owner == p], ids[owner == p]) for p in (2, 0, 1)]
    parts.insert(1, (vectors[:0], ids[:0]))
    return vectors, ids, parts


@pytest.mark.parametrize("k", [1, 7, 100, 499, 500, 700])
def test_several_messy_parts_answer_as_one(messy, rng, tiny_blocks, k):
    vectors, ids, parts = messy
    queries = unit(rng, 8, 16)
    agree(ExactIndex(parts).search(queries, k), truth(vectors, ids, queries, k))


@pytest.mark.parametrize("count", [0, 1, 5, 50, 250, 499, 500])
def test_a_filter_chooses_among_the_held_only(messy, rng, tiny_blocks, count):
    vectors, ids, parts = messy
    queries = unit(rng, 4, 16)
    strangers = np.setdiff1d(np.arange(0, 3_000, 7), ids)
    allowed = np.union1d(rng.choice(ids, count, replace=False), strangers)
    agree(ExactIndex(parts).search(queries, 10, allowed), truth(vectors, ids, queries, 10, allowed))
    np.testing.assert_array_equal(ExactIndex(parts).held(allowed), np.intersect1d(allowed, ids))


@pytest.mark.parametrize("few", [1, 5, 10_000])
@pytest.mark.parametrize("parts", [1, 30])
def test_few_rows_and_many_parts_are_short_cuts_to_the_same(few, parts, rng, monkeypatch):
    monkeypatch.setattr(exact, "FEW_PAIRS", few)
    vectors, ids = unit(rng, 600, 16)[rng.integers(0, 60, 600)], np.arange(600) * 2 + 7
    edges = np.linspace(0, 600, parts + 1).astype(int)
    index = ExactIndex([(vectors[a:b], ids[a:b]) for a, b in zip(edges, edges[1:], strict=False)])
    queries = unit(rng, 2, 16)
    for count in (0, 1, 9, 200, 600):
        allowed = np.union1d(rng.choice(ids, count, replace=False), [0, 8, 5_000])
        agree(index.search(queries, 10, allowed), truth(vectors, ids, queries, 10, allowed))
    some = rng.permutation(ids)[:50]
    np.testing.assert_array_equal(index.vectors(some), vectors[(some - 7) // 2])


@pytest.mark.parametrize("more", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 3])
def test_k_of_hardly_more(more, n, rng):
    vectors, ids = unit(rng, 400, 16), np.arange(400)
    queries = unit(rng, n, 16)
    for k in range(20, 300, 20):
        allowed = np.sort(rng.choice(ids, k + more, replace=False))
        agree(ExactIndex([(vectors, ids)]).search(queries, k, allowed), truth(vectors, ids, queries, k, allowed))


def test_another_function_scores_the_rows_that_a_filter_picks_for_one_query(rng, monkeypatch):
    monkeypatch.setattr(exact, "GATHER_BYTES", 1)
    vectors, ids, asked = unit(rng, 50, 16), np.arange(50) * 2 + 7, []

    def scorer(queries, held, rows):
        asked.append(rows.tolist())
        return queries @ held[rows].T

    plain = ExactIndex([(vectors, ids)])
    index = plain.picking_by(scorer)
    agree(index.search(vectors[:1], 2, ids[3:40:9]), truth(vectors, ids, vectors[:1], 2, ids[3:40:9]))
    assert asked == [[3, 12, 21, 30, 39]]
    index.search(vectors[:2], 2, ids[:9])
    plain.search(vectors[:1], 2, ids[:9])
    assert len(asked) == 1


def test_equal_vectors_tie_and_the_smallest_ids_win(rng, tiny_blocks):
    # 40 distinct vectors, 25 copies each, scattered: each k-th place below falls among copies.
    vectors = unit(rng, 40, 16)[rng.permutation(np.arange(1_000) % 40)]
    ids = np.arange(1_000) + 5
    index = ExactIndex([(vectors[400:], ids[400:]), (vectors[:400], ids[:400])])
    queries = unit(rng, 5, 16)
    for k in (1, 10, 30, 60):
        agree(index.search(queries, k), truth(vectors, ids, queries, k))


def test_what_float32_cannot_tell_apart_is_ordered_right(rng):
    # Scores that differ by less than the rounding of a float32 sum of 512 terms: BLAS orders these at random.
    centre = unit(rng, 1, 512)
    vectors = unit_rows(centre + 1e-6 * rng.standard_normal((3_000, 512)))
    agree(
        ExactIndex([(vectors, np.arange(3_000))]).search(centre, 10),
        truth(vectors, np.arange(3_000), centre, 10),
    )


def test_a_zero_query_ties_everything(messy):
    _, ids, parts = messy
    found = ExactIndex(parts).search(np.zeros((1, 16), np.float32), 20)
    np.testing.assert_array_equal(found.ids[0], ids[:20])
    assert not found.scores.any()


def test_a_score_depends_on_the_two_vectors_alone(rng):
    vectors, ids = unit(rng, 4_001, 100), np.arange(4_001)
    queries = unit(rng, 33, 100)
    index = ExactIndex([(vectors, ids)])
    batch = index.search(queries, 9)
    for place, query in enumerate(queries):
        alone = index.search(query[None], 9)
        few = index.search(query[None], 9, np.sort(batch.ids[place]))
        for other in (alone, few):
            np.testing.assert_array_equal(other.ids[0], batch.ids[place])
            np.testing.assert_array_equal(other.scores[0], batch.scores[place])
        np.testing.assert_array_equal(index.scores(query[None], batch.ids[place])[0], batch.scores[place])
    again = index.rerank(queries, batch.ids[:, ::-1], 9)
    np.testing.assert_array_equal(again.ids, batch.ids)
    np.testing.assert_array_equal(again.scores, batch.scores)


def test_rerank_takes_each_query_s_own_candidates_and_pads(messy, rng):
    vectors, ids, parts = messy
    queries = unit(rng, 2, 16)
    found = ExactIndex(parts).rerank(queries, np.array([[ids[4], -1, ids[2]], [-1, ids[9], -1]]), 4)
    for place, own in enumerate((ids[[2, 4]], ids[[9]])):
        expected = truth(vectors, ids, queries[place : place + 1], 4, own)
        np.testing.assert_array_equal(found.ids[place], expected[0][0])
        np.testing.assert_array_equal(found.scores[place], expected[1][0])


def test_scan_gives_every_row_in_the_order_of_ids(messy, rng, tiny_blocks):
    vectors, ids, parts = messy
    queries = unit(rng, 3, 16)
    found, scores = ExactIndex(parts).scan(queries)
    np.testing.assert_array_equal(found, ids)
    np.testing.assert_allclose(scores, queries @ vectors.T, atol=1e-6)
    np.testing.assert_array_equal(ExactIndex(parts).all_ids(), ids)


def test_vectors_come_in_the_order_asked_for(messy, rng):
    vectors, ids, parts = messy
    rows = rng.permutation(500)[:60]
    np.testing.assert_array_equal(ExactIndex(parts).vectors(ids[rows]), vectors[rows])


@pytest.mark.parametrize("ask", ["vectors", "scores", "rerank"])
def test_an_unknown_id_is_named(messy, ask):
    _, ids, parts = messy
    index = ExactIndex(parts)
    asked = np.array([ids[0], 5_000, ids[1], 7_000])
    query = np.zeros((1, 16), np.float32)
    calls = {
        "vectors": lambda: index.vectors(asked),
        "scores": lambda: index.scores(query, asked),
        "rerank": lambda: index.rerank(query, asked[None], 2),
    }
    with pytest.raises(CorruptionError, match=r"5000, 7000 \(2 of 4 asked for\)\. .*underdrawing check"):
        calls[ask]()


@pytest.mark.parametrize("parts", [[], [(np.empty((0, 16), np.float32), np.empty(0, np.int64))]])
def test_an_empty_index_answers_with_padding(parts):
    index = ExactIndex(parts)
    query = np.ones((2, 16), np.float32)
    assert index.size == 0
    for found in (index.search(query, 3), index.search(query, 3, np.array([1, 2]))):
        agree(found, (np.full((2, 3), -1), np.full((2, 3), -np.inf)))
    assert index.scan(query)[1].shape == (2, 0)
    assert len(index.all_ids()) == len(index.held(np.array([4]))) == 0


def test_no_queries_give_no_rows(messy):
    assert ExactIndex(messy[2]).search(np.empty((0, 16), np.float32), 5).ids.shape == (0, 5)


@pytest.mark.parametrize(
    ("vectors", "ids", "message"),
    [
        (np.zeros((2, 4), np.float64), np.arange(2), "float64 with int64 ids"),
        (np.zeros((2, 4), np.float32), np.arange(2, dtype=np.int32), "float32 with int32 ids"),
        (np.zeros((2, 4), np.float32), np.arange(3), r"\(2, 4\), not \(3, 4\)"),
        (np.zeros((2, 5), np.float32), np.arange(2), r"\(2, 5\), not \(2, 4\)"),
        (np.zeros((2, 4), np.float32), np.array([3, 3]), "are not in ascending order"),
    ],
)
def test_parts_that_do_not_fit_are_refused(vectors, ids, message):
    good = (np.zeros((1, 4), np.float32), np.array([9]))
    with pytest.raises(CorruptionError, match=f"egment 1 .*{message}"):
        ExactIndex([good, (vectors, ids)])


def test_a_search_that_makes_no_sense_is_refused(messy):
    index = ExactIndex(messy[2])
    query = np.zeros((1, 16), np.float32)
    with pytest.raises(QueryError, match="k is 0"):
        index.search(query, 0)
    with pytest.raises(QueryError, match=r"shape \(1, 15\); this index takes \(n, 16\)"):
        index.search(query[:, 1:], 1)
    with pytest.raises(QueryError, match="not a finite number"):
        index.search(query + np.float32(np.nan), 1)
    for unsorted in ([2, 1], [1, 1]):
        with pytest.raises(CallError, match=r"must be in ascending order.*np\.unique"):
            index.search(query, 1, np.array(unsorted))


def test_mapped_files_are_read_in_place_and_memory_stays_bounded(rng, tmp_path):
    np.save(tmp_path / "vectors.npy", unit(rng, 40_000, 64))
    vectors = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    index = ExactIndex([(vectors, np.arange(40_000))])
    queries = unit(rng, 1_500, 64)
    tracemalloc.start()
    try:
        index.search(queries[:1], 10)
        alone = tracemalloc.get_traced_memory()[1]
        index.search(queries, 10)
        batch = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert alone < vectors.nbytes / 4
    assert batch < 64e6  # all scores at once are 240 MB


dyadic = st.sampled_from([0.0, 0.25, 0.5, 1.0, -0.25, -0.5, -1.0])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_parts_any_filter_any_k(data):
    # Multiples of a quarter: every sum is exact in any order, and ties are everywhere.
    dim = data.draw(st.integers(1, 4), label="dim")
    ids = np.array(sorted(data.draw(st.sets(st.integers(0, 40), max_size=30), label="ids")), np.int64)
    rows = st.lists(dyadic, min_size=dim, max_size=dim)
    vectors = np.array(
        data.draw(st.lists(rows, min_size=len(ids), max_size=len(ids)), label="vectors"), np.float32
    ).reshape(len(ids), dim)
    vectors /= 2  # so that none is longer than a unit vector
    owner = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(ids), max_size=len(ids))), np.int64)
    queries = np.array(data.draw(st.lists(rows, min_size=1, max_size=3), label="queries"), np.float32)
    allowed = data.draw(st.none() | st.sets(st.integers(0, 45)), label="allowed")
    if allowed is not None:
        allowed = np.array(sorted(allowed), np.int64)
    k = data.draw(st.integers(1, 35), label="k")
    index = ExactIndex([(vectors[owner == part], ids[owner == part]) for part in range(3)])
    agree(index.search(queries, k, allowed), truth(vectors, ids, queries, k, allowed))
