"""Re-ranking after a method: order, additional scores, and fallbacks."""

from __future__ import annotations

import time

import numpy as np
import pytest

from indexer.errors import CallError, ModelError, UnknownNameError
from indexer.registry import Registry
from retrieval import Query, Retriever


class Backwards:
    """Scores the last candidate highest; notes what it was asked."""

    def __init__(self, judged=None):
        self.judged, self.asked = judged, []

    def rerank(self, query, candidates, deadline):
        self.asked.append((query, [hit.id for hit in candidates], deadline))
        scores = np.arange(len(candidates), dtype=np.float32)
        scores[self.judged :] = np.nan
        return scores if self.judged is not None else np.arange(len(candidates), dtype=np.float32)


class Broken:
    def rerank(self, query, candidates, deadline):
        raise ModelError("The weights are gone.", "Fetch them.")


QUERIES = [Query(text="red"), Query(text="cat", not_texts="dog")]


def test_candidates_are_ordered_anew_and_keep_their_old_scores(collection):
    plain = Retriever(collection, "text").search_batch(QUERIES, k=6)
    reranker = Backwards()
    found = Retriever(collection, "text", rerank=reranker, rerank_depth=6).search_batch(QUERIES, k=3)
    for before, after, (query, candidates, deadline), own in zip(plain, found, reranker.asked, QUERIES, strict=True):
        assert [hit.id for hit in after] == [hit.id for hit in before][::-1][:3]
        assert (query, candidates, deadline) == (own, [hit.id for hit in before], None)
        assert [hit.rank for hit in after] == [1, 2, 3]
        assert [hit.score for hit in after] == [5, 4, 3]
        old = {hit.id: hit for hit in before}
        assert all(hit.branches == {**old[hit.id].branches, "text": old[hit.id].score} for hit in after)
        assert "Backwards" in after.scale
        assert "rerank" in after.took_ms
    assert "rerank" not in plain[0].took_ms


def test_more_is_scored_than_the_depth_where_more_is_wanted(collection):
    reranker = Backwards()
    assert len(Retriever(collection, "text", rerank=reranker, rerank_depth=2).search(QUERIES[0], k=5)) == 5
    assert len(reranker.asked[0][1]) == 5


def test_what_was_not_reached_comes_last_and_is_told(collection):
    before = Retriever(collection, "text").search(QUERIES[0], k=4)
    reranker, begin = Backwards(judged=2), time.monotonic()
    step = Retriever(collection, "text", rerank=reranker, rerank_depth=4, rerank_deadline_ms=60_000)
    after = step.search(QUERIES[0], k=4)
    ids = [hit.id for hit in before]
    assert [hit.id for hit in after] == [ids[1], ids[0], ids[2], ids[3]]
    assert after.notes == ("The re-ranker Backwards did not judge 2 of 4 candidates; they come last.",)
    assert reranker.asked[0][2] >= begin + 60


def test_a_re_ranker_that_fails_leaves_the_answer_and_a_note(collection):
    plain = Retriever(collection, "text").search(QUERIES[0], k=3)
    found = Retriever(collection, "text", rerank=Broken()).search(QUERIES[0], k=3)
    assert (found.hits, found.scale) == (plain.hits, plain.scale)
    assert found.notes == ("Not re-ranked: The weights are gone. Fetch them.",)


def test_a_name_is_loaded_once_when_it_is_needed(collection, monkeypatch):
    made = []

    def family(rest, *, device):
        made.append(rest)
        return Backwards()

    registry = Registry("re-ranker", "no.such.group", {})
    registry.register("backwards")(family)
    for module in ("base", "step"):
        monkeypatch.setattr(f"retrieval.rerank.{module}.RERANKERS", registry)
    retriever = Retriever(collection, "text", rerank="backwards:fast")
    assert made == []
    for _ in range(2):
        assert retriever.search(QUERIES[0], k=2).notes == ()
    assert made == ["fast"]
    with pytest.raises(UnknownNameError, match="re-ranker 'forwards' is not known"):
        Retriever(collection, rerank="forwards")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rerank": 3}, "rerank is int 3"),
        ({"rerank": Broken(), "rerank_depth": 0}, "rerank_depth is 0"),
        ({"rerank": Broken(), "rerank_deadline_ms": -1}, "must not be negative"),
    ],
)
def test_what_cannot_re_rank_is_refused(collection, options, told):
    with pytest.raises(CallError, match=told):
        Retriever(collection, **options)


class Odd:
    def __init__(self, answer):
        self.answer = answer

    def rerank(self, query, candidates, deadline):
        return self.answer(candidates)


@pytest.mark.parametrize(
    "answer",
    [lambda _: 1 / 0, lambda _: None, lambda _: ["one"], lambda candidates: [1.0] * (len(candidates) + 1)],
)
def test_what_a_foreign_re_ranker_raises_costs_a_note(collection, answer):
    plain = Retriever(collection, "text").search(QUERIES[0], k=3)
    found = Retriever(collection, "text", rerank=Odd(answer)).search(QUERIES[0], k=3)
    assert (found.hits, found.scale) == (plain.hits, plain.scale)
    [note] = set(found.notes) - set(plain.notes)
    assert note.startswith("Not re-ranked: ")


def test_the_note_names_the_re_ranker_and_the_error(collection):
    [note] = Retriever(collection, "text", rerank=Odd(lambda _: 1 / 0)).search(QUERIES[0], k=3).notes
    assert "The re-ranker 'Odd' of the module " in note
    assert "ZeroDivisionError: division by zero" in note


def test_a_foreign_re_ranker_that_cannot_be_loaded_costs_a_note(collection, monkeypatch):
    def load(rest, *, device):
        raise ZeroDivisionError("while loading")

    registry = Registry("re-ranker", "no.such.group", {})
    registry.register("odd")(load)
    monkeypatch.setattr("retrieval.rerank.base.RERANKERS", registry)
    monkeypatch.setattr("retrieval.rerank.step.RERANKERS", registry)
    [note] = Retriever(collection, "text", rerank="odd").search(QUERIES[0], k=3).notes
    assert "Not re-ranked: The re-ranker 'odd' of the module " in note
    assert "ZeroDivisionError: while loading" in note
