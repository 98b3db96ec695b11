"""The inversion and the generator that come with an embedder, by the embedder's name.

What this module does not know: how either is loaded.
"""

from __future__ import annotations

from typing import Literal

from indexer.embed.base import without_options
from indexer.errors import CallError

COMPANIONS = {
    "bundled:emoji-clip": {"inversion": "bundled:emoji-inversion", "generator": "bundled:emoji-generator"},
}
"""By embedder, the models that were trained for it and come with the package."""


def has_companions(model: str) -> bool:
    """Whether an inversion and a generator come with a model; options after its name change nothing."""
    return without_options(model) in COMPANIONS


def companion(model: str, kind: Literal["inversion", "generator"]) -> str:
    """The name of the model that comes with an embedder.

    Raises:
        CallError: None does.
    """
    if not has_companions(model):
        raise CallError(
            f"No {kind} comes with {model}.",
            f"Give one with `{kind}`, or train one: underdrawing train {kind} CORPUS --out DIR.",
        )
    return COMPANIONS[without_options(model)][kind]
