"""From a question to documents: query, compose, search, results.

    from retrieval import Query, Retriever

    results = Retriever(collection, method="sum").search(Query(image="ref.png", text="with dark skin tone"))

The names below are the public ones. They are imported when they are first used, so that `import retrieval`
costs next to nothing and no model library is loaded before a query needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.compose import Merge, Method
    from retrieval.generate.protocol import DrawOptions
    from retrieval.query import Query, Weights
    from retrieval.results import Hit, Results
    from retrieval.scribe import Scribe
    from retrieval.search import Retriever
    from retrieval.studio import Studio

__all__ = ["DrawOptions", "Hit", "Merge", "Method", "Query", "Results", "Retriever", "Scribe", "Studio", "Weights"]

_HOMES = {
    "DrawOptions": "retrieval.generate.protocol",
    "Hit": "retrieval.results",
    "Merge": "retrieval.compose",
    "Method": "retrieval.compose",
    "Query": "retrieval.query",
    "Results": "retrieval.results",
    "Retriever": "retrieval.search",
    "Scribe": "retrieval.scribe",
    "Studio": "retrieval.studio",
    "Weights": "retrieval.query",
}


def __getattr__(name: str) -> object:
    """The public name, from the module that defines it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
