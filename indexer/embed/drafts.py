"""The option `?draft=N` after a model's name: JPEGs are decoded no larger than N times the model's input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from indexer.embed.base import AdjustableImages, Embedder
from indexer.errors import CallError


def with_draft(rest: str, name: str, load: Callable[[str, str], Embedder]) -> Embedder:
    """Load a model by name, applying the option after it.

    Args:
        rest: The name after the family; a folder may have a question mark in its name.
        name: The full name.
        load: Loads the model from both, without the option.

    Raises:
        CallError: There is another option, or the model's preparation of images cannot be adjusted.
    """
    plain, question, option = rest.partition("?")
    if not question or Path(rest).is_dir():
        return load(rest, name)
    short = name.removesuffix(f"?{option}")
    embedder = load(plain, short)
    key, _, times = option.partition("=")
    if key != "draft" or times not in ("1", "2", "3", "4") or not isinstance(embedder, AdjustableImages):
        raise CallError(
            f"{name!r}: only draft=N may follow a question mark, with N from 1 to 4, for a CLIP model.",
            f"Write {short}?draft=2, or {short}.",
        )
    drafted = embedder.with_draft(int(times))
    drafted.name = name
    return drafted
