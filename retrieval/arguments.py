"""What a retriever is called with, checked before a model is loaded.

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
        """The model; loaded when first asked for."""
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
        UnknownNameError: When it is used: there is no such space.
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
        CallError: It is no collection, or has no spaces and one is named.
    """
    require_collection(source)
    if space is None:
        return source
    if not isinstance(space, str):
        raise CallError(f"space is {described(space)}; it is the name of one.")
    if not hasattr(type(source), "embedder_of"):
        raise CallError(f"{type(source).__name__} has one space alone; {space!r} cannot be named.")
    return InSpace(cast(Spaces, source), space)


def require_collection(source: object) -> None:
    """Refuse what cannot be searched.

    Raises:
        CallError: It is no collection, nor anything that looks like one.
    """
    # The model is a property: to ask for it would load it.
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
    """How many hits, as Python's whole number.

    Raises:
        QueryError: It is none, or below 1.
    """
    try:
        return whole_number(k, "k", 1)
    except CallError as error:
        raise QueryError(error.message) from None


def require_query(query: object, method: str) -> None:
    """Refuse what is no query.

    Raises:
        QueryError: It is none.
    """
    if isinstance(query, Query):
        return
    if isinstance(query, list | tuple):
        raise QueryError(f"{method} takes one Query, not {described(query)}.", "For several there is search_batch.")
    raise QueryError(f"{method} takes a Query, not {described(query)}.", f"Write {method}({_written(query)}).")


def queries_of(queries: object, method: str) -> list[Query]:
    """The queries of a call.

    Raises:
        QueryError: They are no queries.
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
    """What `Retriever.encode` gave.

    Raises:
        QueryError: It is something else.
    """
    found = several(encoded, "encoded")
    for place, each in enumerate(found):
        if not isinstance(each, Resolved):
            raise QueryError(f"encoded[{place}] is {described(each)}; it takes what Retriever.encode gave.")
    return found


def scope_of(
    where: Mapping[str, Any] | None, exclude: Iterable[str], modalities: Iterable[Modality | str] | str
) -> Scope:
    """What the queries of a call may find.

    Raises:
        CallError: `exclude` holds no ids, or `modalities` none.
    """
    kinds: Sequence[Any] = (modalities,) if isinstance(modalities, str) else names(modalities, "modalities")
    return Scope(where, names(exclude, "exclude"), tuple(Modality(name) for name in kinds))


def _written(value: object) -> str:
    """How to write a query of a value."""
    if isinstance(value, str):
        return f"Query(text={value[:80]!r})"
    return "Query(image=...)" if isinstance(value, bytes | Path) or hasattr(value, "getbands") else "Query(text='...')"
