"""The model family `letters`: texts that have the same letters are near each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from indexer.embed.base import Dtype, Embedder, Fingerprint, Prepared
from indexer.errors import CallError
from indexer.types import Item, Modality, Role, Vectors


class Letters(Embedder):
    """Counts letters."""

    modalities = frozenset({Modality.TEXT})

    def __init__(self, alphabet: str, name: str) -> None:
        self.alphabet, self.name, self.dim = alphabet, name, len(alphabet) + 1

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.name, self.alphabet, "none", "letters", "float32", self.dim)

    def preparer(self) -> Callable[[Item], Prepared]:
        return prepare

    def forward(self, prepared: Sequence[Prepared], role: Role, instruction: str | None = None) -> Vectors:
        texts = [str(each.arrays["text"]).lower() for each in prepared]
        counts = np.array([[1, *(text.count(letter) for letter in self.alphabet)] for text in texts], np.float32)
        return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True), np.float32)


def prepare(item: Item) -> Prepared:
    return Prepared(item.modality, {"text": np.array(item.text)})


def load(rest: str, *, name: str, dtype: Dtype, device: str) -> Letters:
    """`letters:abc`"""
    if not rest.isalpha():
        raise CallError(f"{name!r}: behind letters: stand letters.", "Write letters:abc.")
    return Letters(rest, name)
