"""`product`: text similarity times image similarity, after centring; it cannot be written as one vector.

The recipe is BASIC's, without its projection and query expansion (Psomas et al., "Instance-Level Composed
Image Retrieval", NeurIPS 2025, arXiv:2510.25387):

1. the mean of texts is taken off the text vector, the mean of pictures off the reference and every document;
2. both similarities are measured from a floor (`fusion.min_normalise`);
3. they are joined by a soft AND (`fusion.soft_and`): a document must resemble both.

What this module does not know: which documents are scored, and how they are found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import QueryError
from indexer.types import Modality, Role
from retrieval.methods.base import Composed, Encoded, Method, mean_of
from retrieval.methods.folding import has_both, one_part
from retrieval.query import Part, Query, Weights
from retrieval.scoring import Matrix, Scores, Vector, fold, min_normalise, soft_and

if TYPE_CHECKING:
    from indexer.snapshot import Space


@dataclass(frozen=True)
class Product:
    """Score by a soft AND of two centred similarities.

    Attributes:
        text: (dim,) float32 of unit length: the centred text, less the negatives.
        image: The same of the reference.
        centre: (dim,) float32: the mean of the documents.
        text_floor: Below 0: the similarity to the text that counts as none.
        image_floor: The same of the image.
        penalty: What an uneven pair costs; see `fusion.soft_and`.
    """

    text: Vector
    image: Vector
    centre: Vector
    text_floor: float
    image_floor: float
    penalty: float
    scale: str = (
        "soft AND of two centred similarities: 1 minus four penalties for a document unrelated to either part, "
        "more for one that resembles both; no upper bound, and comparable within one query only"
    )

    @property
    def probes(self) -> Matrix:
        """Text and image: (2, dim)."""
        return np.stack([self.text, self.image])

    def score(self, products: Scores) -> Scores:
        """(2, m) inner products to (m,) scores."""
        text = products[0] - self.text @ self.centre
        image = products[1] - self.image @ self.centre
        return soft_and(min_normalise(text, self.text_floor), min_normalise(image, self.image_floor), self.penalty)


class ProductComposer:
    """Centre both parts; a query with one part is searched by that part, as a cosine."""

    method = Method.PRODUCT
    tuned = Method.PRODUCT.value
    reads = frozenset({"penalty", "text_floor", "image_floor", "negative"})

    def parts(self, query: Query) -> Mapping[str, Part]:
        """All that the query has."""
        return query.parts()

    def compose(self, encoded: Encoded, weights: Weights, space: Space) -> Composed:
        """The rule for one query; see `Composer.compose`."""
        if not has_both(encoded):
            return one_part(encoded, weights, self.method)
        for name in ("text_floor", "image_floor"):
            if weights[name] >= 0:
                raise QueryError(f"{name} is {weights[name]}; it must be below 0.")
        texts, text_notes = mean_of(space, Modality.TEXT, Role.QUERY)
        pictures, image_notes = mean_of(space, Modality.IMAGE, Role.QUERY, Role.DOCUMENT)
        rule = Product(
            text=_centred("text", encoded, weights, texts),
            image=_centred("image", encoded, weights, pictures),
            centre=centre_of(space),
            text_floor=weights["text_floor"],
            image_floor=weights["image_floor"],
            penalty=weights["penalty"],
        )
        return Composed(rule, encoded.vectors, text_notes + image_notes)


def centre_of(space: Space) -> Vector:
    """The mean of all document vectors: (dim,) float32, zero where none is known.

    One mean for every modality: which document is of which is not known where documents are scored.
    """
    means = [mean for (role, _), mean in space.means.items() if role is Role.DOCUMENT and mean.count]
    if not means:
        return np.zeros(space.dim, np.float32)
    total = np.average([mean.vector for mean in means], axis=0, weights=[mean.count for mean in means])
    return np.asarray(total, np.float32)


def _centred(name: str, encoded: Encoded, weights: Weights, mean: Vector) -> Vector:
    """One part less its mean, less the negatives of the same kind, which are centred too."""
    against = [vector for other, vector in encoded.vectors.items() if other.startswith(f"not_{name}_")]
    centred = np.stack([fold(np.stack([vector, mean]), [1, -1]) for vector in (encoded.vectors[name], *against)])
    vector = fold(centred, [1.0, *(-weights["negative"] for _ in against)])
    if not vector.any():
        raise QueryError(f"Nothing is left of the {name} after its mean and the negatives are taken off.")
    return vector
