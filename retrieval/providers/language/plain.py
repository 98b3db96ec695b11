"""A captioner and a rewriter without weights: captions from a table, and caption and change side by side.

    table:FILE     captions by an image's sha256, its path or its file name, from a JSON object
    join           "a heart" and "in blue" become "a heart, in blue": the baseline for a language model
    join:TEMPLATE  the same with your own template, with {caption} and {text}

They need no network and always answer the same. They serve tests, documentation, and captions that were made elsewhere.

What this module does not know: models, torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from indexer.errors import CallError, ItemError, ModelError, WritingError
from indexer.types import ImageSource, JsonValue
from retrieval.providers.cache import digest_of
from retrieval.providers.language.protocol import Answer, Change

TABLE = 'It must be a JSON object, such as {"ref.png": "a gray cat"}.'
JOINED = "{caption}, {text}"


class TableCaptioner:
    """Captions from a table.

    Args:
        captions: Captions by an image's sha256 (`indexer.corpus.images.image_digest`), its path as given, or its file
            name; looked up in this order.
        name: The table's name.
    """

    def __init__(self, captions: Mapping[str, str], name: str = "table") -> None:
        self.name = name
        self._captions = dict(captions)

    @classmethod
    def load(cls, file: Path) -> TableCaptioner:
        """Read a JSON object of captions.

        Raises:
            ModelError: The file cannot be read, or holds something else.
        """
        try:
            table = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"The captions in {file} cannot be read: {error}.", TABLE) from error
        if not isinstance(table, dict) or not all(isinstance(each, str) and each.strip() for each in table.values()):
            raise ModelError(f"{file} is not a table of captions.", TABLE)
        return cls(table, f"table:{file}")

    def identity(self) -> Mapping[str, JsonValue]:
        """A digest of the table's content."""
        return {"captioner": "table", "captions": digest_of(dict(self._captions))}

    def caption(self, images: Sequence[ImageSource]) -> list[Answer]:
        """See `Captioner.caption`; an image that is not in the table has no caption."""
        return [self._one(image) for image in images]

    def _one(self, image: ImageSource) -> Answer:
        from indexer.corpus.images import image_digest

        try:
            names = [image_digest(image)]
        except ItemError as error:
            return error
        if isinstance(image, Path):
            names += [str(image), image.name]
        for name in names:
            if name in self._captions:
                return self._captions[name]
        return WritingError(f"{self.name} has no caption of {names[-1]}.")


class JoinRewriter:
    """Caption and change side by side.

    Args:
        template: A template with `{caption}` and `{text}`.

    Raises:
        CallError: The template lacks one of them.
    """

    def __init__(self, template: str = JOINED) -> None:
        for name in ("{caption}", "{text}"):
            if name not in template:
                raise CallError(f"The template {template!r} lacks {name}.", f"Write one such as {JOINED!r}.")
        self.name = "join" if template == JOINED else f"join:{template}"
        self._template = template

    def identity(self) -> Mapping[str, JsonValue]:
        """The template."""
        return {"rewriter": "join", "template": self._template}

    def rewrite(self, changes: Sequence[Change]) -> list[Answer]:
        """See `Rewriter.rewrite`; it always succeeds."""
        return [joined(each, self._template) for each in changes]


def joined(change: Change, template: str = JOINED) -> str:
    """The template with both filled in; braces within them do not change."""
    before, _, after = template.partition("{caption}")
    return before.replace("{text}", change.text) + change.caption + after.replace("{text}", change.text)
