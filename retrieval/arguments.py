"""Checks of a retriever's arguments, made before a model is loaded.

What this module does not know: how a query is answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import getattr_static
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from indexer.arguments import described, names, several, whole_number
from indexer.errors import CallError, QueryError
from indexer.types import Modality
from retrieval.methods.base import Resolved
from retrieval.query import Query
from retrieval.ranking import Scope

if TYPE_CHECKING:
    from indexer.embed.base import Embedder
    from indexer.snapshot import Snapshot


class Source(Protocol):
    """What a retriever searches: a `Collection`, or anything that looks like one."""

    @property
    def embedder(self) -> Embedder:
        """The model; loaded on first use."""
        ...

    def snapshot(self) -> Snapshot:
        """The newest generation."""
        ...


class Spaces(Source, Protocol):
    """A source with several embedding spaces, such as a `Collection`."""

    def embedder_of(self, space: str | None = None) -> Embedder:
        """The model of a space."""
        ...

    def snapshot(self, space: str | None = None) -> Snapshot:
        """The newest generation of a space."""
        ...


@dataclass(frozen=True)
class InSpace:
    """One space of a source, as a source of its own.

    Raises:
        UnknownNameError: There is no such space. Raised on use.
    """

    source: Spaces
    space: str

    @property
    def embedder(self) -> Embedder:
        """The space's model."""
        return self.source.embedder_of(self.space)

    def snapshot(self) -> Snapshot:
        """The newest generation of the space."""
        return self.source.snapshot(self.space)


def source_of(source: Source, space: str | None) -> Source:
    """What a retriever searches.

    Raises:
        CallError: The source is not a collection, or a space is named and the source has none.
    """
    require_collection(source)
    if space is None:
        return source
    if not isinstance(space, str):
        raise CallError(f"space is {described(space)}; it must be the name of a space.")
    if not hasattr(type(source), "embedder_of"):
        raise CallError(f"{type(source).__name__} has only one space, so {space!r} cannot be named.")
    return InSpace(cast(Spaces, source), space)


def require_collection(source: object) -> None:
    """Refuse what cannot be searched.

    Raises:
        CallError: It is neither a collection nor anything that looks like one.
    """
    # `model` is a property, and reading it would load the model.
    if not isinstance(source, type) and all(getattr_static(source, name, None) for name in ("snapshot", "embedder")):
        return
    if isinstance(source, str | Path):
        raise CallError(
            f"Retriever takes a Collection, not {described(source)}.",
            f"Write Retriever(Collection.open({str(source)!r})).",
        )
    raise CallError(
        f"Retriever takes a Collection, not {described(source)}.", "Write Retriever(Collection.open('folder'))."
    )


def checked_k(k: object) -> int:
    """The number of hits as an `int`.

    Raises:
        QueryError: It is not a whole number, or below 1.
    """
    try:
        return whole_number(k, "k", 1)
    except CallError as error:
        raise QueryError(error.message) from None


def require_query(query: object, method: str) -> None:
    """Refuse anything that is not a query.

    Raises:
        QueryError: It is not a query.
    """
    if isinstance(query, Query):
        return
    if isinstance(query, list | tuple):
        raise QueryError(f"{method} takes one Query, not {described(query)}.", "For several, use search_batch.")
    raise QueryError(f"{method} takes a Query, not {described(query)}.", f"Write {method}({_written(query)}).")


def queries_of(queries: object, method: str) -> list[Query]:
    """The queries of a call.

    Raises:
        QueryError: They are not queries.
    """
    if isinstance(queries, Query):
        raise QueryError(f"{method} takes a list of queries, not one Query.", "Write search(query), or [query].")
    if isinstance(queries, str | bytes | Mapping) or not isinstance(queries, Iterable):
        raise QueryError(
            f"{method} takes a list of queries, not {described(queries)}.", f"Write [{_written(queries)}]."
        )
    found = list(queries)
    for place, each in enumerate(found):
        if not isinstance(each, Query):
            raise QueryError(f"queries[{place}] is {described(each)}; it must be a Query.", f"Write {_written(each)}.")
    return found


def all_resolved(encoded: object) -> list[Resolved]:
    """The resolved queries that `Retriever.encode` returned.

    Raises:
        QueryError: It is something else.
    """
    found = several(encoded, "encoded")
    for place, each in enumerate(found):
        if not isinstance(each, Resolved):
            raise QueryError(f"encoded[{place}] is {described(each)}; it must come from Retriever.encode.")
    return found


def scope_of(
    where: Mapping[str, Any] | None, exclude: Iterable[str], modalities: Iterable[Modality | str] | str
) -> Scope:
    """The scope that limits what the queries of a call may find.

    Raises:
        CallError: `exclude` holds something other than ids, or `modalities` something other than modalities.
    """
    kinds: Sequence[Any] = (modalities,) if isinstance(modalities, str) else names(modalities, "modalities")
    return Scope(where, names(exclude, "exclude"), tuple(Modality(name) for name in kinds))


def _written(value: object) -> str:
    """The expression that makes a query of a value, for an error's remedy."""
    if isinstance(value, str):
        return f"Query(text={value[:80]!r})"
    return "Query(image=...)" if isinstance(value, bytes | Path) or hasattr(value, "getbands") else "Query(text='...')"
