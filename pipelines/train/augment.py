"""Small changes of a picture that leave its meaning alone.

What this module does not know: models, captions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def augment(pixels: npt.NDArray[np.uint8], rng: np.random.Generator, device: torch.device) -> Tensor:
    """Shift, scale, tilt and light a batch a little; never mirror it, since left and right are meanings.

    Args:
        pixels: (n, size, size, 3) uint8.
        rng: Of the step.
        device: Where the result lies.

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
    # Outside the picture is paper: shifting by one makes zero padding white.
    moved = torch.nn.functional.grid_sample(images - 1, grid, align_corners=False) + 1
    gain = torch.from_numpy(rng.normal(1, 0.06, (n, 1, 1, 1)).astype(np.float32)).to(device)
    lift = torch.from_numpy(rng.normal(0, 0.04, (n, 1, 1, 1)).astype(np.float32)).to(device)
    return (moved * gain + lift).contiguous(memory_format=torch.channels_last)
