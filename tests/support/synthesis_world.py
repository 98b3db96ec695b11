"""A corpus of coloured things, an embedder that knows colours, and a writer that answers by rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from indexer.corpus.images import decode_image
from indexer.embed.base import Fingerprint, Prepared
from indexer.embed.fake import FakeEmbedder
from indexer.types import Item, Modality
from retrieval.providers.language import Question

COLOURS = {"red": (220, 20, 20), "green": (20, 180, 20), "blue": (20, 20, 220), "black": (5, 5, 5)}
THINGS = ("heart", "square", "circle")


def corpus_file(folder):
    """Twelve things, two drawings each, one of them for validation, and a text without a picture."""
    folder.mkdir()
    entries = []
    for colour, shade in COLOURS.items():
        for number, thing in enumerate(THINGS):
            for maker in ("a", "b"):
                name = f"{colour}-{thing}-{maker}"
                Image.new("RGB", (8 + number, 8), shade).save(folder / f"{name}.png")
                entries.append({
                    "id": name, "text": f"{colour} {thing}", "image": f"{name}.png", "maker": maker,
                    "keywords": [thing, f"{colour}ish"], "split": "validation" if name == "black-circle-b" else "train",
                })  # fmt: skip
    entries.append({"id": "note", "text": "white note", "keywords": ["paper"], "split": "train"})
    entries.append({"id": "bare", "text": "white bare", "split": "train"})
    file = folder / "corpus.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


class Colours(FakeEmbedder):
    """A picture of a thing lies where its colour and name do, so that texts find pictures."""

    def __init__(self):
        super().__init__(256)
        self.name = "fake:colours"

    def fingerprint(self):
        return Fingerprint(self.name, "none", "colours", "sum", "float32", self.dim)

    def preparer(self):
        words = super().preparer()

        def prepare(item):
            if item.image is None:
                return words(item)
            shade = np.asarray(decode_image(item.image).convert("RGB"))[0, 0].astype(int)
            name = min(COLOURS, key=lambda each: np.abs(shade - COLOURS[each]).sum())
            thing = THINGS[decode_image(item.image).width - 8]
            return Prepared(Modality.IMAGE, words(Item(text=f"{name} {thing}")).arrays)

        return prepare


class Writer:
    """Asks what a thing means, and points at it with "this one".

    Args:
        amiss: By a part of what it is asked, what it answers in place of that, or a function of what it would say.

    Attributes:
        asked: All that it was asked.
    """

    name = "scripted"

    def __init__(self, amiss: dict[str, object] | None = None) -> None:
        self.amiss, self.asked = amiss or {}, []

    def chat_identity(self):
        return {"chat": "scripted"}

    def ask(self, questions: Sequence[Question], *, tokens: int):
        self.asked += [question.turns[-1] for question in questions]
        return [self.answer(question.turns[-1]) for question in questions]

    def answer(self, asked: str):
        said = self.rule(asked)
        for part, other in self.amiss.items():
            if part in asked:
                return other(said) if isinstance(other, Callable) else other
        return said

    @staticmethod
    def rule(asked: str) -> str:
        kind, _, rest = asked.partition(": ")
        if kind == "Text":
            return f"What does a {rest.partition(':')[0]} mean?\nlove"
        thing = rest.removeprefix("What does a ").removesuffix(" mean?")
        return f"{thing}\nWhat does this one mean?"
