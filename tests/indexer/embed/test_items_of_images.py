"""Items with several images in every kind of embedder: the mean of unit vectors, or one joint reading in order."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_bridges import tiny_bridge, tiny_text
from tiny_mllm import tiny_mllm
from tiny_models import tiny_clip
from tiny_st import tiny_towers

from indexer import Collection, Document
from indexer.embed import load_embedder
from indexer.embed.base import Embedder
from indexer.errors import ItemError
from indexer.types import Item, Role
from indexer.vectors.unit import unit_rows
from retrieval import Query, Retriever

SUMS = ("fake", "clip", "towers")
READS = ("mllm", "bridge", "bridge of a decoder")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Embedder]:
    folder = tmp_path_factory.mktemp("several")
    tower = tiny_clip(folder / "tower")
    names = {
        "fake": "fake:32",
        "clip": f"open_clip:{tower}",
        "towers": f"st:{tiny_towers(folder / 'st')}",
        "mllm": f"mllm:{tiny_mllm(folder / 'mllm')}",
        "bridge": f"bridge:{tiny_bridge(folder / 'b1', 'mlp', tiny_text(folder / 't1', 'encoder'), tower)}",
        "bridge of a decoder": f"bridge:{tiny_bridge(folder / 'b2', 'mlp', tiny_text(folder / 't2', 'decoder'), tower)}",
    }
    return {kind: load_embedder(name) for kind, name in names.items()}


def images(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(7)
    return [Image.fromarray(rng.integers(0, 256, (20 + 3 * n, 24, 3), np.uint8)) for n in range(count)]


def close(left: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_allclose(left, right, atol=2e-5)


@pytest.mark.parametrize("kind", SUMS)
def test_where_parts_are_summed_the_mean_of_the_unit_vectors_counts(models: dict[str, Embedder], kind: str) -> None:
    model, shown = models[kind], images(3)
    each = model.encode_document([Item(image=image) for image in shown])
    text = model.encode_document([Item("a red star")])
    mean = unit_rows(each.mean(0, keepdims=True))
    found = model.encode_document([Item(images=shown), Item("a red star", images=shown), Item(image=shown[0])])
    close(found[:1], mean)
    weights = (0.5, 0.5) if kind != "fake" else (1, 1)  # a fake adds the words' directions, of any length
    if kind == "fake":
        text = model.preparer()(Item("a red star")).arrays["direction"][None]
    close(found[1:2], unit_rows(weights[0] * mean + weights[1] * text))
    close(found[2:], each[:1])
    close(model.encode_document([Item(images=shown[::-1])]), mean)


@pytest.mark.parametrize("kind", READS)
def test_where_all_is_read_at_once_every_image_and_their_order_tell(models: dict[str, Embedder], kind: str) -> None:
    model, shown = models[kind], images(4)
    assert model.fuses_natively
    three, other, turned, two, mute = model.encode_document([
        Item("a star", images=shown[:3]), Item("a star", images=[*shown[:2], shown[3]]),
        Item("a star", images=[shown[1], shown[0], shown[2]]), Item("a star", images=shown[:2]), Item(images=shown[:3]),
    ])  # fmt: skip
    for different in (other, turned, two, mute):
        assert three @ different < 1 - 1e-6
    basis, _ = np.linalg.qr(model.encode_document([Item("a star"), *(Item(image=image) for image in shown[:3])]).T)
    assert np.linalg.norm(three @ basis) < 0.9999, "it is a sum of its parts"


@pytest.mark.parametrize("kind", [*SUMS, *READS])
def test_one_and_a_mixed_batch_get_the_same(models: dict[str, Embedder], kind: str) -> None:
    model, shown = models[kind], images(5)
    items = [
        Item("a star"), Item(image=shown[0]), Item("x", images=shown[:2]), Item(images=shown), Item("a star", shown[1]),
        Item(images=[shown[0]]), Item("b", images=[shown[0]] * 3),
    ]  # fmt: skip
    together = model.encode_document(items)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for item, row in zip(items, together, strict=True):
        close(model.encode_document([item])[0], row)
    close(together[5], together[1])


@pytest.mark.parametrize("kind", [*SUMS, *READS])
def test_the_preparer_travels_and_names_the_bad_one(models: dict[str, Embedder], kind: str) -> None:
    model, shown = models[kind], images(2)
    prepare = pickle.loads(pickle.dumps(model.preparer()))  # noqa: S301
    item = Item("a star", images=shown)
    close(model.forward([pickle.loads(pickle.dumps(prepare(item)))], Role.DOCUMENT), model.encode_document([item]))  # noqa: S301
    with pytest.raises(ItemError, match="^Image 2 of 2: ") as caught:
        prepare(Item("a star", images=[shown[0], b"no image"]))
    assert caught.value.reason == "not-an-image"
    found = model.try_encode([Item(images=[b"", shown[0]]), Item(images=shown)], Role.DOCUMENT)
    assert (found.rows.tolist(), list(found.errors)) == ([1], [0])


@pytest.mark.parametrize("kind", READS[1:])
def test_more_images_than_a_text_model_has_room_for_are_refused(models: dict[str, Embedder], kind: str) -> None:
    model = models[kind]
    most = model.preparer().most
    assert 2 < most < 1000
    with pytest.raises(ItemError, match=f"has {most + 1:,} images; the text model can read {most:,}") as caught:
        model.preparer()(Item(images=images(1) * (most + 1)))
    assert caught.value.reason == "too-many-images"
    assert np.isfinite(model.encode_document([Item("a long text " * 50, images=images(1) * most)])).all()


@pytest.mark.parametrize("kind", READS[:2])
def test_of_a_stored_page_all_images_are_read_again_by_joint(
    models: dict[str, Embedder], kind: str, tmp_path: Path
) -> None:
    model, shown = models[kind], images(3)
    with Collection.open(tmp_path / "shop", model) as shop:
        shop.add(
            [Document("page", text="x", images=shown), Document("one", image=shown[0]), Document("word", text="b")]
        )
        stored = Retriever(shop, "joint", center="off").search(Query(text="a star", like="page"), k=3)
        want = model.encode_query([Item("a star", images=shown)]) @ model.encode_document([Item(image=shown[0])])[0]
        scores = {hit.id: hit.score for hit in stored}
        assert scores["one"] == pytest.approx(float(want[0]), abs=1e-5)
