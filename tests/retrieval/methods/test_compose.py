"""Each method against its formula."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from indexer.errors import QueryError, UnknownNameError
from indexer.types import Item, Mean, Modality, Role
from retrieval import Method, Query, Weights
from retrieval.methods import Merge, Resolved, load_method, load_weights
from retrieval.methods.product import center_of
from retrieval.methods.weights import FILE
from retrieval.scoring import unit


def vector(embedder, text):
    return embedder.encode_query([Item(text=text)])[0]


def encoded(embedder, query, **branches):
    return Resolved(query, {name: vector(embedder, text) for name, text in branches.items()})


@pytest.fixture
def space(collection):
    return collection.pinned.space


@pytest.fixture
def both(embedder):
    return encoded(embedder, Query(text="red", like="cat"), text="red", image="cat")


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(
        UnknownNameError, match="text, image, sum, slerp, product, shift, inversion, cig, cig-embed, cig-product"
    ):
        load_method("som")


@pytest.mark.parametrize(("method", "merge"), [*((each, Merge.EMBED) for each in Method), *(("cig", m) for m in Merge)])
def test_every_method_has_a_composer_and_all_the_weights_it_reads(method, merge):
    method_ = load_method(method, merge)
    assert method_.name == (f"cig-{merge}" if method == "cig" else method)
    for model in json.loads(FILE.read_text(encoding="utf-8")):
        tuned = load_weights(model, method_.tuned)
        assert set(tuned.weights.given()) == method_.reads
        assert tuned.source


def test_a_model_without_weights_of_its_own_gets_the_defaults():
    assert load_weights("fake:64", "slerp") == load_weights("default", "slerp")


def test_sum(both, space):
    composed = load_method("sum").compose(both, Weights(image=0.3, text=0.7), space)
    np.testing.assert_allclose(
        composed.scoring.query_vectors, [unit(0.3 * both.vectors["image"] + 0.7 * both.vectors["text"])], atol=1e-6
    )
    assert composed.branches.keys() == {"image", "text"}


@pytest.mark.parametrize(("alpha", "name"), [(0.0, "image"), (1.0, "text")])
def test_slerp_ends_at_its_parts(both, space, alpha, name):
    composed = load_method("slerp").compose(both, Weights(alpha=alpha), space)
    np.testing.assert_allclose(composed.scoring.query_vectors[0], both.vectors[name], atol=1e-6)


def test_slerp_is_of_unit_length_and_at_equal_angles(both, space):
    middle = load_method("slerp").compose(both, Weights(alpha=0.5), space).scoring.query_vectors[0]
    assert np.linalg.norm(middle) == pytest.approx(1, abs=1e-6)
    assert middle @ both.vectors["image"] == pytest.approx(middle @ both.vectors["text"], abs=1e-6)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_slerp_stays_on_the_arc(both, space, alpha):
    with pytest.raises(QueryError, match="it must be 0 to 1"):
        load_method("slerp").compose(both, Weights(alpha=alpha), space)


def test_shift_with_a_caption_moves_along_the_difference_of_texts(embedder, space):
    query = Query(text="at night", like="cat", caption="a cat")
    method_ = load_method("shift")
    assert method_.branches(query) == {
        "image": Modality.IMAGE, "text": Modality.TEXT, "caption": Modality.TEXT,
    }  # fmt: skip
    made = encoded(embedder, query, image="cat", text="a cat, at night", caption="a cat")
    composed = method_.compose(made, Weights(alpha=1.5), space)
    step = made.vectors["text"] - made.vectors["caption"]
    np.testing.assert_allclose(composed.scoring.query_vectors[0], unit(made.vectors["image"] + 1.5 * step), atol=1e-6)
    assert composed.branches.keys() == {"image", "text", "caption"}
    assert composed.notes == ()


def test_shift_without_a_caption_starts_at_the_mean_of_texts(both, space):
    composed = load_method("shift").compose(both, Weights(alpha=1.5), space)
    step = both.vectors["text"] - space.means[Role.QUERY, Modality.TEXT].vector
    np.testing.assert_allclose(composed.scoring.query_vectors[0], unit(both.vectors["image"] + 1.5 * step), atol=1e-6)


def test_a_missing_mean_is_zero_and_said(both, empty):
    composed = load_method("shift").compose(both, Weights(alpha=1.0), empty.pinned.space)
    np.testing.assert_allclose(
        composed.scoring.query_vectors[0], unit(both.vectors["image"] + both.vectors["text"]), atol=1e-6
    )
    assert composed.notes == ("The collection has no mean of its query text vectors; zero stands in for it.",)


@pytest.mark.parametrize("method", ["sum", "slerp", "shift", "product"])
@pytest.mark.parametrize(("part", "missing"), [("text", "image"), ("image", "text")])
def test_a_query_with_one_part_is_searched_by_it_and_says_so(embedder, space, method, part, missing):
    query = Query(text="red") if part == "text" else Query(like="cat")
    one = encoded(embedder, query, **{part: "red"})
    composed = load_method(method).compose(one, load_weights("default", method).weights, space)
    np.testing.assert_allclose(composed.scoring.query_vectors, [one.vectors[part]], atol=1e-6)
    assert composed.notes == (f"The query has no {missing}, so the method {method} searches by the {part} alone.",)


@pytest.mark.parametrize(("method", "other"), [("text", "image"), ("image", "text")])
def test_the_baselines_read_one_part_and_say_what_they_leave(embedder, space, method, other):
    query = Query(text="red", like="cat", not_texts="dog")
    method_ = load_method(method)
    assert method_.branches(query).keys() == {method, "not_text_1"}
    made = encoded(embedder, query, **{method: "red", "not_text_1": "dog"})
    composed = method_.compose(made, Weights(negative=0.25), space)
    np.testing.assert_allclose(
        composed.scoring.query_vectors[0], unit(made.vectors[method] - 0.25 * made.vectors["not_text_1"]), atol=1e-6
    )
    assert composed.notes == (f"The method {method} leaves the {other} out.",)


@pytest.mark.parametrize(("method", "query"), [("text", Query(like="cat")), ("image", Query(text="red"))])
def test_the_baselines_need_their_part(method, query):
    with pytest.raises(QueryError, match=f"needs a query with {method}"):
        load_method(method).branches(query)


def test_parts_that_cancel_are_refused(embedder, space):
    made = encoded(embedder, Query(text="red", not_texts="red"), text="red", not_text_1="red")
    with pytest.raises(QueryError, match="cancel out"):
        load_method("text").compose(made, Weights(negative=1.0), space)


WEIGHTS = Weights(penalty=0.1, text_floor=-0.2, image_floor=-0.4, negative=0.5)


def test_product_is_its_formula(both, space, collection):
    scoring = load_method("product").compose(both, WEIGHTS, space).scoring
    documents = collection.pinned._vectors
    center = center_of(space)
    means = {"text": space.means[Role.QUERY, Modality.TEXT].vector, "image": center}
    raised = {
        name: np.maximum(0, unit(both.vectors[name] - means[name]) @ (documents - center).T / -floor + 1)
        for name, floor in (("text", -0.2), ("image", -0.4))
    }
    expected = raised["text"] * raised["image"] - 0.1 * (raised["text"] + raised["image"]) ** 2
    np.testing.assert_allclose(scoring.score(scoring.query_vectors @ documents.T), expected, atol=1e-4)


def test_product_takes_the_mean_of_images_asked_for_before_that_of_documents(both, space):
    asked, documents = Mean(9, 0.2 * both.vectors["text"]), Mean(9, -0.2 * both.vectors["text"])
    means = {(Role.QUERY, Modality.IMAGE): asked, (Role.DOCUMENT, Modality.IMAGE): documents}
    for some, mean in ((means, asked), ({(Role.DOCUMENT, Modality.IMAGE): documents}, documents)):
        scoring = load_method("product").compose(both, WEIGHTS, replace(space, means=some)).scoring
        np.testing.assert_allclose(scoring.image, unit(both.vectors["image"] - mean.vector), atol=1e-5)


def test_product_tells_which_means_there_are_not(both, space):
    composed = load_method("product").compose(both, WEIGHTS, replace(space, means={}))
    assert ["mean of its query text" in composed.notes[0], "mean of its query image" in composed.notes[1]] == [True] * 2


def test_product_scores_a_document_alone_as_among_others(both, space, collection):
    scoring = load_method("product").compose(both, WEIGHTS, space).scoring
    products = scoring.query_vectors @ collection.pinned._vectors.T
    alone = [float(scoring.score(products[:, [place]])[0]) for place in range(products.shape[1])]
    assert scoring.score(products).tolist() == alone


def test_product_takes_negatives_off_the_part_of_their_kind(embedder, space):
    query = Query(text="red", like="cat", not_texts="dog", not_images=b"one")
    made = encoded(embedder, query, text="red", image="cat", not_text_1="dog", not_image_1="blue")
    scoring = load_method("product").compose(made, WEIGHTS, space).scoring
    mean = space.means[Role.QUERY, Modality.TEXT].vector
    red, dog = unit(made.vectors["text"] - mean), unit(made.vectors["not_text_1"] - mean)
    np.testing.assert_allclose(scoring.text, unit(red - 0.5 * dog), atol=1e-5)


def test_product_needs_floors_below_zero(both, space):
    with pytest.raises(QueryError, match="image_floor is 0"):
        load_method("product").compose(both, Weights(image_floor=0.0).over(WEIGHTS), space)


@pytest.mark.parametrize("method", ["sum", "slerp", "shift", "inversion", "cig"])
def test_a_query_with_one_part_takes_its_negatives_off_with_their_weight(embedder, space, method):
    query = Query(text="red", not_texts="dog")
    made = encoded(embedder, query, text="red", not_text_1="dog")
    composed = load_method(method).compose(made, Weights(negative=0.25), space)
    wanted = unit(made.vectors["text"] - 0.25 * made.vectors["not_text_1"])
    np.testing.assert_allclose(composed.scoring.query_vectors[0], wanted, atol=1e-6)


def test_the_mean_of_all_documents_counts_each_modality_by_its_documents(space):
    means = {
        (Role.DOCUMENT, Modality.TEXT): Mean(30, np.array([1, 0], np.float32)),
        (Role.DOCUMENT, Modality.IMAGE): Mean(10, np.array([0, 1], np.float32)),
        (Role.QUERY, Modality.TEXT): Mean(99, np.array([9, 9], np.float32)),
        (Role.DOCUMENT, Modality.FUSED): Mean(0, np.array([7, 7], np.float32)),
    }
    np.testing.assert_allclose(center_of(replace(space, means=means, dim=2)), [0.75, 0.25])


@pytest.mark.parametrize("method", ["sum", "slerp", "shift"])
def test_branches_are_named_by_the_parts_that_made_them(both, space, method):
    branches = load_method(method).compose(both, load_weights("default", method).weights, space).branches
    for name in ("image", "text"):
        np.testing.assert_array_equal(branches[name], both.vectors[name])


def test_a_model_with_weights_of_its_own_gets_them_and_the_defaults_for_the_rest():
    table = json.loads(FILE.read_text(encoding="utf-8"))
    own = next(iter(table["bundled:emoji-clip"]))
    assert load_weights("bundled:emoji-clip", own).source == table["bundled:emoji-clip"][own]["source"]
    rest = next(name for name in table["default"] if name not in table["bundled:emoji-clip"])
    assert load_weights("bundled:emoji-clip", rest) == load_weights("fake:64", rest)
