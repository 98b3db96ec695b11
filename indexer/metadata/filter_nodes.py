"""The syntax tree of filters: which values of a document are compared, and how.

Filters with the same meaning have equal trees.

What this module does not know: how a filter is written, how values are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from indexer.metadata.filter_values import Bound, Values


@dataclass(frozen=True)
class Place:
    """The place of a value in a document.

    Attributes:
        keys: Names of fields, outermost first; or `("$id",)`, `("$text",)`.
        column: Whether it is the document's id or text instead of a field.
    """

    keys: tuple[str, ...]
    column: bool = False

    def __str__(self) -> str:
        return self.keys[0] if self.column else ".".join(map(escaped, self.keys))


ID, TEXT = Place(("$id",), column=True), Place(("$text",), column=True)
COLUMNS = {place.keys[0]: place for place in (ID, TEXT)}


@dataclass(frozen=True)
class Present:
    """The value exists and is not null."""

    place: Place


@dataclass(frozen=True)
class Equal:
    """The value is one of these, or a list that contains one."""

    place: Place
    values: Values


@dataclass(frozen=True)
class Listed:
    """The value is a list that contains one of these."""

    place: Place
    values: Values


@dataclass(frozen=True)
class Ordered:
    """The value has the bound's type and compares with it as the sign says: `<`, `<=`, `>` or `>=`."""

    place: Place
    sign: str
    bound: Bound


@dataclass(frozen=True)
class Holds:
    """The value is a text that contains this one, or begins with it; in form C."""

    place: Place
    text: str
    start: bool


@dataclass(frozen=True)
class All:
    """All of them hold; true if there are none."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Either:
    """One of them holds; false if there are none."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Opposite:
    """It does not hold."""

    part: Node


Node: TypeAlias = Present | Equal | Listed | Ordered | Holds | All | Either | Opposite


def escaped(name: str) -> str:
    """A field's name, escaped as in a filter."""
    name = re.sub(r"([.\\])", r"\\\1", name)
    return f"\\{name}" if name.startswith("$") else name
