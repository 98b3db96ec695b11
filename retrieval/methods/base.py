"""The protocol of methods, and the base class that most of them share.

A method is a file beside this one with a class for each of its names. It answers a batch of queries in two steps. The
second is only arithmetic, so that weights can be tried without embedding anything again:

    resolve(context, queries)           -> Resolved: a unit vector for each branch of each query
    compose(resolved, weights, space)   -> Composed: a scoring function over the branches

A slow step that an answer can do without comes between the two, as `refine`. A retriever answers first without it when
a caller streams, skips it when a gate finds it needless, and gives it a deadline.

What this module does not know: embedders, collections, how documents are found.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np

from indexer.errors import QueryError
from indexer.types import HelpfulEnum, Ids, JsonValue, Modality, Role, Vectors
from retrieval.query import Query, Weights
from retrieval.scoring import Linear, ScoringFunction, Vector, weighted_sum

if TYPE_CHECKING:
    from indexer.embed.base import Embedder
    from indexer.snapshot import Space
    from retrieval.methods.context import Context

BOTH = ("text", "image")

Artifacts: TypeAlias = Mapping[str, Mapping[str, JsonValue]]
"""Descriptions of artifacts by name, such as `pseudo_target` or `caption`. Front ends show them."""
Terms: TypeAlias = Mapping[str, tuple[float, Vector]]
"""A weight and a vector for each branch, by name."""


class Helper(HelpfulEnum):
    """A model that a method needs besides the collection's embedder."""

    INVERSION = "inversion"
    GENERATOR = "generator"
    CAPTIONER = "captioner"
    REWRITER = "rewriter"


class WeightsByName(Protocol):
    """The weights that a method reads, by name: `Weights` or a dict."""

    def __getitem__(self, name: str, /) -> float:
        """The weight of that name."""
        ...


@dataclass(frozen=True)
class Resolved:
    """A query and the vectors of its branches.

    Attributes:
        query: The query.
        vectors: By branch name, (dim,) float32 of unit length.
        reference: The vector id of a stored reference, which the query should not find.
        notes: Problems that did not prevent an answer.
        artifacts: The artifacts that the method made.
    """

    query: Query
    vectors: Mapping[str, Vector]
    reference: int | None = None
    notes: tuple[str, ...] = ()
    artifacts: Artifacts = field(default_factory=dict)


@dataclass(frozen=True)
class Composed:
    """A query ready to be searched.

    Attributes:
        scoring: The scoring function.
        branches: The vectors that the scoring function was made of, by name, (dim,) float32 each. They explain a hit.
        notes: Warnings for the user, such as a part that was left out.
    """

    scoring: ScoringFunction
    branches: Mapping[str, Vector]
    notes: tuple[str, ...] = ()


class SearchMethod(Protocol):
    """One way to answer a query.

    Attributes:
        name: The name that requests use.
        help: One line about it, for lists of methods.
        tuned: The name of its entry in `weights.json`.
        reads: The names of the weights that it reads.
        defaults: Their values if `weights.json` has no entry for the method.
        needs: The models it needs besides the embedder.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    tuned: ClassVar[str]
    reads: ClassVar[frozenset[str]]
    defaults: ClassVar[Weights]
    needs: ClassVar[tuple[Helper, ...]]

    def branches(self, query: Query) -> Mapping[str, Modality]:
        """The modality of each branch's vector, by the branch's name. Called often; loads no model.

        Raises:
            QueryError: The query lacks a part without which the method makes no sense.
        """
        ...

    def resolve(self, context: Context, queries: Sequence[Query]) -> list[Resolved]:
        """The vectors of the branches, except those that `refine` adds.

        Args:
            context: Embeds, reads stored vectors, and runs helper models, for a whole batch at a time.
            queries: A batch. The result of one query does not depend on the others.

        Raises:
            QueryError: A part cannot be used, or a document does not exist; the error names the query.
            CallError: The model has no encoder for a part.
        """
        ...

    def compose(self, resolved: Resolved, weights: WeightsByName, space: Space) -> Composed:
        """The scoring function of one query.

        Args:
            resolved: The query with a vector for each branch; branches that `refine` adds may be missing.
            weights: All the weights that `reads` names.
            space: The collection's embedding space, for its means.

        Raises:
            QueryError: The parts cancel out, or a weight is out of range.
        """
        ...


@runtime_checkable
class Refining(Protocol):
    """A method with a slow step that an answer can do without."""

    def refines(self, query: Query) -> bool:
        """Whether the step would add anything to this query."""
        ...

    def refine(self, context: Context, resolved: Sequence[Resolved]) -> list[Resolved]:
        """The queries with the vectors that the step adds, or a note for each that it cannot make. It never fails."""
        ...


@runtime_checkable
class Variant(Protocol):
    """A method that is one of several ways to do what another does.

    Attributes:
        variant_of: The name of that other one, which stands for all of them; its own for the other one itself.
    """

    variant_of: ClassVar[str]


@runtime_checkable
class ReadsFields(Protocol):
    """A method that reads fields of a request beside those of the helper models that it needs.

    Attributes:
        reads_fields: Their names, as in `retrieval/request.py`.
    """

    reads_fields: ClassVar[frozenset[str]]


@runtime_checkable
class Selective(Protocol):
    """A method that not every embedder can serve."""

    def fits(self, embedder: Embedder) -> bool:
        """Whether this one can."""
        ...


class TwoParts(ABC):
    """Base of methods for a text and a reference. It handles negatives, and queries that have only one part.

    A subclass defines the class attributes of `SearchMethod`, and `terms`. The branches are the query's own unless it
    overrides them.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    tuned: ClassVar[str]
    reads: ClassVar[frozenset[str]]
    defaults: ClassVar[Weights] = Weights()
    needs: ClassVar[tuple[Helper, ...]] = ()

    def branches(self, query: Query) -> Mapping[str, Modality]:
        """All parts of the query."""
        return query.branches

    def resolve(self, context: Context, queries: Sequence[Query]) -> list[Resolved]:
        """Each part embedded on its own."""
        return context.embed(queries)

    @abstractmethod
    def terms(
        self, resolved: Resolved, weights: WeightsByName, space: Space
    ) -> tuple[dict[str, tuple[float, Vector]], tuple[str, ...]]:
        """The weighted vectors of a query that has both parts, without the negatives, and notes."""

    def compose(self, resolved: Resolved, weights: WeightsByName, space: Space) -> Composed:
        """The weighted sum of the terms minus the negatives; see `SearchMethod.compose`."""
        if not self.has_both(resolved):
            return one_part(resolved, weights, self.name)
        terms, notes = self.terms(resolved, weights, space)
        return summed(terms | negatives(resolved, weights), notes)

    def has_both(self, resolved: Resolved) -> bool:
        """Whether the query has the vectors that `terms` weighs."""
        return "text" in resolved.vectors and "image" in resolved.vectors


