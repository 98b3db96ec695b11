"""Batches with families of look-alikes, on texts whose neighbours are known."""

from __future__ import annotations

import tracemalloc

import numpy as np

from pipelines.train.common.batches import FAMILY, NEAREST, Batches

TEXTS = [f"{kind} {number}" for kind in ("cat", "dog") for number in range(10)]
ROWS = np.arange(100, 120)


def kinds(batches: Batches) -> np.ndarray:
    """Unit rows by which all cats are alike, and all dogs, but no cat and dog."""
    return np.array([[1.0, 0.0] if text.startswith("cat") else [0.0, 1.0] for text in batches.texts], np.float32)


def test_without_mining_rows_are_random_and_distinct() -> None:
    drawn = Batches(ROWS, TEXTS, 1.0).draw(20, np.random.default_rng(0))
    assert sorted(drawn) == ROWS.tolist()


def test_a_family_follows_its_first_member_and_is_of_its_kind() -> None:
    batches = Batches(ROWS, TEXTS, 1.0)
    batches.mine(kinds(batches))
    drawn = batches.draw(16, np.random.default_rng(0))
    assert len(drawn) == 16
    firsts, others = drawn[:4], drawn[4:].reshape(4, FAMILY - 1)
    for first, own in zip(firsts, others, strict=True):
        assert first not in own
        assert len(set(own)) == FAMILY - 1
        assert {(row - 100) // 10 for row in own} == {(first - 100) // 10}


def test_the_share_says_how_much_of_a_batch_is_families() -> None:
    batches = Batches(ROWS, TEXTS, 0.5)
    batches.mine(kinds(batches))
    # Two families of four in sixteen: ten are drawn apart, so that six may repeat others.
    assert len(set(batches.draw(16, np.random.default_rng(1))[:10])) == 10


def test_the_nearest_are_those_of_a_comparison_of_all_with_all_in_less_memory() -> None:
    count = 3000
    texts = [f"{number:04}" for number in range(count)]
    batches = Batches(np.arange(count), texts, 1.0)
    # Whole numbers, few of them: products are exact, and nearly every text has ties.
    vectors = np.random.default_rng(0).integers(-2, 3, (count, 6)).astype(np.float32)
    tracemalloc.start()
    batches.mine(vectors)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    np.testing.assert_array_equal(batches._near, np.argsort(-likeness, 1, kind="stable")[:, :NEAREST])
    assert most < likeness.nbytes / 4


def test_a_seed_repeats_and_few_texts_are_no_error() -> None:
    few = Batches(np.array([7, 8, 9]), ["a", "a", "b"], 1.0)
    few.mine(np.eye(2, dtype=np.float32))
    once, again = (few.draw(8, np.random.default_rng(5)) for _ in range(2))
    assert once.tolist() == again.tolist()
    assert set(once) <= {7, 8, 9}
    alone = Batches(np.array([7]), ["a"], 1.0)
    alone.mine(np.ones((1, 2), np.float32))
    assert alone.draw(4, np.random.default_rng(0)).tolist() == [7] * 4
