"""The methods `inversion` and `cig` end to end: a tiny model, a random inversion, a generator of noise."""

from __future__ import annotations

import io
import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_collection import FakeSnapshot, FakeSource, stored
from fake_generator import FakeGenerator
from PIL import Image
from tiny_models import DIM, WIDTH, pictures, tiny_clip, tiny_inversion

from indexer.embed import load_embedder
from indexer.errors import CallError, ModelError, QueryError
from indexer.snapshot import Mean
from indexer.types import Item, Modality, Role
from retrieval import Query, Retriever, Weights
from retrieval.methods import Merge, load_weights
from retrieval.providers.generation import GenerateOptions
from retrieval.providers.pseudo_target import PseudoTargetProvider
from retrieval.retriever import STAGES
from retrieval.scoring import unit

METHODS = [("inversion", Merge.EMBED), *(("cig", merge) for merge in Merge)]
MERGES = list(Merge)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_embedder(f"open_clip:{tiny_clip(tmp_path_factory.mktemp('clip'))}")


@pytest.fixture(scope="module")
def references():
    return pictures(12)


@pytest.fixture
def source(model, references):
    """Eight pictures as documents, with their mean."""
    vectors = model.encode_document([Item(image=picture) for picture in references[:8]])
    means = {(Role.DOCUMENT, Modality.IMAGE): Mean(8, vectors.mean(0))}
    return FakeSource(FakeSnapshot([stored(f"d{number}") for number in range(8)], vectors, means), model)


@pytest.fixture
def generator(model):
    return FakeGenerator(model.name)


@pytest.fixture
def pseudo_targets(generator, tmp_path):
    """Make a pseudo_targets; by default, of the test's generator and cache."""

    def make(**options):
        given = {"inversion": tiny_inversion(), "generator": generator, "cache": tmp_path / "drawings"}
        return PseudoTargetProvider(**(given | options))

    return make


@pytest.fixture
def retriever(source, pseudo_targets):
    """Make a retriever; what a pseudo_targets takes goes to its pseudo_targets."""

    def make(method="cig", merge=Merge.EMBED, weights=None, gate=None, **options):
        return Retriever(source, method, weights, merge=merge, pseudo_targets=pseudo_targets(**options), gate=gate)

    return make


@pytest.fixture
def query(references):
    return Query(text="at night", image=references[9])


def vector(model, picture):
    return model.encode_query([Item(image=picture)])[0]


def read(model, inversion, text, picture_vector):
    words = inversion.words(np.asarray(picture_vector, np.float32)[None])
    return model.encode_pseudo_words(inversion.config.template, [text], words)[0]


def drawn(results):
    """The pictures of an answer's pseudo-target."""
    first = Path(results.pseudo_target["path"])
    return [opened(file) for file in sorted(first.parent.glob(f"{first.stem.partition('-')[0]}-*.png"))]


def opened(file):
    """A picture whose file is closed again."""
    return Image.open(io.BytesIO(Path(file).read_bytes()))


def scores(results):
    return {hit.id: hit.score for hit in results}


def same(left, right):
    assert [hit.id for hit in left] == [hit.id for hit in right]
    np.testing.assert_allclose([hit.score for hit in left], [hit.score for hit in right], atol=1e-6)


def test_inversion_searches_by_the_sentence_with_the_references_word(retriever, query, model, source):
    results = retriever("inversion").search(query, k=8)
    expected = read(model, tiny_inversion(), "at night", vector(model, query.image))
    np.testing.assert_allclose(
        [scores(results)[f"d{n}"] for n in range(8)], source.pinned._vectors @ expected, atol=1e-5
    )
    assert results.notes == ()
    assert results.pseudo_target is None
    assert results.hits[0].branches.keys() == {"inversion"}


def test_a_stored_reference_has_a_word_as_well_and_is_left_out(retriever, model, source):
    results = retriever("inversion").search(Query(text="at night", like="d3"), k=8)
    expected = read(model, tiny_inversion(), "at night", source.pinned._vectors[3])
    assert scores(results).keys() == {f"d{n}" for n in range(8)} - {"d3"}
    assert scores(results)["d1"] == pytest.approx(source.pinned._vectors[1] @ expected, abs=1e-5)


