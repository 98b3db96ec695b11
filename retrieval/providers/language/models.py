"""Loading and greedy decoding for local captioners and chat models.

Only transformers' own classes are loaded, from safetensors without missing weights; no code of a checkpoint is run.
Inputs share a batch only if their shapes agree, so that nothing is padded and no answer depends on its neighbors.

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
"""The most tokens of an answer; a sentence of 25 words has some 40."""


class TextModel:
    """A model that continues inputs with words.

    Args:
        model: Any class of transformers that generates.
        device: Where it runs.
        dtype: Its arithmetic.
        name: The name it was loaded by.
    """

    def __init__(self, model: Any, *, device: str, dtype: Dtype, name: str) -> None:
        import torch

        self._model = model.to(device, getattr(torch, dtype.value)).eval()
        self._device, self._name = device, name
        self._dtype = getattr(torch, dtype.value)
        self._opening: tuple[bytes, Any] | None = None
        # transformers 5 renames this argument.
        self._remembered = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        # Threads must not run a model at the same time.
        self._working = Lock()

    def generate(
        self, inputs: Sequence[Mapping[str, torch.Tensor]], *, opening: torch.Tensor | None = None, **options: Any
    ) -> list[torch.Tensor | WritingError]:
        """The tokens of each answer, after the input's tokens if the model repeats those.

        Args:
            inputs: Each a batch of one, by the model's names.
            opening: (1, n) int64 tokens that every input begins with, to be read once for all; or None.
            options: Options of the model's `generate`.
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
        """The key-value cache of an opening; the last one's is reused."""
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
        """One call; if it runs out of memory, a call for each input, so that a failure costs only one."""
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
        except (
            RuntimeError,
            MemoryError,
            ValueError,
        ) as error:  # out of memory on a CPU is a plain RuntimeError
            if len(places) > 1:
                one_by_one: dict[int, torch.Tensor | WritingError] = {}
                for place in places:
                    one_by_one |= self._together([place], inputs, options, read)
                return one_by_one
            return {places[0]: WritingError(f"{self._name} failed: {first_line(error)}")}


def transformers_5(purpose: str) -> Any:
    """The library, of a supported release.

    Raises:
        MissingExtraError: It is older.
    """
    import transformers

    if int(transformers.__version__.split(".")[0]) < 5:
        raise MissingExtraError("transformers 5", "caption", purpose)
    return transformers


def settled_dtype(dtype: str | Dtype | None, device: str) -> Dtype:
    """The dtype; by default float32 on a CPU and bfloat16 elsewhere.

    Raises:
        CallError: float16 on a CPU.
    """
    if dtype is None:
        return Dtype.FLOAT32 if device.startswith("cpu") else Dtype.BFLOAT16
    if Dtype(dtype) is Dtype.FLOAT16 and device.startswith("cpu"):
        raise CallError("float16 is slow and imprecise on a CPU.", "Use float32 or bfloat16, or a GPU.")
    return Dtype(dtype)


def load_model(kind: Any, reader: Any, folder: Path, gguf: Path | None = None) -> tuple[Any, Any]:
    """A model of a class of transformers, and the tokenizer or processor that prepares its inputs.

    Args:
        kind: The model's class.
        reader: The class of the tokenizer or processor.
        folder: The folder of their files.
        gguf: The file in it that holds both, whose weights are dequantized. None for safetensors.

    Raises:
        ModelError: One of them cannot be loaded, or weights are missing, which would be random.
    """
    read, model, report = load_pair(kind, reader, gguf or folder)
    lost = sorted(str(each) for part in ("missing_keys", "mismatched_keys") for each in report[part])
    if lost:
        raise ModelError(
            f"{len(lost)} weights of the model in {folder} are missing or of another shape, such as {lost[0]}.",
            "Fetch the checkpoint again, or check that config.json belongs to it.",
        )
    return model, read
