"""`cig`: the text read with the reference's pseudo-word, and a pseudo-target, an image generated from the two.

Source: Wang et al., "Generative Zero-Shot Composed Image Retrieval", CVPR 2025. The merge says how the pseudo-target is
used, and each merge is a method of its own:

* `cig-reinvert`, the paper's: the pseudo-target becomes a pseudo-word too, the same text is read with it, and the two
  vectors are added. The vector stays among those of texts, so that the looks of a generated image matter less.
* `cig-embed`, the default of `cig`: the pseudo-target's vector minus the mean of images is added. It keeps details that
  no sentence mentions.
* `cig-product`: lambda S_t + (1 - lambda) S_t S_p of the two similarities, each from 0 to 1 (IP-CIR,
  arXiv:2411.16752).

If a pseudo-target is missing, its weight is 0 and a note says so.

What this module does not know: how pseudo-words are made and images are generated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from indexer.errors import QueryError
from indexer.types import Modality, Role
from retrieval.methods.base import (
    Composed,
    Helper,
    Resolved,
    WeightsByName,
    mean_of,
    negatives,
    one_part,
    summed,
)
from retrieval.methods.inversion import Inversion
from retrieval.query import Query
from retrieval.scoring import Matrix, Scores, Vector, weighted_sum

if TYPE_CHECKING:
    from indexer.snapshot import Space
    from retrieval.methods.context import Context


class _Cig(Inversion):
    """Base of the merges: the inversion's branches and the pseudo-target."""

    reads = frozenset({"inversion", "image", "pseudo_target", "negative"})
    needs = (Helper.INVERSION, Helper.GENERATOR)
    variant_of: ClassVar[str] = "cig"
    merged_as = Modality.IMAGE
    """The modality of the pseudo-target's vector."""

    def branches(self, query: Query) -> Mapping[str, Modality]:
        """The branches of `inversion`, and the pseudo-target."""
        branches = super().branches(query)
        return {**branches, "pseudo_target": self.merged_as} if query.is_composed else branches

    def refines(self, query: Query) -> bool:
        """Whether there is a text and a reference to generate from."""
        return query.is_composed

    def refine(self, context: Context, resolved: Sequence[Resolved]) -> list[Resolved]:
        """Add the vectors of pseudo-targets, or notes if they cannot be made."""
        answer = list(resolved)
        places = [
            place
            for place, each in enumerate(resolved)
            if self.refines(each.query) and "pseudo_target" not in each.vectors
        ]
        made = dict(zip(places, context.generate([resolved[place] for place in places]), strict=True))
        for place, own in made.items():
            if own.note is not None:
                answer[place] = replace(answer[place], notes=(*answer[place].notes, own.note))
            if own.artifact is not None:
                artifacts = {**answer[place].artifacts, "pseudo_target": own.artifact}
                answer[place] = replace(answer[place], artifacts=artifacts)
        there = {place: own.reference for place, own in made.items() if own.reference is not None}
        vectors = {place: reference.vector for place, reference in there.items()}
        if self.merged_as is Modality.TEXT:
            read = context.read([resolved[place] for place in there], list(there.values()))
            vectors = dict(zip(there, read, strict=True))
        for place, vector in vectors.items():
            answer[place] = replace(answer[place], vectors={**answer[place].vectors, "pseudo_target": vector})
        return answer

    def terms(
        self, resolved: Resolved, weights: WeightsByName, space: Space
    ) -> tuple[dict[str, tuple[float, Vector]], tuple[str, ...]]:
        """The inversion's terms, and the pseudo-target."""
        terms, notes = super().terms(resolved, weights, space)
        if "pseudo_target" in resolved.vectors:
            terms["pseudo_target"] = (weights["pseudo_target"], resolved.vectors["pseudo_target"])
        return terms, notes


class CigReinvert(_Cig):
    """The pseudo-target's own pseudo-word, read with the same text."""

    name = "cig-reinvert"
    help = "inversion, and the text read with a generated pseudo-target's pseudo-word (CIG)"
    tuned = "cig-reinvert"
    merged_as = Modality.TEXT


class CigEmbed(_Cig):
    """The pseudo-target's vector minus the mean of images."""

    name = "cig-embed"
    help = "inversion, and a generated pseudo-target's vector minus the mean of images"
    tuned = "cig-embed"

    def terms(
        self, resolved: Resolved, weights: WeightsByName, space: Space
    ) -> tuple[dict[str, tuple[float, Vector]], tuple[str, ...]]:
        """The mean of images is subtracted with the pseudo-target's weight."""
        terms, notes = super().terms(resolved, weights, space)
        if "pseudo_target" in terms:
            mean, more = mean_of(space, Modality.IMAGE, Role.QUERY, Role.DOCUMENT)
            terms["mean_image"] = (-weights["pseudo_target"], mean)
            notes += more
        return terms, notes


class Cig(CigEmbed):
    """The default merge."""

    name = "cig"
    help = "inversion and a generated pseudo-target (CIG), merged as in cig-embed"
    reads_fields: ClassVar[frozenset[str]] = frozenset({"merge"})


class CigProduct(_Cig):
    """The product of two similarities; it cannot be written as one vector."""

    name = "cig-product"
    help = "inversion's similarity times a generated pseudo-target's (IP-CIR)"
    tuned = "cig-product"

    def compose(self, resolved: Resolved, weights: WeightsByName, space: Space) -> Composed:
        """The product over the weighted sum of the inversion's terms; the pseudo-target's weight is 1 - lambda.

        Raises:
            QueryError: That weight is not from 0 to 1.
        """
        if not self.has_both(resolved):
            return one_part(resolved, weights, self.name)
        terms, notes = Inversion.terms(self, resolved, weights, space)
        composed = summed(terms | negatives(resolved, weights), notes)
        target, weight = resolved.vectors.get("pseudo_target"), weights["pseudo_target"]
        if target is None:
            return composed
        if not 0 <= weight <= 1:
            raise QueryError(f"The weight pseudo_target is {weight}; in the product it must be 0 to 1.")
        [text] = composed.scoring.query_vectors
        scoring = TextTimesTarget(text, weighted_sum(target[None], [1.0]), 1 - weight)
        return replace(composed, scoring=scoring, branches={**composed.branches, "pseudo_target": target})


@dataclass(frozen=True)
class TextTimesTarget:
    """Score by lambda S_t + (1 - lambda) S_t S_p, with similarities moved from [-1, 1] to [0, 1].

    Attributes:
        text: (dim,) float32 of unit length.
        target: (dim,) float32 of unit length, of the pseudo-target.
        share: Lambda, 0 to 1.
    """

    text: Vector
    target: Vector
    share: float
    scale: str = "lambda S_t + (1 - lambda) S_t S_p of similarities, from 0 to 1"

    @property
    def query_vectors(self) -> Matrix:
        """Text and pseudo-target: (2, dim)."""
        return np.stack([self.text, self.target])

    def score(self, products: Scores) -> Scores:
        """(2, m) inner products to (m,) scores."""
        text, target = (products + 1) / 2
        return np.asarray(self.share * text + (1 - self.share) * text * target, np.float32)
