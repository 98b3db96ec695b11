"""`shift`: the reference's vector, moved along the difference that the text makes.

Source: AdaST's pseudo-target in feature space, with alpha tuned instead of its closed form, and without a language
model that writes the caption of the target.

What this module does not know: how the vectors were made, and how they are searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from indexer.types import Item, Modality, Role
from retrieval.methods.base import Resolved, TwoParts, WeightsByName, mean_of
from retrieval.query import Query
from retrieval.scoring import Vector

if TYPE_CHECKING:
    from indexer.snapshot import Space
    from retrieval.methods.context import Context


class Shift(TwoParts):
    """i + alpha (t - t_0).

    With a caption of the reference, t_0 is the caption and t the caption followed by the text. Without one, t is the
    text and t_0 the mean of generic texts, so that t - t_0 is what sets the text apart from any other.
    """

    name = "shift"
    help = "the reference moved by what the text changes (AdaST)"
    tuned = "shift"
    reads = frozenset({"alpha", "negative"})
    reads_fields: ClassVar[frozenset[str]] = frozenset({"caption"})

    def branches(self, query: Query) -> Mapping[str, Modality]:
        """All parts of the query, and its caption if it has one."""
        if query.caption is None or not query.is_composed:
            return query.branches
        return {**query.branches, "caption": Modality.TEXT}

    def resolve(self, context: Context, queries: Sequence[Query]) -> list[Resolved]:
        """With a caption: the caption, and the caption followed by the text in place of the text."""
        return context.embed(queries, [self._items(query) for query in queries])

    def _items(self, query: Query) -> Mapping[str, Sequence[Item]]:
        if query.caption is None or not query.is_composed:
            return query.items
        after = tuple(Item(text=f"{query.caption}, {each}") for each in query.sentences)
        return {**query.items, "text": after, "caption": (Item(text=query.caption),)}

    def terms(
        self, resolved: Resolved, weights: WeightsByName, space: Space
    ) -> tuple[dict[str, tuple[float, Vector]], tuple[str, ...]]:
        """The image and the two ends of the step."""
        alpha, vectors = weights["alpha"], resolved.vectors
        terms = {"image": (1.0, vectors["image"]), "text": (alpha, vectors["text"])}
        if "caption" in vectors:
            return terms | {"caption": (-alpha, vectors["caption"])}, ()
        mean, notes = mean_of(space, Modality.TEXT, Role.QUERY)
        return terms | {"mean_text": (-alpha, mean)}, notes
