"""Filters in SQLite: JSON paths if SQL compares correctly, otherwise our own functions.

SQLite has no Unicode normal forms and no time zone offsets, and reads whole numbers beyond 64 bits as floats. Such
values go to the functions of `filter_functions.py`.

What this module does not know: how a filter is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, exists, false, func, literal, not_, null, or_, select, true

from indexer.metadata.database import to_json
from indexer.metadata.filter_engine import SIGNS, Fields, evaluate
from indexer.metadata.filter_nodes import ID, Node, Place
from indexer.metadata.filter_values import Bound, Moment, Number, TextBound, Values
from indexer.metadata.schema import DocumentRow

Condition = ColumnElement[bool]

NOT_ASCII = "*[^\x01-\x7f]*"
LIKE_A_DATE = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
"""The `GLOB` pattern of texts that the functions check."""
FOLDED = frozenset("K`;")
"""The ASCII characters that equal other characters in form C."""


class _Read(NamedTuple):
    """SQL for a value, for its `json_type` ("null" if it is missing), and for its JSON."""

    kind: Any
    value: Any
    text: Any


def compiled(node: Node) -> Condition:
    """The condition on `documents` for a filter."""
    return evaluate(node, _SqliteFields())


def typed(place: Place) -> tuple[Any, Any]:
    """SQL for the type of a value and for the value."""
    read = _read(place)
    return read.kind, read.value


class _SqliteFields(Fields[Condition]):
    """Conditions on `documents` in SQLite's SQL."""

    def present(self, place: Place) -> Condition:
        there: Condition = _read(place).kind != "null"
        return there

    def equal(self, place: Place, values: Values) -> Condition:
        if place == ID:
            return DocumentRow.id.in_(values.texts if len(values) == 1 else _each(values.texts))
        same = _equal_scalar(_read(place), values)
        return same if place.column else or_(same, self.listed(place, values))

    def listed(self, place: Place, values: Values) -> Condition:
        return _has(place, lambda element: _equal_scalar(element, values))

    def ordered(self, place: Place, sign: str, bound: Bound) -> Condition:
        read, compare = _read(place), SIGNS[sign]
        if isinstance(bound, Moment):
            return and_(func.coalesce(compare(_moment_of(read.value), bound.key), false()), read.kind == "text")
        if isinstance(bound, TextBound):
            compared = compare(_said(read.value), bound.text)
            if bound.moment is not None:
                compared = func.coalesce(compare(_moment_of(read.value), bound.moment.key), compared)
            return and_(func.coalesce(compared, false()), read.kind == "text")
        exactly = compare(func.underdrawing_order(read.text, to_json(bound)), 0)
        if not _fits(bound):
            return case((read.kind.in_(("integer", "real")), exactly), else_=false())
        compared = case((_too_large(read), exactly), else_=compare(read.value, _parsed(bound)))
        return and_(func.coalesce(compared, false()), read.kind.in_(("integer", "real")))

    def holds(self, place: Place, text: str, start: bool) -> Condition:
        here = _holds(_read(place), text, start)
        if place.column or not start:
            return here
        return or_(here, _has(place, lambda element: _holds(element, text, start)))

    def all(self, conditions: Sequence[Condition]) -> Condition:
        return and_(true(), *conditions)

    def any(self, conditions: Sequence[Condition]) -> Condition:
        return or_(false(), *conditions)

    def opposite(self, condition: Condition) -> Condition:
        return not_(condition)


def _source(place: Place) -> tuple[Any, str]:
    """A JSON document and the path of a value in it."""
    # A path names a key as stored, with its escapes, except for quotes: SQLite up to 3.45 allows none in a path.
    if any('"' in key for key in place.keys):
        return func.underdrawing_at(DocumentRow.fields, to_json(list(place.keys))), "$"
    return DocumentRow.fields, "$" + "".join("." + json.dumps(key, ensure_ascii=False) for key in place.keys)


