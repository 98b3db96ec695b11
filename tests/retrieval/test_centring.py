"""The retriever over a mixed collection composes queries in the centered space."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from indexer import Collection
from indexer.metadata.publish import NewDocument
from indexer.types import Center, Item, Modality, Role
from indexer.vectors.modality_gap import query_mean
from indexer.vectors.unit import unit_rows
from retrieval import Query, Retriever
from retrieval.methods import METHODS as ALL
from retrieval.methods import load_method

METHODS = ["text", "image", "sum", "slerp", "product", "shift"]
QUERY = Query(text="a red cat", like="d003", not_texts=("a dog",))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A hundred and eighty documents in three cones of a space of 64 dimensions, and the mean of query texts."""
    rng = np.random.default_rng(2)
    cones = 1.5 * unit_rows(rng.standard_normal((3, 64)))
    kinds = [list(Modality)[n % 3] for n in range(180)]
    vectors = unit_rows(cones[np.arange(180) % 3] + rng.standard_normal((180, 64)) / 8)
    with Collection.open(tmp_path_factory.mktemp("mixed") / "shop", "fake:64") as shop:
        with shop.writer() as writer:
            documents = [NewDocument(f"d{n:03}", "x", None, None, None, kinds[n], {}) for n in range(180)]
            writer.commit(documents, vectors, extra_sums=shop.missing_query_mean())
        yield shop


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_rank_in_the_centred_space(mixed, method):
    """By hand: parts centred, composed with means of zero, scored by the view's own inner products."""
    retriever = Retriever(mixed, method)
    found = retriever.search(QUERY, k=180)
    snapshot = mixed.snapshot()
    view = snapshot.centered(Center.ON)
    vectors = {}
    for name, vector in retriever.encode([QUERY])[0].vectors.items():
        if name == "image":
            vectors[name] = view.vectors(view.vector_ids(["d003"]))[0]
        else:
            vectors[name] = unit_rows(vector[None] - query_mean(snapshot.space, Modality.TEXT))[0]
    for hit in found:
        [row] = view.vectors(view.vector_ids([hit.id]))
        for name, cosine in hit.branches.items():
            assert cosine == pytest.approx(0 if name == "mean_text" else float(row @ vectors[name]), abs=1e-5)
    ids = {hit.id: hit.score for hit in found}
    ranked = retriever.rank(retriever.encode([QUERY]), 180)[0]
    assert dict(zip(ranked.ids, ranked.scores, strict=True)) == ids
    [among] = retriever.rank_among(retriever.encode([QUERY]), [["d001", "d002", "d007"]])
    assert [ids[name] for name in among.ids] == list(among.scores)


def test_the_mean_of_a_query_is_of_its_own_side_where_there_is_one(mixed):
    space = mixed.snapshot().space
    np.testing.assert_allclose(query_mean(space, Modality.TEXT), space.means[Role.QUERY, Modality.TEXT].vector)
    pictures = query_mean(space, Modality.IMAGE)
    assert np.linalg.norm(pictures - space.means[Role.DOCUMENT, Modality.IMAGE].vector) < 0.05


def test_off_and_auto_differ_and_a_note_says_why(mixed):
    off = Retriever(mixed, "text", center="off").search(Query(text="a red cat"))
    auto = Retriever(mixed, "text").search(Query(text="a red cat"))
    query = mixed.embedder.encode_query([Item(text="a red cat")])
    plain = mixed.snapshot().search(query, 10)
    np.testing.assert_allclose([hit.score for hit in off], plain.scores[0], atol=1e-6)
    assert off.notes == ()
    assert "mean is subtracted" in auto.notes[0]
    assert [hit.id for hit in auto] != [hit.id for hit in off]


def test_a_modality_filters_every_method(mixed):
    for method in ("sum", "product"):
        found = Retriever(mixed, method).search(QUERY, k=50, modalities=["image", Modality.FUSED])
        numbers = {int(hit.id[1:]) % 3 for hit in found}
        assert numbers == {1, 2}
        assert len(found) == 50


def test_a_reference_that_is_not_stored_is_centered_as_an_image(mixed, tmp_path):
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "a.png")
    query = Query(image=tmp_path / "a.png", text="a red cat")
    retriever, snapshot = Retriever(mixed, "sum"), mixed.snapshot()
    vectors = retriever.encode([query])[0].vectors
    means = {"image": query_mean(snapshot.space, Modality.IMAGE), "text": query_mean(snapshot.space, Modality.TEXT)}
    view = snapshot.centered(Center.ON)
    for hit in retriever.search(query, k=20):
        [row] = view.vectors(view.vector_ids([hit.id]))
        for name, mean in means.items():
            assert hit.branches[name] == pytest.approx(float(row @ unit_rows(vectors[name][None] - mean)[0]), abs=1e-5)


@pytest.mark.parametrize("name", ALL.names())
def test_every_branch_is_centered_as_what_its_vector_is_of(name):
    """A text with a pseudo-word in it is a text, a generated image an image, what is read jointly a document of both."""
    query = Query(text="in blue", image=b"x", caption="a cat", not_texts=("a dog",), not_images=(b"y",))
    own = load_method(name).branches(query)
    kinds = {
        "text": Modality.TEXT, "image": Modality.IMAGE, "not_text_1": Modality.TEXT, "not_image_1": Modality.IMAGE,
        "caption": Modality.TEXT, "written": Modality.TEXT, "inversion": Modality.TEXT, "joint": Modality.FUSED,
        "pseudo_target": Modality.TEXT if name == "cig-reinvert" else Modality.IMAGE,
    }  # fmt: skip
    assert own == {branch: kinds[branch] for branch in own}
    assert {"not_text_1", "not_image_1"} < own.keys()
