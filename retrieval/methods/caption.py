"""`caption`: the reference is put into words, a language model rewrites them by the sentence, that text is searched.

Source: CIReVL (Karthik et al., "Vision-by-Language for Training-Free Compositional Image Retrieval", ICLR 2024,
arXiv:2310.09291). It needs no picture tower at all, so that a collection of texts can be asked with a picture too.

What this module does not know: how a picture is put into words, and who rewrites them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from indexer.types import Item
from retrieval.methods.base import Composed, Encoded, Method
from retrieval.methods.folding import BOTH, folded, negatives, one_part
from retrieval.query import Part, Query, Stored, Weights, Written

if TYPE_CHECKING:
    from indexer.snapshot import Space


class Caption:
    """The vector of the written sentence, less the negatives."""

    method = Method.CAPTION
    tuned = Method.CAPTION.value
    reads = frozenset({"negative"})

    def parts(self, query: Query) -> Mapping[str, Part]:
        """With both parts, the sentence to be written in place of them."""
        parts: dict[str, Part] = dict(query.parts())
        if all(name in parts for name in BOTH):
            picture, text = parts.pop("image"), query.text
            assert isinstance(picture, Item | Stored)
            assert text is not None
            del parts["text"]
            parts["written"] = Written(text, picture, query.caption)
        return parts

    def compose(self, encoded: Encoded, weights: Weights, space: Space) -> Composed:
        """One vector; see `Composer.compose`."""
        if "written" not in encoded.vectors:
            return one_part(encoded, weights, self.method)
        return folded({"written": (1.0, encoded.vectors["written"])} | negatives(encoded, weights), encoded.notes)