def _read(place: Place) -> _Read:
    if place.column:
        column: Any = DocumentRow.id if place == ID else DocumentRow.text
        return _Read(case((column.is_(None), "null"), else_="text"), column, null())
    source, path = _source(place)
    kind = func.coalesce(func.json_type(source, path), "null")
    # JSON_EXTRACT gives true and false as 1 and 0: the type keeps them apart from numbers. Of two paths it gives JSON,
    # in which large whole numbers are as they were written.
    return _Read(kind, func.json_extract(source, path), func.json_extract(source, path, path))


def _has(place: Place, condition: Callable[[_Read], Condition]) -> Condition:
    """The value is a list, and the condition holds for one of its elements."""
    source, path = _source(place)
    rows = func.json_each(source, path).table_valued("value", "type", "fullkey")
    element = _Read(rows.c.type, rows.c.value, func.json_extract(source, rows.c.fullkey, rows.c.fullkey))
    inside = exists(select(literal(1)).select_from(rows).where(condition(element)))
    return and_(_read(place).kind == "array", inside)


def _equal_scalar(read: _Read, values: Values) -> Condition:
    # The type comes second, so that only equal values are asked: SQLite stops at the first false condition.
    conditions: list[Condition] = []
    if values.texts:
        # Nearly all texts are in form C already; others are normalized only if that could make them equal.
        plain = all(each.isascii() and FOLDED.isdisjoint(each) for each in values.texts)
        conditions.append(and_(_among(read.value if plain else _said(read.value), values.texts), read.kind == "text"))
    if values.moments:
        keys = [each.key for each in values.moments]
        conditions.append(and_(_among(_moment_of(read.value), keys), read.kind == "text"))
    if values.numbers:
        conditions.append(_equal_number(read, values.numbers))
    conditions += [read.kind == ("true" if value else "false") for value in values.truths]
    return or_(false(), *conditions)


def _holds(read: _Read, text: str, start: bool) -> Condition:
    said = _said(read.value)
    found = func.substr(said, 1, len(text)) == text if start else func.instr(said, text) > 0
    return and_(func.coalesce(found, false()), read.kind == "text")


def _said(value: Any) -> Any:
    """A text in form C."""
    return case((value.op("GLOB", is_comparison=True)(NOT_ASCII), func.underdrawing_nfc(value)), else_=value)


def _moment_of(value: Any) -> Any:
    """The key of the instant that a text names, or NULL."""
    return case((value.op("GLOB", is_comparison=True)(LIKE_A_DATE), func.underdrawing_moment(value)), else_=null())


def _among(value: Any, texts: Sequence[str]) -> Condition:
    compared = value == texts[0] if len(texts) == 1 else value.in_(_each(texts))
    return func.coalesce(compared, false()) == true()


def _each(values: Sequence[Any]) -> Any:
    return select(func.json_each(to_json(list(values))).table_valued("value").c.value)


def _equal_number(read: _Read, numbers: Sequence[Number]) -> Condition:
    fitting = [each for each in numbers if _fits(each)]
    if not fitting:
        plainly: Any = false()
    elif len(fitting) == 1:
        plainly = read.value == _parsed(fitting[0])
    else:
        plainly = read.value.in_(_each(fitting))
    exactly = func.underdrawing_equal(read.text, to_json(list(numbers))) == true()
    # A float may be as large as a whole number that does not fit.
    hard = _too_large(read) if len(fitting) == len(numbers) else _beyond(read)
    return and_(
        func.coalesce(case((hard, exactly), else_=plainly), false()) == true(), read.kind.in_(("integer", "real"))
    )


def _too_large(read: _Read) -> Condition:
    """A whole number that SQLite has turned into a float."""
    found: Condition = and_(func.typeof(read.value) == "real", read.kind == "integer")
    return found


def _beyond(read: _Read) -> Condition:
    found: Condition = and_(func.typeof(read.value) == "real", func.abs(read.value) >= 2.0**63)
    return found


def _fits(number: Number) -> bool:
    return isinstance(number, float) or -(2**63) <= number < 2**63


def _parsed(number: Number) -> Any:
    # Floats go through SQLite's own parser, like the stored ones: it may differ from Python's in the last digit.
    return func.json_extract(to_json(number), "$") if isinstance(number, float) else literal(number)
