"""The methods whose query is one vector: `text`, `image`, `sum`, `slerp`, `shift`.

Each is a weighted sum of unit vectors, less the negatives. It folds into one vector of unit length, so that a
query costs one search and its score is a cosine.

What this module does not know: how the vectors were made, and how they are searched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from indexer.errors import QueryError
from indexer.types import Item, Modality, Role
from retrieval.methods.base import Composed, Encoded, Method, mean_of
from retrieval.methods.folding import BOTH, Terms, folded, has_both, negatives, one_part
from retrieval.query import Part, Query, Weights, averaged
from retrieval.scoring import slerp_weights

if TYPE_CHECKING:
    from indexer.snapshot import Space


class OnePart:
    """`text` or `image`: one part alone, the baselines that every table needs."""

    reads = frozenset({"negative"})

    def __init__(self, method: Method) -> None:
        self.method = method
        self.tuned = method.value

    def parts(self, query: Query) -> Mapping[str, Part]:
        """The one part and the negatives.

        Raises:
            QueryError: The query does not have the part.
        """
        parts, wanted = query.parts(), self.method.value
        if wanted not in parts:
            raise QueryError(f"The method {wanted} needs a query with {wanted}; this one has none.")
        return {name: part for name, part in parts.items() if name == wanted or name not in BOTH}

    def compose(self, encoded: Encoded, weights: Weights, space: Space) -> Composed:
        """The part less the negatives, and a note where the query has the other part too."""
        name = self.method.value
        ignored = [other for other in BOTH if other != name and other in encoded.query.parts()]
        notes = tuple(f"The method {name} leaves the {other} out." for other in ignored)
        return folded({name: (1.0, encoded.vectors[name])} | negatives(encoded, weights), notes)


class TwoParts(ABC):
    """What the methods for text and image share: the negatives, the fold, and queries with one part only."""

    method: Method
    tuned: str
    reads: frozenset[str]

    def parts(self, query: Query) -> Mapping[str, Part]:
        """All that the query has."""
        return query.parts()

    @abstractmethod
    def terms(self, encoded: Encoded, weights: Weights, space: Space) -> tuple[Terms, tuple[str, ...]]:
        """The weighted vectors of a query that has both parts, without the negatives; and notes."""

    def compose(self, encoded: Encoded, weights: Weights, space: Space) -> Composed:
        """Fold terms and negatives into one vector; see `Composer.compose`."""
        if not has_both(encoded):
            return one_part(encoded, weights, self.method)
        terms, notes = self.terms(encoded, weights, space)
        return folded(terms | negatives(encoded, weights), notes)


class Sum(TwoParts):
    """w_i i + w_t t, of unit vectors."""

    method = Method.SUM
    tuned = Method.SUM.value
    reads = frozenset({"image", "text", "negative"})

    def terms(self, encoded: Encoded, weights: Weights, space: Space) -> tuple[Terms, tuple[str, ...]]:
        """Each part with its own weight."""
        return {name: (weights[name], encoded.vectors[name]) for name in BOTH}, ()


class Slerp(TwoParts):
    """The point at alpha of the arc from image to text; see `fusion.slerp_weights` for its source."""

    method = Method.SLERP
    tuned = Method.SLERP.value
    reads = frozenset({"alpha", "negative"})

    def terms(self, encoded: Encoded, weights: Weights, space: Space) -> tuple[Terms, tuple[str, ...]]:
        """Weights that depend on the angle between the parts."""
        alpha = weights["alpha"]
        if not 0 <= alpha <= 1:
            raise QueryError(f"alpha is {alpha}; on the arc from image to text it is 0 to 1.")
        image, text = encoded.vectors["image"], encoded.vectors["text"]
        at_image, at_text = slerp_weights(image, text, alpha)
        return {"image": (at_image, image), "text": (at_text, text)}, ()


class Shift(TwoParts):
    """i + alpha (t - t_0): the image feature moved along the difference that the sentence makes.

    With a caption of the reference, t_0 is the caption and t the caption followed by the sentence. Without
    one, t is the sentence and t_0 the mean of generic texts: the centred fall-back, which keeps of the
    sentence what sets it apart from any other.

    Source: AdaST's pseudo-target in feature space, with alpha tuned instead of its closed form, and without a
    language model that writes the caption of the target.
    """

    method = Method.SHIFT
    tuned = Method.SHIFT.value
    reads = frozenset({"alpha", "negative"})

    def parts(self, query: Query) -> Mapping[str, Part]:
        """With a caption: the caption, and the caption with the sentence in place of the sentence."""
        parts = dict(query.parts())
        if query.caption is not None and all(name in parts for name in BOTH):
            parts["text"] = averaged([Item(text=f"{query.caption}, {each}") for each in query.sentences])
            parts["caption"] = Item(text=query.caption)
        return parts

    def terms(self, encoded: Encoded, weights: Weights, space: Space) -> tuple[Terms, tuple[str, ...]]:
        """The image, and the two ends of the step."""
        alpha = weights["alpha"]
        terms = {"image": (1.0, encoded.vectors["image"]), "text": (alpha, encoded.vectors["text"])}
        if "caption" in encoded.vectors:
            return terms | {"caption": (-alpha, encoded.vectors["caption"])}, ()
        mean, notes = mean_of(space, Modality.TEXT, Role.QUERY)
        return terms | {"mean_text": (-alpha, mean)}, notes
