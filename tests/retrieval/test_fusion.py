"""The arithmetic of scoring, against worked examples and slow reference code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.scoring import min_normalize, order, slerp_weights, soft_and, top_k, unit, weighted_sum


def directions(n, dim=16, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_one_search_by_the_folded_vector_ranks_as_the_weighted_branch_scores():
    branches, documents, weights = directions(3), directions(200, seed=1), [0.7, 1.3, -0.4]
    folded = weighted_sum(branches, weights)
    slow = np.asarray(weights) @ (branches @ documents.T)
    length = np.linalg.norm(np.asarray(weights) @ branches)
    assert np.linalg.norm(folded) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(documents @ folded, slow / length, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-38, 1e38, 1e308])
def test_only_the_proportions_of_weights_count(scale):
    branches = np.stack([unit(np.arange(1.0, 9)), unit(np.arange(9.0, 1, -1))])
    np.testing.assert_allclose(
        weighted_sum(branches, [scale, -scale / 2]), weighted_sum(branches, [1, -0.5]), atol=1e-6
    )


def test_what_cancels_folds_to_zero_and_not_to_noise():
    one, two = directions(2)
    assert not weighted_sum(np.stack([one, one]), [0.3, -0.3]).any()
    thirds = weighted_sum(
        np.stack([one, two, weighted_sum(np.stack([one, two]), [1, 1])]), [1, 1, -np.linalg.norm(one + two)]
    )
    assert not thirds.any()


def test_unit_keeps_zero():
    assert not unit(np.zeros(3)).any()
    np.testing.assert_allclose(unit(np.array([3.0, 4.0])), [0.6, 0.8], atol=1e-7)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_slerp_is_shoemakes_formula(alpha):
    a, b = directions(2)
    angle = np.arccos(a.astype(float) @ b)
    expected = np.sin([(1 - alpha) * angle, alpha * angle]) / np.sin(angle)
    np.testing.assert_allclose(slerp_weights(a, b, alpha), expected, rtol=1e-5)
    assert np.linalg.norm(np.asarray(slerp_weights(a, b, alpha)) @ np.stack([a, b])) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("gap", [0.0, 1e-8, 1e-6, 1e-4, 1e-2])
def test_slerp_is_stable_between_near_vectors(gap):
    a = np.array([1, 0], np.float32)
    b = np.array([np.cos(gap), np.sin(gap)], np.float32)
    np.testing.assert_allclose(slerp_weights(a, b, 0.3), (0.7, 0.3), atol=1e-4)


@pytest.mark.parametrize("short", [0.9, 0.1, 1e-3])
def test_slerp_follows_the_arc_until_vectors_are_opposite(short):
    angle = np.pi - short
    a, b = np.array([1.0, 0.0]), np.array([np.cos(angle), np.sin(angle)])
    middle = np.asarray(slerp_weights(a, b, 0.5)) @ np.stack([a, b])
    np.testing.assert_allclose(middle, [np.cos(angle / 2), np.sin(angle / 2)], atol=1e-6)


def test_slerp_mixes_opposite_vectors_linearly():
    a = directions(1)[0]
    assert slerp_weights(a, -a, 0.25) == (0.75, 0.25)


def test_min_normalize_measures_from_the_floor():
    scores = np.array([-0.5, -0.2, 0.0, 0.2], np.float32)
    np.testing.assert_allclose(min_normalize(scores, -0.2), [0, 0, 1, 2], atol=1e-6)


def test_soft_and_wants_both():
    text, image = np.array([1.0, 2.0, 0.0], np.float32), np.array([1.0, 0.0, 0.0], np.float32)
    np.testing.assert_allclose(soft_and(text, image, 0.1), [1 - 0.4, -0.4, 0], atol=1e-6)
    assert soft_and(text, image, 0.0).tolist() == [1, 0, 0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 35))
def test_top_k_are_the_k_best_with_all_ties_of_the_last(values, k):
    scores = np.array(values, np.float32)
    last = sorted(values, reverse=True)[:k][-1]
    places = top_k(scores, k)
    assert sorted(places.tolist()) == [place for place, value in enumerate(values) if value >= last]
    assert scores[places].tolist() == sorted(scores[places].tolist(), reverse=True)


def test_order_settles_ties_by_name():
    assert order(np.array([1, 2, 1, 2], np.float32), ["b", "z", "a", "y"]) == [3, 1, 2, 0]
