"""Pseudo-targets by any diffusers pipeline whose text encoders can read pseudo-words, given as vectors.

Each text encoder of the pipeline has an inversion of its own (CIG: Wang et al., CVPR 2025). It turns the reference's
feature into a pseudo-word of that encoder, which reads the prompt with it, and the pipeline generates an image. The
reference's pixels never reach the denoiser.

    StableDiffusionPipeline        one text encoder, its last hidden states
    StableDiffusionXLPipeline      two text encoders: their penultimate hidden states side by side, and the second's
                                   projected vector
    LatentConsistencyModelPipeline as the first, with guidance embedded in the denoiser

Turbo and Lightning variants are the same classes with few steps and no guidance.

What this module does not know: collections, caches, how pseudo-targets are searched with.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.embed.devices import AUTO, settled_device
from indexer.embed.loading import loading
from indexer.embed.textual_inversion import Inversion, PseudoWordReader, load_inversion
from indexer.errors import CallError, GeneratorError, MissingExtraError, ModelError
from indexer.files.atomic import file_digest
from indexer.types import JsonValue
from retrieval.providers.generation.pipelines import load_pipeline, quietly
from retrieval.providers.generation.protocol import GenerateOptions, PseudoTarget, PseudoTargetRequest
from retrieval.providers.generation.spec import SPEC, GeneratorSpec, WordSource

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

__all__ = ["GeneratorSpec", "PseudoTargetGenerator", "WordSource"]

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
BLACK = 10 / 255
"""CIG's own threshold: an image whose mean is at most this counts as a failure."""


