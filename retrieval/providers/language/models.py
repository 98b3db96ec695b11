"""What local captioners and chat models share: loading transformers' own classes, and generating without a choice.

Weights are safetensors, each in its place; no code of a checkpoint is run. Decoding is greedy, and inputs go to the
model together only where their shapes agree, so that nothing is padded and no answer depends on its neighbours.

What this module does not know: images, prompts, what answers mean.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.embed.base import Dtype
from indexer.embed.checkpoints import quietly
from indexer.embed.pairs import load_pair
from indexer.errors import CallError, MissingExtraError, ModelError, WritingError, first_line
from indexer.forks import Lock

if TYPE_CHECKING:
    import torch

TOKENS = 96
"""Of an answer; a sentence of 25 words has some 40."""


class TextModel:
    """A model that continues inputs with words.

    Args:
        model: Any class of transformers that generates.
        device: Where it runs.
        dtype: What it computes in.
        name: What it was asked for by.
    """

    def __init__(self, model: Any, *, device: str, dtype: Dtype, name: str) -> None:
        import torch

        self._model = model.to(device, getattr(torch, dtype.value)).eval()
        self._device, self._name = device, name
        self._dtype = getattr(torch, dtype.value)
        self._opening: tuple[bytes, Any] | None = None
        # transformers 5 renames this argument on the way.
        self._remembered = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        # A model is not shared between threads.
        self._working = Lock()

    def generate(
        self, inputs: Sequence[Mapping[str, torch.Tensor]], *, opening: torch.Tensor | None = None, **options: Any
    ) -> list[torch.Tensor | WritingError]:
        """The tokens of each answer, with the input's before them where the model repeats those.

        Args:
            inputs: Each a batch of one, by the model's names.
            opening: (1, n) int64 tokens that every input begins with, to be read once for all; or None.
            options: For the model's `generate`.
        """
        alike: dict[object, list[int]] = {}
        for place, own in enumerate(inputs):
            alike.setdefault(tuple((name, tuple(own[name].shape)) for name in sorted(own)), []).append(place)
        answers: dict[int, torch.Tensor | WritingError] = {}
        with self._working, quietly():
            read = None if opening is None else self._read(opening)
            for places in alike.values():
                answers |= self._together(places, inputs, options, read)
        return [answers[place] for place in range(len(inputs))]

    def ends(self, token: int) -> bool:
        """Whether an answer ends with that token."""
        last = self._model.generation_config.eos_token_id
        return token in (last if isinstance(last, list) else [last])

    def _read(self, opening: torch.Tensor) -> Any:
        """What the model remembers of an opening; the last one's is kept."""
        import torch
        from transformers import DynamicCache

        key = opening.numpy().tobytes()
        if self._opening is None or self._opening[0] != key:
            cache = DynamicCache(config=self._model.config)
            with torch.inference_mode():
                self._model(input_ids=opening.to(self._device), use_cache=True, **{self._remembered: cache})
            self._opening = key, cache
        return self._opening[1]

    def _together(
        self,
        places: Sequence[int],
        inputs: Sequence[Mapping[str, torch.Tensor]],
        options: Mapping[str, Any],
        read: Any = None,
    ) -> dict[int, torch.Tensor | WritingError]:
        """One call; where it does not fit, a call for each, whose failure is its own."""
        import torch

        batch = {name: torch.cat([inputs[place][name] for place in places]) for name in inputs[places[0]]}
        settled = {
            name: tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)
            for name, tensor in batch.items()
        }
        own: dict[str, Any] = {"max_new_tokens": TOKENS, **options}
        try:
            with torch.inference_mode():
                if read is not None:
                    own[self._remembered] = copy.deepcopy(read)
                    own[self._remembered].batch_repeat_interleave(len(places))
                tokens = self._model.generate(**settled, do_sample=False, num_beams=1, **own)
            return dict(zip(places, tokens.cpu(), strict=True))
        except (RuntimeError, MemoryError, ValueError) as error:  # on a CPU, lack of memory is a plain RuntimeError
            if len(places) > 1:
                one_by_one: dict[int, torch.Tensor | WritingError] = {}
                for place in places:
                    one_by_one |= self._together([place], inputs, options, read)
                return one_by_one
            return {places[0]: WritingError(f"{self._name} failed: {first_line(error)}")}


def transformers_5(purpose: str) -> Any:
    """The library, of the releases whose classes are read here.

    Raises:
        MissingExtraError: It is older.
    """
    import transformers

    if int(transformers.__version__.split(".")[0]) < 5:
        raise MissingExtraError("transformers 5", "caption", purpose)
    return transformers


def settled_dtype(dtype: str | Dtype | None, device: str) -> Dtype:
    """The arithmetic; if not told, float32 on a CPU and bfloat16 elsewhere.

    Raises:
        CallError: float16 on a CPU.
    """
    if dtype is None:
        return Dtype.FLOAT32 if device.startswith("cpu") else Dtype.BFLOAT16
    if Dtype(dtype) is Dtype.FLOAT16 and device.startswith("cpu"):
        raise CallError("float16 is slow and coarse on a CPU.", "Use float32 or bfloat16, or a GPU.")
    return Dtype(dtype)


def load_model(kind: Any, reader: Any, folder: Path, gguf: Path | None = None) -> tuple[Any, Any]:
    """A model of a class of transformers, and the tokenizer or processor that prepares what it reads.

    Args:
        kind: The model's class.
        reader: The other's.
        folder: Where their files are.
        gguf: Of these, the one that holds all of both; its weights are made plain again. None for safetensors.

    Raises:
        ModelError: One of them cannot be loaded, or weights are missing: those would be random.
    """
    read, model, report = load_pair(kind, reader, gguf or folder)
    lost = sorted(str(each) for part in ("missing_keys", "mismatched_keys") for each in report[part])
    if lost:
        raise ModelError(
            f"{len(lost)} weights of the model in {folder} are missing or of another shape, such as {lost[0]}.",
            "Fetch the checkpoint again, or check that config.json belongs to it.",
        )
    return model, read
