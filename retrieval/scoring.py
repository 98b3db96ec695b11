"""Scoring functions and the arithmetic of composed search on plain arrays: weighted sums, similarities, orders.

Every function is pure. Larger scores are better; ties are settled by name, ascending.

What this module does not know: queries, methods, collections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""float32, shape (dim,), of unit length unless a docstring says otherwise."""

Matrix = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


class ScoringFunction(Protocol):
    """A function that scores a document by its inner products with some query vectors.

    A document's score depends on that document alone, not on which others are scored beside it.
    """

    @property
    def query_vectors(self) -> Matrix:
        """(q, dim) float32; not of unit length in general."""
        ...

    @property
    def scale(self) -> str:
        """What a score means, in words."""
        ...

    def score(self, products: Scores) -> Scores:
        """(m,) float32 scores of m documents from their (q, m) inner products with the query vectors."""
        ...


@dataclass(frozen=True)
class Linear:
    """Scores by the inner product with one vector; a ranking by it is one search of the index.

    Attributes:
        vector: (dim,) float32 of unit length.
    """

    vector: Vector
    scale: str = "cosine, from -1 to 1"

    @property
    def query_vectors(self) -> Matrix:
        """The vector alone: (1, dim)."""
        return self.vector[None]

    def score(self, products: Scores) -> Scores:
        """The inner products themselves: (1, m) to (m,)."""
        scores: Scores = products[0]
        return scores


def unit(vector: npt.NDArray[np.floating]) -> Vector:
    """The vector at unit length; zero stays zero.

    Args:
        vector: (dim,), any float dtype.
    """
    wide = np.asarray(vector, np.float64)
    length = np.sqrt(wide @ wide)
    return np.asarray(wide / length if length > 0 else wide, np.float32)


def weighted_sum(vectors: Matrix, weights: Sequence[float]) -> Vector:
    """The weighted sum of branch vectors, at unit length.

    Its inner products rank documents as the weighted sum of the branches' own scores does, so that many
    branches cost one search.

    Args:
        vectors: (b, dim) float32, a row for each branch.
        weights: b numbers of either sign.

    Returns:
        (dim,) float32 of unit length, or zero where the branches cancel out.
    """
    # Only the weights' proportions count: divided by the largest, none overflows.
    given = np.asarray(weights, np.float64)
    given = given / (np.abs(given).max(initial=0) or 1)
    total = given @ vectors.astype(np.float64)
    # Float32 rows that cancel out leave noise, not zero, and at unit length that would rank documents by noise.
    noise = 1e-6 * np.abs(given).sum()
    return unit(total) if np.linalg.norm(total) > noise else np.zeros(vectors.shape[1], np.float32)


def slerp_weights(start: Vector, end: Vector, alpha: float) -> tuple[float, float]:
    """The weights of two unit vectors whose weighted sum is the point at `alpha` of the arc between them.

    (sin((1 - a) t) / sin t, sin(a t) / sin t) for the angle t between them, written with sin(x) / x so that
    it stays exact as t goes to 0. Opposite vectors span no arc of their own and are mixed linearly.

    Source: Shoemake 1985; for composed retrieval Jang et al., ECCV 2024, "Spherical Linear Interpolation and
    Text-Anchoring for Zero-shot Composed Image Retrieval", arXiv:2405.00571.

    Args:
        start: (dim,) float32 of unit length; alpha 0.
        end: (dim,) float32 of unit length; alpha 1.
        alpha: 0 to 1.
    """
    a, b = start.astype(np.float64), end.astype(np.float64)
    # Not arccos of the inner product: its slope is infinite at equal vectors.
    angle = 2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))
    if np.pi - angle < 1e-4:
        return 1 - alpha, alpha
    # numpy's sinc(x) is sin(pi x) / (pi x).
    turn = angle / np.pi
    return (
        float((1 - alpha) * np.sinc((1 - alpha) * turn) / np.sinc(turn)),
        float(alpha * np.sinc(alpha * turn) / np.sinc(turn)),
    )


def min_normalize(scores: Scores, floor: float) -> Scores:
    """Scores measured from a floor: the floor becomes 0, and 0 becomes 1; scores below the floor become 0.

    Source: the min-based normalization of BASIC (Psomas et al., NeurIPS 2025, arXiv:2510.25387). A floor that
    is known beforehand, not the smallest score of a call, lets a score depend on its document alone.

    Args:
        scores: float32 of any shape.
        floor: Below 0.
    """
    return np.asarray(np.maximum((scores - floor) / -floor, 0), np.float32)


def soft_and(text: Scores, image: Scores, penalty: float) -> Scores:
    """Large only where both similarities are: text * image - penalty * (text + image)^2.

    Harris's corner measure; at equal sums, the more even pair wins. Source: BASIC, as above.

    Args:
        text: float32, at least 0.
        image: The same shape.
        penalty: 0 for the plain product; at 1/4 nothing is above 0.
    """
    return np.asarray(text * image - penalty * (text + image) ** 2, np.float32)


def top_k(scores: Scores, k: int) -> Positions:
    """The positions of the k largest scores and of all that tie with the last of them, largest first.

    Args:
        scores: (m,) float32.
        k: At least 1; may exceed m.
    """
    if k < len(scores):
        last = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero(scores >= last)
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")]


def order(scores: Scores, names: Sequence[str]) -> list[int]:
    """All positions, best score first, ties by name.

    Args:
        scores: (m,) float32.
        names: m names, such as document ids.
    """
    return sorted(range(len(names)), key=lambda place: (-float(scores[place]), names[place]))
