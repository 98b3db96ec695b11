"""The method `least`: documents that are least like the text come first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from indexer.errors import QueryError
from indexer.types import Modality
from retrieval.methods.base import Composed, Resolved
from retrieval.query import Query, Weights
from retrieval.scoring import Linear


class Least:
    name = "least"
    help = "the opposite of the text"
    tuned = "least"
    reads = frozenset()
    defaults = Weights()
    needs = ()

    def branches(self, query: Query) -> Mapping[str, Modality]:
        if "text" not in query.branches:
            raise QueryError("The method least needs a text.")
        return {"text": Modality.TEXT}

    def resolve(self, context, queries: Sequence[Query]) -> list[Resolved]:
        return context.embed(queries, [{"text": query.items["text"]} for query in queries])

    def compose(self, resolved: Resolved, weights, space) -> Composed:
        return Composed(Linear(-resolved.vectors["text"]), {"text": resolved.vectors["text"]})
