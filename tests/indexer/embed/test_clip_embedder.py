"""The open_clip adapter, on tiny random models in open_clip's own folder layout."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from indexer.embed import load_embedder
from indexer.embed.weights import weights_digest
from indexer.errors import CallError, ModelError, UnknownNameError
from indexer.types import Item
from pipelines.train.clip.model import ClipRecipe, build, export
from pipelines.train.common.tokenizer import train_tokenizer

RECIPE = ClipRecipe(
    vision={"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    text={"context_length": 12, "vocab_size": 300, "width": 32, "heads": 2, "layers": 2},
    dim=24,
)
CORPUS = ["a red square", "a blue circle", "two green stars at night"]


def make(folder: Path, recipe: ClipRecipe = RECIPE, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    train_tokenizer(CORPUS, 300, 12, folder / "tokenizer")
    export(build(recipe), recipe, folder / "tokenizer", folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("clip"))


def pictures(n: int) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), np.uint8)) for i in range(n)]


def test_a_mixed_batch_equals_its_items_one_by_one(folder: Path) -> None:
    embedder = load_embedder(f"open_clip:{folder}")
    one, two, three = pictures(3)
    items = [Item("a red square"), Item(image=one), Item("a star", two), Item(image=three), Item("x " * 400)]
    together = embedder.encode_document(items)
    assert together.shape == (5, 24)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for item, row in zip(items, together, strict=True):
        np.testing.assert_allclose(embedder.encode_document([item])[0], row, atol=1e-5)


def test_it_gives_what_open_clip_gives(folder: Path) -> None:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    (picture,) = pictures(1)
    with torch.inference_mode():
        image = model.eval().encode_image(transform(picture)[None], normalize=True).numpy()
        text = model.encode_text(tokenizer(["a blue circle"]), normalize=True).numpy()
    embedder = load_embedder(f"open_clip:{folder}")
    np.testing.assert_allclose(embedder.encode_document([Item(image=picture)]), image, atol=1e-5)
    np.testing.assert_allclose(embedder.encode_query([Item("a blue circle")]), text, atol=1e-5)


def test_a_fused_item_is_the_mean_of_its_unit_parts(folder: Path) -> None:
    embedder = load_embedder(f"open_clip:{folder}")
    (picture,) = pictures(1)
    text, image, fused = embedder.encode_document([Item("a star"), Item(image=picture), Item("a star", picture)])
    np.testing.assert_allclose(fused, (text + image) / np.linalg.norm(text + image), atol=1e-5)


@pytest.mark.parametrize("device", ["cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_float16_keeps_parity(folder: Path, device: str) -> None:
    """What runs on a GPU, and here on the CPU by a name that is not warned of: slow, but the same code."""
    full = load_embedder(f"open_clip:{folder}")
    half = load_embedder(f"open_clip:{folder}", dtype="float16", device=device)
    items = [Item(image=picture) for picture in pictures(8)] + [Item(text) for text in CORPUS]
    one, other = (each.encode_document(items) for each in (full, half))
    assert other.dtype == np.float32
    assert np.einsum("ij,ij->i", one, other).min() >= 0.999
    np.testing.assert_allclose(np.linalg.norm(other, axis=1), 1, atol=1e-6)
    assert full.fingerprint().digest != half.fingerprint().digest


def test_bfloat16_keeps_parity_and_has_its_own_fingerprint(folder: Path) -> None:
    full, half = (load_embedder(f"open_clip:{folder}", dtype=dtype) for dtype in ("float32", "bfloat16"))
    items = [Item(image=picture) for picture in pictures(8)] + [Item(text) for text in CORPUS]
    cosines = (full.encode_document(items) * half.encode_document(items)).sum(1)
    assert cosines.min() >= 0.999
    assert full.fingerprint().digest != half.fingerprint().digest
    with pytest.raises(CallError, match="float16 is slow"):
        load_embedder(f"open_clip:{folder}", dtype="float16")


def photograph(seed: int, size: tuple[int, int]) -> bytes:
    """A JPEG with detail of all sizes, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3), np.float32)
    for step in (64, 32, 16, 8, 4, 2):
        small = Image.fromarray(rng.integers(0, 256, (size[1] // step, size[0] // step, 3), np.uint8))
        total += np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.float32) * step
    file = BytesIO()
    Image.fromarray((total / 126).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=92)
    return file.getvalue()


def test_a_draft_decodes_less_keeps_the_vectors_near_and_is_another_space(folder: Path) -> None:
    full, draft = load_embedder(f"open_clip:{folder}"), load_embedder(f"open_clip:{folder}?draft=2")
    items = [Item(image=photograph(seed, (320, 256))) for seed in range(6)]
    cosines = (full.encode_document(items) * draft.encode_document(items)).sum(1)
    assert 0.999 <= cosines.min() < 1 - 1e-9  # the pixels differ, so it did decode less
    small = [Item(image=photograph(0, (62, 62)))]  # half of it would be too little
    np.testing.assert_array_equal(full.encode_document(small), draft.encode_document(small))
    assert draft.name.endswith("?draft=2")
    assert full.fingerprint().digest != draft.fingerprint().digest
    assert "draft" not in full.fingerprint().preprocessing
    for wrong in (f"open_clip:{folder}?draft=9", f"open_clip:{folder}?fast=1", "fake:16?draft=2"):
        with pytest.raises(CallError, match="only draft=N may follow a question mark|a number"):
            load_embedder(wrong)


def test_what_travels_from_a_worker_is_bytes(folder: Path) -> None:
    prepared = load_embedder(f"open_clip:{folder}").preparer()(Item(image=pictures(1)[0]))
    assert prepared.arrays["image"].dtype == np.uint8
    assert prepared.arrays["image"].shape == (16, 16, 3)


def test_the_fingerprint_follows_the_weights_and_the_preprocessing_and_not_the_name(
    folder: Path, tmp_path: Path
) -> None:
    here = load_embedder(f"open_clip:{folder}").fingerprint()
    copy = shutil.copytree(folder, tmp_path / "copy")
    moved = load_embedder(f"open_clip:{copy}").fingerprint()
    assert (moved.digest, moved.model) == (here.digest, f"open_clip:{copy}")
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = "squash"
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    assert load_embedder(f"open_clip:{copy}").fingerprint().digest != here.digest
    other = load_embedder(f"open_clip:{make(tmp_path / 'other', seed=1)}").fingerprint()
    assert other.digest != here.digest
    assert replace(other, weights=here.weights).digest == here.digest


def test_the_weights_digest_is_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = weights_digest(file)
    assert weights_digest(file) == first
    file.write_bytes(b"another")
    assert weights_digest(file) != first


def test_a_folder_without_weights_or_with_damaged_ones_is_refused(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelError, match="is not an open_clip folder"):
        load_embedder(f"open_clip:{bare}")
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    whole = (folder / "open_clip_model.safetensors").read_bytes()
    (damaged / "open_clip_model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded from"):
        load_embedder(f"open_clip:{damaged}")


def test_weights_of_another_shape_are_refused_and_not_half_loaded(folder: Path, tmp_path: Path) -> None:
    wider = make(tmp_path, replace(RECIPE, dim=32))
    shutil.copy(folder / "open_clip_model.safetensors", wider)
    with pytest.raises(ModelError, match=r"does not fit open_clip_config.json: 2 of \d+ weights have another shape"):
        load_embedder(f"open_clip:{wider}")


def test_unknown_architectures_and_weights_name_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="architecture 'ViT-Q' is not known.*ViT-B-32"):
        load_embedder("open_clip:ViT-Q/openai")
    with pytest.raises(UnknownNameError, match="laion2b_s34b_b79k"):
        load_embedder("open_clip:ViT-B-32/mine")
    with pytest.raises(ModelError, match="names neither a folder nor an architecture"):
        load_embedder("open_clip:/nowhere/at/all")


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr("indexer.embed.hub.reachable", lambda _: True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(ModelError, match="cannot be fetched: no route to host. Connect once"):
        load_embedder("open_clip:ViT-B-32/laion2b_s34b_b79k")
