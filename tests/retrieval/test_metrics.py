"""Metrics by hand, and against ranx on random runs."""

import numpy as np
import pytest

from indexer.errors import CallError
from retrieval.metrics import (
    _resampled,
    average_precision_at,
    average_precision_of,
    bootstrap_interval,
    hit_rate_at,
    macro_mean,
    mean,
    ndcg_at,
    places_of,
    recall_at,
    reciprocal_rank,
    subset_recall_at,
)

RANKED = ["a", "b", "c", "d", "e"]


def test_hit_rate_asks_for_any_and_recall_for_the_share():
    assert [hit_rate_at(RANKED, {"b", "e"}, k) for k in (1, 2, 5)] == [0, 1, 1]
    assert [recall_at(RANKED, {"b", "e"}, k) for k in (1, 2, 5)] == [0, 0.5, 1]
    assert hit_rate_at(RANKED, ["z"], 5) == recall_at(RANKED, ["z"], 50) == 0
    assert [recall_at(RANKED, ["c"], k) == hit_rate_at(RANKED, ["c"], k) for k in range(1, 6)] == [True] * 5


def test_average_precision_by_hand():
    # Relevant at ranks 1 and 3, one more never found: (1/1 + 2/3) / min(3, k).
    assert average_precision_at(RANKED, {"a", "c", "z"}, 5) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision_at(RANKED, {"a", "c", "z"}, 2) == pytest.approx(1 / 2)
    assert average_precision_at(RANKED, {"z"}, 5) == 0


def test_average_precision_reaches_1_with_more_targets_than_ranks():
    assert average_precision_at(RANKED, set("abcdefgh"), 5) == 1


def test_ndcg_by_hand():
    dcg = 1 / np.log2(3) + 1 / np.log2(5)
    assert ndcg_at(RANKED, {"b", "d"}, 5) == pytest.approx(dcg / (1 + 1 / np.log2(3)))
    graded = (1 + 3 / np.log2(4)) / (3 + 1 / np.log2(3))
    assert ndcg_at(RANKED, {"a": 1.0, "c": 3.0}, 5) == pytest.approx(graded)
    assert ndcg_at(RANKED, {"a": 1.0, "c": 3.0}, 1) == pytest.approx(1 / 3)
    assert ndcg_at(RANKED, set("abcdefgh"), 3) == 1


def test_reciprocal_rank_is_of_the_first():
    assert reciprocal_rank(RANKED, {"c", "e"}) == 1 / 3
    assert reciprocal_rank(RANKED, {"c", "e"}, 2) == 0
    assert reciprocal_rank([], {"c"}) == 0


def test_subset_recall_sees_the_subset_only():
    # Restricted to {c, e, x}: c, then e; x is not ranked.
    assert [subset_recall_at(RANKED, {"e"}, {"c", "e", "x"}, k) for k in (1, 2)] == [0, 1]
    assert subset_recall_at(RANKED, {"x"}, {"c", "e", "x"}, 3) == 0
    with pytest.raises(CallError, match="Nothing is relevant"):
        subset_recall_at(RANKED, {"a"}, {"c", "e"}, 1)


def test_rankings_may_be_arrays():
    assert recall_at(np.array([4, 7, 2]), [2, 7], 2) == 0.5
    assert ndcg_at(np.array([4, 7, 2]), [4], 2) == 1


@pytest.mark.parametrize("measure", [hit_rate_at, recall_at, average_precision_at, ndcg_at, reciprocal_rank])
def test_what_has_no_measure_is_refused(measure):
    for k in (0, -1):
        with pytest.raises(CallError, match=f"k is {k}"):
            measure(RANKED, {"a"}, k)
    with pytest.raises(CallError, match="Nothing is relevant"):
        measure(RANKED, set(), 3)
    with pytest.raises(CallError, match="ranked twice"):
        measure(["a", "b", "a"], {"a"}, 3)


def test_a_gain_of_nothing_is_refused():
    with pytest.raises(CallError, match="not positive"):
        ndcg_at(RANKED, {"a": 0.0}, 3)


def test_means():
    assert mean([1, 0, 0.5]) == 0.5
    assert macro_mean({"dress": [1, 1, 1, 0], "shirt": [0]}) == 0.375
    for nothing in (lambda: mean([]), lambda: macro_mean({}), lambda: macro_mean({"dress": []})):
        with pytest.raises(CallError, match="no values"):
            nothing()


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_hold_the_truth_about_as_often_as_they_say(grouped):
    # True rates 0.2 and 0.8, 20 and 60 queries: the mean is 0.65, the macro mean 0.5.
    rng = np.random.default_rng(1)
    groups = np.repeat([0, 1], [20, 60])
    truth = 0.5 if grouped else 0.65
    held = 0
    for trial in range(300):
        values = (rng.random(80) < np.where(groups == 0, 0.2, 0.8)).astype(float)
        low, high = bootstrap_interval(values, groups if grouped else None, 300, 0.9, trial)
        held += low <= truth <= high
    assert 0.85 <= held / 300 <= 0.99 if not grouped else 0.83 <= held / 300 <= 0.95


