"""Training of a generator of pseudo-targets, from images and their captions alone.

First an autoencoder (`autoencoder.py`), then a denoiser in its latents by flow matching (Lipman et al. 2023,
arXiv:2210.02747; rectified flow: Liu et al. 2023, arXiv:2209.03003), conditioned on a frozen text encoder that reads
pseudo-words. There are four kinds of prompts, so that the denoiser learns to read pseudo-words, words, and both:

* a caption;
* the pseudo-word of the image itself, with or without some words of its caption;
* the pseudo-word of another image, and what only this caption says (`differences.py`), as in a composed query;
* nothing, for classifier-free guidance.

The generator has its own inversion, which starts as the given one and is trained jointly: a pseudo-word for generating
should describe an image in more detail than one for retrieval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.corpus.records import Entry
from indexer.embed.base import TrainableEncoder
from indexer.embed.textual_inversion import Inversion, PseudoWordReader, load_inversion
from indexer.errors import CallError
from indexer.types import Item
from pipelines.train.common.captions import CaptionedImages, Templates
from pipelines.train.common.differences import differences
from pipelines.train.common.fit import Stateful, Trainer, backward, fit
from pipelines.train.common.run import RunFolder
from pipelines.train.common.schedule import Stage, decay_groups, move_average
from pipelines.train.generator.autoencoder import AutoencoderRecipe, encode_latents, train_autoencoder
from pipelines.train.generator.model import (
    TIMESTEPS,
    GeneratorRecipe,
    build_pipeline,
    build_unet,
    export,
    spec_of,
    start_folder,
    text_encoder_of,
)
from retrieval.providers.generation.diffusion import PseudoTargetGenerator
from retrieval.providers.generation.protocol import GenerateOptions, PseudoTargetRequest

if TYPE_CHECKING:
    from torch import Tensor, nn

Rows = npt.NDArray[np.int64]
VARIANTS = 4
"""Latents stored of each image, each shifted differently."""


def train_generator(records: Iterable[Entry], recipe: GeneratorRecipe, folder: Path) -> dict[str, float]:
    """Train in `folder`, or resume; the finished pipeline is in `folder/model`.

    Args:
        records: The corpus.
        recipe: The settings.
        folder: The run's folder; checkpoints in it are resumed.

    Returns:
        The last evaluation: metric name to value.

    Raises:
        CallError: The model has no text encoder that reads pseudo-words, the corpus has nothing to train on, or the
            folder holds another run.
        MissingExtraError: diffusers is not installed.
    """
    from indexer.embed import load_embedder

    embedder = load_embedder(recipe.model, device=recipe.device)
    if not isinstance(embedder, TrainableEncoder):
        raise CallError(
            f"{recipe.model} has no text encoder that reads pseudo-words.", "Use a model of the CLIP family."
        )
    run = RunFolder.start(folder, recipe)
    templates = Templates(recipe.templates, recipe.values)
    data = CaptionedImages(records, recipe.size, templates, recipe.split_field, recipe.look)
    inside = data.rows(recipe.train_part if recipe.split_field else None)
    held_out = data.rows(recipe.validation_part if recipe.split_field else None)
    if recipe.start is None:
        settings = AutoencoderRecipe(**{"seed": recipe.seed, "device": recipe.device, **recipe.autoencoder})
        codec = train_autoencoder(data.pixels[inside], data.pixels[held_out], settings, folder / "autoencoder")
    else:
        codec = start_folder(recipe.start) / "vae"
    trainer = _Trainer(data, inside, held_out, recipe, embedder, codec)
    measured = fit(run, trainer, label="generator", saved=lambda step: trainer.grid(folder / f"samples-{step:06d}.png"))
    export(trainer.pipeline(), trainer.inversion, recipe, folder / "model")
    run.plot({
        "loss": ["loss", "validation_loss"],
        "generated image to its image, R@10": ["train_r10", "validation_r10"],
        "images per second": ["images_per_second"],
    })  # fmt: skip
    return measured


class _Trainer(Trainer[GeneratorRecipe]):
    """The denoiser and the jointly trained inversion, with their moving averages."""

    def __init__(
        self,
        data: CaptionedImages,
        inside: Rows,
        held_out: Rows,
        recipe: GeneratorRecipe,
        embedder: TrainableEncoder,
        codec: Path,
    ) -> None:
        import diffusers
        import torch
        from diffusers.models.attention_processor import AttnProcessor

        super().__init__(recipe, [Stage(recipe.steps, recipe.peak, recipe.peak / 50)])
        self.data, self.inside, self.held_out = data, inside, held_out
        self.embedder, self.device = embedder, torch.device(recipe.device)
        self.features = _features(embedder, data.pixels)
        codec_kind: Any = diffusers.AutoencoderTiny
        self.autoencoder = (
            codec_kind.from_pretrained(codec, torch_dtype=torch.float32).to(self.device).eval().requires_grad_(False)
        )
        scale = self.autoencoder.config.scaling_factor
        shifts = np.random.default_rng([recipe.seed, 0]).integers(-recipe.shifts, recipe.shifts + 1, (VARIANTS, 2))
        shifts[0] = 0
        self.latents = torch.stack([
            torch.from_numpy(scale * encode_latents(self.autoencoder, _shifted(data.pixels, *shift)))
            for shift in shifts.tolist()
        ])  # fmt: skip
        encoder, tokenizer = text_encoder_of(embedder, recipe.context)
        self.encoder, self.tokenizer = encoder.to(self.device), tokenizer
        self.reader = PseudoWordReader(self.encoder.get_input_embeddings(), tokenizer, recipe.context)
        start = load_inversion(recipe.inversion)
        if (start.config.feature_dim, start.config.word_dim) != (embedder.dim, self.reader.word_dim):
            raise CallError(
                f"The inversion {recipe.inversion} turns {start.config.feature_dim} numbers into pseudo-words of "
                f"{start.config.word_dim}; {recipe.model} has features of {embedder.dim} and pseudo-words of "
                f"{self.reader.word_dim}.",
                "Start from an inversion that was trained for this model: underdrawing train inversion.",
            )
        config = replace(start.config, normalized=True)  # here it is trained on unit features, whatever it read before
        self.inversion = Inversion(config, start.phi.to(self.device).requires_grad_(False), "")
        self.phi = load_inversion(recipe.inversion).phi.to(self.device).train()
        self.pairs = differences(data, inside, self.features, recipe.keep)
        torch.manual_seed(recipe.seed)
        channels, side = self.latents.shape[2], self.latents.shape[3]
        shape = (recipe, channels, side, self.reader.word_dim)
        self.unet = build_unet(*shape).to(self.device, memory_format=torch.channels_last)
        self.averaged = build_unet(*shape).to(self.device).eval().requires_grad_(False)
        self.averaged.load_state_dict(self.unet.state_dict())
        if self.device.type == "cpu":
            # There, torch's fused attention is slower for a few dozen tokens: by a quarter of a whole step.
            self.unet.set_attn_processor(AttnProcessor())
        trained = [*self.unet.named_parameters(), *(self.phi.named_parameters() if recipe.train_inversion else [])]
        self.optimiser = torch.optim.AdamW(decay_groups(trained, recipe.weight_decay), betas=(0.9, 0.99))

    def parts(self) -> Mapping[str, Stateful]:
        return {
            "unet": self.unet,
            "averaged": self.averaged,
            "phi": self.phi,
            "averaged_phi": self.inversion.phi,
            "optimiser": self.optimiser,
        }

    def trained(self) -> Iterable[nn.Parameter]:
        return [each for group in self.optimiser.param_groups for each in group["params"]]

    def average(self) -> None:
        for average, new in ((self.averaged, self.unet), (self.inversion.phi, self.phi)):
            move_average(zip(average.parameters(), new.parameters(), strict=True), self.recipe.average, self.step)

    def pipeline(self) -> Any:
        """The current model as a diffusers pipeline."""
        return build_pipeline(self.encoder, self.tokenizer, self.autoencoder, self.averaged)

    def losses(self, rng: np.random.Generator) -> dict[str, float]:
        self.unet.train()
        return {"loss": backward(self._loss(self.unet, self.phi, *self._draw(rng), rng))}

    def _draw(self, rng: np.random.Generator) -> tuple[Rows, Rows, list[list[str]]]:
        """Images to generate, images whose pseudo-words are read, and prompts in pieces."""
        recipe = self.recipe
        kinds = np.cumsum([recipe.different, recipe.worded, recipe.unconditional])
        kind = np.searchsorted(kinds, rng.random(recipe.batch), side="right")
        worded = rng.choice(self.inside, recipe.batch)
        drawn = worded.copy()
        different = np.flatnonzero(kind == 0)
        before, after, said = self.pairs.draw(len(different), rng)
        worded[different], drawn[different] = before, after
        captions = self.data.draw(drawn, rng)
        texts = self.data.texts
        prompts: list[list[str]] = []
        for place in range(recipe.batch):
            sentence = str(rng.choice(recipe.sentences))
            match kind[place]:
                case 0:
                    pieces = _pieces(sentence, said[int(np.searchsorted(different, place))])
                case 1:
                    words = texts[captions[place]].split()
                    some = " ".join(word for word in words if rng.random() < 0.4)
                    pieces = _pieces(sentence, some) if some else ["", ""]
                case 2:
                    pieces = [""]
                case _:
                    pieces = [texts[captions[place]]]
            prompts.append(pieces)
        return drawn, worded, prompts

    def _loss(
        self, unet: Any, phi: Any, drawn: Rows, worded: Rows, prompts: list[list[str]], rng: np.random.Generator
    ) -> Tensor:
        import torch

        recipe = self.recipe
        features = self.features[worded].to(self.device)
        noise = torch.from_numpy(rng.standard_normal(features.shape).astype(np.float32)).to(self.device)
        noisy = features + recipe.feature_noise / features.shape[1] ** 0.5 * noise
        words = phi(torch.nn.functional.normalize(noisy, dim=-1))
        tokens, places = self.reader.tokenize_pieces(prompts)
        with self.reader.reading(places.to(self.device), words):
            states = self.encoder(tokens.to(self.device)).last_hidden_state
        clean = self.latents[rng.integers(0, VARIANTS, len(drawn)), drawn].to(self.device)
        level = 1 / (1 + np.exp(-rng.normal(recipe.time_mean, 1.0, len(drawn))))
        sigma = torch.from_numpy(level.astype(np.float32)).to(self.device)[:, None, None, None]
        start = torch.from_numpy(rng.standard_normal(clean.shape).astype(np.float32)).to(self.device)
        mixed = ((1 - sigma) * clean + sigma * start).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.bf16):
            flow = unet(mixed, sigma.flatten() * TIMESTEPS, encoder_hidden_states=states).sample.float()
        loss: Tensor = (flow - (start - clean)).square().mean()
        return loss

    def evaluate(self) -> dict[str, float]:
        """The loss on held-out images, and how often an image generated from a pseudo-word alone finds its original.

        The second is R@10 among all images, by the embedder, for 128 images of each part.
        """
        import torch

        rng = np.random.default_rng([self.recipe.seed, 1])
        rows = rng.choice(self.held_out, min(256, len(self.held_out)), replace=False)
        prompts = [["", ""]] * len(rows)
        with torch.no_grad():
            loss = self._loss(self.averaged, self.inversion.phi, rows, rows, prompts, rng)
        measured = {"validation_loss": float(loss)}
        for label, part in (("train", self.inside), ("validation", self.held_out)):
            chosen = rng.choice(part, min(128, len(part)), replace=False)
            drawings = self._generator.generate(
                [PseudoTargetRequest("", (self.features[row].cpu().numpy(),)) for row in chosen], GenerateOptions()
            )
            pictures = [drawing.images[0] if drawing.images else None for drawing in drawings]
            found = []
            for row, picture in zip(chosen, pictures, strict=True):
                if picture is None:
                    found.append(False)
                    continue
                scores = torch.from_numpy(self.embedder.encode_query([Item(image=picture)])) @ self.features.T
                found.append(bool((scores[0] > scores[0, row]).sum() < 10))
            measured[f"{label}_r10"] = float(np.mean(found))
        return measured

    def grid(self, file: Path, columns: int = 12) -> None:
        """Rows of before, after, and the image generated for the difference; held-out pairs come last."""
        from PIL import Image

        rows = []
        for part in (self.inside, self.held_out):
            try:
                pairs = differences(self.data, part, self.features, self.recipe.keep)
            except CallError:
                continue
            before, after, said = pairs.draw(columns, np.random.default_rng(self.recipe.seed))
            requests = [
                PseudoTargetRequest(text, (self.features[row].cpu().numpy(),))
                for row, text in zip(before, said, strict=True)
            ]
            blank = np.zeros_like(self.data.pixels[0])
            drawn = [
                np.asarray(drawing.images[0]) if drawing.images else blank
                for drawing in self._generator.generate(requests, GenerateOptions())
            ]
            for strip in (self.data.pixels[before], self.data.pixels[after], drawn):
                rows.append(np.concatenate(list(strip), 1))
        Image.fromarray(np.concatenate(rows)).save(file)

    @cached_property
    def _generator(self) -> PseudoTargetGenerator:
        return PseudoTargetGenerator(
            self.pipeline(), spec_of(self.recipe), [self.inversion], name="the generator in training", digest=""
        )


def _pieces(sentence: str, text: str) -> list[str]:
    """The text around the pseudo-word; `{word}` inside the user's text is not a place for one."""
    return [piece.replace("{text}", text) for piece in sentence.split("{word}")]


def _features(embedder: TrainableEncoder, pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Unit features of images, (n, dim)."""
    import torch
    from PIL import Image

    return torch.from_numpy(np.concatenate([
        embedder.encode_document([Item(image=Image.fromarray(each)) for each in pixels[start : start + 256]])
        for start in range(0, len(pixels), 256)
    ]))  # fmt: skip


def _shifted(pixels: npt.NDArray[np.uint8], x: int, y: int) -> npt.NDArray[np.uint8]:
    """All images shifted by some pixels over white."""
    size = pixels.shape[1]
    moved = np.full_like(pixels, 255)
    moved[:, max(0, y) : size + min(0, y), max(0, x) : size + min(0, x)] = pixels[
        :, max(0, -y) : size - max(0, y), max(0, -x) : size - max(0, x)
    ]
    return moved
