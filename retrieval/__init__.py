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
    from retrieval.late_fusion import LateFusion
    from retrieval.methods import Merge, Method
    from retrieval.providers.caption_rewrite import CaptionRewriter
    from retrieval.providers.generation.protocol import GenerateOptions
    from retrieval.providers.pseudo_target import PseudoTargetProvider
    from retrieval.query import Query, Weights
    from retrieval.request import SearchOptions, SearchRequest
    from retrieval.results import Hit, Results
    from retrieval.retriever import Retriever
    from retrieval.service import SearchService

__all__ = [
    "CaptionRewriter",
    "GenerateOptions",
    "Hit",
    "LateFusion",
    "Merge",
    "Method",
    "PseudoTargetProvider",
    "Query",
    "Results",
    "Retriever",
    "SearchOptions",
    "SearchRequest",
    "SearchService",
    "Weights",
]

_HOMES = {
    "GenerateOptions": "retrieval.providers.generation.protocol",
    "Hit": "retrieval.results",
    "LateFusion": "retrieval.late_fusion",
    "Merge": "retrieval.methods",
    "Method": "retrieval.methods",
    "Query": "retrieval.query",
    "Results": "retrieval.results",
    "Retriever": "retrieval.retriever",
    "CaptionRewriter": "retrieval.providers.caption_rewrite",
    "PseudoTargetProvider": "retrieval.providers.pseudo_target",
    "SearchOptions": "retrieval.request",
    "SearchRequest": "retrieval.request",
    "SearchService": "retrieval.service",
    "Weights": "retrieval.query",
}


_RENAMED = {"DrawOptions": "GenerateOptions", "Scribe": "CaptionRewriter", "Studio": "PseudoTargetProvider"}


def __getattr__(name: str) -> object:
    """The public name, from the module that defines it (PEP 562); an old one with a warning."""
    if name in _RENAMED:
        from indexer.deprecation import warn_renamed

        warn_renamed(f"retrieval.{name}", f"retrieval.{_RENAMED[name]}")
        return __getattr__(_RENAMED[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
