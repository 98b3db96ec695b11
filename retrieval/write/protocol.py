"""What captioners and rewriters promise.

Both are deterministic as far as they can be, and tell by `identity` what their answers depend on, so that an answer can
be kept. What cannot be written is an answer too, an error in its place: it costs its own item only.

What this module does not know: any model, how sentences are searched with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from indexer.errors import ItemError, WritingError
from indexer.types import ImageSource, JsonValue

Answer: TypeAlias = "str | WritingError | ItemError"
"""What was written, or why nothing was: a model's failure, or a picture that cannot be used."""


@dataclass(frozen=True)
class Change:
    """What is to be rewritten.

    Attributes:
        caption: What the reference shows.
        text: How the answer differs from it.
    """

    caption: str
    text: str


class Captioner(Protocol):
    """Says what pictures show."""

    @property
    def name(self) -> str:
        """What it was asked for by."""
        ...

    def identity(self) -> Mapping[str, JsonValue]:
        """All that a caption depends on besides its picture; a cache's key is made of it."""
        ...

    def caption(self, pictures: Sequence[ImageSource]) -> list[Answer]:
        """The captions, in order. A picture's caption does not depend on the others."""
        ...


class Rewriter(Protocol):
    """Says in one sentence what a caption and a change mean together."""

    @property
    def name(self) -> str:
        """What it was asked for by."""
        ...

    def identity(self) -> Mapping[str, JsonValue]:
        """All that a sentence depends on besides its caption and change; a cache's key is made of it."""
        ...

    def rewrite(self, changes: Sequence[Change]) -> list[Answer]:
        """The sentences, in order. None depends on the others."""
        ...
