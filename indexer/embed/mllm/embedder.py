"""Multimodal language models as embedders (GME and relatives): one model reads text, image, or both.

`mllm:NAME`, where NAME is a hub id or a folder of a Qwen2-VL, Qwen2.5-VL or Qwen3-VL checkpoint, or of a LoRA for one.
The vector of an item is the model's last hidden state at the last token of the prompt that `spec.py` describes.
A fused item is one prompt, not the sum of its parts.
"""

from __future__ import annotations

import functools
import gc
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.embed.base import Dtype, Embedder, Fingerprint, Prepared
from indexer.embed.mllm.batches import by_tokens, halving, out_of_memory
from indexer.embed.mllm.images import PREPROCESSOR_FILE, ImageShaper, Pixels
from indexer.embed.mllm.loading import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    adapted_base,
    find_checkpoint,
    load_model,
    merge_adapter,
    weight_files,
)
from indexer.embed.mllm.prompt import Batch, ImageTokens, Prompt, PromptWriter, collate, load_tokenizer
from indexer.embed.mllm.spec import MllmName, MllmSpec, Parity
from indexer.embed.several import image_arrays, images_of
from indexer.embed.tokenizer_file import FILE as TOKENIZER_FILE
from indexer.embed.weights import weights_digest
from indexer.errors import CallError, ModelError
from indexer.reasons import Reason, refusal
from indexer.types import ImageSource, Item, Modality, Role, Vectors
from indexer.vectors.unit import unit_rows

if TYPE_CHECKING:
    from torch import Tensor

CPU_TOKENS, GPU_TOKENS = 4096, 16384
"""Tokens of a batch, padding included; four patches of an image are a token."""
SHOWN = 0.75
"""Share of an item's tokens that its images may use if there are several; then all are reduced."""
FEWEST_TOKENS = 4
"""Minimum tokens of one of several images: fewer show nothing."""
CHARACTERS_A_TOKEN = 16
"""Characters of a text that are read per token of the limit: no tokenizer needs more for words."""


