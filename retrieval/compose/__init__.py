"""The methods by name. To add one: a member of `Method`, a case below, and its weights in `weights.json`."""

from __future__ import annotations

from retrieval.compose.protocol import Composed, Composer, Encoded, Method, Rule
from retrieval.compose.weights import Tuned, load_weights

__all__ = ["Composed", "Composer", "Encoded", "Method", "Rule", "Tuned", "load_composer", "load_weights"]


def load_composer(method: str | Method) -> Composer:
    """The composer of that name.

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
