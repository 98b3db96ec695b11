"""The evaluation loop over a collection whose rankings are known by hand."""

from __future__ import annotations

import json

import pytest

from indexer.collection import Collection
from indexer.errors import CallError
from indexer.types import Document
from pipelines.evaluation.loop import JudgedQuery, answer, evaluate, sweep, write_run
from pipelines.evaluation.qrels import Average, Plan, Precision, Reference, Ties
from retrieval import Query, Retriever, Weights
from retrieval.documents import Ranking
from retrieval.metrics import average_precision_at, mean

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
    monkeypatch.setattr("pipelines.evaluation.loop.BATCH", 1)
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


# Plans other than EmojiCIR's


def test_a_plan_names_its_measures():
    plan = Plan(recall=(1, 50), precision=(5,), subset=(2,), whole=Precision.TRAPEZOID)
    assert plan.names == ("R@1", "R@50", "mAP@5", "Rsub@2", "mAP")
    assert plan.depth == 50
    assert plan.only("R@50") == Plan(recall=(50,), precision=(), subset=())
    assert plan.only("Rsub@2").names == ("Rsub@2",)
    assert plan.only("mAP").whole is Precision.TRAPEZOID
    with pytest.raises(
        CallError,
        match=r"measure 'R@5' is not known. Did you mean 'R@50' or 'R@1'\? Known: R@1, R@50, mAP@5, Rsub@2, mAP",
    ):
        plan.only("R@5")
    with pytest.raises(CallError, match="truncated is no average precision of a whole ranking"):
        Plan(whole=Precision.TRUNCATED)


def test_the_measures_are_the_plans(collection):
    plan = Plan(recall=(2,), precision=(3,), subset=(1, 2), whole=Precision.STANDARD)
    found = evaluate(QUERIES, Retriever(collection, "sum"), plan=plan)
    assert list(found.measures) == ["R@2", "mAP@3", "mAP", "Rsub@1", "Rsub@2"]
    assert found.measures["Rsub@2"].value == 1.0
    whole = evaluate(QUERIES, Retriever(collection, "sum"), 100)
    expected = [average_precision_at(whole.rankings[q.query_id].ids, q.targets, 100) for q in QUERIES]
    assert found.measures["mAP"].value == pytest.approx(mean(expected))


def test_a_gallery_is_all_that_is_ranked(collection):
    one = JudgedQuery("q", Query(text="red cat"), ("dog",), gallery=("dog", "night dog", "red dog"))
    plan = Plan(recall=(1, 3), precision=(), whole=Precision.TRAPEZOID)
    found = evaluate([one], Retriever(collection, "text"), plan=plan)
    assert found.rankings["q"].ids[0] == "red dog"
    assert set(found.rankings["q"].ids) == set(one.gallery)
    assert found.measures["R@3"].value == 1.0
    less = JudgedQuery(**{**vars(one), "exclude": ("red dog",)})
    assert set(evaluate([less], Retriever(collection, "text"), plan=plan).rankings["q"].ids) == {"dog", "night dog"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gallery": ("red cat",)}, "only one of them has a gallery"),
        ({"gallery": ("blue cat", "dog")}, "The target red cat of the query q1 is not in the query's gallery"),
    ],
)
def test_galleries_that_would_mislead_are_refused(collection, change, message):
    first = JudgedQuery(**{**vars(QUERIES[0]), **change})
    rest = [JudgedQuery(**{**vars(q), "gallery": q.targets}) for q in QUERIES[1:]]
    with pytest.raises(CallError, match=message):
        evaluate([first, *(QUERIES[1:] if len(change["gallery"]) == 1 else rest)], Retriever(collection))


def test_ties_go_by_id_or_against_the_target(tmp_path):
    with Collection.open(tmp_path / "c", "fake:64") as same:
        same.add(Document(name, text="cat") for name in ("a", "b", "c"))
        queries = [JudgedQuery(name, Query(text="cat"), (name,)) for name in ("a", "b", "c")]
        for ties, r1, r2 in ((Ties.BY_ID, 1 / 3, 2 / 3), (Ties.AGAINST_TARGET, 0.0, 0.0)):
            plan = Plan(recall=(1, 2, 3), precision=(), ties=ties, whole=Precision.STANDARD)
            found = evaluate(queries, Retriever(same, "text"), plan=plan)
            assert found.measures["R@1"].value == pytest.approx(r1)
            assert found.measures["R@2"].value == pytest.approx(r2)
            assert found.measures["R@3"].value == 1.0
            # Over whole rankings what ties goes before, by either rule; so it does in a gallery.
            assert found.measures["mAP"].value == pytest.approx(1 / 3)
            listed = [JudgedQuery(**{**vars(query), "gallery": ("a", "b", "c")}) for query in queries]
            again = evaluate(listed, Retriever(same, "text"), plan=plan)
            assert again.measures == found.measures


def test_a_stored_reference_may_be_kept(collection):
    asked = JudgedQuery("q", Query(like="cat"), ("red cat",))
    kept = Plan(references=Reference.KEPT, recall=(1,))
    assert evaluate([asked], Retriever(collection, "image"), plan=kept).rankings["q"].ids[0] == "cat"
    assert "cat" not in evaluate([asked], Retriever(collection, "image")).rankings["q"].ids


def test_aspects_are_reported_and_not_averaged_over(collection):
    queries = [
        JudgedQuery(**{**vars(query), "aspects": ("hard", "odd") if query.query_id == "q4" else ("hard",)})
        for query in QUERIES
    ]
    found = evaluate(queries, Retriever(collection, "sum"))
    assert found.measures == evaluate(QUERIES, Retriever(collection, "sum")).measures
    assert found.aspects["odd"]["queries"] == 1
    assert found.aspects["odd"]["R@1"] == 0.0
    assert found.aspects["hard"]["R@1"] == 0.75
    assert found.to_json()["aspects"]["odd"]["R@1"] == 0.0


def test_queries_may_weigh_the_same(collection):
    more = [judged(f"x{n}", "red", "cat", "red cat", "colour", subset=("red cat",)) for n in range(20)]
    found = evaluate(QUERIES + more, Retriever(collection, "sum"), plan=Plan(average=Average.QUERIES))
    assert found.measures["R@1"].value == pytest.approx(23 / 24)


def test_a_sweep_looks_at_any_measure_of_the_plan(collection, monkeypatch):
    monkeypatch.setattr("pipelines.evaluation.loop.BATCH", 3)
    plan = Plan(average=Average.QUERIES, whole=Precision.TRAPEZOID)
    grid = [Weights(text=weight, image=1 - weight) for weight in (0.3, 1.0)]
    for measure in ("Rsub@1", "mAP", "R@5"):
        curve = sweep(QUERIES, lambda weights: Retriever(collection, "sum", weights), grid, plan=plan, measure=measure)
        for weights, value in curve:
            found = evaluate(QUERIES, Retriever(collection, "sum", weights), plan=plan)
            assert value == pytest.approx(found.measures[measure].value)


def test_queries_without_public_judgments_are_answered(collection):
    hidden = [JudgedQuery(**{**vars(query), "targets": ()}) for query in QUERIES]
    ranked = answer(hidden, Retriever(collection, "sum"), 3)
    judged_too = evaluate(QUERIES, Retriever(collection, "sum"), 3)
    for name, ranking in ranked.rankings.items():
        assert ranking.ids == judged_too.rankings[name].ids[:3]
    assert set(ranked.subsets["q1"].ids) == set(QUERIES[0].subset)