def test_an_inversion_of_raw_features_reads_the_picture_itself(retriever, query, model, source):
    inversion = tiny_inversion(normalized=False)
    results = retriever("inversion", inversion=inversion).search(query, k=8)
    raw = model.image_features([model.preparer()(Item(image=query.image))])[0]
    expected = read(model, inversion, "at night", raw)
    np.testing.assert_allclose(
        [scores(results)[f"d{n}"] for n in range(8)], source.pinned._vectors @ expected, atol=1e-5
    )
    with pytest.raises(CallError, match="Give the image with `image` in place of `like`"):
        retriever("inversion", inversion=inversion).search(Query(text="at night", like="d3"))


def test_the_references_own_vector_may_count_too(retriever, query, model, source):
    weights = Weights(inversion=0.6, image=0.4)
    results = retriever("inversion", weights=weights).search(query, k=8)
    image = vector(model, query.image)
    expected = unit(0.6 * read(model, tiny_inversion(), "at night", image) + 0.4 * image)
    assert scores(results)["d5"] == pytest.approx(source.pinned._vectors[5] @ expected, abs=1e-5)


@pytest.mark.parametrize(("method", "merge"), METHODS)
@pytest.mark.parametrize("part", [{"text": "at night"}, {"like": "d2"}])
def test_one_part_alone_is_searched_without_word_or_drawing(retriever, generator, method, merge, part):
    one = retriever(method, merge)
    results = one.search(Query(**part))
    missing, name = ("image", "text") if "text" in part else ("text", "image")
    full = f"cig-{merge}" if method == "cig" else method
    assert results.notes == (f"The query has no {missing}, so the method {full} searches by the {name} alone.",)
    assert len(list(one.stream(Query(**part)))) == 1
    assert generator.calls == []


def test_embed_adds_the_drawing_less_the_mean_of_pictures(retriever, query, model, source):
    results = retriever().search(query, k=8)
    weights = load_weights("fake:24", "cig-embed").weights
    [picture] = drawn(results)
    expected = unit(
        weights["inversion"] * read(model, tiny_inversion(), "at night", vector(model, query.image))
        + weights["pseudo_target"] * (vector(model, picture) - source.pinned._vectors.mean(0))
    )
    np.testing.assert_allclose(
        [scores(results)[f"d{n}"] for n in range(8)], source.pinned._vectors @ expected, atol=1e-5
    )
    assert results.hits[0].branches.keys() == {"inversion", "pseudo_target", "mean_image"}


@pytest.mark.parametrize("normalized", [True, False])
def test_reinvert_reads_the_sentence_with_the_drawings_word(retriever, query, model, source, normalized):
    """An inversion of raw features reads the drawings themselves."""
    inversion = tiny_inversion(normalized=normalized)
    options = GenerateOptions(images=2)
    results = retriever(merge="reinvert", inversion=inversion, options=options).search(query, k=8)
    weights = load_weights("fake:24", "cig-reinvert").weights

    def feature(pictures):
        items = [Item(image=picture) for picture in pictures]
        if normalized:
            return unit(model.encode_query(items).mean(0))
        return model.image_features([model.preparer()(item) for item in items]).mean(0)

    assert len(drawn(results)) == 2
    expected = unit(
        weights["inversion"] * read(model, inversion, "at night", feature([query.image]))
        + weights["pseudo_target"] * read(model, inversion, "at night", feature(drawn(results)))
    )
    np.testing.assert_allclose(
        [scores(results)[f"d{n}"] for n in range(8)], source.pinned._vectors @ expected, atol=1e-5
    )


def test_product_multiplies_the_similarities(retriever, query, model, source):
    results = retriever(merge="product", weights=Weights(pseudo_target=0.6)).search(query, k=8)
    text = (source.pinned._vectors @ read(model, tiny_inversion(), "at night", vector(model, query.image)) + 1) / 2
    picture = (source.pinned._vectors @ vector(model, drawn(results)[0]) + 1) / 2
    np.testing.assert_allclose(
        [scores(results)[f"d{n}"] for n in range(8)], 0.4 * text + 0.6 * text * picture, atol=1e-5
    )
    assert "lambda" in results.scale
    with pytest.raises(QueryError, match=r"pseudo_target is 1.5; in the product it must be 0 to 1"):
        retriever(merge="product", weights=Weights(pseudo_target=1.5)).search(query)


