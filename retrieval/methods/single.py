"""`text` and `image`: one part of the query alone, the baselines that every table needs.

What this module does not know: how the vectors were made, and how they are searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from indexer.errors import QueryError
from indexer.types import Modality
from retrieval.methods.base import BOTH, Composed, Helper, Resolved, WeightsByName, negatives, summed
from retrieval.query import Query, Weights

if TYPE_CHECKING:
    from indexer.snapshot import Space
    from retrieval.methods.context import Context


class Text:
    """The text alone, minus the negatives."""

    name: ClassVar[str] = "text"
    help: ClassVar[str] = "the text alone"
    tuned: ClassVar[str] = "text"
    reads: ClassVar[frozenset[str]] = frozenset({"negative"})
    defaults: ClassVar[Weights] = Weights()
    needs: ClassVar[tuple[Helper, ...]] = ()

    def branches(self, query: Query) -> Mapping[str, Modality]:
        """The one part and the negatives.

        Raises:
            QueryError: The query does not have the part.
        """
        if self.name not in query.branches:
            raise QueryError(f"The method {self.name} needs a query with {self.name}; this one has none.")
        return {name: kind for name, kind in query.branches.items() if name == self.name or name not in BOTH}

    def resolve(self, context: Context, queries: Sequence[Query]) -> list[Resolved]:
        """The branches, each embedded on its own."""
        return context.embed(queries, [{name: query.items[name] for name in self.branches(query)} for query in queries])

    def compose(self, resolved: Resolved, weights: WeightsByName, space: Space) -> Composed:
        """The part minus the negatives, and a note if the query has the other part too."""
        notes = tuple(
            f"The method {self.name} leaves the {other} out."
            for other in BOTH
            if other != self.name and other in resolved.query.branches
        )
        return summed({self.name: (1.0, resolved.vectors[self.name])} | negatives(resolved, weights), notes)


class Image(Text):
    """The reference alone, minus the negatives."""

    name = "image"
    help = "the reference alone"
    tuned = "image"
