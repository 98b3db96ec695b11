"""Notes about filters that parse but probably do not mean what was intended.

Filters on a field that no document has, or on a type of value that no document has there, find nothing or everything,
and that looks like an answer. Fields and types that exist are cached, since documents never change; missing ones are
looked up again in the next generation.

What this module does not know: how a filter is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, and_, literal, or_, select

from indexer.errors import nearest
from indexer.forks import Lock
from indexer.metadata.connections import undisturbed
from indexer.metadata.database import Database
from indexer.metadata.filter_nodes import Ordered, Place, escaped
from indexer.metadata.filter_sql import compiled, typed
from indexer.metadata.filter_values import SHIFT, Moment
from indexer.metadata.filters import Asked, Filter, Kinds
from indexer.metadata.schema import DocumentRow
from indexer.metadata.time_limit import limited

SAMPLE = 10_000
"""The number of documents in which the nearest field names are searched."""
REMEMBERED = 10_000
DEPTH = 4
EARLIEST = Moment(-SHIFT, "")

TYPES: Mapping[str, tuple[str, ...]] = {
    "number": ("integer", "real", "number"),
    "text": ("text", "string"),
    "boolean": ("true", "false", "boolean"),
    "list": ("array",),
    "object": ("object",),
}
"""The databases' names for the kinds of values."""
INSTEAD = {"id": "ids", "text": "texts"}

Found: TypeAlias = tuple[tuple[Place, ...], Kinds]


class FilterNotes:
    """Notes about the filters of one collection. Threads may share one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._found: set[Found] = set()
        self._notes: dict[tuple[int, Asked], str | None] = {}
        self._names: tuple[int, tuple[str, ...]] = (-1, ())

    def of(self, where: Filter, generation: int) -> tuple[str, ...]:
        """Sentences about a filter, each once; none if all its fields and types exist."""
        notes: dict[str, None] = {}
        for asked in where.asked:
            if (note := self._note(asked, generation)) is not None:
                notes[note] = None
        return tuple(notes)

    def _note(self, asked: Asked, generation: int) -> str | None:
        if asked.places[0].column:
            return None
        with self._lock:
            if (asked.places, asked.kinds) in self._found:
                return None
            if (generation, asked) in self._notes:
                return self._notes[generation, asked]
        note = self._looked_up(asked, generation)
        with self._lock:
            if note is None:
                self._found.add((asked.places, asked.kinds))
            else:
                self._notes[generation, asked] = note
            for cache in (self._found, self._notes):
                if len(cache) > REMEMBERED:
                    cache.clear()
        return note

    def _looked_up(self, asked: Asked, generation: int) -> str | None:
        if self._any(or_(*(self._of_kinds(place, asked.kinds) for place in asked.places)), generation):
            return None
        here = next((place for place in asked.places if asked.kinds and self._kinds(place, generation)), None)
        shown = f"'{asked.name[:80]}'"
        if here is None:
            return f"No document has a field {shown}. {self._instead(asked, generation)}".rstrip()
        stored = _listed(self._kinds(here, generation))
        wanted = _listed(asked.kinds - {"list"} or asked.kinds)
        if stored == "a text" and wanted == "a time":
            stored = "a text that is not an ISO 8601 time"
        return (
            f"{shown} is {stored} in every document that has it; {asked.operator} compares it with {wanted}, "
            "and the two never match."
        )

    def _of_kinds(self, place: Place, kinds: Kinds) -> ColumnElement[bool]:
        dialect = self._database.engine.dialect.name
        kind, _ = typed(place, dialect)
        if not kinds:
            there: ColumnElement[bool] = kind != "null"
            return there
        names = [name for each in kinds for name in TYPES.get(each, ())]
        conditions: list[ColumnElement[bool]] = [kind.in_(names)]
        if "time" in kinds:
            conditions.append(compiled(Ordered(place, ">=", EARLIEST), dialect))
        return or_(*conditions)

    @undisturbed
    def _any(self, condition: ColumnElement[bool], generation: int) -> bool:
        query = select(literal(1)).select_from(DocumentRow).where(_alive(generation), condition).limit(1)
        with self._database.read() as connection, limited(connection):
            return connection.execute(query).first() is not None

    @undisturbed
    def _kinds(self, place: Place, generation: int) -> Kinds:
        kind, _ = typed(place, self._database.engine.dialect.name)
        with self._database.read() as connection, limited(connection):
            found = set(connection.execute(select(kind).where(_alive(generation)).distinct()).scalars())
        return frozenset(each for each, names in TYPES.items() if found & set(names))

    def _instead(self, asked: Asked, generation: int) -> str:
        name = asked.name.casefold().strip("_ ")
        if name in INSTEAD:
            return f'To filter by documents\' {INSTEAD[name]}, write {{"${name}": ...}}.'
        near = nearest(asked.name, self._names_of(generation))
        return f"Did you mean {' or '.join(repr(each).replace(chr(92) * 2, chr(92)) for each in near)}?" if near else ""

    @undisturbed
    def _names_of(self, generation: int) -> tuple[str, ...]:
        """The names of fields, nested ones as paths; if there are many documents, of the newest only."""
        with self._lock:
            known, names = self._names
        if known == generation:
            return names
        query = select(DocumentRow.fields).where(_alive(generation)).order_by(DocumentRow.key.desc()).limit(SAMPLE)
        with self._database.read() as connection:
            names = tuple(dict.fromkeys(name for row in connection.execute(query) for name in _paths(row[0])))
        with self._lock:
            self._names = generation, names
        return names


def _alive(generation: int) -> ColumnElement[bool]:
    lives = or_(DocumentRow.died.is_(None), DocumentRow.died > generation)
    return and_(DocumentRow.born <= generation, lives)


def _paths(fields: Any, before: str = "", depth: int = 0) -> Iterator[str]:
    if not isinstance(fields, dict) or depth == DEPTH:
        return
    for name, value in fields.items():
        if value is None:
            continue
        path = before + escaped(name)
        yield path
        yield from _paths(value, f"{path}.", depth + 1)


def _listed(kinds: Kinds) -> str:
    """`a text or an object`."""
    return " or ".join(sorted(f"an {each}" if each[0] in "aeio" else f"a {each}" for each in kinds))