def test_intervals_are_those_of_the_normal_approximation_for_many_queries():
    values = np.random.default_rng(2).normal(3, 2, 2_000)
    low, high = bootstrap_interval(values, samples=4_000)
    half = 1.96 * values.std() / np.sqrt(2_000)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_groups_are_resampled_each_at_its_own_size():
    # All the spread is between the groups: none is left within.
    values, groups = [0.0] * 3 + [1.0] * 30, ["a"] * 3 + ["b"] * 30
    assert bootstrap_interval(values, groups) == (0.5, 0.5)
    assert bootstrap_interval(values)[0] < 0.9


def test_intervals_are_seeded_and_do_not_depend_on_blocks(monkeypatch):
    values = np.random.default_rng(3).random(50)
    whole = bootstrap_interval(values, seed=4)
    assert whole == bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)
    monkeypatch.setattr("retrieval.metrics.DRAWS_PER_BLOCK", 500)
    assert whole == bootstrap_interval(values, seed=4)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_an_interval_leaves_as_much_out_below_as_above(level):
    low, high = bootstrap_interval(np.linspace(0, 1, 101), samples=10_000, level=level)
    assert low + high == pytest.approx(1, abs=0.004)


def test_the_defaults_are_those_that_are_told():
    values = np.random.default_rng(3).random(20)
    assert bootstrap_interval(values) == bootstrap_interval(values, None, 1000, 0.95, 0)
    assert bootstrap_interval([0.5], samples=1) == (0.5, 0.5)


def test_every_value_is_drawn_alike_and_as_often_as_asked(monkeypatch):
    for place in range(4):
        means = _resampled(np.eye(4)[place], 4_000, np.random.default_rng(0))
        assert means.mean() == pytest.approx(0.25, abs=0.02)
    monkeypatch.setattr("retrieval.metrics.DRAWS_PER_BLOCK", 8)
    assert len(_resampled(np.ones(4), 5, np.random.default_rng(0))) == 5


def test_intervals_that_make_no_sense_are_refused():
    for arguments in (([],), ([1.0], None, 0), ([1.0], None, 10, 1.0), ([1.0], None, 10, 0.0)):
        with pytest.raises(CallError, match="No interval"):
            bootstrap_interval(*arguments)
    with pytest.raises(CallError, match="2 values and 1 groups"):
        bootstrap_interval([1.0, 2.0], ["a"])


def random_runs():
    """Rankings by (-score, id) of scores with many ties; one to five targets, some of them never ranked."""
    rng = np.random.default_rng(6)
    rankings, targets = {}, {}
    for query in range(30):
        scores = rng.integers(0, 8, 40)
        order = np.lexsort((np.arange(40), -scores))[:25]
        rankings[f"q{query}"] = [f"d{item}" for item in order]
        chosen = rng.choice(45, rng.integers(1, 6), replace=False)
        targets[f"q{query}"] = {f"d{item}": int(rng.integers(1, 4)) for item in chosen}
    return rankings, targets


def test_measures_agree_with_ranx(monkeypatch):
    # Compiling ranx's loops takes half a minute and warns of its casts; as plain Python they run at once.
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    from ranx import Qrels, Run, evaluate

    rankings, targets = random_runs()
    # Scores that fall with the rank keep ranx from settling ties in its own way.
    run = Run({q: {item: 1.0 / (r + 1) for r, item in enumerate(items)} for q, items in rankings.items()})
    qrels = Qrels(targets)
    ours = {
        "hit_rate": hit_rate_at,
        "recall": recall_at,
        "mrr": reciprocal_rank,
        "ndcg": ndcg_at,
        "map": average_precision_at,
    }
    for name, measure in ours.items():
        for k in (5, 25):  # no query has more than five targets: from there on both definitions of AP agree
            theirs = evaluate(qrels, run, f"{name}@{k}", return_mean=False)
            mine = [measure(rankings[query], targets[query], k) for query in sorted(rankings)]
            np.testing.assert_allclose(mine, theirs, err_msg=f"{name}@{k}")
    mine = [average_precision_of(places_of(rankings[q], targets[q]), len(targets[q])) for q in sorted(rankings)]
    np.testing.assert_allclose(mine, evaluate(qrels, run, "map", return_mean=False))