@pytest.mark.parametrize("merge", MERGES)
def test_the_answer_says_what_was_drawn_and_whether_it_was_kept(retriever, query, merge):
    once = retriever(merge=merge, options=GenerateOptions(seed=4)).search(query)
    assert once.pseudo_target.items() >= {"seed": 4, "cached": False}.items()
    assert opened(once.pseudo_target["path"]).size == (16, 16)
    again = retriever(merge=merge, options=GenerateOptions(seed=4)).search(query)
    assert again.pseudo_target == once.pseudo_target | {"cached": True}
    same(once, again)
    assert once.notes == again.notes == ()
    assert tuple(once.took_ms) == STAGES
    json.dumps(once.to_json())


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"generator": None}, "No generator comes with .*`generator`"),
        ({"generator": "bundled:nobody"}, "bundled generator 'nobody' is not known"),
        ({"generator": "/nowhere/at/all"}, "There is no generator at /nowhere/at/all"),
        ("full", r"The fake is full\. Draw less\."),
        ("black", "1 of 1 images came out black"),
        ("unwritable", "cannot be written"),
    ],
)
def test_without_a_drawing_the_answer_is_that_of_the_inversion_with_a_note(
    retriever, query, generator, tmp_path, merge, broken, message
):
    match broken:
        case "full":
            generator.most, broken = 0, {}
        case "black":
            generator.black, broken = query.text, {}
        case "unwritable":
            (tmp_path / "file").write_text("in the way")
            broken = {"cache": tmp_path / "file"}
    results = retriever(merge=merge, **broken).search(query, k=8)
    same(results, retriever("inversion").search(query, k=8))
    [note] = results.notes
    assert re.search(f"^No pseudo-target: .*{message}", note)
    assert results.pseudo_target is None


def test_what_failed_is_tried_again_and_what_came_out_black_is_not(retriever, query, generator):
    generator.most = 0
    assert retriever().search(query).notes
    generator.most = 1
    assert not retriever().search(query).notes
    assert len(generator.calls) == 1
    dark = replace(query, text="dark")
    generator.black = "dark"
    assert retriever().search(dark).notes == retriever().search(dark).notes != ()
    assert len(generator.calls) == 2


def test_what_does_not_fit_at_once_is_drawn_in_parts_and_one_failure_is_its_own(retriever, references, generator):
    generator.most, generator.poison = 2, "poison"
    queries = [Query(text=text, image=references[9]) for text in ("one", "two", "poison", "three", "four")]
    results = retriever().search_batch(queries, k=3)
    assert [bool(each.notes) for each in results] == [False, False, True, False, False]
    assert [each.pseudo_target is None for each in results] == [False, False, True, False, False]
    assert sorted(text for call in generator.calls for text in call) == ["four", "one", "three", "two"]


def test_a_reference_without_the_features_that_the_generator_reads_costs_its_own_query(
    retriever, references, generator, model
):
    generator.feature_models = [(model.name, False)]
    queries = [Query(text="at night", **part) for part in ({"image": references[9]}, {"like": "d3"}, {"like": "d4"})]
    queries.append(Query(text="at dawn", image=references[10]))
    results = retriever().search_batch(queries, k=3)
    assert [each.pseudo_target is None for each in results] == [False, True, True, False]
    assert [len(each.notes) for each in results] == [0, 1, 1, 0]
    assert results[1].notes[0].startswith("No pseudo-target: A stored vector stands for the reference")
    same(results[3], retriever().search(queries[3], k=3))


def test_a_question_asked_twice_is_drawn_once(retriever, query, generator, references):
    other = Query(text="at night", image=references[10])
    retriever().search_batch([query, other, query, replace(query, text=" at  night ")])
    assert [sorted(call) for call in generator.calls] == [["at night"] * 2]


