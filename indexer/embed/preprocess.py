"""Pictures to a CLIP model's input, in PIL and NumPy alone, so that decode workers need no torch.

It repeats open_clip's evaluation transform (its `image_transform_v2` with `is_train=False`) pixel for pixel, for each
of its three resize modes; a test holds the two together.

What this module does not know: models, open_clip.
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
    """How a picture of another shape becomes the model's square."""

    SHORTEST = "shortest"
    LONGEST = "longest"
    SQUASH = "squash"


@dataclass(frozen=True)
class ImagePreprocess:
    """open_clip's `preprocess_cfg`.

    Attributes:
        size: (height, width) of the model's input.
        mean: Of each channel, subtracted after scaling to [0, 1].
        std: Of each channel, divided by.
        interpolation: `bicubic` or `bilinear`, antialiased.
        resize_mode: Cut the sides off (`shortest`), pad to a square (`longest`) or distort (`squash`).
        fill_color: Grey level of the padding.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    resize_mode: ResizeMode = ResizeMode.SHORTEST
    fill_color: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImagePreprocess:
        """From the dictionary open_clip attaches to a model."""
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
        return " ".join(f"{key}={value}" for key, value in asdict(self).items())

    def __call__(self, image: Image) -> npt.NDArray[np.float32]:
        """An RGB picture to (3, height, width) float32, normalised."""
        pixels = np.asarray(self._fit(image), np.float32).transpose(2, 0, 1) / np.float32(255)
        mean = np.asarray(self.mean, np.float32)[:, None, None]
        std = np.asarray(self.std, np.float32)[:, None, None]
        return np.ascontiguousarray((pixels - mean) / std)

    def _fit(self, image: Image) -> Image:
        height, width = self.size
        if self.resize_mode is ResizeMode.SQUASH:
            return self._resize(image, width, height)
        if self.resize_mode is ResizeMode.LONGEST:
            ratio = max(image.height / height, image.width / width)
            scaled = self._resize(image, max(1, round(image.width / ratio)), max(1, round(image.height / ratio)))
            return self._centre(scaled)
        if image.width <= image.height:
            scaled = self._resize(image, width, int(width * image.height / image.width))
        else:
            scaled = self._resize(image, int(height * image.width / image.height), height)
        return self._centre(scaled)

    def _resize(self, image: Image, width: int, height: int) -> Image:
        from PIL.Image import Resampling

        method = Resampling.BILINEAR if self.interpolation == "bilinear" else Resampling.BICUBIC
        return image if image.size == (width, height) else image.resize((width, height), method)

    def _centre(self, image: Image) -> Image:
        from PIL import Image as pil

        height, width = self.size
        if image.width < width or image.height < height:
            canvas = pil.new("RGB", (max(width, image.width), max(height, image.height)), (self.fill_color,) * 3)
            canvas.paste(image, ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2))
            image = canvas
        top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
        return image.crop((left, top, left + width, top + height))
