"""`joint`: one model reads the reference and the text together (GME), so that no weights are needed.

What this module does not know: the model and its instruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.errors import CallError, QueryError
from indexer.types import Item, Modality
from retrieval.methods.base import BOTH, Resolved, TwoParts, WeightsByName
from retrieval.query import Query
from retrieval.scoring import Vector

if TYPE_CHECKING:
    from indexer.embed.base import Embedder
    from indexer.snapshot import Space
    from retrieval.methods.context import Context


class Joint(TwoParts):
    """The vector of both parts minus the negatives. It reads a stored reference's image, not its vector."""

    name = "joint"
    help = "text and reference read together by a multimodal model (GME)"
    tuned = "joint"
    reads = frozenset({"negative"})

    def fits(self, embedder: Embedder) -> bool:
        """Whether it reads an image and a text at once."""
        return embedder.fuses_natively

    def branches(self, query: Query) -> Mapping[str, Modality]:
        """For a query with both parts, one branch in their place."""
        if not query.is_composed:
            return query.branches
        return {"joint": Modality.FUSED} | {name: kind for name, kind in query.branches.items() if name not in BOTH}

    def resolve(self, context: Context, queries: Sequence[Query]) -> list[Resolved]:
        """Text and image as one item.

        Raises:
            CallError: The model cannot read an image and a text together.
            QueryError: A stored reference does not exist, or has no image.
        """
        both = [query for query in queries if query.is_composed]
        if both and not self.fits(context.embedder):
            raise CallError(
                f"{context.embedder.name} does not read an image and a text together, so the method joint cannot be "
                "used.",
                "Use the method sum, or a collection of a model that does, such as mllm:NAME.",
            )
        images = context.stored_images([query.like for query in both if query.like is not None])
        return context.embed(queries, [_items(query, images) for query in queries])

    def has_both(self, resolved: Resolved) -> bool:
        """Whether text and reference were read together."""
        return "joint" in resolved.vectors

    def terms(
        self, resolved: Resolved, weights: WeightsByName, space: Space
    ) -> tuple[dict[str, tuple[float, Vector]], tuple[str, ...]]:
        """The single vector."""
        return {"joint": (1.0, resolved.vectors["joint"])}, resolved.notes


def _items(query: Query, stored: Mapping[str, tuple[Path, ...]]) -> Mapping[str, Sequence[Item]]:
    if not query.is_composed:
        return query.items
    images = query.items["image"][0].images if query.like is None else stored[query.like]
    if not images:
        raise QueryError(
            f"The document {query.like!r} has no image, and the method joint reads the reference's.",
            "Give an image with `image`, or use the method sum, which takes the document's vector.",
        )
    return {"joint": (Item(query.text, images=images),)} | {
        name: items for name, items in query.items.items() if name not in BOTH
    }
