"""Preparation of images for a CLIP model, in PIL and NumPy only, so that decoding workers need no torch.

This repeats open_clip's evaluation transform (`image_transform_v2` with `is_train=False`) pixel for pixel, for each of
its three resize modes; a test compares the two. It also has target padding, which much work on composed retrieval
applies first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.types import HelpfulEnum

if TYPE_CHECKING:
    from PIL.Image import Image


class ResizeMode(HelpfulEnum):
    """How an image with other proportions becomes the model's square."""

    SHORTEST = "shortest"
    LONGEST = "longest"
    SQUASH = "squash"


class Preprocessing(HelpfulEnum):
    """What is done to an image before a model sees it.

    `own` is the checkpoint's own transform; for CLIP, the short side is resized and the center cropped. `target-pad`
    first pads a long image with black until no side is longer than 1.25 times the other (Baldrati et al., "Effective
    conditioned and composed image retrieval combining CLIP-based features", CVPR 2022, followed by SEARLE and CIG).
    """

    OWN = "own"
    TARGET_PAD = "target-pad"


TARGET_RATIO = 1.25


@dataclass(frozen=True)
class ImagePreprocess:
    """open_clip's `preprocess_cfg`.

    Attributes:
        size: (height, width) of the model's input.
        mean: Subtracted from each channel after scaling to [0, 1].
        std: Divisor of each channel.
        interpolation: `bicubic` or `bilinear`, antialiased.
        resize_mode: Crop the sides (`shortest`), pad to a square (`longest`) or distort (`squash`).
        fill_color: Gray level of the padding.
        target_ratio: First pad with black until the long side is at most this times the short one; or None.
        draft: A JPEG may be decoded at a half, a quarter or an eighth of its size while its short side stays this many
            times the model's; 0 decodes it fully, as open_clip does.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    resize_mode: ResizeMode = ResizeMode.SHORTEST
    fill_color: int = 0
    target_ratio: float | None = None
    draft: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImagePreprocess:
        """Read it from the dictionary that open_clip attaches to a model."""
        size = config["size"]
        return cls(
            size=(size, size) if isinstance(size, int) else (size[0], size[1]),
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            interpolation=config["interpolation"] or "bicubic",
            resize_mode=ResizeMode(config["resize_mode"] or "shortest"),
            fill_color=config["fill_color"],
        )

    def describe(self) -> str:
        """A stable line for the fingerprint."""
        # Unused settings are omitted, so that collections from before draft and target padding still open.
        unused = (("target_ratio", None), ("draft", 0))
        told = {key: value for key, value in asdict(self).items() if (key, value) not in unused}
        return " ".join(f"{key}={value}" for key, value in told.items())

    def __call__(self, image: Image) -> npt.NDArray[np.float32]:
        """An RGB image to (3, height, width) float32, normalized."""
        only: npt.NDArray[np.float32] = self.normalize(self.pixels(image)[None])[0]
        return only

    def pixels(self, image: Image) -> npt.NDArray[np.uint8]:
        """An RGB image as (height, width, 3) uint8, which worker processes send: a quarter of the input's size."""
        return np.asarray(self._fit(self._padded(image)), np.uint8)

    def normalize(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """A batch of `pixels`, (n, height, width, 3), as model input, (n, 3, height, width) float32."""
        scaled: npt.NDArray[np.float32] = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        scaled /= np.float32(255)
        scaled -= np.asarray(self.mean, np.float32)[:, None, None]
        scaled /= np.asarray(self.std, np.float32)[:, None, None]
        return scaled

    @property
    def hint(self) -> int | None:
        """The short side that a JPEG must keep if it is decoded at a reduced size; None for full size only."""
        return self.draft * max(self.size) if self.draft else None

    def _padded(self, image: Image) -> Image:
        """The image on black, with no side longer than the target ratio allows."""
        from PIL import Image as pil

        if self.target_ratio is None or max(image.size) / min(image.size) < self.target_ratio:
            return image
        shortest = max(image.size) / self.target_ratio
        left, top = (max(int((shortest - side) / 2), 0) for side in image.size)
        canvas = pil.new("RGB", (image.width + 2 * left, image.height + 2 * top))
        canvas.paste(image, (left, top))
        return canvas

    def _fit(self, image: Image) -> Image:
        height, width = self.size
        if self.resize_mode is ResizeMode.SQUASH:
            return self._resize(image, width, height)
        if self.resize_mode is ResizeMode.LONGEST:
            ratio = max(image.height / height, image.width / width)
            scaled = self._resize(image, max(1, round(image.width / ratio)), max(1, round(image.height / ratio)))
            return self._center(scaled)
        if image.width <= image.height:
            scaled = self._resize(image, width, int(width * image.height / image.width))
        else:
            scaled = self._resize(image, int(height * image.width / image.height), height)
        return self._center(scaled)

    def _resize(self, image: Image, width: int, height: int) -> Image:
        from PIL.Image import Resampling

        method = Resampling.BILINEAR if self.interpolation == "bilinear" else Resampling.BICUBIC
        return image if image.size == (width, height) else image.resize((width, height), method)

    def _center(self, image: Image) -> Image:
        from PIL import Image as pil

        height, width = self.size
        if image.width < width or image.height < height:
            canvas = pil.new("RGB", (max(width, image.width), max(height, image.height)), (self.fill_color,) * 3)
            canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
            image = canvas
        top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
        return image.crop((left, top, left + width, top + height))
