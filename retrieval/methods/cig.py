"""`inversion` and `cig`: the sentence read with the reference's word, and a drawing of what it means.

`inversion` is textual inversion (Pic2Word, SEARLE, LinCIR): one vector, t_ref, of the sentence with a word that a
network made of the reference.

`cig` adds a pseudo-target, a picture drawn from the same word and sentence (Wang et al., "Generative Zero-Shot Composed
Image Retrieval", CVPR 2025). What is made of it is the merge:

* `reinvert`, CIG's own: the drawing is turned into a word too, the same sentence is read with it, and the two vectors
  are added. It stays among texts, so that the looks of a drawing matter less.
* `embed`: the drawing's picture vector less the mean of pictures is added; it keeps what no sentence says.
* `product`: lambda S_t + (1 - lambda) S_t S_p of the two similarities, each from 0 to 1 (IP-CIR, arXiv:2411.16752).

Where a drawing is missing its weight is 0, and a note says so.

What this module does not know: how words are made and pictures drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import QueryError
from indexer.types import HelpfulEnum, Item, Modality, Role
from retrieval.methods.base import Composed, Encoded, Method, mean_of
from retrieval.methods.folding import BOTH, Terms, folded, negatives, one_part
from retrieval.query import Drawn, Part, Query, Stored, Weights, Worded, averaged
from retrieval.scoring import Matrix, Scores, Vector, fold

if TYPE_CHECKING:
    from indexer.snapshot import Space


class Merge(HelpfulEnum):
    """What `cig` makes of a drawing; see the module."""

    REINVERT = "reinvert"
    EMBED = "embed"
    PRODUCT = "product"


class Inversion:
    """t_ref less the negatives, with a share of the reference's own vector where its weight is not 0."""

    method = Method.INVERSION
    tuned = Method.INVERSION.value
    reads = frozenset({"inversion", "image", "negative"})

    def parts(self, query: Query) -> Mapping[str, Part]:
        """With both parts, the sentence with the reference's word beside the rest."""
        parts: dict[str, Part] = dict(query.parts())
        if all(name in parts for name in BOTH):
            picture = _picture(parts)
            parts["inversion"] = averaged([Worded(each, picture) for each in query.sentences])
            del parts["text"]
        return parts

    def compose(self, encoded: Encoded, weights: Weights, space: Space) -> Composed:
        """One vector; see `Composer.compose`."""
        if "inversion" not in encoded.vectors:
            return one_part(encoded, weights, self.method)
        return folded(_inverted(encoded, weights) | negatives(encoded, weights), encoded.notes)


class Cig:
    """The inversion's terms and a pseudo-target, by one of the merges."""

    method = Method.CIG
    reads = frozenset({"inversion", "image", "pseudo_target", "negative"})

    def __init__(self, merge: Merge) -> None:
        self.merge = merge
        self.tuned = f"{self.method.value}-{merge.value}"

    def parts(self, query: Query) -> Mapping[str, Part]:
        """As `inversion`, and the drawing, or the sentence with the drawing's word."""
        parts = dict(Inversion().parts(query))
        if "inversion" in parts:
            assert query.text is not None
            drawn = Drawn(query.text, _picture(parts))
            read_again = averaged([Worded(each, drawn) for each in query.sentences])
            parts["pseudo_target"] = read_again if self.merge is Merge.REINVERT else drawn
        return parts

    def compose(self, encoded: Encoded, weights: Weights, space: Space) -> Composed:
        """One vector, or the product's rule; see `Composer.compose`."""
        if "inversion" not in encoded.vectors:
            return one_part(encoded, weights, self.method)
        terms, against = _inverted(encoded, weights), negatives(encoded, weights)
        drawn, notes = encoded.vectors.get("pseudo_target"), encoded.notes
        if drawn is None:
            return replace(folded(terms | against, notes), pseudo_target=encoded.pseudo_target)
        if self.merge is Merge.PRODUCT:
            composed = _product(folded(terms | against, notes), drawn, weights["pseudo_target"])
        else:
            terms["pseudo_target"] = (weights["pseudo_target"], drawn)
            if self.merge is Merge.EMBED:
                mean, more = mean_of(space, Modality.IMAGE, Role.QUERY, Role.DOCUMENT)
                terms["mean_image"] = (-weights["pseudo_target"], mean)
                notes += more
            composed = folded(terms | against, notes)
        return replace(composed, pseudo_target=encoded.pseudo_target)


@dataclass(frozen=True)
class TextTimesDrawing:
    """Score by lambda S_t + (1 - lambda) S_t S_p, with similarities moved from [-1, 1] to [0, 1].

    Attributes:
        text: (dim,) float32 of unit length.
        drawing: The same of the pseudo-target.
        share: Lambda, 0 to 1.
    """

    text: Vector
    drawing: Vector
    share: float
    scale: str = "lambda S_t + (1 - lambda) S_t S_p of similarities, from 0 to 1"

    @property
    def probes(self) -> Matrix:
        """Text and drawing: (2, dim)."""
        return np.stack([self.text, self.drawing])

    def score(self, products: Scores) -> Scores:
        """(2, m) inner products to (m,) scores."""
        text, drawing = (products + 1) / 2
        return np.asarray(self.share * text + (1 - self.share) * text * drawing, np.float32)


def _product(composed: Composed, drawing: Vector, weight: float) -> Composed:
    """The product's rule over what the inversion's terms fold to; the drawing's weight is 1 - lambda."""
    if not 0 <= weight <= 1:
        raise QueryError(f"The weight pseudo_target is {weight}; in the product it is 0 to 1.")
    text = composed.rule.probes[0]
    return replace(
        composed,
        rule=TextTimesDrawing(text, fold(drawing[None], [1.0]), 1 - weight),
        branches={**composed.branches, "pseudo_target": drawing},
    )


def _inverted(encoded: Encoded, weights: Weights) -> Terms:
    terms = {"inversion": (weights["inversion"], encoded.vectors["inversion"])}
    if weights["image"]:
        terms["image"] = (weights["image"], encoded.vectors["image"])
    return terms


def _picture(parts: Mapping[str, Part]) -> Item | Stored:
    picture = parts["image"]
    assert isinstance(picture, Item | Stored)
    return picture
