"""Captions by the image-to-text models of transformers: BLIP, BLIP-2, LLaVA, Qwen2-VL, Qwen2.5-VL.

A frozen spec for each `model_type` says how they differ: the class in transformers, and whether the model takes a
prompt or captions without one. Images are prepared by the checkpoint's own processor.

What this module does not know: caches, rewriting, how captions are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.embed.base import Dtype
from indexer.embed.checkpoints import checkpoint_digest, checkpoint_folder
from indexer.embed.devices import AUTO, settled_device
from indexer.embed.model_files import read_json
from indexer.errors import ItemError, ModelError
from indexer.forks import Lock
from indexer.types import ImageSource, JsonValue
from retrieval.providers.language.answers import read_prompt, sentence_in
from retrieval.providers.language.models import TOKENS, TextModel, load_model, settled_dtype, transformers_5
from retrieval.providers.language.protocol import Answer
from retrieval.providers.language.templates import render_chats

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


@dataclass(frozen=True)
class CaptionerSpec:
    """How a kind of model is prompted.

    Attributes:
        model: The name of its class in transformers.
        asked: Whether it takes a prompt; otherwise it captions without one.
        plain: The text around the prompt for checkpoints without a chat template; None if all have one.
    """

    model: str
    asked: bool = True
    plain: str | None = None


SPECS: Mapping[str, CaptionerSpec] = {
    "blip": CaptionerSpec("BlipForConditionalGeneration", asked=False),
    "blip-2": CaptionerSpec("Blip2ForConditionalGeneration", asked=False),
    # The first releases of LLaVA 1.5 have no template; they were trained with this one.
    "llava": CaptionerSpec("LlavaForConditionalGeneration", plain="USER: <image>\n{prompt} ASSISTANT:"),
    "qwen2_vl": CaptionerSpec("Qwen2VLForConditionalGeneration"),
    "qwen2_5_vl": CaptionerSpec("Qwen2_5_VLForConditionalGeneration"),
}


class ImageToText:
    """A captioner with weights.

    Args:
        model: A loaded model.
        processor: The checkpoint's own processor.
        spec: How it is prompted.
        prompt: The prompt, for a model that takes one.
        name: The name it was loaded by.
        digest: A digest of its files.
        device: Where it runs.
        dtype: Its arithmetic.

    Raises:
        ModelError: It needs a prompt, but has no template for one.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        spec: CaptionerSpec,
        *,
        prompt: str,
        name: str,
        digest: str,
        device: str = "cpu",
        dtype: Dtype = Dtype.FLOAT32,
    ) -> None:
        self.name = name
        self._processor, self._preparing = processor, Lock()
        self._text = _question(processor, spec, prompt, name) if spec.asked else None
        self._model = TextModel(model, device=device, dtype=dtype, name=name)
        self._identity: dict[str, JsonValue] = {
            "captioner": digest,
            "prompt": self._text,
            "tokens": TOKENS,
            "dtype": dtype.value,
        }

    @classmethod
    def load(
        cls, source: str | Path, *, prompt: str | None = None, device: str = AUTO, dtype: str | Dtype | None = None
    ) -> ImageToText:
        """A captioner by folder or hub id.

        Args:
            source: A folder in transformers' layout, or a hub id (fetched on first use).
            prompt: The prompt; None for `prompts/caption.txt`.
            device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
            dtype: None for float32 on a CPU and bfloat16 elsewhere.

        Raises:
            MissingExtraError: transformers is too old.
            ModelError: There is no such model, or it is of another kind.
        """
        device = settled_device(device)
        transformers = transformers_5("A captioner")
        folder = checkpoint_folder(source)
        file = folder / "config.json"
        kind = read_json(file, "configuration of a model").get("model_type")
        spec = SPECS.get(kind) if isinstance(kind, str) else None
        if spec is None:
            raise ModelError(
                f"{source} is a model of the type {kind!r}; captioners are {', '.join(SPECS)}.",
                "Captions made elsewhere are read with table:FILE.",
            )
        digest = checkpoint_digest(folder)
        return cls(
            *load_model(getattr(transformers, spec.model), transformers.AutoProcessor, folder),
            spec,
            prompt=read_prompt("caption.txt") if prompt is None else prompt,
            name=str(source),
            digest=digest,
            device=device,
            dtype=settled_dtype(dtype, device),
        )

    def identity(self) -> Mapping[str, JsonValue]:
        """The checkpoint's files, the prompt as the model reads it, and the arithmetic."""
        return dict(self._identity)

    def caption(self, images: Sequence[ImageSource]) -> list[Answer]:
        """See `Captioner.caption`."""
        from indexer.corpus.images import decode_image

        answers: dict[int, Answer] = {}
        inputs: dict[int, Mapping[str, torch.Tensor]] = {}
        for place, image in enumerate(images):
            try:
                inputs[place] = self._inputs(decode_image(image))
            except ItemError as error:
                answers[place] = error
        for place, tokens in zip(inputs, self._model.generate(list(inputs.values())), strict=True):
            if isinstance(tokens, Exception):
                answers[place] = tokens
                continue
            asked = inputs[place]["input_ids"].shape[1] if self._text is not None else 0
            answers[place] = sentence_in(self._processor.decode(tokens[asked:], skip_special_tokens=True))
        return [answers[place] for place in range(len(images))]

    def _inputs(self, image: Image) -> Mapping[str, torch.Tensor]:
        asked = {} if self._text is None else {"text": [self._text]}
        try:
            with self._preparing:  # calling a tokenizer changes its state
                return dict(self._processor(images=[image], return_tensors="pt", **asked))
        except ValueError as error:  # Qwen's processor, for one, refuses an image 200 times as wide as high
            raise ItemError("decode-failed", f"{self.name} cannot read the image: {error}") from error


def _question(processor: Any, spec: CaptionerSpec, prompt: str, name: str) -> str:
    """The prompt with a placeholder for an image, as the model reads it."""
    template = getattr(processor, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    if template:
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
        known = getattr(getattr(processor, "tokenizer", None), "special_tokens_map", {})
        options = {key: value for key, value in known.items() if isinstance(value, str)}
        return render_chats(name, str(template), [said], options | {"add_generation_prompt": True})[0]
    if spec.plain is None:
        raise ModelError(f"{name} has no chat template, so it cannot be prompted.", "Fetch the whole checkpoint.")
    return spec.plain.replace("{prompt}", prompt)
