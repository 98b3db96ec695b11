"""Methods by name: those of the folder, one's own, and what a retriever makes of either."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from typing import ClassVar
from unittest.mock import Mock

import numpy as np
import pytest

import retrieval.methods
from indexer.errors import CallError, PluginError, QueryError, UnknownNameError
from indexer.registry import Registry
from retrieval import Method, Query, Retriever, Weights
from retrieval.methods import METHODS, Merge, load_method
from retrieval.methods.base import TwoParts

SHARED = {"base", "context", "weights"}


class Nearest(TwoParts):
    """The text and a little of the reference."""

    name = "nearest"
    help = "mostly the text"
    tuned = "nearest"
    reads = frozenset({"alpha", "negative"})
    defaults: ClassVar[Weights] = Weights(alpha=0.25, negative=0.5)

    def terms(self, resolved, weights, space):
        vectors = resolved.vectors
        return {"text": (1.0, vectors["text"]), "image": (weights["alpha"], vectors["image"])}, ("nearly",)


class Slow(Nearest):
    """Adds a branch in a second step."""

    name = "slow"

    def refines(self, query):
        return query.is_composed

    def refine(self, context, resolved):
        return [replace(each, notes=("refined",), artifacts={"made": {"n": 1}}) for each in resolved]

    def terms(self, resolved, weights, space):
        terms, _ = super().terms(resolved, weights, space)
        return terms, resolved.notes


@pytest.fixture
def mine(monkeypatch):
    registry = Registry("method", "no.such.group", {})
    for method in (Nearest, Slow):
        registry.register(method.name)(method)
    monkeypatch.setattr(retrieval.methods, "METHODS", registry)
    monkeypatch.setattr("retrieval.retriever.METHODS", registry)
    return registry


def test_every_file_of_the_folder_is_a_room_with_names_and_lines():
    rooms = {METHODS._builtin[name].target.partition(":")[0] for name in METHODS.names()}
    files = {module.name for module in iter_modules(retrieval.methods.__path__)} - SHARED
    assert rooms == {f"retrieval.methods.{file}" for file in files}
    assert all(METHODS.help().values())
    for name in METHODS.names():
        assert (load_method(name).name, load_method(name).help) == (name, METHODS.help()[name])
    assert set(Method) <= set(METHODS.names())


def test_a_room_with_two_names_is_found_by_both():
    module = import_module("retrieval.methods.single")
    assert type(load_method("text")) is module.Text
    assert type(load_method("image")) is module.Image


def test_a_method_of_ones_own_answers_with_its_own_weights(collection, mine):
    results = Retriever(collection, "nearest").search(Query(text="red", like="cat"), k=3)
    assert (results.method, results.notes) == ("nearest", ("nearly",))
    assert results.hits[0].branches.keys() == {"text", "image"}
    vectors = Retriever(collection, "nearest").encode([Query(text="red", like="cat")])[0].vectors
    expected = vectors["text"] + 0.25 * vectors["image"]
    scores = collection.pinned._vectors @ (expected / np.linalg.norm(expected))
    reference = collection.pinned.vector_ids(["cat"])[0] - collection.pinned.FIRST
    assert results.hits[0].score == pytest.approx(np.delete(scores, reference).max(), abs=1e-5)
    assert Retriever(collection, "nearest").weights().source == "the method's own defaults"
    with pytest.raises(QueryError, match="nearest does not read the weight image. It reads: alpha, negative"):
        Retriever(collection, "nearest", Weights(image=1.0))


def test_a_method_that_refines_is_streamed_and_shows_what_it_made(collection, mine):
    first, second = Retriever(collection, "slow").stream(Query(text="red", like="cat"), k=3)
    assert (first.notes, first.artifacts) == ((), {})
    assert (second.notes, second.artifacts) == (("refined",), {"made": {"n": 1}})
    assert second.to_json()["artifacts"] == {"made": {"n": 1}}
    assert len(list(Retriever(collection, "slow").stream(Query(text="red"), k=3))) == 1


def test_a_gate_spares_what_is_clear(collection, mine):
    query = Query(text="red", like="cat")
    assert Retriever(collection, "slow", gate=-1.0).search(query).artifacts == {}
    assert Retriever(collection, "slow", gate=3.0).search(query).artifacts == {"made": {"n": 1}}


def test_a_weight_without_a_default_has_to_be_given(collection, mine):
    class Bare(Nearest):
        name = "bare"
        defaults: ClassVar[Weights] = Weights(negative=0.5)

    mine.register("bare")(Bare)
    with pytest.raises(CallError, match="bare has no default for its weight alpha"):
        Retriever(collection, "bare").search(Query(text="red", like="cat"))
    assert Retriever(collection, "bare", Weights(alpha=0.1)).search(Query(text="red", like="cat")).hits


def test_what_is_no_method_is_refused(collection, mine):
    mine.register("nothing")(lambda: object())
    with pytest.raises(PluginError, match="'nothing' is a object without name, help, tuned"):
        Retriever(collection, "nothing")
    with pytest.raises(UnknownNameError, match="method 'sum' is not known"):
        Retriever(collection, "sum")


@pytest.mark.parametrize("merge", list(Merge))
def test_cig_with_a_merge_is_the_method_of_both_names(merge):
    assert type(load_method("cig", merge)) is type(load_method(f"cig-{merge}"))
    assert load_method("cig", merge).tuned == f"cig-{merge}"


def test_cig_alone_embeds_and_other_methods_read_no_merge():
    assert (load_method("cig").name, load_method("cig").tuned) == ("cig", "cig-embed")
    assert load_method("sum", "product").name == "sum"
    with pytest.raises(UnknownNameError, match="merge 'add' is not known"):
        load_method("cig", "add")


@pytest.mark.parametrize("step", ["__init__", "branches", "resolve", "refines", "refine", "terms"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_foreign_method_raises_is_an_error_that_names_it(collection, mine, step, stream):
    def fails(*arguments, **options):
        raise ZeroDivisionError("of its own")

    mine.register("odd")(type("Odd", (Slow,), {step: fails, "name": "odd", "__module__": __name__}))

    def ask():
        retriever, query = Retriever(collection, "odd"), Query(text="red", like="cat")
        return list(retriever.stream(query)) if stream else retriever.search(query)

    with pytest.raises(
        PluginError, match="method 'odd' of the module .*test_method_registry failed: ZeroDivisionErr"
    ) as told:
        ask()
    assert "of its own" in told.value.message
    assert isinstance(told.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("answer", [None, [None, None, None]])
def test_what_a_foreign_method_gives_in_place_of_an_answer_is_an_error_that_names_it(collection, mine, answer):
    mine.register("odd")(type("Odd", (Nearest,), {"resolve": lambda *_: answer, "name": "odd", "__module__": __name__}))
    with pytest.raises(PluginError, match="The method 'odd' of the module .*test_method_registry failed: "):
        Retriever(collection, "odd").search(Query(text="red"))


def test_what_a_method_of_this_project_raises_is_its_own(collection, monkeypatch):
    def fails(*arguments):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(import_module("retrieval.methods.sum").Sum, "terms", fails)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        Retriever(collection, "sum").search(Query(text="red", like="cat"))


def test_what_goes_wrong_beside_a_foreign_method_is_not_laid_at_its_door(collection, mine, monkeypatch):
    monkeypatch.setattr("retrieval.retriever.hits_of", Mock(side_effect=OSError("the disk is full")))
    with pytest.raises(OSError, match="the disk is full"):
        Retriever(collection, "nearest").search(Query(text="red", like="cat"))
