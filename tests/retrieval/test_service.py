"""A service answers like its retrievers, for any caller, and loads each model once."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import drawing_models
import numpy as np
import pytest
from PIL import Image

import retrieval.methods
from indexer import Collection, Document
from indexer.errors import CallError, FilterError, ModelError, QueryError, RequestError, UnderdrawingError
from indexer.registry import Registry
from indexer.types import Center
from retrieval import (
    GenerateOptions,
    LateFusion,
    PseudoTargetProvider,
    Query,
    Retriever,
    SearchOptions,
    SearchRequest,
    SearchService,
    Weights,
)
from retrieval.choice import default_method, quick
from retrieval.methods import Helper
from retrieval.methods.sum import Sum
from retrieval.methods.weights import FILE as WEIGHTS
from retrieval.providers.generation import diffusion
from retrieval.rerank import RERANKERS

COLORS = ("red", "green", "blue", "gray", "black", "white")


@pytest.fixture
def shop(closing, tmp_path):
    made = closing(Collection.open(tmp_path / "shop", "fake:64"))
    made.add(
        [
            Document(name, text=f"a {name} square", image=Image.new("RGB", (8, 8), name), fields={"price": place})
            for place, name in enumerate(COLORS)
        ]
    )
    return made


@pytest.fixture
def service(shop):
    return SearchService(shop)


def told(results):
    return [(hit.id, hit.score) for hit in results]


def test_a_request_is_answered_as_its_retriever_answers(shop, service):
    request = SearchRequest(
        text="a lamp", like="red", method="product", k=3, where={"price": {"$gt": 0}}, exclude=["blue"], center="off",
        not_texts=["x"], modalities=["image+text"], weights={"penalty": 0.3},
    )  # fmt: skip
    query = Query(text="a lamp", like="red", not_texts=("x",))
    retriever = Retriever(shop, "product", Weights(penalty=0.3), center=Center.OFF)
    assert told(service.search(request)) == told(
        retriever.search(query, 3, {"price": {"$gt": 0}}, ["blue"], ["image+text"])
    )
    kept = SearchRequest(like="red", keep_reference=True, method="image")
    assert [hit.id for hit in service.search(kept)][0] == "red"
    assert told(next(service.stream(request))) == told(service.search(request))


def test_a_default_collection_is_asked_for_the_default_method_too(shop):
    service = SearchService({"a": shop, "b": shop}, defaults=SearchOptions(collection="b"))
    with shop.snapshot() as snapshot:
        reference = next(iter(snapshot)).id
    assert service.settled(SearchRequest(text="in blue", like=reference)).collection == "b"
    assert service.search(SearchRequest(text="in blue", like=reference)).hits


def test_a_method_is_chosen_by_what_there_is(shop, service):
    chosen = {
        "text": SearchRequest(text="a"),
        "image": SearchRequest(like="red"),
        "sum": SearchRequest(text="a", like="red"),
        "slerp": SearchRequest(text="a", like="red", method="slerp"),
    }
    assert {name: service.search(request).method for name, request in chosen.items()} == {each: each for each in chosen}
    preset = SearchService(shop, defaults=SearchOptions(method="slerp"))
    assert preset.search(SearchRequest(text="a", like="red")).method == "slerp"
    assert preset.search(SearchRequest(text="a", like="red", method="sum")).method == "sum"


def test_the_default_method_goes_by_the_parts_and_by_what_did_best_with_the_model():
    def chosen(model="fake:8", **fields):
        return default_method(SearchRequest(**fields), lambda: model)

    assert chosen(text="x") == "text"
    assert chosen(like="x") == "image"
    assert chosen(image="x.png", not_texts=("y",)) == "image"
    assert chosen(text="x", like="y") == "sum"
    table = json.loads(WEIGHTS.read_text(encoding="utf-8"))["bundled:emoji-clip"]
    best = max(filter(quick, table), key=lambda name: max(score for _, score in table[name]["curve"]))
    assert chosen("bundled:emoji-clip", text="x", like="y") == best
    assert chosen("bundled:emoji-clip", text="x", like="y", weights={"text": 0.3}) == "sum"


def test_defaults_fill_what_a_request_leaves_open_and_its_method_reads(shop):
    service = SearchService(shop, defaults=SearchOptions(captioner="table:none.json", rewriter="join", center="off"))
    assert service.search(SearchRequest(text="a", like="red")).method == "sum"
    settled = service.settled(SearchRequest(text="a", like="red"))
    assert (settled.method, settled.captioner, settled.center) == ("sum", None, "off")
    answer = service.search(SearchRequest(text="in blue", like="red", method="caption", caption="a square"))
    assert answer.written["sentence"] == "a square, in blue"


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"steps": 3, "method": "sum"}, "steps", "The method sum does not read `steps`. Leave it out, or choose `method=cig`"),
        ({"captioner": "x", "steps": 3}, "captioner", "The method cig does not read `captioner`"),
        ({"caption": "x"}, "caption", "choose `method=caption` or `method=shift`"),
        ({"method": "cig", "like": None}, "image", "needs a text and a reference; this query has no reference"),
        ({"method": "inversion", "text": None}, "text", "this query has no text"),
        ({"method": "caption", "like": None}, "image", "Add `image` or `like`, or choose `method=text`"),
        ({"collection": "shoe"}, "collection", "'shoe' is not known. Known: "),
    ],
)  # fmt: skip
def test_what_is_asked_in_vain_is_refused_by_its_field(service, fields, field, said):
    request = SearchRequest(**({"text": "a", "like": "red"} | fields))
    for ask in (service.search, service.prepare, lambda each: next(service.stream(each))):
        with pytest.raises(RequestError) as refused:
            ask(request)
        assert refused.value.field == field
        assert said in str(refused.value)
        assert "--" not in str(refused.value)


def test_what_a_request_names_is_looked_for_before_a_model_is_loaded(shop, service, tmp_path, monkeypatch):
    monkeypatch.setattr(type(shop), "embedder", property(lambda _: pytest.fail("the model was loaded")))
    for fields, error in (
        ({"image": tmp_path / "none.png"}, QueryError),
        ({"like": "nobody"}, CallError),
        ({"where": {"price": {"$near": 1}}}, FilterError),
    ):
        with pytest.raises(error):
            service.prepare(SearchRequest(text="a", method="sum", **fields))


def test_a_retriever_serves_all_requests_with_its_options(service, monkeypatch):
    first = service.retriever(SearchOptions(method="sum", seed=0))
    assert service.retriever(SearchRequest(text="a", method="sum", seed=0, k=3)) is first
    second = service.retriever(SearchOptions(method="sum", seed=1))
    assert second is not first
    monkeypatch.setattr("retrieval.service.RETRIEVERS", 2)
    service.retriever(SearchOptions(method="sum", seed=0))
    service.retriever(SearchOptions(method="sum", seed=2))
    assert service.retriever(SearchOptions(method="sum", seed=0)) is first
    assert service.retriever(SearchOptions(method="sum", seed=1)) is not second


def test_several_collections_are_asked_by_name(shop, closing, tmp_path):
    other = closing(Collection.open(tmp_path / "other", "fake:32"))
    other.add([Document("far", text="far away")])
    service = SearchService({"shop": shop, "other": other})
    assert list(service.collections) == ["shop", "other"]
    assert [hit.id for hit in service.search(SearchRequest(text="a", collection="other"))] == ["far"]
    with pytest.raises(RequestError, match="names no collection") as unnamed:
        service.search(SearchRequest(text="a"))
    assert unnamed.value.field == "collection"
    with pytest.raises(RequestError, match="Did you mean 'shop'"):
        service.search(SearchRequest(text="a", collection="shops"))
    for none in ({}, {"a": "folder"}, "folder"):
        with pytest.raises(CallError):
            SearchService(none)


def test_a_space_is_asked_by_name(shop, service):
    shop.add_space("fake:32", "small")
    answer = service.search(SearchRequest(text="a red square", space="small"))
    assert (answer.model, len(answer)) == ("fake:32", len(COLORS))
    assert service.search(SearchRequest(text="a red square")).model == "fake:64"
    many = service.search_batch([SearchRequest(text="a", space=space) for space in ("small", None, "small")])
    assert [each.model for each in many] == ["fake:32", "fake:64", "fake:32"]
    with pytest.raises(RequestError, match="'smell' is not known. Did you mean 'small'") as unknown:
        service.search(SearchRequest(text="a", space="smell"))
    assert unknown.value.field == "space"


@pytest.mark.parametrize("fusion", [None, "ranks", "scores"])
def test_several_spaces_are_fused_for_every_way_of_asking(shop, service, fusion):
    shop.add_space("fake:32", "small")
    names = {"fake:64": None, "small": "small"}
    query = Query(text="a red square", like="blue")
    by_hand = LateFusion(
        {name: Retriever(shop, "sum", space=space) for name, space in names.items()}, fusion=fusion or "ranks"
    ).search(query, k=3)
    request = SearchRequest(text="a red square", like="blue", space=list(names), k=3, fusion=fusion)
    answer = service.search(request)
    assert told(answer) == told(by_hand)
    assert all(hit.branches.keys() == names.keys() for hit in answer)
    assert answer.model == "fake:64 and fake:32"
    parsed = SearchRequest.from_json({"text": "a red square", "like": "blue", "space": list(names), "k": 3})
    assert (parsed.space, SearchRequest.from_json({"text": "a", "space": "small"}).space) == (tuple(names), ("small",))
    assert [told(each) for each in service.search_batch([request, request])] == [told(by_hand)] * 2
    assert [told(each) for each in service.stream(request)] == [told(by_hand)]
    service.prepare(request)


def test_defaults_may_name_several_spaces(shop):
    shop.add_space("fake:32", "small")
    service = SearchService(shop, defaults=SearchOptions(space=("small", "fake:64")))
    assert service.search(SearchRequest(text="a red square")).model == "fake:32 and fake:64"
    assert service.search(SearchRequest(text="a red square", space="small")).model == "fake:32"


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"space": ["small", "smell"]}, "space", "'smell' is not known. Did you mean 'small'"),
        ({"space": "small", "fusion": "ranks"}, "fusion", "`fusion` is read where several spaces are searched"),
        ({"fusion": "scores"}, "fusion", "Name two or more with `space`"),
        ({"space": ["small", "fake:64"], "fusion": "votes"}, "fusion", "'votes' is not known"),
        ({"space": ["small", 3]}, "space", "`space`"),
    ],
)
def test_errors_about_several_spaces_name_the_field(shop, service, fields, field, said):
    shop.add_space("fake:32", "small")
    with pytest.raises(RequestError) as refused:
        service.check(SearchRequest(text="a", **fields))
    assert refused.value.field == field
    assert said in str(refused.value)


class Backwards:
    """A re-ranker that turns the order around, and notes what it is asked."""

    def __init__(self):
        self.asked = []

    def rerank(self, query, candidates, deadline):
        self.asked.append((len(candidates), deadline))
        return np.arange(len(candidates), dtype=np.float32)


def test_a_re_ranker_is_loaded_once_and_asked_as_deep_as_it_is_told(shop, service, monkeypatch):
    loaded, reranker = [], Backwards()
    monkeypatch.setattr(RERANKERS, "_registered", {})
    RERANKERS.register("backwards")(lambda rest, *, device: loaded.append((rest, device)) or reranker)
    asked = SearchRequest(text="a red square", rerank="backwards", rerank_depth=4, k=3, deadline_ms=1000)
    plain = [hit.id for hit in service.search(SearchRequest(text="a red square", k=4))]
    for _ in range(2):
        assert [hit.id for hit in service.search(asked)] == plain[::-1][:3]
    assert loaded == [("", "auto")]
    assert [depth for depth, _ in reranker.asked] == [4, 4]
    assert all(deadline is not None for _, deadline in reranker.asked)
    for fields, field in (({"rerank": "forwards"}, "rerank"), ({"rerank_depth": 4}, "rerank_depth")):
        with pytest.raises(RequestError) as refused:
            service.search(SearchRequest(text="a", **fields))
        assert refused.value.field == field


def test_a_re_ranker_that_cannot_be_loaded_is_a_note(service, monkeypatch):
    def load(rest, *, device):
        raise ModelError(f"There is nothing at {rest}.")

    monkeypatch.setattr(RERANKERS, "_registered", {})
    RERANKERS.register("broken")(load)
    answer = service.search(SearchRequest(text="a red square", rerank="broken:here"))
    assert len(answer) == len(COLORS)
    assert answer.notes == ("Not re-ranked: There is nothing at here.",)


def test_a_batch_is_embedded_together_and_answered_as_one_by_one(shop, service, monkeypatch):
    requests = [SearchRequest(text=name, k=2) for name in COLORS]
    requests += [SearchRequest(text="x", like="red"), SearchRequest(text="y", where={"price": 3})]
    alone = [told(service.search(each)) for each in requests]
    embedder, batches = shop.embedder, []
    encode = type(embedder).try_encode
    monkeypatch.setattr(
        type(embedder),
        "try_encode",
        lambda self, items, *rest: batches.append(len(items)) or encode(self, items, *rest),
    )
    assert [told(each) for each in service.search_batch(requests)] == alone
    assert max(batches) == len(COLORS)
    assert len(batches) == 3


def test_a_bad_request_costs_its_own_answer(service, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    image = SearchRequest(image=tmp_path / "broken.png")
    requests = [SearchRequest(like="red"), image, SearchRequest(like="nobody"), SearchRequest(like="blue", steps=3)]
    good, broken, nobody, vain = service.try_search_batch(requests)
    assert told(good) == told(service.search(requests[0]))
    assert all(isinstance(each, UnderdrawingError) for each in (broken, nobody, vain))
    assert "it begins with b'no image'" in str(broken)
    assert "nobody" in str(nobody)
    with pytest.raises(UnderdrawingError, match="no image"):
        service.search_batch(requests)
    assert service.search_batch([]) == []


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return drawing_models.make(tmp_path_factory.mktemp("service"))


@pytest.fixture
def painted(made, tmp_path, monkeypatch, closing):
    """A service for a model that reads pseudo-words, its generator, and how often that was loaded."""
    folder, model = made
    generator, loaded = drawing_models.Painter(model), []

    def load(source, *_, device):
        loaded.append(source)
        return generator

    monkeypatch.setattr(diffusion.PseudoTargetGenerator, "load", load)
    service = SearchService(
        closing(Collection.open(folder, model)),
        defaults=SearchOptions(inversion=folder.parent / "inversion", generator="the-generator"),
        cache=tmp_path / "cache",
    )
    return service, generator, loaded


def test_a_request_for_pseudo_targets_reaches_the_generator_of_all(painted, tmp_path):
    service, generator, loaded = painted
    asked = SearchRequest(text="at night", like="red.png", steps=3, guidance=2.0, pseudo_target_count=2, seed=7)
    first = service.search(asked)
    assert first.method == "cig"
    [(texts, options)] = generator.calls
    assert texts == ["at night"]
    assert (options.steps, options.guidance, options.images, options.seed) == (3, 2.0, 2, 7)
    assert service.search(asked).pseudo_target["cached"] is True
    service.search(SearchRequest(text="at night", like="red.png", seed=8))
    again = service.search(SearchRequest(text="at night", like="red.png", seed=8, regenerate=True))
    assert again.pseudo_target["cached"] is False
    assert [options.seed for _, options in generator.calls] == [7, 8, 8]
    assert loaded == ["the-generator"]
    assert (tmp_path / "cache" / "drawings").is_dir()


def test_a_provider_at_hand_is_asked_with_its_own_options_where_a_request_has_none(made, closing, tmp_path):
    folder, model = made
    generator = drawing_models.Painter(model)
    provider = PseudoTargetProvider(
        folder.parent / "inversion", generator, GenerateOptions(steps=5, seed=3), cache=tmp_path / "cache"
    )
    service = SearchService(closing(Collection.open(folder, model)), pseudo_targets=provider)
    service.search(SearchRequest(text="at night", like="red.png", method="cig"))
    service.search(SearchRequest(text="at night", like="red.png", seed=4))
    assert [(options.steps, options.seed) for _, options in generator.calls] == [(5, 3), (5, 4)]
    other = SearchRequest(
        text="at night", like="red.png", inversion=folder.parent / "inversion", generator="bundled:none"
    )
    assert "No pseudo-target" in service.search(other).notes[0]


def test_a_stream_answers_at_once_and_again(painted):
    service, _, _ = painted
    asked = SearchRequest(text="at night", like="red.png", method="cig")
    without, with_it = service.stream(asked)
    assert without.pseudo_target is None
    assert with_it.pseudo_target is not None


def test_a_deadline_and_a_gate_are_those_of_a_request(painted):
    service, generator, _ = painted
    clear = service.search(SearchRequest(text="at night", like="red.png", gate=0))
    assert clear.pseudo_target is None
    assert generator.calls == []
    late = service.search(SearchRequest(text="at dawn", like="red.png", deadline_ms=0))
    assert "in the background" in late.notes[0]
    assert service.search(SearchRequest(text="at dawn", like="red.png", method="cig")).pseudo_target is not None


def test_a_missing_helper_is_a_note_of_the_search_and_an_error_beforehand(made, closing):
    folder, model = made
    service = SearchService(closing(Collection.open(folder, model)))
    asked = SearchRequest(text="at night", like="red.png", inversion=folder.parent / "inversion", method="cig")
    assert "No pseudo-target: No generator comes with" in service.search(asked).notes[0]
    with pytest.raises(CallError, match="No generator comes with"):
        service.prepare(asked)


class Generating(Sum):
    """A method of another package: it needs a generator and no inversion."""

    name = "generating"
    needs = (Helper.GENERATOR,)


def test_a_method_that_needs_a_generator_alone_has_it_loaded(shop, monkeypatch):
    registry = Registry("method", "no.such.group", {})
    registry.register("generating")(Generating)
    monkeypatch.setattr(retrieval.methods, "METHODS", registry)
    asked = SearchRequest(text="at night", like="red", method="generating")
    with pytest.raises(CallError, match="No generator comes with fake:64"):
        SearchService(shop).prepare(asked)


def test_sixteen_threads_share_a_service_and_its_models(painted, made):
    service, generator, loaded = painted
    names = sorted(drawing_models.COLOURS)
    requests = [
        SearchRequest(text=f"at {name}", like=f"{name}.png", method=method, seed=seed)
        for name in names
        for method, seed in (("cig", 0), ("cig", 1), ("sum", None), ("inversion", None))
    ]
    requests = [request if request.method == "cig" else SearchRequest(text=request.text, like=request.like, method=request.method) for request in requests]  # fmt: skip
    together = threading.Barrier(16)

    def ask(request):
        together.wait()
        return told(service.search(request))

    assert len(requests) == 16
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, requests))
    assert loaded == ["the-generator"]
    assert sum(len(texts) for texts, _ in generator.calls) == 2 * len(names)
    assert answers == [told(service.search(request)) for request in requests]
