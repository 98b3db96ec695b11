"""`caption`: the reference is captioned, a language model rewrites the caption, and the result is searched as a text.

Source: CIReVL (Karthik et al., "Vision-by-Language for Training-Free Compositional Image Retrieval", ICLR 2024,
arXiv:2310.09291). It needs no image encoder, so that a collection of texts can be searched with an image, too.

What this module does not know: how images are captioned and captions are rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from indexer.types import Item, Modality
from retrieval.methods.base import BOTH, Helper, Resolved, TwoParts, WeightsByName
from retrieval.query import Query
from retrieval.scoring import Vector

if TYPE_CHECKING:
    from indexer.snapshot import Space
    from retrieval.methods.context import Context


class Caption(TwoParts):
    """The vector of the rewritten caption minus the negatives."""

    name = "caption"
    help = "search by the reference's caption, rewritten by a language model (CIReVL)"
    tuned = "caption"
    reads = frozenset({"negative"})
    needs = (Helper.CAPTIONER, Helper.REWRITER)

    def branches(self, query: Query) -> Mapping[str, Modality]:
        """For a query with both parts, the rewritten caption in their place."""
        if not query.is_composed:
            return query.branches
        return {name: kind for name, kind in query.branches.items() if name not in BOTH} | {"written": Modality.TEXT}

    def resolve(self, context: Context, queries: Sequence[Query]) -> list[Resolved]:
        """Captions are rewritten first, and then treated as texts."""
        written = context.rewrite([query if query.is_composed else None for query in queries])
        items: list[Mapping[str, Sequence[Item]]] = [
            query.items
            if own is None
            else {name: each for name, each in query.items.items() if name not in BOTH} | {"written": (Item(own.text),)}
            for query, own in zip(queries, written, strict=True)
        ]
        return [
            each if own is None else replace(each, notes=own.notes, artifacts={"caption": own.artifact})
            for each, own in zip(context.embed(queries, items), written, strict=True)
        ]

    def has_both(self, resolved: Resolved) -> bool:
        """Whether a caption was rewritten."""
        return "written" in resolved.vectors

    def terms(
        self, resolved: Resolved, weights: WeightsByName, space: Space
    ) -> tuple[dict[str, tuple[float, Vector]], tuple[str, ...]]:
        """The single vector."""
        return {"written": (1.0, resolved.vectors["written"])}, resolved.notes
