"""Sentences by a local chat model: any causal language model of transformers with a chat template.

What this module does not know: pictures, caches, how sentences are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer.embed.checkpoints import checkpoint_digest, checkpoint_folder
from indexer.embed.protocol import Dtype
from indexer.errors import ModelError
from indexer.types import JsonValue
from retrieval.write.answers import filled, read_prompt, sentence_in
from retrieval.write.models import TOKENS, TextModel, load_model, loading, settled_dtype, transformers_5
from retrieval.write.protocol import Answer, Change


class ChatModel:
    """A rewriter with weights.

    Args:
        model: Loaded.
        tokenizer: The checkpoint's own, with a chat template.
        prompt: With `{caption}` and `{text}`.
        name: What it was asked for by.
        digest: Of its files.
        device: Where it runs.
        dtype: What it computes in.

    Raises:
        ModelError: The tokenizer has no chat template: a model that was not taught to answer goes on with the prompt.
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
                f"{name} has no chat template, so it cannot be asked.",
                "Use a model that was tuned to chat or instruct.",
            )
        self.name = name
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._model = TextModel(model, device=device, dtype=dtype, name=name)
        self._identity: dict[str, JsonValue] = {
            "rewriter": digest,
            "prompt": prompt,
            "tokens": TOKENS,
            "dtype": dtype.value,
        }

    @classmethod
    def load(
        cls, source: str | Path, *, prompt: str | None = None, device: str = "cpu", dtype: str | Dtype | None = None
    ) -> ChatModel:
        """A chat model by folder or hub id.

        Args:
            source: A folder in transformers' layout, or a hub id (fetched on first use).
            prompt: With `{caption}` and `{text}`; None for `prompts/rewrite.txt`.
            device: `cpu`, `cuda`, `mps`.
            dtype: None for float32 on a CPU and bfloat16 elsewhere.

        Raises:
            MissingExtraError: transformers is too old.
            ModelError: There is no such model there, or it cannot chat.
        """
        transformers = transformers_5("A chat model")
        folder = checkpoint_folder(source)
        digest = checkpoint_digest(folder)
        with loading(folder):
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        return cls(
            load_model(transformers.AutoModelForCausalLM, folder),
            tokenizer,
            prompt=read_prompt("rewrite.txt") if prompt is None else prompt,
            name=str(source),
            digest=digest,
            device=device,
            dtype=settled_dtype(dtype, device),
        )

    def identity(self) -> Mapping[str, JsonValue]:
        """The checkpoint's files, the prompt, the arithmetic."""
        return dict(self._identity)

    def rewrite(self, changes: Sequence[Change]) -> list[Answer]:
        """See `Rewriter.rewrite`."""
        asked = [self._inputs(filled(self._prompt, caption=each.caption, text=each.text)) for each in changes]
        padding = self._tokenizer.pad_token_id
        options = {"pad_token_id": self._tokenizer.eos_token_id if padding is None else padding}
        answers: list[Answer] = []
        for own, tokens in zip(asked, self._model.generate(asked, **options), strict=True):
            if isinstance(tokens, Exception):
                answers.append(tokens)
            else:
                told = tokens[own["input_ids"].shape[1] :]
                answers.append(sentence_in(self._tokenizer.decode(told, skip_special_tokens=True)))
        return answers

    def _inputs(self, question: str) -> Mapping[str, Any]:
        # One message by the user alone: not every template takes another. Those that can think aloud are told not to.
        return dict(
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                enable_thinking=False,
                return_dict=True,
                return_tensors="pt",
            )
        )
