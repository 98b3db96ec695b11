"""The methods by name. To add one: a member of `Method`, a case below, and its weights in `weights.json`."""

from __future__ import annotations

from retrieval.methods.base import Composed, Composer, Encoded, Method, Rule
from retrieval.methods.cig import Merge
from retrieval.methods.weights import Tuned, load_weights

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
            from retrieval.methods.linear import OnePart

            return OnePart(part)
        case Method.SUM:
            from retrieval.methods.linear import Sum

            return Sum()
        case Method.SLERP:
            from retrieval.methods.linear import Slerp

            return Slerp()
        case Method.SHIFT:
            from retrieval.methods.linear import Shift

            return Shift()
        case Method.PRODUCT:
            from retrieval.methods.product import ProductComposer

            return ProductComposer()
        case Method.INVERSION:
            from retrieval.methods.cig import Inversion

            return Inversion()
        case Method.CIG:
            from retrieval.methods.cig import Cig

            return Cig(Merge(merge))
        case Method.CAPTION:
            from retrieval.methods.caption import Caption

            return Caption()
        case Method.JOINT:
            from retrieval.methods.joint import JointReading

            return JointReading()