def test_a_deadline_is_kept_and_the_late_drawing_with_it(retriever, query, generator):
    generator.held.clear()
    late = retriever(deadline_ms=0)
    results = late.search(query, k=8)
    same(results, retriever("inversion").search(query, k=8))
    assert results.notes == ("No pseudo-target within 0 ms; it is finished in the background and cached.",)
    assert (results.pseudo_target, generator.calls) == (None, [])
    generator.held.set()
    late._pseudo_targets._pool.submit(lambda: None).result()  # one after the other: the late drawing is done by then
    assert generator.calls == [["at night"]]
    assert retriever().search(query).pseudo_target["cached"] is True
    assert generator.calls == [["at night"]]


def test_in_time_a_deadline_changes_nothing(retriever, query):
    results = retriever(deadline_ms=1e6).search(query)
    assert (results.notes, results.pseudo_target["cached"]) == ((), False)


@pytest.mark.parametrize("deadline", [float("inf"), 1e13, 1e300])
def test_a_deadline_beyond_what_a_thread_can_wait_changes_nothing(retriever, query, deadline):
    results = retriever(deadline_ms=deadline).search(query)
    assert (results.notes, results.pseudo_target["cached"]) == ((), False)


@pytest.mark.parametrize("deadline", [-1, float("nan")])
def test_a_deadline_is_not_negative(pseudo_targets, deadline):
    with pytest.raises(CallError, match="must not be negative|must be a number"):
        pseudo_targets(deadline_ms=deadline)


@pytest.mark.parametrize("merge", MERGES)
def test_a_stream_gives_the_fast_answer_before_anything_is_drawn(retriever, query, generator, merge):
    answers = retriever(merge=merge).stream(query, k=8)
    fast = next(answers)
    assert generator.calls == []
    assert fast.pseudo_target is None
    same(fast, retriever("inversion").search(query, k=8))
    refined = next(answers)
    assert generator.calls == [["at night"]]
    same(refined, retriever(merge=merge).search(query, k=8))
    assert next(answers, None) is None


def test_a_stream_of_what_needs_no_drawing_is_one_answer(retriever, query):
    [only] = retriever("inversion").stream(query, k=2)
    same(only, retriever("inversion").search(query, k=2))
    [only] = retriever("image").stream(Query(like="d1"), k=2)
    assert len(only) == 2
    for method in ("inversion", "cig"):
        with pytest.raises(QueryError, match="at least 1"):
            next(retriever(method).stream(query, k=0))


def test_a_gate_draws_only_where_the_ranking_is_in_doubt(retriever, references, generator):
    queries = [Query(text=text, image=references[9]) for text in ("one", "two", "three", "four")]
    plain = retriever("inversion").search_batch(queries, k=2)
    margins = [each.hits[0].score - each.hits[1].score for each in plain]
    order = np.argsort(margins)
    gate = (margins[order[1]] + margins[order[2]]) / 2
    results = retriever(gate=gate).search_batch(queries, k=2)
    clear = ("The ranking is clear without a pseudo-target, so none was generated.",)
    for place, (each, without) in enumerate(zip(results, plain, strict=True)):
        if place in order[:2]:
            assert each.notes == ()
            assert each.pseudo_target is not None
        else:
            assert each.notes == clear
            assert each.pseudo_target is None
            same(each, without)
    assert sorted(generator.calls[0]) == sorted(queries[place].text for place in order[:2])
    assert all(each.notes == clear for each in retriever(gate=0.0).search_batch(queries))
    retriever(gate=float("inf")).search_batch(queries)
    assert sorted(text for call in generator.calls for text in call) == ["four", "one", "three", "two"]


def test_a_reference_left_out_is_no_rival_at_the_gate(retriever, generator, source):
    """The second of three documents is the reference itself; without it the ranking is clear."""
    query = Query(text="at night", like="d3")
    found = retriever("inversion").search(query, k=8)
    margin = found.hits[0].score - found.hits[1].score
    assert retriever(gate=margin / 2).search(query).notes != ()
    assert generator.calls == []


