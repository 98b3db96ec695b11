"""Small augmentations of an image that preserve its meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def augment(
    pixels: npt.NDArray[np.uint8], rng: np.random.Generator, device: torch.device, spoil: float = 0.0
) -> Tensor:
    """Shift, scale, rotate and relight a batch slightly; never mirror it, since left and right have meaning.

    Some images are also degraded, as references and generated images are outside a corpus: blurred, posterized, or with
    a patch covered.

    Args:
        pixels: (n, size, size, 3) uint8.
        rng: Random generator of the step.
        device: Where the result is stored.
        spoil: Share of images for each of the three degradations, chosen independently.

    Returns:
        (n, 3, size, size) float32 in [-1, 1], channels last in memory.
    """
    import torch

    n = len(pixels)
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    angle = rng.normal(0, 0.1, n)
    zoom = np.exp(rng.normal(0.02, 0.12, n))
    matrix = np.zeros((n, 2, 3), np.float32)
    matrix[:, 0, 0], matrix[:, 0, 1] = np.cos(angle) * zoom, -np.sin(angle) * zoom
    matrix[:, 1, 0], matrix[:, 1, 1] = np.sin(angle) * zoom, np.cos(angle) * zoom
    matrix[:, :, 2] = rng.uniform(-0.1, 0.1, (n, 2))
    grid = torch.nn.functional.affine_grid(torch.from_numpy(matrix).to(device), list(images.shape), align_corners=False)
    # Outside the image is white: shifting by one makes zero padding white.
    moved = torch.nn.functional.grid_sample(images - 1, grid, align_corners=False) + 1
    gain = torch.from_numpy(rng.normal(1, 0.06, (n, 1, 1, 1)).astype(np.float32)).to(device)
    lift = torch.from_numpy(rng.normal(0, 0.04, (n, 1, 1, 1)).astype(np.float32)).to(device)
    lit = moved * gain + lift
    if spoil:
        _blur(lit, rng, spoil)
        _posterise(lit, rng, spoil)
        _cover(lit, rng, spoil)
    return lit.contiguous(memory_format=torch.channels_last)


def _some(count: int, rng: np.random.Generator, share: float) -> npt.NDArray[np.int64]:
    return np.flatnonzero(rng.random(count) < share)


def _blur(images: Tensor, rng: np.random.Generator, share: float) -> None:
    """Shrink by a factor of 1.5 to 5 and enlarge again, in place: resembles images generated in too few steps."""
    import torch

    chosen, size = _some(len(images), rng, share), images.shape[-1]
    if len(chosen):
        small = max(int(size / rng.uniform(1.5, 5)), 4)
        resize = torch.nn.functional.interpolate
        less = resize(images[chosen], size=(small, small), mode="area")
        images[chosen] = resize(less, size=images.shape[-2:], mode="bilinear", align_corners=False)


def _posterise(images: Tensor, rng: np.random.Generator, share: float) -> None:
    """Reduce each channel to 3 to 6 levels, in place."""
    chosen = _some(len(images), rng, share)
    steps = int(rng.integers(2, 6)) / 2
    images[chosen] = (images[chosen] * steps).round() / steps


def _cover(images: Tensor, rng: np.random.Generator, share: float) -> None:
    """Cover a rectangle of a tenth to a third of the side with white or any color, in place."""
    import torch

    size = images.shape[-1]
    for place in _some(len(images), rng, share):
        height, width = rng.integers(size // 10, size // 3, 2)
        top, left = rng.integers(0, size - height), rng.integers(0, size - width)
        colour = torch.from_numpy(rng.uniform(-1, 1, 3).astype(np.float32)) if rng.random() < 0.5 else torch.ones(3)
        images[place, :, top : top + height, left : left + width] = colour[:, None, None].to(images.device)
