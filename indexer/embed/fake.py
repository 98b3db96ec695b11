"""A deterministic embedder without weights, for tests, documentation and trying the engine without a model.

Vectors follow simple rules, so expected rankings can be worked out by hand: a text is the sum of random directions
seeded by its lower-cased words; an image is a direction seeded by its 4x4 grid of average colors in coarse steps;
several images are the normalized mean of theirs; a text with an image is the sum of the two. A word in a text and the
same color in an image are unrelated: the fake has no joint space.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexer.embed.base import Dtype, Embedder, Fingerprint, Prepared
from indexer.embed.several import for_each
from indexer.errors import CallError
from indexer.types import ImageSource, Item, Modality, Role, Vectors
from indexer.vectors.unit import unit_rows


def load(rest: str, *, name: str, dtype: Dtype, device: str) -> FakeEmbedder:
    """`fake:64`: the number is the dimension.

    Raises:
        CallError: It is not a number from 1 to 65,536.
    """
    if not rest.isdecimal():
        raise CallError(f"{name!r}: the dimension must be a number.", "Write fake:64.")
    return FakeEmbedder(int(rest))


class FakeEmbedder(Embedder):
    """`fake:64`: the number is the dimension."""

    modalities = frozenset(Modality)

    def __init__(self, dim: int) -> None:
        if not 1 <= dim <= 65536:
            raise CallError(f"fake:{dim} is invalid; the dimension must be from 1 to 65536.")
        self.dim = dim
        self.name = f"fake:{dim}"

    def fingerprint(self) -> Fingerprint:
        """Depends on the dimension only."""
        return Fingerprint(self.name, "none", "words and 4x4 colours", "sum", "float32", self.dim)

    def preparer(self) -> _Prepare:
        """Turns words and colors into directions; all the work happens here."""
        return _Prepare(self.dim)

    def forward(self, prepared: Sequence[Prepared], role: Role, instruction: str | None = None) -> Vectors:
        """Stack and normalize."""
        if not prepared:
            return np.empty((0, self.dim), np.float32)
        return unit_rows(np.stack([each.arrays["direction"] for each in prepared]))


@dataclass(frozen=True)
class _Prepare:
    dim: int

    def __call__(self, item: Item) -> Prepared:
        direction = np.zeros(self.dim, np.float32)
        if item.text is not None:
            words = re.findall(r"\w+", item.text.lower()) or [item.text]
            for row in self._directions([word.encode("utf-8", "surrogatepass") for word in words]):
                direction += row
        if item.images:
            shown = for_each(item.images, self._shown)
            direction += shown[0] if len(shown) == 1 else unit_rows(np.sum(shown, axis=0)[None])[0]
        return Prepared(item.modality, {"direction": direction})

    def _shown(self, image: ImageSource) -> Vectors:
        from indexer.corpus.images import decode_image

        grid = np.asarray(decode_image(image).resize((4, 4)), np.uint8) // 32
        direction: Vectors = self._directions([grid.tobytes()])[0]
        return direction

    def _directions(self, keys: Sequence[bytes]) -> Vectors:
        seeds = [int.from_bytes(hashlib.sha256(key).digest()[:8], "little") for key in keys]
        return unit_rows(np.stack([np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds]))