class PseudoTargetGenerator:
    """A diffusers pipeline that generates an image from a reference and a sentence.

    Args:
        pipeline: A loaded pipeline with a text encoder.
        spec: Its inversions and defaults.
        inversions: One for each text encoder.
        name: The name it was loaded by.
        digest: A digest of its weights.

    Raises:
        ModelError: The pipeline has no text encoder or no UNet, or an inversion does not fit its encoder.
    """

    def __init__(
        self, pipeline: Any, spec: GeneratorSpec, inversions: Sequence[Inversion], *, name: str, digest: str
    ) -> None:
        encoders = [(e, t) for e, t in _text_encoders(pipeline) if e is not None]
        if not encoders:
            raise ModelError(
                f"{name} is a {type(pipeline).__name__} without a text encoder, so it cannot read a pseudo-word.",
                "Use a text-to-image pipeline, such as Stable Diffusion.",
            )
        if getattr(pipeline, "unet", None) is None:
            raise ModelError(
                f"{name} is a {type(pipeline).__name__} without a UNet.",
                "Use a pipeline of the family Stable Diffusion 1, 2 or XL.",
            )
        if len(inversions) != len(encoders):
            raise ModelError(
                f"{name} has {len(encoders)} text encoders and {len(inversions)} inversions; each needs its own."
            )
        self.name = name
        self._pipeline = pipeline
        self._spec = spec
        self._inversions = tuple(inversions)
        self._encoders = [encoder for encoder, _ in encoders]
        self._readers = [
            # A tokenizer without a limit reports 10^30.
            PseudoWordReader(
                encoder.get_input_embeddings(),
                tokenizer,
                min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings)),
                spec.pad_token,
            )
            for encoder, tokenizer in encoders
        ]
        for reader, inversion in zip(self._readers, self._inversions, strict=True):
            if reader.word_dim != inversion.config.word_dim:
                raise ModelError(
                    f"An inversion of {name} makes pseudo-words of {inversion.config.word_dim} numbers; "
                    f"its text encoder reads {reader.word_dim}."
                )
        self._digest = digest
        pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def load(
        cls, source: str | Path, spec: GeneratorSpec | None = None, *, device: str = AUTO, dtype: str = "float32"
    ) -> PseudoTargetGenerator:
        """A generator by bundled name, folder or hub id.

        Args:
            source: `bundled:NAME`, a diffusers folder, or a hub id (fetched on first use).
            spec: Overrides the one in the folder; needed if there is none.
            device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
            dtype: `float32`, `bfloat16` or `float16` (not on a CPU).

        Raises:
            MissingExtraError: diffusers is not installed.
            ModelError: There is no pipeline there, or it does not fit.
            UnknownNameError: There is no bundled generator of that name.
        """
        try:
            import diffusers
        except ImportError:
            raise MissingExtraError("diffusers", "generate", "Generating pseudo-targets") from None
        import torch

        device = settled_device(device)
        if dtype == "float16" and device == "cpu":
            raise CallError("float16 is slow and imprecise on a CPU.", "Use float32 or bfloat16, or a GPU.")
        if isinstance(source, str) and source.startswith("bundled:"):
            from indexer.bundled import generator_folder

            place: str | Path = generator_folder(source.removeprefix("bundled:"))
        else:
            place = source
        folder = Path(place)
        if spec is None:
            if not folder.is_dir():
                raise _missing(source)
            spec = GeneratorSpec.read(folder)
        with loading():
            pipeline = load_pipeline(place, diffusers)
        inversions = [
            load_inversion(folder / each.inversion if (folder / each.inversion).exists() else each.inversion)
            for each in spec.words
        ]
        digest = _weights_digest(folder) if folder.is_dir() else str(source)
        # Moved after loading: what the loader calls its dtype depends on the release.
        with loading(), quietly():
            pipeline = pipeline.to(device, getattr(torch, dtype))
        return cls(pipeline, spec, inversions, name=str(source), digest=digest)

    @property
    def feature_models(self) -> Sequence[tuple[str, bool]]:
        """See `Generator.feature_models`."""
        return [
            (source.model, inversion.config.normalized)
            for source, inversion in zip(self._spec.words, self._inversions, strict=True)
        ]

    @functools.cached_property
    def defaults(self) -> GenerateOptions:
        """See `Generator.defaults`."""
        unet_size = int(self._pipeline.unet.config.sample_size * self._pipeline.vae_scale_factor)
        return GenerateOptions(
            steps=self._spec.steps,
            guidance=self._spec.guidance,
            size=self._spec.size or unet_size,
            negative=self._spec.negative,
        )

    def identity(self, options: GenerateOptions) -> Mapping[str, JsonValue]:
        """See `Generator.identity`."""
        settled = options.over(self.defaults)
        return {
            "generator": self._digest,
            "words": [[each.model, own.digest] for each, own in zip(self._spec.words, self._inversions, strict=True)],
            "template": self._spec.template,
            "scheduler": type(self._pipeline.scheduler).__name__,
            "dtype": str(self._pipeline.dtype),
            # Left out if they change nothing, so that entries cached before these options existed are still found.
            **({} if self._spec.pad_token is None else {"pad_token": self._spec.pad_token}),
            **({"retries": self._spec.retries} if self._spec.retries else {}),
            **asdict(settled),
        }

    def generate(self, requests: Sequence[PseudoTargetRequest], options: GenerateOptions) -> list[PseudoTarget]:
        """See `Generator.generate`. All images of the call are one batch; black ones are generated again, alone."""
        if not requests:
            return []
        settled = options.over(self.defaults)
        made = self._sample(requests, settled)
        for attempt in range(1, self._spec.retries + 1):
            failed = [place for place, each in enumerate(made) if each.failed]
            if not failed:
                break
            again = self._sample([requests[place] for place in failed], replace(settled, seed=settled.seed + attempt))
            for place, each in zip(failed, again, strict=True):
                if len(each.images) > len(made[place].images):
                    made[place] = each
        return made

    def _sample(self, requests: Sequence[PseudoTargetRequest], settled: GenerateOptions) -> list[PseudoTarget]:
        import torch

        guided = (settled.guidance or 0) > 1
        noise, sources = self._noise(len(requests), settled)
        try:
            with torch.inference_mode():
                images = self._pipeline(
                    **self._conditions(requests, settled, guided),
                    num_images_per_prompt=settled.images,
                    num_inference_steps=settled.steps,
                    guidance_scale=settled.guidance,
                    height=settled.size,
                    width=settled.size,
                    latents=noise,
                    generator=sources,
                    output_type="np",
                ).images
        except (
            RuntimeError,
            MemoryError,
            ValueError,
        ) as error:  # out of memory on a CPU is a plain RuntimeError
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise GeneratorError(
                f"{self.name} failed on {len(requests)} x {settled.images} images of {settled.size} pixels: {reason}",
                "If memory ran out, generate fewer or smaller images at once, or use another device.",
            ) from error
        return [_pseudo_target(own) for own in np.split(np.asarray(images, np.float32), len(requests))]

    def _noise(self, requests: int, options: GenerateOptions) -> tuple[torch.Tensor, list[torch.Generator]]:
        """The initial noise of images, and the source of later noise for schedulers that add some (LCM, ancestral).

        It is the same for image n of every request, so that nothing depends on the batch.
        """
        import torch

        side = (options.size or 0) // self._pipeline.vae_scale_factor
        shape = (self._pipeline.unet.config.in_channels, side, side)
        sources = [
            torch.Generator("cpu").manual_seed(options.seed * 1_000 + number)
            for _ in range(requests)
            for number in range(options.images)
        ]
        noise = torch.stack([torch.randn(shape, generator=source) for source in sources])
        return noise.to(self._pipeline.device, self._pipeline.dtype), sources

    def _conditions(
        self, requests: Sequence[PseudoTargetRequest], options: GenerateOptions, guided: bool
    ) -> dict[str, Any]:
        """The pipeline's conditioning: prompt embeddings, and with guidance those of the negative."""
        words = [
            inversion.words(np.stack([request.features[place] for request in requests]))
            for place, inversion in enumerate(self._inversions)
        ]
        texts = [request.text for request in requests]
        wide = hasattr(self._pipeline, "text_encoder_2")
        states, pooled = self._read(self._spec.template, texts, words, wide)
        conditions: dict[str, Any] = {"prompt_embeds": states}
        if wide:
            conditions["pooled_prompt_embeds"] = pooled
        if guided and type(self._pipeline).__name__ != "LatentConsistencyModelPipeline":
            if wide and not options.negative and self._pipeline.config.get("force_zeros_for_empty_prompt", False):
                states, pooled = states * 0, pooled * 0
            else:
                states, pooled = self._read("{text}", [options.negative or ""] * len(texts), None, wide)
            conditions["negative_prompt_embeds"] = states
            if wide:
                conditions["negative_pooled_prompt_embeds"] = pooled
        return conditions

    def _read(self, template: str, texts: Sequence[str], words: Any, wide: bool) -> tuple[Any, Any]:
        """Hidden states (n, length, width) of all encoders side by side, and the last encoder's projected vector."""
        import torch

        device = self._pipeline.device
        states, pooled = [], None
        for place, (encoder, reader) in enumerate(zip(self._encoders, self._readers, strict=True)):
            tokens, places = reader.tokenize(template, texts)
            own = torch.from_numpy(words[place]) if words is not None else torch.zeros(len(texts), reader.word_dim)
            with reader.reading(places.to(device), own.to(device)):
                output = encoder(tokens.to(device), output_hidden_states=wide)
            states.append(output.hidden_states[-2] if wide else output.last_hidden_state)
            pooled = output[0]
        return torch.cat(states, -1), pooled


