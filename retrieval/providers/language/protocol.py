"""The protocols of captioners, rewriters and chat models.

All are as deterministic as they can be, and `identity` says what their answers depend on, so that answers can be
cached. An answer that fails is an error in its place, and costs only its own item.

What this module does not know: any model, how sentences are searched with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from indexer.errors import ItemError, WritingError
from indexer.types import ImageSource, JsonValue

Answer: TypeAlias = "str | WritingError | ItemError"
"""A text, or why there is none: a model's failure, or an image that cannot be used."""


@dataclass(frozen=True)
class Change:
    """A caption and the change to be written into it.

    Attributes:
        caption: What the reference shows.
        text: How the answer differs from it.
    """

    caption: str
    text: str


@dataclass(frozen=True)
class Question:
    """A chat that a model should continue.

    Attributes:
        turns: The turns of user and model; the user has the first and the last. All but the last are examples of
            questions and answers.
    """

    turns: tuple[str, ...]


class Chat(Protocol):
    """Answers questions."""

    @property
    def name(self) -> str:
        """What it was asked for by."""
        ...

    def chat_identity(self) -> Mapping[str, JsonValue]:
        """Everything that an answer depends on besides its question and `tokens`."""
        ...

    def ask(self, questions: Sequence[Question], *, tokens: int) -> list[str | WritingError]:
        """The answers, in order and unedited. None depends on the others.

        Args:
            questions: Any number.
            tokens: The most tokens of an answer, for models that have a limit; an answer cut off there is an error.
        """
        ...


class Captioner(Protocol):
    """Says what images show."""

    @property
    def name(self) -> str:
        """What it was asked for by."""
        ...

    def identity(self) -> Mapping[str, JsonValue]:
        """Everything that a caption depends on besides its image; part of the cache key."""
        ...

    def caption(self, images: Sequence[ImageSource]) -> list[Answer]:
        """The captions, in order. An image's caption does not depend on the others."""
        ...


class Rewriter(Protocol):
    """Combines a caption and a change in one sentence."""

    @property
    def name(self) -> str:
        """What it was asked for by."""
        ...

    def identity(self) -> Mapping[str, JsonValue]:
        """Everything that a sentence depends on besides its caption and change; part of the cache key."""
        ...

    def rewrite(self, changes: Sequence[Change]) -> list[Answer]:
        """The sentences, in order. None depends on the others."""
        ...
