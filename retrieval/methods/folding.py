"""Weighted vectors folded into one: what the methods share.

What this module does not know: which vectors a method weighs, and how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from indexer.errors import QueryError
from retrieval.methods.base import Composed, Encoded, Method
from retrieval.query import Weights
from retrieval.scoring import Matrix, Scores, Vector, fold

Terms: TypeAlias = dict[str, tuple[float, Vector]]
"""Branch name to its weight and its vector."""

BOTH = ("text", "image")


@dataclass(frozen=True)
class Linear:
    """Score by one vector.

    Attributes:
        vector: (dim,) float32 of unit length.
    """

    vector: Vector
    scale: str = "cosine, from -1 to 1"

    @property
    def probes(self) -> Matrix:
        """The vector alone: (1, dim)."""
        return self.vector[None]

    def score(self, products: Scores) -> Scores:
        """The inner products themselves: (1, m) to (m,)."""
        scores: Scores = products[0]
        return scores


def has_both(encoded: Encoded) -> bool:
    """Whether the query has a text and a reference."""
    return all(name in encoded.vectors for name in BOTH)


def one_part(encoded: Encoded, weights: Weights, method: Method) -> Composed:
    """What every method for two parts makes of a query with one: a search by that part, and a note."""
    name, missing = ("text", "image") if "text" in encoded.vectors else ("image", "text")
    note = f"The query has no {missing}, so the method {method} searches by the {name} alone."
    return folded({name: (1.0, encoded.vectors[name])} | negatives(encoded, weights), (note,))


def negatives(encoded: Encoded, weights: Weights) -> Terms:
    """The negatives of a query, to be subtracted."""
    names = [name for name in encoded.vectors if name.startswith("not_")]
    return {name: (-weights["negative"], encoded.vectors[name]) for name in names}


def folded(terms: Terms, notes: tuple[str, ...]) -> Composed:
    """One vector from weighted vectors.

    Raises:
        QueryError: They cancel out, so that nothing is left to search by.
    """
    vector = fold(np.stack([vector for _, vector in terms.values()]), [weight for weight, _ in terms.values()])
    if not vector.any():
        raise QueryError(
            f"The parts {', '.join(terms)} cancel out with their weights; nothing is left to search by.",
            "Change a weight, or drop the negative that equals a part.",
        )
    return Composed(Linear(vector), {name: vector for name, (_, vector) in terms.items()}, notes)
