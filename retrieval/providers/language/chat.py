"""Sentences by a local chat model: any causal language model of transformers with a chat template, or in a GGUF file.

Examples that many questions begin with are read once.

What this module does not know: images, caches, how sentences are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer.embed.base import Dtype
from indexer.embed.checkpoints import checkpoint_digest, checkpoint_folder, gguf_in
from indexer.embed.devices import AUTO, settled_device
from indexer.embed.weights import weights_digest
from indexer.errors import ModelError, WritingError, first_line
from indexer.forks import Lock
from indexer.types import JsonValue
from retrieval.providers.language.answers import filled, read_prompt, sentence_in
from retrieval.providers.language.models import TOKENS, TextModel, load_model, settled_dtype, transformers_5
from retrieval.providers.language.protocol import Answer, Change, Question
from retrieval.providers.language.templates import render_chats


class ChatModel:
    """A rewriter with weights.

    Args:
        model: A loaded model.
        tokenizer: The checkpoint's own tokenizer, with a chat template.
        prompt: A prompt with `{caption}` and `{text}`.
        name: The name it was loaded by.
        digest: A digest of its files.
        device: Where it runs.
        dtype: Its arithmetic.

    Raises:
        ModelError: The tokenizer has no chat template. Without one, a model continues the prompt instead of answering.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        prompt: str,
        name: str,
        digest: str,
        device: str = "cpu",
        dtype: Dtype = Dtype.FLOAT32,
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError(
                f"{name} has no chat template, so it cannot be prompted.",
                "Use a model that was tuned for chat or instructions.",
            )
        self.name = name
        self._tokenizer, self._reading = tokenizer, Lock()
        self._template = _template(tokenizer, name)
        self._prompt = prompt
        self._model = TextModel(model, device=device, dtype=dtype, name=name)
        self._identity: dict[str, JsonValue] = {
            "rewriter": digest,
            "prompt": prompt,
            "tokens": TOKENS,
            "dtype": dtype.value,
        }
        self._inputs([("a",)])  # reports an unusable template before any question

    @classmethod
    def load(
        cls, source: str | Path, *, prompt: str | None = None, device: str = AUTO, dtype: str | Dtype | None = None
    ) -> ChatModel:
        """A chat model by folder or hub id.

        Args:
            source: A folder in transformers' layout, a hub id (fetched on first use), a GGUF file or a folder with one.
            prompt: A prompt with `{caption}` and `{text}`; None for `prompts/rewrite.txt`.
            device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
            dtype: None for float32 on a CPU and bfloat16 elsewhere.

        Raises:
            MissingExtraError: transformers is too old, or gguf is not installed.
            ModelError: There is no such model, or it is not a chat model.
        """
        device = settled_device(device)
        transformers = transformers_5("A chat model")
        gguf = gguf_in(source, "gguf")
        folder = checkpoint_folder(source) if gguf is None else gguf.parent
        digest = checkpoint_digest(folder) if gguf is None else weights_digest(gguf)
        return cls(
            *load_model(transformers.AutoModelForCausalLM, transformers.AutoTokenizer, folder, gguf),
            prompt=read_prompt("rewrite.txt") if prompt is None else prompt,
            name=str(source),
            digest=digest,
            device=device,
            dtype=settled_dtype(dtype, device),
        )

    def identity(self) -> Mapping[str, JsonValue]:
        """The checkpoint's files, the prompt and the arithmetic."""
        return dict(self._identity)

    def rewrite(self, changes: Sequence[Change]) -> list[Answer]:
        """See `Rewriter.rewrite`."""
        # A single message by the user, since not every template takes others.
        try:
            asked = self._inputs([(filled(self._prompt, caption=each.caption, text=each.text),) for each in changes])
        except ModelError as error:
            return [WritingError(error.message, error.remedy)] * len(changes)
        told = self._model.generate(asked, **self._options())
        return [
            tokens if isinstance(tokens, Exception) else sentence_in(self._said(own, tokens))
            for own, tokens in zip(asked, told, strict=True)
        ]

    def chat_identity(self) -> Mapping[str, JsonValue]:
        """The checkpoint's files and the arithmetic."""
        return {"chat": self._identity["rewriter"], "dtype": self._identity["dtype"]}

    def ask(self, questions: Sequence[Question], *, tokens: int) -> list[str | WritingError]:
        """See `Chat.ask`."""
        answers: dict[int, str | WritingError] = {}
        alike: dict[tuple[str, ...], list[int]] = {}
        for place, question in enumerate(questions):
            alike.setdefault(question.turns[:-1], []).append(place)
        for examples, places in alike.items():
            try:
                asked = self._inputs([questions[place].turns for place in places])
                opening = self._opening(examples, asked)
            except ModelError as error:
                answers |= dict.fromkeys(places, WritingError(error.message, error.remedy))
                continue
            told = self._model.generate(asked, opening=opening, max_new_tokens=tokens, **self._options())
            for place, own, each in zip(places, asked, told, strict=True):
                answers[place] = each if isinstance(each, WritingError) else self._whole(own, each, tokens)
        return [answers[place] for place in range(len(questions))]

    def _options(self) -> dict[str, Any]:
        padding = self._tokenizer.pad_token_id
        return {"pad_token_id": self._tokenizer.eos_token_id if padding is None else padding}

    def _said(self, asked: Mapping[str, Any], tokens: Any) -> str:
        return str(self._tokenizer.decode(tokens[asked["input_ids"].shape[1] :], skip_special_tokens=True))

    def _whole(self, asked: Mapping[str, Any], tokens: Any, most: int) -> str | WritingError:
        told = tokens[asked["input_ids"].shape[1] :]
        said = self._said(asked, tokens)
        if len(told) >= most and not self._model.ends(int(told[-1])):
            return WritingError(f"The answer has no end within {most} tokens: {said[:80]!r}...")
        return said

    def _opening(self, examples: tuple[str, ...], asked: Sequence[Mapping[str, Any]]) -> Any:
        """The tokens of the examples, if every question begins with exactly these."""
        if not examples:
            return None
        tokens = self._inputs([examples], asks=False)[0]["input_ids"]
        width = tokens.shape[1]
        same = all(
            each["input_ids"].shape[1] > width and bool((each["input_ids"][:, :width] == tokens).all())
            for each in asked
        )
        return tokens if same else None

    def _inputs(self, chats: Sequence[Sequence[str]], *, asks: bool = True) -> list[Mapping[str, Any]]:
        """The tokens that the model reads of each chat.

        Raises:
            ModelError: The template cannot render them.
        """
        said = [
            [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]
            for turns in chats
        ]
        # Turns off the thinking of models that can.
        options = {**self._tokenizer.special_tokens_map, "add_generation_prompt": asks, "enable_thinking": False}
        told = {key: value for key, value in options.items() if isinstance(value, str | bool)}
        texts = render_chats(self.name, self._template, said, told) if said else []
        with self._reading:
            return [dict(self._tokenizer(text, add_special_tokens=False, return_tensors="pt")) for text in texts]


def _template(tokenizer: Any, name: str) -> str:
    """The template for plain chats; some checkpoints have several."""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise ModelError(f"{name} has no chat template for plain chats: {first_line(error)}.") from error
