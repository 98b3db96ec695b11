"""Late fusion of several rankings: by hand, over two spaces, with documents that only one ranking finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from indexer import Collection, Document, Item
from indexer.errors import CallError, UnknownNameError
from retrieval import Hit, LateFusion, Query, Results, Retriever

WORDS = ["red cat", "blue dog", "red dog", "green bird", "cat", "red red bird", "dog and cat", "blue", "bird", "red"]
QUERY = Query(text="red cat")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with Collection.open(tmp_path_factory.mktemp("fusion") / "shop", "fake:64") as opened:
        opened.add([Document(f"d{n}", text=text) for n, text in enumerate(WORDS)])
        opened.add_space("fake:16", "small")
        yield opened


@pytest.fixture(scope="module")
def both(shop):
    return {"large": Retriever(shop, "text"), "small": Retriever(shop, "text", space="small")}


def test_a_space_is_searched_by_its_own_model(shop, both):
    large, small = (each.search(QUERY, k=10) for each in both.values())
    assert (large.model, small.model) == ("fake:64", "fake:16")
    [vector] = small_vectors = shop.embedder_of("small").encode_query([Item(text="red cat")])
    assert small_vectors.shape == (1, 16)
    snapshot = shop.snapshot("small")
    for hit in small:
        [row] = snapshot.vectors(snapshot.vector_ids([hit.id]))
        assert hit.score == pytest.approx(float(row @ vector), abs=1e-5)
    assert [hit.score for hit in large] != [hit.score for hit in small]


def test_a_space_that_is_not_there_is_told(shop):
    with pytest.raises(UnknownNameError, match="huge"):
        Retriever(shop, "text", space="huge").search(QUERY)
    with pytest.raises(CallError, match="space is int 3"):
        Retriever(shop, space=3)


@pytest.mark.parametrize("weights", [{}, {"small": 0.25}])
def test_reciprocal_ranks_are_their_formula(both, weights):
    rankings = {name: each.search(QUERY, k=10) for name, each in both.items()}
    fused = LateFusion(both, weights).search(QUERY, k=10)
    expected = {
        hit.id: sum(
            weights.get(name, 1.0) / (60 + next(each.rank for each in own if each.id == hit.id))
            for name, own in rankings.items()
        )
        for hit in fused
    }
    assert [hit.score for hit in fused] == pytest.approx([expected[hit.id] for hit in fused], rel=1e-6)
    assert [hit.id for hit in fused] == sorted(expected, key=lambda name: (-np.float32(expected[name]), name))
    assert [hit.rank for hit in fused] == list(range(1, 11))
    assert fused.hits[0].branches == {
        name: next(each.score for each in own if each.id == fused.hits[0].id) for name, own in rankings.items()
    }
    assert (fused.method, fused.model) == ("late-fusion", "fake:64 and fake:16")


def test_standardized_scores_are_their_formula(both):
    rankings = {name: each.search(QUERY, k=10) for name, each in both.items()}
    fused = LateFusion(both, {"large": 2.0}, fusion="scores").search(QUERY, k=3)
    total = dict.fromkeys((hit.id for hit in rankings["large"]), 0.0)
    for name, own in rankings.items():
        scores = np.array([hit.score for hit in own])
        for hit in own:
            total[hit.id] += (2.0 if name == "large" else 1.0) * (hit.score - scores.mean()) / scores.std()
    assert [hit.score for hit in fused] == pytest.approx(sorted(total.values(), reverse=True)[:3], rel=1e-5)


class Given:
    """A retriever whose ranking is told."""

    def __init__(self, **scores):
        self.scores = scores

    def search_batch(self, queries, k, *scope, keep_reference):
        ranked = sorted(self.scores.items(), key=lambda each: -each[1])[:k]
        hits = [Hit(n, score, name, None, None, None, {}, {}) for n, (name, score) in enumerate(ranked, 1)]
        return [Results(tuple(hits), "text", "m", 1, "cosine")] * len(queries)


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        ("ranks", {"y": 1 / 62 + 1 / 61, "x": 1 / 61, "z": 1 / 62}),
        # x and y are one deviation above and below the mean of the first; z has the first's last place: minus one.
        ("scores", {"x": 0.0, "y": 0.0, "z": -2.0}),
    ],
)
def test_what_one_ranking_lacks_counts_as_its_last(fusion, expected):
    fused = LateFusion({"a": Given(x=0.9, y=0.5), "b": Given(y=3.0, z=1.0)}, fusion=fusion).search(QUERY, k=3)
    assert {hit.id: hit.score for hit in fused} == pytest.approx(expected)
    assert [hit.id for hit in fused] == list(expected)
    assert {hit.id: dict(hit.branches) for hit in fused} == {
        "x": {"a": 0.9}, "y": {"a": 0.5, "b": 3.0}, "z": {"b": 1.0},
    }  # fmt: skip


def test_a_note_of_one_ranking_says_which():
    class Noted(Given):
        notes = ()

        def search_batch(self, queries, *arguments, **options):
            return [replace(each, notes=self.notes) for each in super().search_batch(queries, *arguments, **options)]

    given = {"a": Noted(x=0.9), "b": Noted(x=0.5)}
    given["a"].notes, given["b"].notes = ("both say so", "one does"), ("the other", "both say so")
    assert LateFusion(given).search(QUERY).notes == ("both say so", "a: one does", "b: the other")


def test_no_more_than_the_depth_is_fused():
    given = {"a": Given(x=0.9, y=0.5), "b": Given(y=3.0, z=1.0)}
    assert [hit.id for hit in LateFusion(given, depth=1).search(QUERY, k=1)] == ["x"]
    assert [hit.id for hit in LateFusion(given, depth=2).search(QUERY, k=1)] == ["y"]


def test_a_filter_holds_in_every_ranking(shop, both):
    fused = LateFusion(both).search(QUERY, k=10, where={"$text": {"$contains": "dog"}})
    assert {hit.id for hit in fused} == {f"d{n}" for n, text in enumerate(WORDS) if "dog" in text}


def test_a_batch_is_its_queries_one_by_one(both):
    fusion, queries = LateFusion(both), [QUERY, Query(text="blue bird")]
    for one, batched in zip(queries, fusion.search_batch(queries, k=4), strict=True):
        assert fusion.search(one, k=4).hits == batched.hits


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        (["large"], {}, "two retrievers or more"),
        (["large", "small"], {"weights": {"other": 1.0}}, "'other' belongs to no retriever; there are large, small"),
        (["large", "small"], {"fusion": "votes"}, "'votes' is not known"),
        (["large", "small"], {"depth": 0}, "depth is 0"),
    ],
)
def test_what_cannot_be_fused_is_refused(both, names, options, told):
    with pytest.raises(CallError, match=told):
        LateFusion({name: both[name] for name in names}, **options)
