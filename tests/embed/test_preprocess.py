"""Our preprocessing is open_clip's, pixel for pixel."""

from __future__ import annotations

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from indexer.embed.preprocess import ImagePreprocess, ResizeMode
from indexer.errors import UnknownNameError

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
