"""Evaluate a filter, written once for everything that can read documents' values.

SQL of either database (`filter_sqlite.py`, `filter_postgres.py`) and columns in memory (`columns.py`) are `Fields`.

What this module does not know: how a filter is written, how values are read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from operator import ge, gt, le, lt
from typing import Any, Generic, TypeVar

from indexer.metadata.filter_nodes import All, Either, Equal, Holds, Listed, Node, Opposite, Ordered, Place, Present
from indexer.metadata.filter_values import Bound, Values

T = TypeVar("T")

SIGNS: dict[str, Callable[[Any, Any], Any]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


class Fields(ABC, Generic[T]):
    """How values are read, and what conditions on them are made of.

    Every condition is true or false of a document, never neither, so that its opposite is sound.
    """

    @abstractmethod
    def present(self, place: Place) -> T:
        """The value is there and not null."""

    @abstractmethod
    def equal(self, place: Place, values: Values) -> T:
        """The value is one of these, or a list that has one."""

    @abstractmethod
    def listed(self, place: Place, values: Values) -> T:
        """The value is a list that has one of these."""

    @abstractmethod
    def ordered(self, place: Place, sign: str, bound: Bound) -> T:
        """The value is of the bound's type and stands so to it; the sign is one of `SIGNS`."""

    @abstractmethod
    def holds(self, place: Place, text: str, start: bool) -> T:
        """The value is a text that has this part; at the start, it may be a list of which an element begins so."""

    @abstractmethod
    def all(self, conditions: Sequence[T]) -> T:
        """All of them hold; of none, always."""

    @abstractmethod
    def any(self, conditions: Sequence[T]) -> T:
        """One of them holds; of none, never."""

    @abstractmethod
    def opposite(self, condition: T) -> T:
        """It does not hold."""


def evaluate(node: Node, fields: Fields[T]) -> T:
    """What a filter comes to over some fields."""
    match node:
        case Present(place):
            return fields.present(place)
        case Equal(place, values):
            return fields.equal(place, values) if len(values) else fields.any([])
        case Listed(place, values):
            return fields.listed(place, values)
        case Ordered(place, sign, bound):
            return fields.ordered(place, sign, bound)
        case Holds(place, text, start):
            return fields.holds(place, text, start)
        case All(parts):
            return fields.all([evaluate(part, fields) for part in parts])
        case Either(parts):
            return fields.any([evaluate(part, fields) for part in parts])
        case Opposite(part):
            return fields.opposite(evaluate(part, fields))