def _text_encoders(pipeline: Any) -> list[tuple[Any, Any]]:
    """Each text encoder with its tokenizer, in the pipeline's order."""
    pairs = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))
    return [(getattr(pipeline, encoder, None), getattr(pipeline, tokenizer, None)) for encoder, tokenizer in pairs]


def _pseudo_target(images: Any) -> PseudoTarget:
    """(n, height, width, 3) floats in [0, 1] as images, without those that failed."""
    from PIL import Image as PillowImage

    usable: list[Image] = []
    reasons = []
    for image in images:
        if not np.isfinite(image).all():
            reasons.append("not a number")
        elif image.mean() <= BLACK:
            reasons.append("black")
        else:
            usable.append(PillowImage.fromarray((image * 255).round().astype(np.uint8)))
    if not reasons:
        return PseudoTarget(tuple(usable))
    return PseudoTarget(
        tuple(usable), f"{len(reasons)} of {len(images)} images came out {' or '.join(sorted(set(reasons)))}"
    )


def _weights_digest(folder: Path) -> str:
    """A digest of all weights and configurations in a pipeline's folder."""
    import hashlib

    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in {".safetensors", ".json"}:
            total.update(f"{file.relative_to(folder)} {file_digest(file)}\n".encode())
    return total.hexdigest()


def _missing(source: str | Path) -> ModelError:
    """The error for a generator that is no folder here and comes without a spec."""
    if isinstance(source, str) and HUB_ID.fullmatch(source):
        return ModelError(
            f"There is no folder {source}, and the inversions of the text encoders of {source} are not known.",
            f"Name a folder with {SPEC}, or in Python give a GeneratorSpec.",
        )
    return ModelError(
        f"There is no generator at {source}.",
        f"Name a folder made by `underdrawing train generator`, a diffusers folder with {SPEC}, or "
        "bundled:emoji-generator.",
    )
