"""`joint`: one model reads the reference and the sentence at once (GME), so that nothing has to be weighed.

What this module does not know: the model, and what it is told to do with the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from indexer.types import Item
from retrieval.methods.base import Composed, Encoded, Method
from retrieval.methods.folding import BOTH, folded, negatives, one_part
from retrieval.query import Joint, Part, Query, Stored, Weights

if TYPE_CHECKING:
    from indexer.snapshot import Space


class JointReading:
    """The vector of both parts, less the negatives; a query with one part is searched by that part."""

    method = Method.JOINT
    tuned = Method.JOINT.value
    reads = frozenset({"negative"})

    def parts(self, query: Query) -> Mapping[str, Part]:
        """With both parts, one item in their place."""
        parts: dict[str, Part] = dict(query.parts())
        if all(name in parts for name in BOTH):
            picture = parts["image"]
            assert query.text is not None
            assert isinstance(picture, Item | Stored)
            parts = {"joint": Joint(query.text, picture)} | {
                name: part for name, part in parts.items() if name not in BOTH
            }
        return parts

    def compose(self, encoded: Encoded, weights: Weights, space: Space) -> Composed:
        """One vector; see `Composer.compose`."""
        if "joint" not in encoded.vectors:
            return one_part(encoded, weights, self.method)
        return folded({"joint": (1.0, encoded.vectors["joint"])} | negatives(encoded, weights), encoded.notes)