class MllmEmbedder(Embedder):
    """One model for text, image and both.

    Args:
        model: The transformers model, without a head.
        writer: Writes its prompts.
        shaper: Prepares its images.
        spec: Describes its input.
        files: Files that vectors depend on; their content makes the fingerprint.
        name: The name that it was loaded by.
        dtype: Arithmetic of the forward pass.
        device: Where it runs.
        token_budget: Tokens of a batch, padding included; halved permanently when memory runs out.
    """

    modalities = frozenset(Modality)
    fuses_natively = True
    reads_instructions = True

    def __init__(
        self,
        model: Any,
        writer: PromptWriter,
        shaper: ImageShaper,
        spec: MllmSpec,
        files: Sequence[Path],
        *,
        name: str,
        dtype: Dtype,
        device: str,
        token_budget: int | None = None,
    ) -> None:
        self.name, self.spec = name, spec
        self.token_budget = token_budget or (CPU_TOKENS if device == "cpu" else GPU_TOKENS)
        self._model, self._writer, self._shaper = model.to(device), writer, shaper
        self._files, self._dtype, self.device = files, dtype, device
        self._image = image_tokens(model.config)
        width = int(model.config.text_config.hidden_size)
        if spec.dim is not None and spec.dim > width:
            raise CallError(f"{name} has vectors of {width} numbers, fewer than the {spec.dim} asked for.")
        if spec.dim is not None and spec.dim < width and not spec.shorter:
            raise CallError(
                f"{name} was not trained for vectors shorter than {width}.", "Leave dim out, or choose another model."
            )
        self.dim = spec.dim or width

    @classmethod
    def load(cls, source: str, *, name: str, dtype: Dtype, device: str) -> MllmEmbedder:
        """Load a checkpoint.

        Args:
            source: Folder or hub id with options, as in `MllmName`.
            name: The name that it is loaded by.
            dtype: Arithmetic of the forward pass.
            device: Where it runs.

        Raises:
            CallError: An option after the name is invalid, or the device does not support the dtype.
            ModelError: The checkpoint cannot be found, fetched or read, does not fit its configuration, or has no spec.
            MissingExtraError: It needs a package that is not installed.
        """
        import torch

        if dtype is Dtype.FLOAT16 and device == "cpu":
            raise CallError("float16 is slow and imprecise on a CPU.", "Use float32 or bfloat16, or a GPU.")
        asked = MllmName.parse(source)
        folder = find_checkpoint(asked.source, asked.revision)
        base = adapted_base(folder)
        base_folder = folder if base is None else find_checkpoint(base)
        spec = asked.spec(folder)
        model = load_model(base_folder, getattr(torch, dtype.value))
        files = [*weight_files(base_folder), base_folder / "config.json"]
        if base is not None:
            model = merge_adapter(model, folder)
            files += [folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS]

        def own(file: str) -> Path:
            return folder if (folder / file).exists() else base_folder

        shaper = ImageShaper.from_folder(own(PREPROCESSOR_FILE), spec, model.config.vision_config)
        tokenizer = load_tokenizer(own(TOKENIZER_FILE))
        files.append(own(TOKENIZER_FILE) / TOKENIZER_FILE)
        if tokenizer.get_vocab_size() > model.config.text_config.vocab_size:
            raise ModelError(
                f"The tokenizer of {name} has {tokenizer.get_vocab_size():,} tokens, more than the model's "
                f"{model.config.text_config.vocab_size:,}."
            )
        writer = PromptWriter(tokenizer, spec, image_tokens(model.config), shaper.merge)
        return cls(model, writer, shaper, spec, files, name=name, dtype=dtype, device=device)

    @functools.cached_property
    def _fingerprint(self) -> Fingerprint:
        digests = [f"{file.name} {weights_digest(file)}" for file in self._files]
        return Fingerprint(
            model=self.name,
            weights=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
            preprocessing=self._shaper.describe() + (" as stored" if self.spec.parity is Parity.AUTHORS else ""),
            template=self._writer.describe(),
            dtype=self._dtype.value,
            dim=self.dim,
        )

    def fingerprint(self) -> Fingerprint:
        """Weights, configuration and tokenizer by content, and the whole spec."""
        return self._fingerprint

    def preparer(self) -> MllmPrepare:
        """Decoding and resizing; prompts are written in `forward`, which knows the instruction."""
        most = self.spec.max_tokens
        return MllmPrepare(self._shaper, CHARACTERS_A_TOKEN * most, most, self.spec.parity is Parity.AUTHORS)

    def forward(self, prepared: Sequence[Prepared], role: Role, instruction: str | None = None) -> Vectors:
        """Embed any number of items, in batches of at most `token_budget` tokens.

        Raises:
            CallError: The instruction is too long.
            ModelError: A single item does not fit the device's memory.
        """
        rows = [(each, self._prompt(each, role, instruction)) for each in prepared]
        vectors = np.empty((len(rows), self.dim), np.float32)
        for places in by_tokens([len(prompt) for _, prompt in rows], self.token_budget):
            try:
                done = halving(lambda batch: self._run([rows[place] for place in batch]), places, self._release)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                longest = max(len(rows[place][1]) for place in places)
                raise ModelError(
                    f"{self.device} has no memory for a single item of up to {longest:,} tokens.",
                    "Use smaller images (mllm:NAME?max_pixels=N), bfloat16, or another device.",
                ) from error
            if len(done) > 1:
                most = max(len(batch) * max(len(rows[place][1]) for place in batch) for batch, _ in done)
                self.token_budget = min(self.token_budget, most)
            for batch, made in done:
                vectors[list(batch)] = made
        return vectors

    def _prompt(self, prepared: Prepared, role: Role, instruction: str | None) -> Prompt:
        text = prepared.arrays.get("text")
        return self._writer.write(
            self.spec.instruction(role, prepared.modality, instruction),
            None if text is None else str(text),
            [self._shaper.grid(pixels) for pixels in images_of(prepared)],
        )

    def _run(self, rows: Sequence[tuple[Prepared, Prompt]]) -> Vectors:
        import torch

        images = [pixels for each, _ in rows for pixels in images_of(each)]
        batch = collate(
            [prompt for _, prompt in rows],
            pad_token(self._model.config), self._image, self._shaper.merge, self.spec,
        )  # fmt: skip
        with torch.inference_mode():
            patches = self._shaper.patches(images, self.device) if images else None
            hidden = last_hidden(self._model, batch, patches, self.device)
        # Truncate first, then normalize: a part of a unit vector is not of unit length.
        return unit_rows(hidden.float().cpu().numpy()[:, : self.dim])

    def _release(self) -> None:
        gc.collect()
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()