def test_the_vectors_of_several_pictures_are_averaged(retriever, query, model, tmp_path):
    one = retriever(options=GenerateOptions(images=3))
    [encoded] = one.encode([query])
    pictures = [opened(file) for file in (tmp_path / "drawings").rglob("*.png")]
    assert len(pictures) == 3
    expected = unit(np.mean([vector(model, picture) for picture in pictures], 0))
    np.testing.assert_allclose(encoded.vectors["pseudo_target"], expected, atol=1e-5)


def test_a_kept_drawing_is_not_embedded_again_by_the_same_model(retriever, query, model, monkeypatch):
    retriever().search(query)
    embedded = []
    real = model.encode_query
    monkeypatch.setattr(model, "encode_query", lambda items: embedded.append(items) or real(items))
    retriever().search(query)
    assert embedded == []


def test_a_drawing_is_known_by_what_was_asked(retriever, query, generator, references, tmp_path):
    asked = retriever()
    file = tmp_path / "reference.png"
    references[9].save(file)

    def hit(changed, one=None):
        before = len(generator.calls)
        results = (one or asked).search(changed)
        assert results.pseudo_target["cached"] is (len(generator.calls) == before)
        return results.pseudo_target["cached"]

    assert not hit(query)
    assert hit(query)
    assert hit(replace(query, text="at \n night"))
    assert hit(replace(query, image=references[9].copy(), not_texts=("dog",), weights=Weights(inversion=0.1)))
    assert not hit(replace(query, text="at Night"))
    assert not hit(replace(query, image=references[10]))
    assert not hit(replace(query, image=str(file)))
    assert hit(replace(query, image=file))
    assert hit(replace(query, image=file.read_bytes()))
    assert not hit(Query(text="at night", like="d1"))
    assert hit(Query(text="at night", like="d1"))
    assert not hit(Query(text="at night", like="d2"))
    for options in (
        GenerateOptions(seed=1),
        GenerateOptions(steps=9),
        GenerateOptions(images=2),
        GenerateOptions(negative="x"),
    ):
        assert not hit(query, retriever(options=options))
        assert hit(query, retriever(options=options))
    assert hit(query, retriever(options=GenerateOptions(steps=1)))  # told or by default is one
    generator.version = "two"
    assert not hit(query)


def test_pictures_that_differ_in_palette_or_shape_alone_are_told_apart(retriever, generator):
    flat = Image.new("L", (16, 8), 90)
    indexed = [Image.new("P", (8, 8), 0) for _ in range(2)]
    indexed[0].putpalette([200, 0, 0])
    indexed[1].putpalette([0, 200, 0])
    images = [flat, Image.frombytes("L", (8, 16), flat.tobytes()), *indexed]
    retriever().search_batch([Query(text="at night", image=image) for image in images])
    assert len(generator.calls[0]) == 4


def test_regenerating_draws_what_is_kept_again(retriever, query, generator):
    once = retriever().search(query)
    again = retriever(regenerate=True).search(query)
    assert len(generator.calls) == 2
    assert again.pseudo_target == once.pseudo_target
    same(once, again)


@pytest.mark.parametrize("torn", ["*.png", "*.json"])
def test_a_damaged_drawing_is_drawn_again(retriever, query, generator, tmp_path, torn):
    once = retriever().search(query)
    [file] = (tmp_path / "drawings").rglob(torn)
    file.write_bytes(file.read_bytes()[:-5])
    again = retriever().search(query)
    assert (again.notes, again.pseudo_target) == ((), once.pseudo_target)
    same(once, again)
    assert len(generator.calls) == 2


@pytest.mark.parametrize(("method", "merge"), METHODS)
def test_a_batch_is_its_queries_one_by_one_and_rank_agrees(retriever, references, method, merge):
    queries = [
        Query(text="at night", image=references[8], not_texts=("a dog",)),
        Query(text="in red", like="d4"),
        Query(text="words " * 60, image=references[9], not_images=(references[10],)),
        Query(like="d2"),
        Query(text="in red", like="d4", weights=Weights(image=0.5)),
    ]
    one = retriever(method, merge)
    batch = one.search_batch(queries, k=4)
    ranked = one.rank(one.encode(queries), 4)
    for query, together, ranking in zip(queries, batch, ranked, strict=True):
        alone = one.search(query, k=4)
        same(alone, together)
        assert alone.notes == together.notes
        assert list(ranking.ids) == [hit.id for hit in together]


