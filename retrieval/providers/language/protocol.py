"""What captioners, rewriters and chat models promise.

All are deterministic as far as they can be, and tell by `identity` what their answers depend on, so that an answer can
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
"""What was written, or why nothing was: a model's failure, or an image that cannot be used."""


@dataclass(frozen=True)
class Change:
    """What is to be rewritten.

    Attributes:
        caption: What the reference shows.
        text: How the answer differs from it.
    """

    caption: str
    text: str


@dataclass(frozen=True)
class Question:
    """What a chat model is to go on with.

    Attributes:
        turns: What the user and the model said in turn, from the user's first to the user's last. All but the last
            are examples of questions and answers.
    """

    turns: tuple[str, ...]


class Chat(Protocol):
    """Answers questions, in any words."""

    @property
    def name(self) -> str:
        """What it was asked for by."""
        ...

    def chat_identity(self) -> Mapping[str, JsonValue]:
        """All that an answer depends on besides its question and `tokens`."""
        ...

    def ask(self, questions: Sequence[Question], *, tokens: int) -> list[str | WritingError]:
        """The answers, in order, as they were given. None depends on the others.

        Args:
            questions: Any number.
            tokens: Of an answer at most, where the model can be told so; one that is cut off there is an error.
        """
        ...


class Captioner(Protocol):
    """Says what images show."""

    @property
    def name(self) -> str:
        """What it was asked for by."""
        ...

    def identity(self) -> Mapping[str, JsonValue]:
        """All that a caption depends on besides its image; a cache's key is made of it."""
        ...

    def caption(self, images: Sequence[ImageSource]) -> list[Answer]:
        """The captions, in order. An image's caption does not depend on the others."""
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
