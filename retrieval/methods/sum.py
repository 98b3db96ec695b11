"""`sum`: the weighted sum of text and reference, one vector and one search.

What this module does not know: how the vectors were made, and how they are searched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.methods.base import Resolved, TwoParts, WeightsByName
from retrieval.scoring import Vector

if TYPE_CHECKING:
    from indexer.snapshot import Space


class Sum(TwoParts):
    """w_i i + w_t t, of unit vectors. A document's cosine with it ranks as the weighted sum of its two cosines."""

    name = "sum"
    help = "the weighted sum of text and reference"
    tuned = "sum"
    reads = frozenset({"image", "text", "negative"})

    def terms(
        self, resolved: Resolved, weights: WeightsByName, space: Space
    ) -> tuple[dict[str, tuple[float, Vector]], tuple[str, ...]]:
        """Each part with its weight."""
        vectors = resolved.vectors
        return {"text": (weights["text"], vectors["text"]), "image": (weights["image"], vectors["image"])}, ()