def test_a_batch_reads_all_its_sentences_at_once(retriever, references, model, monkeypatch):
    calls = []
    real = model.encode_pseudo_words
    monkeypatch.setattr(
        model, "encode_pseudo_words", lambda t, texts, words: calls.append(list(texts)) or real(t, texts, words)
    )
    queries = [Query(text=text, image=references[8]) for text in ("one", "two", "one")]
    retriever(merge="reinvert").search_batch(queries)
    assert calls == [["one", "two"], ["one", "two", "one"]]


def test_a_generator_may_read_another_models_features(retriever, query, generator, model, tmp_path):
    other = load_embedder(f"open_clip:{tiny_clip(tmp_path / 'other', seed=5)}")
    for name, unit_, expected in (
        (other.name, True, other.encode_query([Item(image=query.image)])),
        (other.name, False, other.image_features([other.preparer()(Item(image=query.image))])),
        (model.name, False, model.image_features([model.preparer()(Item(image=query.image))])),
        (model.name, True, model.encode_query([Item(image=query.image)])),
    ):
        generator.feature_models, generator.version = [(name, unit_)], f"{name} {unit_}"
        assert not retriever().search(query).notes
        np.testing.assert_allclose(generator.features[-1], expected[0], atol=1e-5)
        stored_one = retriever().search(Query(text="at night", like="d3"))
        if (name, unit_) == (model.name, True):
            assert stored_one.notes == ()
        else:
            assert "No pseudo-target: A stored vector stands for the reference" in stored_one.notes[0]


def test_what_does_not_fit_the_model_is_refused_with_the_numbers(retriever, query, model, source):
    for wrong in (tiny_inversion(feature=8), tiny_inversion(word=8)):
        config = wrong.config
        with pytest.raises(
            CallError,
            match=f"turns {config.feature_dim} numbers into pseudo-words of {config.word_dim}; .* features of {DIM} and "
            f"pseudo-words of {WIDTH}",
        ):
            retriever("inversion", inversion=wrong).search(query)
    with pytest.raises(CallError, match=r"No inversion comes with open_clip.*Give one with `inversion`"):
        retriever("inversion", inversion=None).search(query)
    with pytest.raises(ModelError, match="no inversion at /nowhere"):
        retriever("inversion", inversion="/nowhere").search(query)
    source.model = load_embedder(f"fake:{DIM}")
    with pytest.raises(
        CallError, match="fake:24 has no text encoder that reads pseudo-words. Use a model of the CLIP family"
    ):
        retriever("inversion").search(query)


def test_an_inversion_is_loaded_from_its_folder(retriever, query, tmp_path):
    tiny_inversion().save(tmp_path / "inversion")
    loaded = retriever("inversion", inversion=tmp_path / "inversion").search(query, k=8)
    np.testing.assert_allclose(
        [hit.score for hit in loaded], [hit.score for hit in retriever("inversion").search(query, k=8)], atol=1e-2
    )


def test_a_picture_that_cannot_be_used_is_named(retriever, query, tmp_path):
    for method in ("inversion", "cig"):
        with pytest.raises(QueryError, match="of query 1 cannot be used: .*does not exist"):
            retriever(method).search_batch([query, Query(text="at night", image=tmp_path / "none.png")])


def test_threads_may_search_at_once(retriever, references):
    """Words of one thread are not read by another."""
    one = retriever("inversion")
    queries = [Query(text=f"number {n}", image=references[8 + n]) for n in range(4)]
    alone = [one.search(query, k=8) for query in queries]
    texts = retriever("text").search(Query(text="number 0"), k=8)
    found: dict[int, list[object]] = {}
    together = threading.Barrier(4)

    def work(number: int) -> None:
        together.wait()
        found[number] = [
            (one.search(queries[number], k=8), retriever("text").search(Query(text="number 0"), k=8)) for _ in range(5)
        ]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        for worded, plain in found[number]:
            same(worded, alone[number])
            same(plain, texts)


