"""Average precision over whole rankings, with ties counted against the target: properties, and plain rankings."""

from __future__ import annotations

import numpy as np
import pytest
from fake_collection import FakeSnapshot, FakeSource, stored
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import CallError
from retrieval import Query, Retriever
from retrieval.metrics import (
    against,
    average_precision_at,
    average_precision_of,
    hit_rate_at,
    places_of,
    trapezoidal_precision_of,
)
from retrieval.scoring import unit

RANKINGS = st.lists(st.booleans(), min_size=1, max_size=40).filter(any)
"""Whether each rank is relevant."""


def ranking(relevant):
    ids = list(range(len(relevant)))
    return ids, {place for place, each in enumerate(relevant) if each}


@given(RANKINGS)
def test_precision_of_the_whole_is_the_truncated_one_at_the_end(relevant):
    ids, wanted = ranking(relevant)
    places = places_of(ids, wanted)
    assert average_precision_of(places, len(wanted)) == pytest.approx(average_precision_at(ids, wanted, len(ids)))


@given(RANKINGS, st.integers(0, 5))
def test_trapezoids_lie_below_and_meet_where_nothing_wrong_comes_first(relevant, unfound):
    ids, wanted = ranking(relevant)
    places, total = places_of(ids, wanted), len(wanted) + unfound
    area, standard = trapezoidal_precision_of(places, total), average_precision_of(places, total)
    assert 0 < area <= standard + 1e-12 <= 1 + 2e-12
    perfect = places == list(range(1, len(places) + 1))
    assert (area == pytest.approx(standard)) == perfect
    if perfect:
        assert area == pytest.approx(len(wanted) / total)


@given(RANKINGS, st.data())
def test_a_target_that_moves_up_is_never_worth_less(relevant, data):
    ids, wanted = ranking(relevant)
    misses = [place for place, each in enumerate(relevant) if not each]
    if not misses or min(misses) > max(wanted):
        return
    low = data.draw(st.sampled_from(sorted(place for place in wanted if place > min(misses))))
    moved = [each for each in ids if each != low]
    moved.insert(min(misses), low)
    for area in (average_precision_of, trapezoidal_precision_of):
        assert area(places_of(moved, wanted), len(wanted)) > area(places_of(ids, wanted), len(wanted))


def test_trapezoids_by_hand():
    # Targets at 2 and 3: (0/1 + 1/2) / 2 and (1/2 + 2/3) / 2, of two targets.
    assert trapezoidal_precision_of([2, 3], 2) == pytest.approx(((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
    assert trapezoidal_precision_of([1], 1) == 1
    assert trapezoidal_precision_of([], 3) == average_precision_of([], 3) == 0


@pytest.mark.parametrize("places", [[0], [2, 2], [3, 1], [1, 2, 3]])
def test_places_that_are_none_are_refused(places):
    for area in (average_precision_of, trapezoidal_precision_of):
        with pytest.raises(CallError, match="[Rr]ank"):
            area(places, 2)


TIED = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=20)
"""Scores with many ties, and whether each is relevant."""


@given(TIED, st.integers(1, 5))
def test_against_the_target_is_the_worst_of_all_orders_of_ties(rows, k):
    rows = sorted(rows, key=lambda row: -row[0])
    ids, scores = list(range(len(rows))), [float(score) for score, _ in rows]
    wanted = {place for place, (_, relevant) in enumerate(rows) if relevant}
    order = against(ids, scores, wanted)
    assert sorted(order) == ids
    assert [scores[place] for place in order] == scores
    if not wanted:
        assert order == ids
        return
    settled = [ids[place] for place in order]
    rng = np.random.default_rng(0)
    for _ in range(5):
        other = sorted(ids, key=lambda place: (-scores[place], rng.random()))
        assert hit_rate_at(settled, wanted, k) <= hit_rate_at(other, wanted, k)
        assert (
            average_precision_of(places_of(settled, wanted), len(wanted))
            <= average_precision_of(places_of(other, wanted), len(wanted)) + 1e-12
        )


def test_scores_that_rise_are_refused():
    for scores in ([1.0, 2.0], [1.0]):
        with pytest.raises(CallError, match="2 ids need as many scores"):
            against(["a", "b"], scores, ["a"])


# Places in a collection


@pytest.fixture
def crowd():
    """A hundred vectors, of which many are the same, and some differ by less than a scan can tell."""
    rng = np.random.default_rng(3)
    base = np.stack([unit(row) for row in rng.standard_normal((40, 16))])
    twins = base[:30]
    near = np.stack([unit(row + 3e-7 * rng.standard_normal(16)) for row in base[:30]])
    vectors = np.concatenate([base, twins, near]).astype(np.float32)

    class Model:
        name = "fake:16"

    return FakeSource(FakeSnapshot([stored(f"d{n:03}") for n in range(100)], vectors), Model())


@pytest.mark.parametrize("keep", [True, False])
def test_places_are_those_of_the_whole_ranking_with_ties_before(crowd, keep):
    retriever = Retriever(crowd, "image")
    queries = [Query(like=f"d{n:03}") for n in range(0, 40, 3)]
    encoded = retriever.encode(queries)
    targets = [[name for name in ("d041", "d075", "d012", "d099") if name != query.like] for query in queries]
    exclude = [["d005"]] * len(queries)
    places = retriever.places(encoded, targets, exclude, keep_references=keep)
    rankings = retriever.rank(encoded, 100, exclude, keep_references=keep)
    for query, own, found, wanted in zip(queries, rankings, places, targets, strict=True):
        assert ("d005" in own.ids) is False
        assert (query.like in own.ids) is keep
        order = against(own.ids, own.scores, wanted)
        assert list(found) == places_of([own.ids[place] for place in order], wanted)


def test_what_ties_with_the_last_comes_along_where_it_is_asked_for(crowd):
    retriever = Retriever(crowd, "image")
    encoded = retriever.encode([Query(like="d000")])
    [cut] = retriever.rank(encoded, 1, keep_references=True)
    [whole] = retriever.rank(encoded, 1, keep_references=True, keep_ties=True)
    assert cut.ids == ("d000",)
    assert whole.ids[:2] == ("d000", "d040")
    assert len(set(whole.scores)) == 1
