"""`product`: text similarity times image similarity, after centering; it cannot be written as one vector.

The recipe is BASIC's, without its projection and query expansion (Psomas et al., "Instance-Level Composed
Image Retrieval", NeurIPS 2025, arXiv:2510.25387):

1. the mean of texts is subtracted from the text vector, the mean of images from the reference and every document;
2. both similarities are measured from a floor (`scoring.min_normalize`);
3. they are combined by a soft AND (`scoring.soft_and`): a document must resemble both.

What this module does not know: which documents are scored, and how they are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import QueryError
from indexer.types import Modality, Role
from retrieval.methods.base import Composed, Resolved, TwoParts, WeightsByName, mean_of, one_part
from retrieval.scoring import Matrix, Scores, Vector, min_normalize, soft_and, weighted_sum

if TYPE_CHECKING:
    from indexer.snapshot import Space


class Product(TwoParts):
    """Both parts centered and multiplied; a query with one part is searched by that part, as a cosine."""

    name = "product"
    help = "both similarities, centered, then multiplied (BASIC)"
    tuned = "product"
    reads = frozenset({"penalty", "text_floor", "image_floor", "negative"})

    def compose(self, resolved: Resolved, weights: WeightsByName, space: Space) -> Composed:
        """The scoring function of one query; see `SearchMethod.compose`."""
        if not self.has_both(resolved):
            return one_part(resolved, weights, self.name)
        for name in ("text_floor", "image_floor"):
            if weights[name] >= 0:
                raise QueryError(f"{name} is {weights[name]}; it must be below 0.")
        texts, text_notes = mean_of(space, Modality.TEXT, Role.QUERY)
        images, image_notes = mean_of(space, Modality.IMAGE, Role.QUERY, Role.DOCUMENT)
        scoring = SoftAnd(
            text=_centered("text", resolved, weights, texts),
            image=_centered("image", resolved, weights, images),
            center=center_of(space),
            text_floor=weights["text_floor"],
            image_floor=weights["image_floor"],
            penalty=weights["penalty"],
        )
        return Composed(scoring, resolved.vectors, text_notes + image_notes)

    def terms(
        self, resolved: Resolved, weights: WeightsByName, space: Space
    ) -> tuple[dict[str, tuple[float, Vector]], tuple[str, ...]]:
        """Nothing: a product is not a weighted sum."""
        return {}, ()


@dataclass(frozen=True)
class SoftAnd:
    """Scores by a soft AND of two centered similarities.

    Attributes:
        text: (dim,) float32 of unit length: the centered text minus the negatives.
        image: (dim,) float32 of unit length: the centered reference minus the negatives.
        center: (dim,) float32: the mean of the documents.
        text_floor: Below 0: the similarity to the text that counts as zero.
        image_floor: Below 0: the similarity to the image that counts as zero.
        penalty: What an uneven pair costs; see `scoring.soft_and`.
    """

    text: Vector
    image: Vector
    center: Vector
    text_floor: float
    image_floor: float
    penalty: float
    scale: str = (
        "soft AND of two centered similarities: 1 minus four penalties for a document unrelated to either part, "
        "more for one that resembles both; no upper bound, and comparable within one query only"
    )

    @property
    def query_vectors(self) -> Matrix:
        """Text and image: (2, dim)."""
        return np.stack([self.text, self.image])

    def score(self, products: Scores) -> Scores:
        """(2, m) inner products to (m,) scores."""
        text = products[0] - self.text @ self.center
        image = products[1] - self.image @ self.center
        return soft_and(min_normalize(text, self.text_floor), min_normalize(image, self.image_floor), self.penalty)


def center_of(space: Space) -> Vector:
    """The mean of all document vectors: (dim,) float32, zero if none is known.

    All modalities share one mean, because scoring does not know which modality a document has.
    """
    means = [mean for (role, _), mean in space.means.items() if role is Role.DOCUMENT and mean.count]
    if not means:
        return np.zeros(space.dim, np.float32)
    total = np.average([mean.vector for mean in means], axis=0, weights=[mean.count for mean in means])
    return np.asarray(total, np.float32)


def _centered(name: str, resolved: Resolved, weights: WeightsByName, mean: Vector) -> Vector:
    """One part minus its mean, minus the negatives of its kind, which are centered too."""
    against = [vector for other, vector in resolved.vectors.items() if other.startswith(f"not_{name}_")]
    centered = np.stack(
        [weighted_sum(np.stack([vector, mean]), [1, -1]) for vector in (resolved.vectors[name], *against)]
    )
    vector = weighted_sum(centered, [1.0, *(-weights["negative"] for _ in against)])
    if not vector.any():
        raise QueryError(f"Nothing is left of the {name} after its mean and the negatives are subtracted.")
    return vector