# Other wordings, other templates, pictures of stored references


def average(*rows):
    return unit(np.mean(rows, axis=0, dtype=np.float64))


def test_other_wordings_are_averaged_in_every_branch(retriever, references, model, source):
    inversion, wordings = tiny_inversion(), ("red and blue", "blue and red")
    query = Query(text=wordings[0], wordings=wordings[1:], image=references[9])
    word = vector(model, references[9])
    expected = average(*(read(model, inversion, text, word) for text in wordings))
    [encoded] = retriever("inversion").encode([query])
    np.testing.assert_allclose(encoded.vectors["inversion"], expected, atol=1e-5)

    [encoded] = retriever("cig", Merge.REINVERT).encode([query])
    feature = average(*(vector(model, picture) for picture in drawn_of(encoded)))
    expected = average(*(read(model, inversion, text, feature) for text in wordings))
    np.testing.assert_allclose(encoded.vectors["pseudo_target"], expected, atol=1e-5)

    [encoded] = retriever("text").encode([query])
    expected = average(*model.encode_query([Item(text=text) for text in wordings]))
    np.testing.assert_allclose(encoded.vectors["text"], expected, atol=1e-5)

    [encoded] = retriever("shift").encode([replace(query, caption="a cat")])
    expected = average(*model.encode_query([Item(text=f"a cat, {text}") for text in wordings]))
    np.testing.assert_allclose(encoded.vectors["text"], expected, atol=1e-5)


def drawn_of(encoded):
    return [opened(file) for file in encoded.artifacts["pseudo_target"]["paths"]]


def test_what_is_drawn_is_drawn_from_the_text_alone(retriever, references, generator):
    query = Query(text="red and blue", wordings=("blue and red",), image=references[9])
    retriever("cig", Merge.REINVERT).encode([query, Query(text="plain", image=references[8])])
    assert sorted(generator.calls[0]) == ["plain", "red and blue"]
    assert len(generator.calls) == 1


def test_a_batch_with_wordings_is_its_queries_one_by_one(retriever, references):
    queries = [
        Query(text="red", wordings=("blue", "green"), image=references[9]),
        Query(text="red", image=references[9]),
        Query(text="at night", wordings=("by day",), image=references[8]),
    ]
    for method, merge in METHODS:
        several = retriever(method, merge)
        for batched, one in zip(several.encode(queries), queries, strict=True):
            [alone] = several.encode([one])
            assert batched.vectors.keys() == alone.vectors.keys()
            for name, row in batched.vectors.items():
                np.testing.assert_allclose(row, alone.vectors[name], atol=1e-5)


def test_another_template_is_read_in_place_of_the_inversions_own(retriever, query, model, pseudo_targets):
    template = "a thing, {word}, which {text}"
    [encoded] = retriever("inversion", template=template).encode([query])
    words = tiny_inversion().words(vector(model, query.image)[None])
    np.testing.assert_allclose(
        encoded.vectors["inversion"], model.encode_pseudo_words(template, ["at night"], words)[0], atol=1e-5
    )
    assert pseudo_targets(template=template).template(model) == template
    assert pseudo_targets().template(model) == tiny_inversion().config.template
    with pytest.raises(CallError, match="0 times"):
        pseudo_targets(template="no place for it")


def test_an_inversion_of_raw_features_reads_a_stored_documents_picture(
    retriever, references, model, source, tmp_path, monkeypatch
):
    references[3].save(tmp_path / "d3.png")
    source.pinned._documents[3] = replace(source.pinned._documents[3], image=tmp_path / "d3.png")
    inversion = tiny_inversion(normalized=False)
    [encoded] = retriever("inversion", inversion=inversion).encode([Query(text="at night", like="d3")])
    raw = model.image_features([model.preparer()(Item(image=references[3]))])[0]
    np.testing.assert_allclose(encoded.vectors["inversion"], read(model, inversion, "at night", raw), atol=1e-5)
    # An inversion of unit vectors does not ask for it.
    monkeypatch.setattr(source.pinned, "documents", None)
    retriever("inversion").encode([Query(text="at night", like="d3")])
