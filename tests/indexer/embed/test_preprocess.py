"""Our preprocessing equals open_clip's, pixel for pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tiny_models import tiny_clip

from indexer.embed import load_embedder
from indexer.embed.preprocess import ImagePreprocess, ResizeMode
from indexer.errors import CallError, UnknownNameError
from indexer.types import Item

SIZES = [(32, 32), (97, 41), (41, 97), (20, 20), (64, 33), (301, 300), (7, 120), (33, 32), (10, 400), (400, 10)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("mode", list(ResizeMode))
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_it_equals_open_clips_own_transform(mode: ResizeMode, size: tuple[int, int], interpolation: str) -> None:
    noise = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise)
    config = PreprocessCfg(
        size=32,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        interpolation=interpolation,
        resize_mode=mode.value,
        fill_color=255,
    )
    ours = ImagePreprocess.from_config(vars(config))(image)
    theirs = image_transform_v2(config, is_train=False)(image).numpy()
    assert ours.shape == (3, 32, 32)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_picture_of_one_row_is_not_resized_to_nothing() -> None:
    config = vars(PreprocessCfg(size=16, resize_mode="longest", fill_color=255))
    assert ImagePreprocess.from_config(config)(Image.new("RGB", (900, 1))).shape == (3, 16, 16)


def test_the_fingerprint_line_tells_two_settings_apart_and_is_stable() -> None:
    one = ImagePreprocess((8, 8), (0.5,) * 3, (0.5,) * 3)
    assert one.describe() == ImagePreprocess((8, 8), (0.5,) * 3, (0.5,) * 3).describe()
    assert one.describe() != ImagePreprocess((8, 8), (0.5,) * 3, (0.5,) * 3, fill_color=255).describe()


def test_an_unknown_resize_mode_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="shortest, longest, squash"):
        ImagePreprocess.from_config(vars(PreprocessCfg(size=8)) | {"resize_mode": "stretch"})


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_target_padding_is_black_and_leaves_no_side_too_long(size: tuple[int, int]) -> None:
    from torchvision.transforms import functional

    image = Image.fromarray(np.random.default_rng(sum(size)).integers(1, 256, (size[1], size[0], 3), np.uint8))
    preprocess = ImagePreprocess((32, 32), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    padded = replace(preprocess, target_ratio=1.25)
    # As the method is published: pad the short side until the long one is 1.25 times as long, then as ever.
    shortest = max(size) / 1.25
    sides = [max(int((shortest - side) / 2), 0) for side in size]
    expected = functional.pad(image, sides, 0) if max(size) / min(size) >= 1.25 else image
    np.testing.assert_array_equal(padded(image), preprocess(expected))
    assert (padded(image) == preprocess(image)).all() == (expected is image)


def test_a_fingerprint_from_before_target_padding_is_still_the_same() -> None:
    plain = ImagePreprocess((8, 8), (0.5,) * 3, (0.5,) * 3)
    assert plain.describe() == (
        "size=(8, 8) mean=(0.5, 0.5, 0.5) std=(0.5, 0.5, 0.5) interpolation=bicubic resize_mode=shortest fill_color=0"
    )
    assert replace(plain, target_ratio=1.25).describe() == f"{plain.describe()} target_ratio=1.25"


def test_a_padded_model_is_another_space(tmp_path: Path) -> None:
    name = f"open_clip:{tiny_clip(tmp_path)}"
    plain, padded = load_embedder(name), load_embedder(name, preprocessing="target-pad")
    assert plain.fingerprint().digest != padded.fingerprint().digest == padded.fingerprint().digest
    assert plain.fingerprint().digest == load_embedder(name, preprocessing="own").fingerprint().digest
    long, square = Image.new("RGB", (90, 30), "red"), Image.new("RGB", (30, 30), "red")
    vectors = [model.encode_query([Item(image=long), Item(image=square)]) for model in (plain, padded)]
    assert np.abs(vectors[0][0] - vectors[1][0]).max() > 1e-3
    np.testing.assert_array_equal(vectors[0][1], vectors[1][1])


def test_models_that_cannot_pad_say_so() -> None:
    with pytest.raises(CallError, match="fake:8 has its own preparation of images"):
        load_embedder("fake:8", preprocessing="target-pad")
    with pytest.raises(UnknownNameError, match="Known: own, target-pad"):
        load_embedder("fake:8", preprocessing="pad")
