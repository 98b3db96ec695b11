"""Re-rankers by name, and hits in the order of their scores."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.errors import CallError, PluginError, UnknownNameError
from indexer.registry import Registry
from retrieval.rerank import load_reranker, reranked
from retrieval.results import Hit


def hits(*ids):
    return [Hit(rank, 1 / rank, id, None, None, None, {}, {}) for rank, id in enumerate(ids, 1)]


@pytest.fixture
def rerankers(monkeypatch):
    registry = Registry("re-ranker", "no.such.group", {})
    monkeypatch.setattr("retrieval.rerank.base.RERANKERS", registry)
    return registry


def test_hits_come_in_the_order_of_their_new_scores_ties_by_id():
    ordered = reranked(hits("c", "b", "a"), np.float32([0.5, 2, 0.5]))
    assert [(hit.rank, hit.id, hit.score) for hit in ordered] == [(1, "b", 2), (2, "a", 0.5), (3, "c", 0.5)]


def test_hits_without_a_new_score_keep_their_order_and_scores_behind_the_others():
    ordered = reranked(hits("a", "b", "c", "d"), np.float32([np.nan, -3, np.nan, 1]))
    assert [(hit.rank, hit.id) for hit in ordered] == [(1, "d"), (2, "b"), (3, "a"), (4, "c")]
    assert [hit.score for hit in ordered] == [1, -3, 1, 1 / 3]


def test_no_hits_are_no_hits():
    assert reranked([], np.empty(0, np.float32)) == ()


def test_scores_of_another_number_are_refused():
    with pytest.raises(CallError, match=r"scores of the shape \(2,\) for 1 candidates"):
        reranked(hits("a"), np.float32([1, 2]))


def test_a_reranker_gets_what_stands_behind_the_colon(rerankers):
    class Mine:
        def __init__(self, rest, device):
            self.made = rest, device

        def rerank(self, query, candidates, deadline):
            return np.zeros(len(candidates), np.float32)

    rerankers.register("mine")(lambda rest, *, device: Mine(rest, device))
    assert load_reranker("mine:/a/folder?x=1:2", device="cpu").made == ("/a/folder?x=1:2", "cpu")
    assert load_reranker("mine").made == ("", "auto")


def test_what_is_no_reranker_is_refused_by_name(rerankers):
    rerankers.register("wrong")(lambda rest, *, device: 5)
    with pytest.raises(PluginError, match="The re-ranker 'wrong' is of type int"):
        load_reranker("wrong")
    with pytest.raises(UnknownNameError, match="re-ranker 'worng' is not known. Did you mean 'wrong'"):
        load_reranker("worng")