def one_part(resolved: Resolved, weights: WeightsByName, method: str) -> Composed:
    """The answer of a method for two parts to a query with one: a search by that part, and a note."""
    name, missing = ("text", "image") if "text" in resolved.vectors else ("image", "text")
    note = f"The query has no {missing}, so the method {method} searches by the {name} alone."
    return summed({name: (1.0, resolved.vectors[name])} | negatives(resolved, weights), (note,))


def negatives(resolved: Resolved, weights: WeightsByName) -> dict[str, tuple[float, Vector]]:
    """The negatives of a query, with negative weights."""
    names = [name for name in resolved.vectors if name.startswith("not_")]
    return {name: (-weights["negative"], resolved.vectors[name]) for name in names}


def summed(terms: Terms, notes: tuple[str, ...]) -> Composed:
    """The weighted sum of vectors.

    Raises:
        QueryError: They cancel out, so that nothing is left to search by.
    """
    vector = weighted_sum(np.stack([vector for _, vector in terms.values()]), [weight for weight, _ in terms.values()])
    if not vector.any():
        raise QueryError(
            f"The parts {', '.join(terms)} cancel out with their weights; nothing is left to search by.",
            "Change a weight, or drop the negative that equals a part.",
        )
    return Composed(Linear(vector), {name: vector for name, (_, vector) in terms.items()}, notes)


def mean_of(space: Space, modality: Modality, *roles: Role) -> tuple[Vector, tuple[str, ...]]:
    """A mean vector of the space, (dim,) float32, not of unit length, from the first role that has one.

    If none has, zeros and a note that says so.
    """
    for role in roles:
        if (role, modality) in space.means:
            return space.means[role, modality].vector, ()
    note = f"The collection has no mean of its {roles[0]} {modality} vectors; zero stands in for it."
    return np.zeros(space.dim, np.float32), (note,)


def without_gap(
    resolved: Sequence[Resolved], method: SearchMethod, stored: Callable[[Ids], Vectors], space: Space
) -> list[Resolved]:
    """The same queries for a centered view: every vector less the mean of its modality, of unit length again.

    Args:
        resolved: Queries with the model's own vectors.
        method: Says which modality each vector is of.
        stored: Reads vectors from the centered view, which has those of stored references.
        space: The collection's embedding space, with the means.
    """
    from indexer.vectors.modality_gap import query_mean

    means = {modality: np.asarray(query_mean(space, modality), np.float32) for modality in Modality}
    answer = []
    for each in resolved:
        kinds = method.branches(each.query)
        vectors = {
            name: weighted_sum(np.stack([vector, means[kinds[name]]]), [1.0, -1.0])
            for name, vector in each.vectors.items()
        }
        if each.reference is not None and "image" in vectors:
            vectors["image"] = stored(np.array([each.reference], np.int64))[0]
        answer.append(replace(each, vectors=vectors))
    return answer
