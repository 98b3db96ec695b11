"""Training of a generator's image codec: a small deterministic autoencoder in diffusers' `AutoencoderTiny` layout.

The loss is the mean absolute error of pixels and of the differences between adjacent ones, so edges stay sharp without
a discriminator. Noise on the latents in training makes the decoder tolerate the small errors of a generator (like the
variance of a VAE, but of fixed size), and the magnitude of latents is held near one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.errors import MissingExtraError
from pipelines.train.common.fit import Stateful, Trainer, backward, fit
from pipelines.train.common.recipe import Recipe
from pipelines.train.common.run import RunFolder
from pipelines.train.common.schedule import Stage, move_average

if TYPE_CHECKING:
    from torch import Tensor, nn

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class AutoencoderRecipe(Recipe):
    """Everything an autoencoder's run depends on besides the images: these fields, and those of `Recipe`.

    Attributes:
        model: The configuration of diffusers' `AutoencoderTiny`.
        edges: Weight of the error of differences between adjacent pixels.
        noise: Standard deviation of the noise on latents, which have about unit variance.
        magnitude: Weight of the mean square of the latents.
        average: Decay of the moving average of the weights, which is evaluated and saved.
        bf16: Autocast to bfloat16 (pays on processors and GPUs with bf16 dot products).
    """

    model: Mapping[str, Any] = field(
        default_factory=lambda: {
            "encoder_block_out_channels": [32, 32, 32],
            "decoder_block_out_channels": [32, 32, 32],
            "num_encoder_blocks": [0, 1, 2],
            "num_decoder_blocks": [3, 1, 0],
            "latent_channels": 8,
        }
    )
    batch: int = 64
    peak: float = 2e-3
    edges: float = 1.0
    noise: float = 0.1
    magnitude: float = 1e-3
    average: float = 0.995
    bf16: bool = False
    evaluate_every: int = 200


def train_autoencoder(pixels: Pixels, held_out: Pixels, recipe: AutoencoderRecipe, folder: Path) -> Path:
    """Train in `folder`, or resume; the finished model is in the returned folder.

    Args:
        pixels: (n, size, size, 3) uint8, to train on.
        held_out: (m, size, size, 3) uint8, to measure on.
        recipe: The settings.
        folder: The run's folder; a checkpoint in it is resumed.

    Raises:
        CallError: The folder holds another run.
        MissingExtraError: diffusers is not installed.
    """
    run = RunFolder.start(folder, recipe)
    trainer = _Trainer(pixels, held_out, recipe)
    fit(run, trainer, label="autoencoder")
    target = folder / "model"
    if not (target / "diffusion_pytorch_model.safetensors").exists():
        averaged = trainer.averaged
        # Generators use latents of unit variance; diffusers' pipelines multiply by this.
        spread = float(np.std(encode_latents(averaged, pixels[:: max(1, len(pixels) // 2000)])))
        averaged.register_to_config(scaling_factor=1 / spread)
        averaged.save_pretrained(target)
        run.plot({"loss": ["loss"], "held-out PSNR, dB": ["psnr"], "images per second": ["images_per_second"]})
    return target


def encode_latents(autoencoder: Any, pixels: Pixels, batch: int = 128) -> npt.NDArray[np.float32]:
    """Latents (n, channels, height, width) of (n, size, size, 3) uint8 pixels, not scaled."""
    import torch

    rows = []
    with torch.inference_mode():
        for start in range(0, len(pixels), batch):
            images = as_tensor(pixels[start : start + batch]).to(autoencoder.device, autoencoder.dtype)
            rows.append(autoencoder.encode(images).latents.float().cpu().numpy())
    return np.concatenate(rows)


def as_tensor(pixels: Pixels) -> Tensor:
    """(n, 3, size, size) float32 in [-1, 1], channels last in memory."""
    import torch

    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


class _Trainer(Trainer[AutoencoderRecipe]):
    """The autoencoder and its moving average."""

    def __init__(self, pixels: Pixels, held_out: Pixels, recipe: AutoencoderRecipe) -> None:
        import torch

        try:
            import diffusers
        except ImportError:
            raise MissingExtraError("diffusers", "generate", "Training a generator") from None
        super().__init__(recipe, [Stage(recipe.steps, recipe.peak)])
        self.pixels, self.held_out = pixels, held_out
        torch.manual_seed(recipe.seed)
        kind: Any = diffusers.AutoencoderTiny
        self.model = kind(**recipe.model).to(recipe.device, memory_format=torch.channels_last)
        self.averaged = kind(**recipe.model).to(recipe.device).eval()
        self.averaged.load_state_dict(self.model.state_dict())
        self.optimiser = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)

    def parts(self) -> Mapping[str, Stateful]:
        return {"model": self.model, "averaged": self.averaged, "optimiser": self.optimiser}

    def trained(self) -> Iterable[nn.Parameter]:
        parameters: Iterable[nn.Parameter] = self.model.parameters()
        return parameters

    def average(self) -> None:
        pairs = zip(self.averaged.parameters(), self.model.parameters(), strict=True)
        move_average(pairs, self.recipe.average, self.step)

    def losses(self, rng: np.random.Generator) -> dict[str, float]:
        import torch

        recipe = self.recipe
        rows = rng.integers(0, len(self.pixels), recipe.batch)
        images = as_tensor(_turned(self.pixels[rows], rng)).to(recipe.device, memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.bf16):
            latents = self.model.encode(images).latents.float()
            noise = torch.from_numpy(rng.standard_normal(latents.shape).astype(np.float32)).to(recipe.device)
            decoded = self.model.decode(latents + recipe.noise * noise).sample.float()
        loss = reconstruction(decoded, images, recipe.edges) + recipe.magnitude * latents.square().mean()
        return {"loss": backward(loss)}

    def evaluate(self) -> dict[str, float]:
        """The PSNR of held-out images, in dB."""
        return {"psnr": self.psnr(self.held_out)}

    def psnr(self, pixels: Pixels, batch: int = 128) -> float:
        """Mean peak signal-to-noise ratio, in decibels, of at most 512 images."""
        import torch

        found = []
        with torch.inference_mode():
            for start in range(0, min(len(pixels), 512), batch):
                images = as_tensor(pixels[start : start + batch]).to(self.recipe.device)
                error = (self.averaged(images).sample.clamp(-1, 1) - images).square().mean((1, 2, 3)) / 4
                found.append(-10 * error.clamp(min=1e-10).log10())
        return float(torch.cat(found).mean()) if found else float("nan")


def reconstruction(decoded: Tensor, images: Tensor, edges: float) -> Tensor:
    """Mean absolute error of pixels, and `edges` times that of the differences to the right and below."""
    error = decoded - images
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + edges * (across + down)


def _turned(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Mirrored, rotated by quarters and shifted by a few pixels over white: a codec has no meaning to preserve."""
    turned = np.full_like(pixels, 255)
    size = pixels.shape[1]
    for slot, image in enumerate(pixels):
        quarter = np.rot90(image if rng.random() < 0.5 else image[:, ::-1], int(rng.integers(4)))
        x, y = rng.integers(-4, 5, 2)
        turned[slot, max(0, y) : size + min(0, y), max(0, x) : size + min(0, x)] = quarter[
            max(0, -y) : size - max(0, y), max(0, -x) : size - max(0, x)
        ]
    return turned
