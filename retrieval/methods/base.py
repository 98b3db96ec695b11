"""What every composer promises: a query's vectors become a rule that scores any document.

A composed query is answered in three steps, of which a composer gives the first and the last:

    parts(query)    -> what has to be embedded, by branch name; the retriever embeds it, a batch at a time
    (embedding)     -> Encoded: the query with a unit vector for each branch
    compose(...)    -> Composed: the branches, and the rule by which their similarities become one score

`compose` is arithmetic alone, so that weights can be tried without embedding anything again.

What this module does not know: embedders, collections, how documents are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from indexer.types import HelpfulEnum, JsonValue, Modality, Role
from retrieval.query import Part, Query, Weights
from retrieval.scoring import Matrix, Scores, Vector

if TYPE_CHECKING:
    from indexer.snapshot import Space


class Method(HelpfulEnum):
    """How a query's parts become one ranking, by the name the field uses."""

    TEXT = "text"
    IMAGE = "image"
    SUM = "sum"
    SLERP = "slerp"
    PRODUCT = "product"
    SHIFT = "shift"
    INVERSION = "inversion"
    CIG = "cig"
    CAPTION = "caption"
    JOINT = "joint"


class Rule(Protocol):
    """How a document is scored: by a function of its inner products with some probe vectors.

    A document's score depends on that document alone, not on which others are scored beside it.
    """

    @property
    def probes(self) -> Matrix:
        """(p, dim) float32; not of unit length in general."""
        ...

    @property
    def scale(self) -> str:
        """What a score means, in words."""
        ...

    def score(self, products: Scores) -> Scores:
        """(m,) float32 scores of m documents from their (p, m) inner products with the probes."""
        ...


@dataclass(frozen=True)
class Encoded:
    """A query and the vectors of its parts.

    Attributes:
        query: What was asked.
        vectors: By branch name, (dim,) float32 of unit length.
        reference: The vector id of a stored reference, which the query itself should not find.
        notes: What went wrong on the way without spoiling the answer.
        pseudo_target: What is known about the generated picture, where there is one.
        written: What is known about the written sentence, where there is one.
    """

    query: Query
    vectors: Mapping[str, Vector]
    reference: int | None = None
    notes: tuple[str, ...] = ()
    pseudo_target: Mapping[str, JsonValue] | None = None
    written: Mapping[str, JsonValue] | None = None


@dataclass(frozen=True)
class Composed:
    """A query ready to be searched.

    Attributes:
        rule: How documents are scored.
        branches: The vectors that made the rule, by name, (dim,) float32 each. They explain a hit.
        notes: What the user should know, such as a part that was left out.
        pseudo_target: What is known about the generated picture, where a method makes one.
    """

    rule: Rule
    branches: Mapping[str, Vector]
    notes: tuple[str, ...] = ()
    pseudo_target: Mapping[str, JsonValue] | None = None


class Composer(Protocol):
    """One method."""

    @property
    def method(self) -> Method:
        """Its name."""
        ...

    @property
    def tuned(self) -> str:
        """The name of its entry in `weights.json`."""
        ...

    @property
    def reads(self) -> frozenset[str]:
        """The names of the weights that it reads."""
        ...

    def parts(self, query: Query) -> Mapping[str, Part]:
        """What to embed, by branch name. Parts that have to be drawn may be missing when `compose` is called.

        Raises:
            QueryError: The query lacks a part without which the method makes no sense.
        """
        ...

    def compose(self, encoded: Encoded, weights: Weights, space: Space) -> Composed:
        """The rule for one query.

        Args:
            encoded: The query with a vector for each name that `parts` gave.
            weights: All that `reads` names.
            space: The collection's embedding space, for its means.

        Raises:
            QueryError: The parts cancel out, or a weight is out of range.
        """
        ...


def mean_of(space: Space, modality: Modality, *roles: Role) -> tuple[Vector, tuple[str, ...]]:
    """A mean vector of the space, (dim,) float32, not of unit length, from the first role that has one.

    Where none has, zeros and a note that says so.
    """
    for role in roles:
        if (role, modality) in space.means:
            return space.means[role, modality].vector, ()
    note = f"The collection has no mean of its {roles[0]} {modality} vectors; zero stands in for it."
    return np.zeros(space.dim, np.float32), (note,)
