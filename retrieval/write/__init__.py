"""Sentences written for queries: what a picture shows, and what a caption and a change mean together.

Captioners and rewriters by name. Each is imported only when it is asked for.
"""

from __future__ import annotations

from pathlib import Path

from retrieval.write.protocol import Answer, Captioner, Change, Rewriter

__all__ = ["Answer", "Captioner", "Change", "Rewriter", "load_captioner", "load_rewriter"]


def load_captioner(source: str | Path, *, device: str = "cpu") -> Captioner:
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
        from retrieval.write.plain import TableCaptioner

        return TableCaptioner.load(Path(rest))
    from retrieval.write.captioner import ImageToText

    return ImageToText.load(source, device=device)


def load_rewriter(source: str | Path, *, device: str = "cpu") -> Rewriter:
    """The rewriter of that name.

    Args:
        source: The folder or the hub id of a chat model of transformers; `api:MODEL` or `api:MODEL@URL` for an endpoint
            that speaks OpenAI's protocol; `join` or `join:TEMPLATE` for caption and change side by side.
        device: Where a local model runs.

    Raises:
        CallError: The name does not parse.
        ModelError: There is no such model, or it cannot be loaded.
    """
    family, _, rest = str(source).partition(":")
    if family == "join":
        from retrieval.write.plain import JoinRewriter

        return JoinRewriter(rest) if rest else JoinRewriter()
    if family == "api":
        from retrieval.write.endpoint import Endpoint

        return Endpoint.named(rest)
    from retrieval.write.chat import ChatModel

    return ChatModel.load(source, device=device)
