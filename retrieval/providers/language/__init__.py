"""Captioners, rewriters and chat models by name.

Each is imported only on use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from indexer.embed.devices import AUTO, settled_device
from indexer.embed.loading import loading
from retrieval.providers.language.protocol import Answer, Captioner, Change, Chat, Question, Rewriter

__all__ = [
    "Answer", "Captioner", "Change", "Chat", "Question", "Rewriter", "load_captioner", "load_chat", "load_rewriter",
]  # fmt: skip


if TYPE_CHECKING:
    from indexer.embed.base import Dtype
    from retrieval.providers.language.chat import ChatModel
    from retrieval.providers.language.endpoint import Endpoint


def load_captioner(source: str | Path, *, device: str = AUTO) -> Captioner:
    """The captioner of that name.

    Args:
        source: The folder or the hub id of an image-to-text model of transformers (BLIP, BLIP-2, LLaVA, Qwen2-VL,
            Qwen2.5-VL), or `table:FILE`.
        device: Where it runs.

    Raises:
        ModelError: There is none, or it cannot be loaded.
    """
    family, colon, rest = str(source).partition(":")
    if family == "table" and colon:
        from retrieval.providers.language.plain import TableCaptioner

        return TableCaptioner.load(Path(rest))
    device = settled_device(device)
    with loading():
        from retrieval.providers.language.captioner import ImageToText

        return ImageToText.load(source, device=device)


def load_rewriter(source: str | Path, *, device: str = AUTO) -> Rewriter:
    """The rewriter of that name.

    Args:
        source: A name for `load_chat`, or `join` or `join:TEMPLATE` for caption and change side by side.
        device: Where a local model runs.

    Raises:
        CallError: The name does not parse.
        ModelError: There is no such model, or it cannot be loaded.
    """
    family, _, rest = str(source).partition(":")
    if family == "join":
        from retrieval.providers.language.plain import JoinRewriter

        return JoinRewriter(rest) if rest else JoinRewriter()
    return _load(source, device, None)


def load_chat(source: str | Path, *, device: str = AUTO, dtype: str | Dtype | None = None) -> Chat:
    """The chat model of that name.

    Args:
        source: The folder or the hub id of a chat model of transformers, optionally after `chat:`; a `.gguf` file, or a
            folder with just one; `api:MODEL` or `api:MODEL@URL` for an endpoint that speaks OpenAI's protocol.
        device: Where a local model runs.
        dtype: The dtype of a local model; None for float32 on a CPU and bfloat16 elsewhere.

    Raises:
        CallError: The name does not parse.
        ModelError: There is no such model, or it cannot be loaded.
        MissingExtraError: A GGUF file needs the package gguf.
    """
    return _load(source, device, dtype)


def _load(source: str | Path, device: str, dtype: str | Dtype | None) -> ChatModel | Endpoint:
    family, _, rest = str(source).partition(":")
    if family == "api":
        from retrieval.providers.language.endpoint import Endpoint

        return Endpoint.named(rest)
    device = settled_device(device)
    with loading():
        from retrieval.providers.language.chat import ChatModel

        return ChatModel.load(rest if family == "chat" else source, device=device, dtype=dtype)
