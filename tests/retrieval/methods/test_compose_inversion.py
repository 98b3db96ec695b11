"""`inversion` and `cig` against their formulas, from given vectors, without a generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from indexer.errors import QueryError
from indexer.types import Mean, Modality, Role
from retrieval import Query, Weights
from retrieval.methods import Merge, Resolved, load_method
from retrieval.scoring import unit

WEIGHTS = Weights(inversion=0.9, image=0.2, pseudo_target=0.4, negative=0.3)
KNOWN = {"pseudo_target": {"cached": True}}


@pytest.fixture
def space(collection):
    """With means of pictures on both sides."""
    plain = collection.pinned.space
    rng = np.random.default_rng(0)
    means = {
        (role, Modality.IMAGE): Mean(9, (0.3 * unit(rng.standard_normal(plain.dim))).astype(np.float32))
        for role in Role
    }
    return replace(plain, means=means)


@pytest.fixture
def encoded(collection):
    rng = np.random.default_rng(1)
    names = ("inversion", "image", "pseudo_target", "not_text_1")
    vectors = {name: unit(rng.standard_normal(collection.pinned.space.dim)).astype(np.float32) for name in names}
    query = Query(text="red", like="cat", not_texts=("dog",))
    return Resolved(query, vectors, notes=("told before",), artifacts=KNOWN)


def without(encoded, name):
    return replace(encoded, vectors={key: value for key, value in encoded.vectors.items() if key != name})


def weighted(encoded, space, **weights):
    """The unit vector of a weighted sum, by hand."""
    vectors = encoded.vectors | {"mean_image": space.means[Role.QUERY, Modality.IMAGE].vector}
    return unit(sum(weight * vectors[name] for name, weight in weights.items()))


def test_inversion_is_the_sentence_some_of_the_reference_and_less_the_negatives(encoded, space):
    composed = load_method("inversion").compose(encoded, WEIGHTS, space)
    expected = weighted(encoded, space, inversion=0.9, image=0.2, not_text_1=-0.3)
    np.testing.assert_allclose(composed.scoring.query_vectors, [expected], atol=1e-6)
    assert list(composed.branches) == ["inversion", "image", "not_text_1"]
    assert composed.notes == ("told before",)


def test_a_reference_without_weight_is_no_branch(encoded, space):
    composed = load_method("inversion").compose(encoded, replace(WEIGHTS, image=0.0), space)
    np.testing.assert_allclose(
        composed.scoring.query_vectors, [weighted(encoded, space, inversion=0.9, not_text_1=-0.3)], atol=1e-6
    )
    assert list(composed.branches) == ["inversion", "not_text_1"]


@pytest.mark.parametrize(
    ("merge", "terms"),
    [
        (Merge.REINVERT, {"pseudo_target": 0.4}),
        (Merge.EMBED, {"pseudo_target": 0.4, "mean_image": -0.4}),
    ],
)
def test_cig_adds_the_pseudo_target_centered_where_it_is_an_image(encoded, space, merge, terms):
    composed = load_method("cig", merge).compose(encoded, WEIGHTS, space)
    expected = weighted(encoded, space, inversion=0.9, image=0.2, not_text_1=-0.3, **terms)
    np.testing.assert_allclose(composed.scoring.query_vectors, [expected], atol=1e-6)
    assert set(composed.branches) == {"inversion", "image", "not_text_1", *terms}
    assert composed.notes == ("told before",)


def test_cig_takes_the_mean_of_the_documents_where_queries_have_none_and_says_so_where_none_has(encoded, space):
    documents = (Role.DOCUMENT, Modality.IMAGE)
    only = replace(space, means={documents: space.means[documents]})
    composed = load_method("cig", "embed").compose(encoded, WEIGHTS, only)
    np.testing.assert_array_equal(composed.branches["mean_image"], space.means[documents].vector)
    composed = load_method("cig", "embed").compose(encoded, WEIGHTS, replace(space, means={}))
    assert not composed.branches["mean_image"].any()
    assert composed.notes[0] == "told before"
    assert "no mean of its query image vectors" in composed.notes[1]


def test_cig_multiplies_by_hand(encoded, space):
    composed = load_method("cig", Merge.PRODUCT).compose(encoded, WEIGHTS, space)
    text = weighted(encoded, space, inversion=0.9, image=0.2, not_text_1=-0.3)
    drawing = encoded.vectors["pseudo_target"]
    np.testing.assert_allclose(composed.scoring.query_vectors, [text, drawing], atol=1e-6)
    document = unit(text + 2 * drawing)
    s_text, s_drawing = (document @ text + 1) / 2, (document @ drawing + 1) / 2
    scores = composed.scoring.score((composed.scoring.query_vectors @ document)[:, None])
    assert scores[0] == pytest.approx(0.6 * s_text + 0.4 * s_text * s_drawing, abs=1e-6)
    assert set(composed.branches) == {"inversion", "image", "not_text_1", "pseudo_target"}
    assert composed.notes == ("told before",)


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_a_share_of_the_product_is_a_share(encoded, space, weight):
    with pytest.raises(QueryError, match="in the product it must be 0 to 1"):
        load_method("cig", "product").compose(encoded, replace(WEIGHTS, pseudo_target=weight), space)


@pytest.mark.parametrize("merge", list(Merge))
def test_without_a_pseudo_target_cig_is_inversion(encoded, space, merge):
    alone = without(encoded, "pseudo_target")
    composed = load_method("cig", merge).compose(alone, WEIGHTS, space)
    plain = load_method("inversion").compose(alone, WEIGHTS, space)
    np.testing.assert_array_equal(composed.scoring.query_vectors, plain.scoring.query_vectors)
    assert composed.branches.keys() == plain.branches.keys()
    assert composed.notes == ("told before",)


@pytest.mark.parametrize("method", ["inversion", "cig"])
def test_one_part_alone_is_searched_by_itself(encoded, space, method):
    alone = without(without(encoded, "inversion"), "pseudo_target")
    composed = load_method(method).compose(alone, WEIGHTS, space)
    expected = unit(alone.vectors["image"] - 0.3 * alone.vectors["not_text_1"])
    np.testing.assert_allclose(composed.scoring.query_vectors, [expected], atol=1e-6)
    assert f"the method {method} searches by the image alone" in composed.notes[0]
