"""The option `?draft=N` behind a model's name: JPEGs are decoded no larger than N times what the model sees.

What this module does not know: how models are loaded, how JPEGs are decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from indexer.embed.base import AdjustableImages, Embedder
from indexer.errors import CallError


def with_draft(rest: str, name: str, load: Callable[[str, str], Embedder]) -> Embedder:
    """The model of a name, with the option that stands behind it.

    Args:
        rest: What stands behind the family; a folder may have a question mark in its name.
        name: The whole name.
        load: From both without the option to a model.

    Raises:
        CallError: There is another option, or the model's images cannot be adjusted.
    """
    plain, question, option = rest.partition("?")
    if not question or Path(rest).is_dir():
        return load(rest, name)
    short = name.removesuffix(f"?{option}")
    embedder = load(plain, short)
    key, _, times = option.partition("=")
    if key != "draft" or times not in ("1", "2", "3", "4") or not isinstance(embedder, AdjustableImages):
        raise CallError(
            f"{name!r}: behind a question mark stands draft=N, with N from 1 to 4, for a model of the CLIP family.",
            f"Write {short}?draft=2, or {short}.",
        )
    drafted = embedder.with_draft(int(times))
    drafted.name = name
    return drafted
