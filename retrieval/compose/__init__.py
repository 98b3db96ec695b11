"""The methods by name. To add one: a member of `Method`, a case below, and its weights in `weights.json`."""

from __future__ import annotations

from retrieval.compose.cig import Merge
from retrieval.compose.protocol import Composed, Composer, Encoded, Method, Rule
from retrieval.compose.weights import Tuned, load_weights

__all__ = ["Composed", "Composer", "Encoded", "Merge", "Method", "Rule", "Tuned", "load_composer", "load_weights"]


def load_composer(method: str | Method, merge: str | Merge = Merge.EMBED) -> Composer:
    """The composer of that name.

    Args:
        method: One of `Method`.
        merge: What `cig` makes of a drawing; other methods do not read it.

    Raises:
        UnknownNameError: There is none; it lists those there are.
    """
    match Method(method):
        case Method.TEXT | Method.IMAGE as part:
            from retrieval.compose.linear import OnePart

            return OnePart(part)
        case Method.SUM:
            from retrieval.compose.linear import Sum

            return Sum()
        case Method.SLERP:
            from retrieval.compose.linear import Slerp

            return Slerp()
        case Method.SHIFT:
            from retrieval.compose.linear import Shift

            return Shift()
        case Method.PRODUCT:
            from retrieval.compose.product import ProductComposer

            return ProductComposer()
        case Method.INVERSION:
            from retrieval.compose.cig import Inversion

            return Inversion()
        case Method.CIG:
            from retrieval.compose.cig import Cig

            return Cig(Merge(merge))
        case Method.CAPTION:
            from retrieval.compose.caption import Caption

            return Caption()
        case Method.JOINT:
            from retrieval.compose.joint import JointReading

            return JointReading()
