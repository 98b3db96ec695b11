"""The evaluation loop over a collection whose rankings are known by hand."""

from __future__ import annotations

import json

import pytest

from indexer.collection import Collection
from indexer.errors import CallError
from indexer.types import Document
from pipelines.evaluate import JudgedQuery, evaluate, sweep, write_run
from retrieval import Query, Retriever, Weights
from retrieval.metrics import average_precision_at, mean
from retrieval.search import Ranking

WORDS = ("cat", "dog", "red cat", "red dog", "blue cat", "blue dog", "night cat", "night dog")


def judged(name, text, like, target, family, **more):
    return JudgedQuery(name, Query(text=text, like=like), (target,), family=family, exclude=(like,), **more)


QUERIES = [
    judged("q1", "red", "cat", "red cat", "colour", subset=("red cat", "blue cat")),
    judged("q2", "blue", "dog", "blue dog", "colour", subset=("blue dog", "red dog")),
    judged("q3", "night", "cat", "night cat", "time", subset=("night cat", "night dog")),
    # Judged wrongly on purpose: found, but late.
    judged("q4", "night", "dog", "red cat", "time", subset=("red cat", "night dog")),
]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    with Collection.open(tmp_path_factory.mktemp("c") / "words", "fake:64") as words:
        words.add(Document(word, text=word) for word in WORDS)
        yield words


def test_measures_are_macro_averages_over_families(collection):
    found = evaluate(QUERIES, Retriever(collection, "sum"))
    late = average_precision_at(found.rankings["q4"].ids, ("red cat",), 10)
    assert 0 < late <= 1 / 3
    assert found.queries == 4
    assert found.counts == {"colour": 2, "time": 2}
    assert found.families["colour"] == {"R@1": 1, "R@5": 1, "R@10": 1, "mAP@10": 1, "Rsub@1": 1}
    assert found.families["time"]["R@1"] == 0.5
    assert found.families["time"]["mAP@10"] == pytest.approx((1 + late) / 2)
    assert found.families["time"]["Rsub@1"] == 0.5
    for name, measure in found.measures.items():
        assert measure.value == pytest.approx(mean([own[name] for own in found.families.values()]))
        assert measure.low <= measure.value <= measure.high


def test_families_weigh_the_same_whatever_their_size(collection):
    more = [judged(f"x{n}", "red", "cat", "red cat", "colour", subset=("red cat",)) for n in range(20)]
    found = evaluate(QUERIES + more, Retriever(collection, "sum"))
    assert found.measures["R@1"].value == pytest.approx(0.75)


def test_what_is_excluded_is_not_ranked(collection):
    open_ = JudgedQuery("q", Query(text="red cat"), ("cat",))
    [ranked] = evaluate([open_], Retriever(collection, "text")).rankings.values()
    assert ranked.ids[0] == "red cat"
    shut = JudgedQuery("q", Query(text="red cat"), ("cat",), exclude=("red cat", "red dog"))
    [ranked] = evaluate([shut], Retriever(collection, "text")).rankings.values()
    assert len(ranked.ids) == len(WORDS) - 2
    assert not {"red cat", "red dog"} & set(ranked.ids)


def test_the_depth_is_for_run_files_and_never_below_what_the_measures_need(collection):
    retriever = Retriever(collection, "sum")
    shallow, deep = evaluate(QUERIES, retriever, 1), evaluate(QUERIES, retriever, 100)
    assert shallow.measures == deep.measures
    assert all(len(ranking.ids) == len(WORDS) - 1 for ranking in deep.rankings.values())


def test_batches_do_not_matter(collection, monkeypatch):
    whole = evaluate(QUERIES, Retriever(collection, "product"))
    monkeypatch.setattr("pipelines.evaluate.BATCH", 1)
    split = evaluate(QUERIES, Retriever(collection, "product"))
    assert (split.measures, split.rankings) == (whole.measures, whole.rankings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ()}, "q1 has no judgment"),
        ({"query_id": "q2"}, "q2 occurs 2 times"),
        ({"subset": ()}, "only one of them has a subset"),
        ({"exclude": ("red cat",)}, "q1 excludes its own target"),
        ({"targets": ("nobody",)}, "nobody"),
        ({"subset": ("red cat", "nobody")}, "nobody"),
    ],
)
def test_judgments_that_would_mislead_are_refused(collection, change, message):
    first = JudgedQuery(**{**vars(QUERIES[0]), **change})
    with pytest.raises(CallError, match=message):
        evaluate([first, *QUERIES[1:]], Retriever(collection))


def test_no_queries_are_refused(collection):
    with pytest.raises(CallError, match="no queries"):
        evaluate([], Retriever(collection))


def test_the_json_has_no_rankings_and_every_measure_with_its_interval(collection):
    document = json.loads(json.dumps(evaluate(QUERIES, Retriever(collection)).to_json()))
    assert document.keys() == {"queries", "measures", "families", "seconds"}
    assert list(document["measures"]) == ["R@1", "R@5", "R@10", "mAP@10", "Rsub@1"]
    assert document["measures"]["R@1"].keys() == {"value", "interval_95"}
    assert document["families"]["time"]["queries"] == 2
    assert document["seconds"].keys() == {"encode", "rank"}


def test_without_subsets_there_is_no_subset_measure(collection):
    bare = [JudgedQuery(**{**vars(query), "subset": ()}) for query in QUERIES]
    assert "Rsub@1" not in evaluate(bare, Retriever(collection)).measures


def test_a_sweep_gives_what_evaluating_each_point_gives(collection):
    grid = [Weights(text=weight, image=1 - weight) for weight in (0.0, 0.5, 1.0)]
    curve = sweep(QUERIES, lambda weights: Retriever(collection, "sum", weights), grid)
    assert [weights for weights, _ in curve] == grid
    for weights, value in curve:
        found = evaluate(QUERIES, Retriever(collection, "sum", weights))
        assert value == pytest.approx(found.measures["mAP@10"].value)
    assert curve[1][1] > max(curve[0][1], curve[2][1])


def test_a_sweep_embeds_once(collection, monkeypatch):
    calls = []
    original = collection.embedder.try_encode
    monkeypatch.setattr(collection.embedder, "try_encode", lambda *rest: calls.append(1) or original(*rest))
    sweep(QUERIES, lambda weights: Retriever(collection, "sum", weights), [Weights(text=w) for w in (0.1, 0.2)])
    assert calls == [1]


def test_a_run_file_is_trecs(tmp_path):
    rankings = {"q1": Ranking(("a", "b"), (0.5, 0.1)), "q2": Ranking(("b",), (-0.25,))}
    write_run(tmp_path / "run", rankings, "sum")
    assert (tmp_path / "run").read_text() == "q1 Q0 a 1 0.5 sum\nq1 Q0 b 2 0.1 sum\nq2 Q0 b 1 -0.25 sum\n"


@pytest.mark.parametrize(("document", "tag"), [("a b", "sum"), ("a", "two words"), ("", "sum")])
def test_a_run_file_holds_no_white_space(tmp_path, document, tag):
    with pytest.raises(CallError, match="white space"):
        write_run(tmp_path / "run", {"q": Ranking((document,), (1.0,))}, tag)
    assert not (tmp_path / "run").exists()
