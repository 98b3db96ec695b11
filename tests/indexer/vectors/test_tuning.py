"""Tuning of an index: its queries, and the neighbors that it must find."""

import numpy as np
import pytest

from indexer.vectors.exact import ExactIndex
from indexer.vectors.protocol import Neighbors
from indexer.vectors.tuning import DEPTH, K, TuningQueries
from indexer.vectors.unit import unit_rows


@pytest.fixture
def exact():
    rng = np.random.default_rng(0)
    return ExactIndex([(unit_rows(rng.standard_normal((500, 12))), np.arange(500) + 3)])


def among_others(exact, queries, depth=DEPTH):
    """The truth among the vectors that are not held out."""
    return exact.search(queries.vectors, depth, np.setdiff1d(exact.all_ids(), queries.held_out))


def without(found, lost):
    return Neighbors(np.where(lost, -1, found.ids), np.where(lost, -np.inf, found.scores))


def test_all_neighbors_are_a_recall_of_one_and_the_parents_alone_of_zero(exact):
    queries = TuningQueries(exact, np.random.default_rng(1))
    truth = among_others(exact, queries)
    assert queries.recall(truth).mean == queries.recall(truth).low == 1
    parents = np.full_like(truth.ids, -1), np.full_like(truth.scores, -np.inf)
    parents[0][:, :2], parents[1][:, :2] = queries._parents.T, 1
    assert queries.recall(Neighbors(*parents)).mean == 0


def test_each_neighbor_that_is_missing_costs_a_tenth_and_the_interval_widens(exact):
    queries = TuningQueries(exact, np.random.default_rng(1))
    truth = among_others(exact, queries)
    counted = queries._counted(truth.ids)
    lost = counted & (np.cumsum(counted, axis=1) <= 3) & (np.arange(len(counted)) % 2 == 1)[:, None]
    lost[: len(queries.held_out)] = False
    told = queries.recall(without(truth, lost))
    assert told.mean == pytest.approx(1 - 0.3 / 2)
    assert told.low == pytest.approx(told.mean - 1.96 * 0.15 / np.sqrt(200))


def test_vectors_held_out_are_queries_too_and_the_worse_kind_tells(exact):
    queries = TuningQueries(exact, np.random.default_rng(1))
    held_out = queries.held_out
    assert len(held_out) == 25
    np.testing.assert_allclose(queries.vectors[:25], exact.vectors(held_out), atol=1e-6)
    truth = among_others(exact, queries)
    lost = np.zeros(truth.ids.shape, np.bool_)
    lost[:25, :2] = True
    assert queries.recall(without(truth, lost)).mean == pytest.approx(0.8)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_where_there_are_fewer_than_ten_all_of_them_count(rows, exact):
    small = ExactIndex([(exact.vectors(np.arange(rows) + 3), np.arange(rows))])
    queries = TuningQueries(small, np.random.default_rng(1))
    assert len(queries.held_out) == 0
    assert queries.recall(small.search(queries.vectors, DEPTH)).mean == 1
    nothing = Neighbors(np.full((200, K), -1), np.full((200, K), -np.inf, np.float32))
    assert queries.recall(nothing).mean == (1 if rows == 1 else 0)
