"""`inversion`: the reference becomes a pseudo-word, and the text encoder reads the text with it (textual inversion).

Source: Pic2Word (arXiv:2302.03084), SEARLE (arXiv:2303.15247), LinCIR (arXiv:2312.01998).

What this module does not know: how pseudo-words are made and read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from indexer.types import Modality
from retrieval.methods.base import Helper, Resolved, TwoParts, WeightsByName
from retrieval.query import Query
from retrieval.scoring import Vector

if TYPE_CHECKING:
    from indexer.snapshot import Space
    from retrieval.methods.context import Context


class Inversion(TwoParts):
    """t_ref minus the negatives, plus the reference's own vector if its weight is not 0."""

    name = "inversion"
    help = "the text read with the reference's pseudo-word (Pic2Word, SEARLE, LinCIR)"
    tuned = "inversion"
    reads = frozenset({"inversion", "image", "negative"})
    needs: ClassVar[tuple[Helper, ...]] = (Helper.INVERSION,)

    def branches(self, query: Query) -> Mapping[str, Modality]:
        """For a query with both parts, the text with the pseudo-word in place of the text."""
        if not query.is_composed:
            return query.branches
        return {name: kind for name, kind in query.branches.items() if name != "text"} | {"inversion": Modality.TEXT}

    def resolve(self, context: Context, queries: Sequence[Query]) -> list[Resolved]:
        """References are embedded first; then all texts are read with their pseudo-words."""
        found = context.embed(
            queries,
            [
                {name: own for name, own in query.items.items() if name != "text"} if query.is_composed else query.items
                for query in queries
            ],
        )
        places = [place for place, query in enumerate(queries) if query.is_composed]
        for place, vector in zip(places, context.read([found[place] for place in places]), strict=True):
            found[place] = replace(found[place], vectors={**found[place].vectors, "inversion": vector})
        return found

    def has_both(self, resolved: Resolved) -> bool:
        """Whether there is a text with a pseudo-word."""
        return "inversion" in resolved.vectors

    def terms(
        self, resolved: Resolved, weights: WeightsByName, space: Space
    ) -> tuple[dict[str, tuple[float, Vector]], tuple[str, ...]]:
        """t_ref, and the reference if its weight is not 0."""
        terms = {"inversion": (weights["inversion"], resolved.vectors["inversion"])}
        if weights["image"]:
            terms["image"] = (weights["image"], resolved.vectors["image"])
        return terms, resolved.notes