@dataclass(frozen=True)
class MllmPrepare:
    """Converts items to arrays, in any process.

    Attributes:
        shaper: Resizes images.
        characters: Characters of a text that are read.
        tokens: Tokens of an item that the model reads; several images may use the share `SHOWN` of them.
        as_stored: See `decode_image`.
    """

    shaper: ImageShaper
    characters: int
    tokens: int
    as_stored: bool = False

    def __call__(self, item: Item) -> Prepared:
        """Decode and resize the image.

        Raises:
            ItemError: The image cannot be used, or a text-only item is empty.
        """
        arrays: dict[str, Any] = image_arrays(item, self._shaped)
        room = int(SHOWN * self.tokens)
        if len(arrays) > 1 and sum(map(self.shaper.tokens, arrays.values())) > room:
            if room // len(arrays) < FEWEST_TOKENS:
                raise refusal(
                    Reason.TOO_MANY_IMAGES,
                    f"It has {len(arrays):,} images; the model reads {room:,} tokens of images, at least "
                    f"{FEWEST_TOKENS} of each.",
                )
            arrays = image_arrays(item, functools.partial(self._shaped, most_tokens=room // len(arrays)))
        if item.text is not None:
            text = item.text[: self.characters].replace("\0", " ")
            if item.image is None and not text.strip():
                raise refusal(Reason.EMPTY, "The text is empty and there is no image.")
            arrays["text"] = np.array(text)
        return Prepared(item.modality, arrays)

    def _shaped(self, image: ImageSource, most_tokens: int | None = None) -> Pixels:
        from indexer.corpus.images import decode_image

        return self.shaper(decode_image(image, as_stored=self.as_stored), most_tokens)


def last_hidden(model: Any, batch: Batch, patches: Tensor | None, device: Any) -> Tensor:
    """The hidden state of each prompt's last token, (n, width), in the model's dtype.

    Positions are always passed: otherwise the model reuses some from the previous call.

    Args:
        model: The transformers model, without a head.
        batch: The prompts.
        patches: Patches of all their images, in order.
        device: Where the model is.
    """
    import torch

    inputs: dict[str, Tensor] = {
        "input_ids": torch.from_numpy(batch.ids),
        "attention_mask": torch.from_numpy(batch.mask),
        "position_ids": torch.from_numpy(batch.places),
    }
    if patches is not None:
        inputs |= {"pixel_values": patches, "image_grid_thw": torch.from_numpy(batch.grids)}
    hidden: Tensor = model(
        **{name: each.to(device) for name, each in inputs.items()}, use_cache=False
    ).last_hidden_state
    return hidden[torch.arange(len(batch.last), device=hidden.device), torch.from_numpy(batch.last).to(hidden.device)]


def image_tokens(config: Any) -> ImageTokens:
    """The ids of image tokens, from a model's configuration."""
    return ImageTokens(config.vision_start_token_id, config.image_token_id, config.vision_end_token_id)


def pad_token(config: Any) -> int:
    """The padding id of a batch; any would do, as nothing attends to it."""
    return int(config.text_config.pad_token_id or 0)


def load(rest: str, *, name: str, dtype: Dtype, device: str) -> MllmEmbedder:
    """`mllm:HUB/ID[@REVISION][?OPTIONS]` or `mllm:FOLDER`; see `MllmEmbedder.load`."""
    return MllmEmbedder.load(rest, name=name, dtype=dtype, device=device)
