"""Parts that other packages add to this one, and whether they can be used.

What this module does not know: what the parts do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from indexer.corpus.formats import READERS
from indexer.corpus.transforms import TRANSFORMS
from indexer.embed import EMBEDDERS
from indexer.errors import PluginError
from indexer.registry import Registry
from indexer.vectors.stores import STORES
from retrieval.methods import METHODS
from retrieval.rerank import RERANKERS

REGISTRIES: tuple[Registry[Any], ...] = (EMBEDDERS, METHODS, READERS, TRANSFORMS, STORES, RERANKERS)
"""Of everything that a package can add, in the order in which it is listed."""


@dataclass(frozen=True)
class Found:
    """A part that a package adds.

    Attributes:
        kind: What it is, such as "method".
        name: What it is asked for by.
        package: The package's name and version.
        problem: Why it cannot be used; None for one that can.
    """

    kind: str
    name: str
    package: str
    problem: str | None


def plugins() -> tuple[Found, ...]:
    """All that installed packages add; each part is imported to see whether it can be used."""
    return tuple(
        Found(registry.kind, each.name, each.package, each.problem or _failure(registry, each.name))
        for registry in REGISTRIES
        for each in registry.plugins()
    )


def _failure(registry: Registry[Any], name: str) -> str | None:
    try:
        registry.get(name)
    except PluginError as error:
        return error.message
    return None
