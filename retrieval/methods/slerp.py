"""`slerp`: the point on the arc from reference to text (Jang et al., ECCV 2024, arXiv:2405.00571).

What this module does not know: how the vectors were made, and how they are searched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer.errors import QueryError
from retrieval.methods.base import Resolved, TwoParts, WeightsByName
from retrieval.scoring import Vector, slerp_weights

if TYPE_CHECKING:
    from indexer.snapshot import Space


class Slerp(TwoParts):
    """The point at alpha on the arc from image to text; `scoring.slerp_weights` has the formula."""

    name = "slerp"
    help = "a point on the arc from reference to text"
    tuned = "slerp"
    reads = frozenset({"alpha", "negative"})

    def terms(
        self, resolved: Resolved, weights: WeightsByName, space: Space
    ) -> tuple[dict[str, tuple[float, Vector]], tuple[str, ...]]:
        """Weights that depend on the angle between the parts.

        Raises:
            QueryError: alpha is not from 0 to 1.
        """
        alpha = weights["alpha"]
        if not 0 <= alpha <= 1:
            raise QueryError(f"alpha is {alpha}; on the arc from image to text, it must be 0 to 1.")
        image, text = resolved.vectors["image"], resolved.vectors["text"]
        at_image, at_text = slerp_weights(image, text, alpha)
        return {"image": (at_image, image), "text": (at_text, text)}, ()
