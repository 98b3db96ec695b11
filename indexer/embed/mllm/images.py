"""Images as patches of a Qwen-VL model: resized to multiples of a patch, keeping proportions, within an area range.

This repeats transformers' `Qwen2VLImageProcessor` in two steps: resizing, in worker processes and to 8-bit pixels,
which are small; normalizing and cutting into patches, in the model's process. A test compares the two, for both of
transformers' backends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.embed.mllm.spec import ImageBackend, MllmSpec, Sizing
from indexer.embed.model_files import read_json
from indexer.errors import ModelError
from indexer.reasons import Reason, refusal

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

PREPROCESSOR_FILE = "preprocessor_config.json"
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImageShaper:
    """Resizes images and cuts them into patches.

    Attributes:
        patch: Side of a patch, in pixels.
        merge: Patches per side that become one token.
        temporal: Frames of a patch; an image fills them all.
        mean: Subtracted from each channel after scaling to [0, 1].
        std: Divisor of each channel.
        resizes: See `MllmSpec`.
        aspect_limit: See `MllmSpec`.
        sizing: See `MllmSpec`.
        backend: See `MllmSpec`.
    """

    patch: int
    merge: int
    temporal: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resizes: tuple[tuple[int, int], ...]
    aspect_limit: float
    sizing: Sizing
    backend: ImageBackend

    @classmethod
    def from_folder(cls, folder: Path, spec: MllmSpec, vision: Any) -> ImageShaper:
        """Read `preprocessor_config.json`; `vision` is the model's configuration of its image encoder.

        Raises:
            ModelError: The file is missing or does not fit the model.
        """
        file = folder / PREPROCESSOR_FILE
        try:
            config = read_json(file, "description of how images are prepared")
            made = cls(
                patch=int(config["patch_size"]),
                merge=int(config["merge_size"]),
                temporal=int(config["temporal_patch_size"]),
                mean=tuple(map(float, config["image_mean"])),
                std=tuple(map(float, config["image_std"])),
                resizes=spec.resizes,
                aspect_limit=spec.aspect_limit,
                sizing=spec.sizing,
                backend=spec.backend,
            )
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ModelError(f"{file} does not say how images are prepared ({error!r}).") from error
        wanted = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        if (made.patch, made.merge, made.temporal) != wanted:
            raise ModelError(
                f"{file} cuts images by patch, merge and frames of {(made.patch, made.merge, made.temporal)}; "
                f"the model reads {wanted}."
            )
        return made

    def describe(self) -> str:
        """A stable line for the fingerprint."""
        # Omitted for transformers' rule, so that models from before it had a name keep their fingerprint.
        sizing = "" if self.sizing is Sizing.TRANSFORMERS else f" sizing={self.sizing}"
        return (
            f"qwen-vl patch={self.patch} merge={self.merge} temporal={self.temporal} mean={self.mean} std={self.std} "
            f"resizes={self.resizes} aspect={self.aspect_limit}{sizing} {self.backend} bicubic"
        )

    def __call__(self, image: Image, most_tokens: int | None = None) -> Pixels:
        """Resize an RGB image to (height, width, 3) uint8, both multiples of patch times merge.

        Args:
            image: The image.
            most_tokens: A limit of its tokens below what the area range allows, for one of several images.

        Raises:
            ItemError: It is too long and narrow.
        """
        sizing, factor = self.sizing, self.patch * self.merge
        for least, most in self.resizes:
            if most_tokens is not None:
                least, most = (min(bound, most_tokens * factor**2) for bound in (least, most))
            width, height = fit(image.width, image.height, factor, least, most, self.aspect_limit, sizing)
            image = self._resize(image, width, height)
            sizing = Sizing.TRANSFORMERS  # after the first, the model's own processor resizes
        return np.array(image, np.uint8)

    def grid(self, pixels: Pixels) -> tuple[int, int, int]:
        """The frames, rows and columns of patches."""
        return 1, pixels.shape[0] // self.patch, pixels.shape[1] // self.patch

    def tokens(self, pixels: Pixels) -> int:
        """The tokens that the language model reads for it."""
        return math.prod(self.grid(pixels)) // self.merge**2

    def patches(self, images: Sequence[Pixels], device: Any) -> Tensor:
        """Resized images to (patches of all, channels x temporal x patch x patch) float32, in order."""
        import torch

        rows = []
        for batch in _runs(images):
            stacked = torch.from_numpy(np.stack(batch)).to(device).permute(0, 3, 1, 2).float().div_(255)
            mean, std = (torch.tensor(each, device=device)[:, None, None] for each in (self.mean, self.std))
            rows.append(self.cut(stacked.sub_(mean).div_(std)))
        return torch.cat(rows)

    def cut(self, images: Tensor) -> Tensor:
        """Normalized images (n, 3, height, width) to their patches, in the order in which the model merges them."""
        count, channels, height, width = images.shape
        rows, columns = height // self.patch // self.merge, width // self.patch // self.merge
        cells = images.reshape(count, channels, rows, self.merge, self.patch, columns, self.merge, self.patch)
        ordered = cells.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
        repeated = ordered.expand(*ordered.shape[:6], self.temporal, self.patch, self.patch)
        return repeated.reshape(count * rows * columns * self.merge**2, -1)

    def _resize(self, image: Image, width: int, height: int) -> Image:
        if self.backend is ImageBackend.PIL:
            from PIL.Image import Resampling

            return image.resize((width, height), Resampling.BICUBIC)
        from torchvision.transforms.v2 import functional
        from torchvision.transforms.v2.functional import InterpolationMode

        tensor = functional.pil_to_tensor(image)
        resized = functional.resize(tensor, [height, width], InterpolationMode.BICUBIC, antialias=True)
        made: Image = functional.to_pil_image(resized)
        return made


def fit(
    width: int,
    height: int,
    factor: int,
    least: int,
    most: int,
    aspect_limit: float,
    sizing: Sizing = Sizing.TRANSFORMERS,
) -> tuple[int, int]:
    """Width and height, multiples of `factor`, near the image's proportions, with `least` to `most` pixels.

    Source: `smart_resize` of the Qwen2-VL authors, found in transformers, qwen_vl_utils and GME's code.

    Raises:
        ItemError: The longer side is more than `aspect_limit` times the shorter, and `sizing` does not squeeze it.
    """
    if sizing is not Sizing.GME and max(width, height) > aspect_limit * min(width, height):
        raise refusal(
            Reason.ASPECT,
            f"The image has {width:,} × {height:,} pixels; one side may be at most {aspect_limit:g} times the other.",
        )
    floor = 0 if sizing is Sizing.TRANSFORMERS else factor
    across, down = (max(floor, round(side / factor) * factor) for side in (width, height))
    if across * down > most:
        scale = math.sqrt(width * height / most)
        across = max(factor, math.floor(width / scale / factor) * factor)
        down = max(factor, math.floor(height / scale / factor) * factor)
    elif across * down < least:
        scale = math.sqrt(least / (width * height))
        across = math.ceil(width * scale / factor) * factor
        down = math.ceil(height * scale / factor) * factor
    if sizing is Sizing.GME and max(across, down) > aspect_limit * min(across, down):
        longest = int(min(across, down) * aspect_limit)
        across, down = min(across, longest), min(down, longest)
    return across, down


def preprocessor_config(patch: int, merge: int, temporal: int, least: int, most: int) -> Mapping[str, Any]:
    """The content of `preprocessor_config.json`, in the published layout, for pixels scaled to [-1, 1]."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": least,
        "max_pixels": most,
        "patch_size": patch,
        "merge_size": merge,
        "temporal_patch_size": temporal,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def _runs(images: Sequence[Pixels]) -> list[list[Pixels]]:
    """Adjacent images of equal size, grouped."""
    runs: list[list[Pixels]] = []
    for each in images:
        if runs and runs[-1][0].shape == each.shape:
            runs[-1].append(each)
        else:
            runs.append([each])
    return runs
