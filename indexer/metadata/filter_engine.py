"""The evaluation of filters, shared by SQL and in-memory columns.

SQL of both databases (`filter_sqlite.py`, `filter_postgres.py`) and columns (`filter_columns.py`) implement `Fields`.

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
    """The operations that a filter needs: conditions on values, and their combinations.

    Every condition is true or false for a document, never undefined, so negation is sound.
    """

    @abstractmethod
    def present(self, place: Place) -> T:
        """The value exists and is not null."""

    @abstractmethod
    def equal(self, place: Place, values: Values) -> T:
        """The value is one of these, or a list that contains one."""

    @abstractmethod
    def listed(self, place: Place, values: Values) -> T:
        """The value is a list that contains one of these."""

    @abstractmethod
    def ordered(self, place: Place, sign: str, bound: Bound) -> T:
        """The value has the bound's type and compares with it as the sign says, one of `SIGNS`."""

    @abstractmethod
    def holds(self, place: Place, text: str, start: bool) -> T:
        """The value is a text with this part; with `start`, a text that begins so, or a list with such a text."""

    @abstractmethod
    def all(self, conditions: Sequence[T]) -> T:
        """All of them hold; true if there are none."""

    @abstractmethod
    def any(self, conditions: Sequence[T]) -> T:
        """One of them holds; false if there are none."""

    @abstractmethod
    def opposite(self, condition: T) -> T:
        """It does not hold."""


def evaluate(node: Node, fields: Fields[T]) -> T:
    """Evaluate a filter over some fields."""
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
