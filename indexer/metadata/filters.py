r"""`where`, the language of filters: `{"price": {"$lt": 50}, "style": {"$in": ["flat", "3D"]}}` over documents' fields.

    {"field": value}                     equal (a list field matches if any element is equal)
    {"field": {"$op": operand, ...}}     $eq $ne $lt $lte $gt $gte $in $nin $exists $contains $startsWith
    {"$id": ...} {"$text": ...}          the same of a document's id and text
    {"$and": [...]} {"$or": [...]} {"$not": {...}}
    {"$date": "2024-01-02T00:00:00Z"}    an operand that compares only with times
    "a.b"                                the field of that name, else `b` inside `a`
    "a\.b" "\$a"                           a backslash escapes the next character

`docs/filters.md` explains them. This module parses and checks filters; `evaluate` in `filter_engine.py` evaluates them.

What this module does not know: databases, columns.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np

from indexer.errors import FilterError, did_you_mean
from indexer.metadata.database import storable
from indexer.metadata.filter_nodes import (
    COLUMNS,
    ID,
    All,
    Either,
    Equal,
    Holds,
    Listed,
    Node,
    Opposite,
    Ordered,
    Place,
    Present,
    escaped,
)
from indexer.metadata.filter_values import Bound, Moment, TextBound, Values, forms, moment, moment_of, nfc

Where: TypeAlias = Mapping[str, Any]

MAX_DEPTH = 16
MAX_OPERANDS = 10_000
MAX_CONDITIONS = 100
"""Conditions of one filter: SQLite refuses expressions more than 1,000 deep, a condition may take six terms, and a list
of ORs is as deep as it is long."""
MAX_PARTS = 100
"""Names in a path: the deepest nesting of stored fields."""
MAX_CHARACTERS = 1_000_000
"""Characters of all texts of one filter."""
MAX_BITS = 13_000
"""Bits of a whole number: Python writes at most 4,300 digits."""


Kinds: TypeAlias = frozenset[str]
NUMBERS, TEXTS, TRUTHS, LISTS, TIMES = (frozenset({each}) for each in ("number", "text", "boolean", "list", "time"))


@dataclass(frozen=True)
class Asked:
    """One condition as written, for notes about it.

    Attributes:
        name: The field's name as written.
        places: The places where it is looked for, in order.
        operator: Its operator; `$eq` if none was written.
        kinds: The kinds of value that it can match; empty for any.
    """

    name: str
    places: tuple[Place, ...]
    operator: str
    kinds: Kinds


@dataclass(frozen=True)
class Filter:
    """A parsed filter.

    Attributes:
        node: Its syntax tree; equal for filters with the same meaning.
        asked: Its conditions in order.
    """

    node: Node
    asked: tuple[Asked, ...] = field(compare=False)


def parse(where: Where) -> Filter:
    """Parse a filter.

    Raises:
        FilterError: An unknown operator, an operand of the wrong type, a bad field name, too deep a nesting, or more
            than a database can run.
    """
    reader = _Reader()
    return Filter(reader.whole(where, 0), tuple(reader.asked))


def split(name: str) -> tuple[str, ...]:
    """The names in a path, without the backslashes that escape a character.

    Raises:
        FilterError: A trailing backslash, too many names, or a character that no stored name can have.
    """
    if not storable(name):
        raise FilterError(f"{_shown(name)} is not a field name: it contains a NUL or half a surrogate pair.")
    keys, key, rest = [], "", iter(name)
    for character in rest:
        if character == ".":
            keys.append(key)
            key = ""
        elif character == "\\":
            following = next(rest, None)
            if following is None:
                raise FilterError(
                    f"{_shown(name)} ends in a backslash, which escapes the next character.",
                    "Write two for a backslash that belongs to the name.",
                )
            key += following
        else:
            key += character
    if len(keys) >= MAX_PARTS:
        raise FilterError(f"A path has at most {MAX_PARTS} names; {_shown(name)} has {len(keys) + 1}.")
    return (*keys, key)


def places_of(name: str) -> tuple[Place, ...]:
    """The places where a field of that name is looked for; the first one with a value counts.

    A name with a dot may be a field's whole name. Collections from before names were stored in form C may have names
    in other forms.
    """
    keys = split(name)
    paths = [(name,), keys] if len(keys) > 1 and "\\" not in name else [keys]
    every = [[forms(key) for key in path] for path in paths]
    several = [tuple(each[min(number, len(each) - 1)] for each in path) for path in every for number in range(3)]
    return tuple(Place(path) for path in dict.fromkeys(several))


class _Reader:
    """A parser of one filter that counts its size."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._conditions = 0
        self._characters = 0

    def whole(self, where: Any, depth: int) -> Node:
        """A filter, or one inside another."""
        if depth > MAX_DEPTH:
            raise FilterError(f"The filter is nested more than {MAX_DEPTH} deep.")
        if not isinstance(where, Mapping):
            raise FilterError(
                f"A filter is an object, not {_shown(where)}.",
                'Write for example {"style": "flat", "price": {"$lt": 50}}.',
            )
        if not where:
            self._count(1)
        parts: list[Node] = []
        for name, operand in where.items():
            if not isinstance(name, str):
                raise FilterError(f"A field's name is a text, not {_shown(name)}.")
            if name in ("$and", "$or"):
                if not isinstance(operand, Sequence) or isinstance(operand, str | bytes) or not operand:
                    raise FilterError(f"{name} takes a list of filters, not {_shown(operand)}.")
                inner = tuple(self.whole(each, depth + 1) for each in operand)
                parts.append(All(inner) if name == "$and" else Either(inner))
            elif name == "$not":
                parts.append(Opposite(self.whole(operand, depth + 1)))
            elif name.startswith("$") and name not in COLUMNS:
                raise FilterError(
                    f"{_shown(name)} is not known here.",
                    did_you_mean(name, ["$and", "$or", "$not", *COLUMNS])
                    + f", or a field's name; write {escaped(name)[:80]} for a field of that name.",
                )
            else:
                parts.append(self._field(name, operand))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _field(self, name: str, operand: Any) -> Node:
        self._length(name)
        places = (COLUMNS[name],) if name in COLUMNS else places_of(name)
        if not isinstance(operand, Mapping) or "$date" in operand:
            operand = {"$eq": operand}
        if not operand:
            raise FilterError(f"The filter on {_shown(name)} is empty.", f"Known operators: {', '.join(_OPERATORS)}.")
        self._count(len(operand))
        parts = []
        for operator, value in operand.items():
            if not isinstance(operator, str) or operator not in _OPERATORS:
                raise FilterError(
                    f"The operator {_shown(operator)} on {_shown(name)} is not known here.",
                    did_you_mean(str(operator), list(_OPERATORS)) + "; around whole filters: $and, $or, $not.",
                )
            make, kinds = _OPERATORS[operator](self, operator, value, places[0])
            self.asked.append(Asked(name, places, operator, kinds))
            parts.append(_first_of(places, make))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def equal(self, operator: str, value: Any, place: Place) -> _Made:
        """`$eq`."""
        if value is None:
            return lambda where: Opposite(Present(where)), frozenset()
        values = self._values(operator, [value], place)
        return lambda where: Equal(where, values), _kinds(values)

    def among(self, operator: str, values: Any, place: Place) -> _Made:
        """`$in`."""
        if isinstance(values, np.ndarray):
            values = values.tolist()
        if not isinstance(values, Sequence | Set) or isinstance(values, str | bytes):
            raise FilterError(f"{operator} takes a list, not {_shown(values)}.")
        if len(values) > MAX_OPERANDS:
            raise FilterError(f"{operator} takes at most {MAX_OPERANDS} values; there are {len(values)}.")
        some = [value for value in values if value is not None]
        wanted = self._values(operator, some, place)
        if len(some) == len(values):
            return lambda where: Equal(where, wanted), _kinds(wanted)
        return lambda where: Either((Equal(where, wanted), Opposite(Present(where)))), frozenset()

    def exists(self, operator: str, value: Any, _place: Place) -> _Made:
        """`$exists`."""
        if not isinstance(value, bool | np.bool_):
            raise FilterError(f"{operator} takes true or false, not {_shown(value)}.")
        return (Present if value else lambda where: Opposite(Present(where))), frozenset()

    def contains(self, operator: str, value: Any, place: Place) -> _Made:
        """`$contains`: an element of a list, or a part of a text."""
        values = self._values(operator, [value], place)
        if not isinstance(value, str):
            if place.column:
                raise FilterError(f"{operator} on {place} takes a text, not {_shown(value)}.")
            return lambda where: Listed(where, values), LISTS
        text = nfc(value)
        if place.column:
            return lambda where: Holds(where, text, start=False), frozenset()
        return lambda where: Either((Listed(where, values), Holds(where, text, start=False))), TEXTS | LISTS

    def starts(self, operator: str, value: Any, _place: Place) -> _Made:
        """`$startsWith`: of a text, or of a text in a list."""
        if not isinstance(value, str):
            raise FilterError(f"{operator} takes a text, not {_shown(value)}.")
        text = nfc(self._scalar(operator, value))
        return lambda where: Holds(where, text, start=True), TEXTS | LISTS

    def ordered(self, sign: str) -> Callable[[str, Any, Place], _Made]:
        """`$lt`, `$lte`, `$gt` and `$gte`."""

        def make(operator: str, value: Any, place: Place) -> _Made:
            plain = self._scalar(operator, value)
            if isinstance(plain, bool) or (place.column and not isinstance(plain, str)):
                among = "texts" if place.column else "numbers, texts or times"
                raise FilterError(f"{operator} on {place} compares {among}; {_shown(value)} is not one of them.")
            bound: Bound = (
                TextBound(nfc(plain), None if place.column else moment(plain)) if isinstance(plain, str) else plain
            )
            kinds = TIMES if isinstance(bound, Moment) else TEXTS if isinstance(bound, TextBound) else NUMBERS
            return lambda where: Ordered(where, sign, bound), kinds

        return make

    def _values(self, operator: str, values: Sequence[Any] | Set[Any], place: Place) -> Values:
        plain = [self._scalar(operator, value) for value in values]
        if not place.column:
            return Values.of(plain)
        for value in plain:
            if not isinstance(value, str):
                raise FilterError(f"{operator} on {place} takes texts, not {_shown(value)}.")
        return Values(texts=tuple(form for each in plain for form in (forms(each) if place is ID else (nfc(each),))))

    def _scalar(self, operator: str, value: Any) -> Any:
        """A boolean, a number, a text or a `Moment`, as plain Python values."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, Mapping) and set(value) == {"$date"}:
            return _date(value["$date"])
        if isinstance(value, date):
            return _date(value)
        if isinstance(value, Decimal):
            value = int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
        if not isinstance(value, bool | int | float | str):
            raise FilterError(f"{operator} takes a text, a number, a boolean or a date, not {_shown(value)}.")
        if isinstance(value, float) and not -float("inf") < value < float("inf"):
            raise FilterError(f"{operator} takes a finite number, not {value}.")
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise FilterError(f"{operator} takes a number of at most {MAX_BITS} bits; one has {value.bit_length()}.")
        if isinstance(value, str):
            if not storable(value):
                raise FilterError(f"{operator}: the text contains a NUL or half a surrogate pair; no stored text can.")
            self._length(value)
        return value

    def _count(self, more: int) -> None:
        """Refuse a filter that is too large for the databases."""
        self._conditions += more
        if self._conditions > MAX_CONDITIONS:
            raise FilterError(
                f"The filter has more than {MAX_CONDITIONS} conditions.", "Use $in for many values of one field."
            )

    def _length(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise FilterError(f"The texts of the filter have more than {MAX_CHARACTERS:,} characters in all.")


Make: TypeAlias = Callable[[Place], Node]
_Made: TypeAlias = tuple[Make, Kinds]


def _not(make: Callable[[_Reader, str, Any, Place], _Made]) -> Callable[[_Reader, str, Any, Place], _Made]:
    def opposite(reader: _Reader, operator: str, value: Any, place: Place) -> _Made:
        inner, kinds = make(reader, operator, value, place)
        return lambda where: Opposite(inner(where)), kinds

    return opposite


def _order(sign: str) -> Callable[[_Reader, str, Any, Place], _Made]:
    return lambda reader, operator, value, place: reader.ordered(sign)(operator, value, place)


_OPERATORS: dict[str, Callable[[_Reader, str, Any, Place], _Made]] = {
    "$eq": _Reader.equal,
    "$ne": _not(_Reader.equal),
    "$lt": _order("<"),
    "$lte": _order("<="),
    "$gt": _order(">"),
    "$gte": _order(">="),
    "$in": _Reader.among,
    "$nin": _not(_Reader.among),
    "$exists": _Reader.exists,
    "$contains": _Reader.contains,
    "$startsWith": _Reader.starts,
}


def _first_of(places: Sequence[Place], make: Make) -> Node:
    """The condition on the first place that has a value, or on the last."""
    place, *rest = places
    if not rest:
        return make(place)
    here = Present(place)
    return Either((All((here, make(place))), All((Opposite(here), _first_of(rest, make)))))


def _kinds(values: Values) -> Kinds:
    """The kinds of value that can equal one of these."""
    found = LISTS if len(values) else frozenset()
    for some, kinds in (
        (values.truths, TRUTHS),
        (values.numbers, NUMBERS),
        (values.texts, TEXTS),
        (values.moments, TIMES),
    ):
        if some:
            found |= kinds
    return found


def _date(value: Any) -> Moment:
    at = None
    if isinstance(value, date):
        with suppress(ValueError):  # pandas' NaT
            at = moment_of(value)
    elif isinstance(value, str):
        at = moment(value)
    if at is None:
        raise FilterError(
            f"$date takes an ISO 8601 date or time, not {_shown(value)}.",
            'Write for example {"$date": "2024-01-02"} or {"$date": "2024-01-02T12:30:00+01:00"}.',
        )
    return at


def _shown(value: Any) -> str:
    """A value for a message: its type and its beginning, of limited length."""
    shown = _SHORT.repr(value)
    return shown if isinstance(value, str) else f"{type(value).__name__} {shown}"


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """A whole number, which Python may refuse to write if it is very long."""
        return super().repr_int(x, level) if x.bit_length() <= MAX_BITS else f"of {x.bit_length()} bits"


_SHORT = _Short()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 80, 60, 40
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = 3
