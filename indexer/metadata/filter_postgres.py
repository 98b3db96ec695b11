"""Filters in PostgreSQL, over `jsonb`.

What this module does not know: how a filter is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    Integer,
    Numeric,
    Text,
    and_,
    any_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, JSONPATH

from indexer.metadata.database import to_json
from indexer.metadata.filter_engine import SIGNS, Fields, evaluate
from indexer.metadata.filter_nodes import ID, Node, Place
from indexer.metadata.filter_values import SHIFT, TIME_PATTERN, Bound, Moment, TextBound, Values
from indexer.metadata.schema import DocumentRow

Condition = ColumnElement[bool]

CHAINED = 8
"""The longest path written as operators; SQLAlchemy cannot compile deeper nesting."""


class _Read(NamedTuple):
    """SQL for a value's type ("null" if it is missing), for the value as jsonb, and as a text."""

    kind: Any
    value: Any
    text: Any


def compiled(node: Node) -> Condition:
    """The condition on `documents` for a filter."""
    return evaluate(node, _PostgresFields())


def typed(place: Place) -> tuple[Any, Any]:
    """SQL for the type of a value and for the value."""
    read = _read(place)
    return read.kind, read.text if place.column else read.value


class _PostgresFields(Fields[Condition]):
    """Conditions on `documents` in PostgreSQL's SQL."""

    def present(self, place: Place) -> Condition:
        there: Condition = _read(place).kind != "null"
        return there

    def equal(self, place: Place, values: Values) -> Condition:
        if place == ID:
            return DocumentRow.id == any_(_texts(values.texts))
        same = _equal_scalar(_read(place), values)
        return same if place.column else or_(same, self.listed(place, values))

    def listed(self, place: Place, values: Values) -> Condition:
        return _has(place, lambda element: _equal_scalar(element, values))

    def ordered(self, place: Place, sign: str, bound: Bound) -> Condition:
        read, compare = _read(place), SIGNS[sign]
        if isinstance(bound, Moment):
            return and_(read.kind == "string", func.coalesce(compare(_moment_of(read.text), _instant(bound)), false()))
        if isinstance(bound, TextBound):
            # Compared as bytes, as in SQLite; jsonb itself would use the database's collation.
            compared = compare(_said(read.text).collate("C"), literal(bound.text))
            if bound.moment is not None:
                compared = func.coalesce(compare(_moment_of(read.text), _instant(bound.moment)), compared)
            return and_(read.kind == "string", func.coalesce(compared, false()))
        return and_(read.kind == "number", func.coalesce(compare(read.value, _json(bound)), false()))

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


def _read(place: Place) -> _Read:
    if place.column:
        column: Any = DocumentRow.id if place == ID else DocumentRow.text
        return _Read(case((column.is_(None), "null"), else_="string"), null(), column)
    value: Any = DocumentRow.fields
    if len(place.keys) > CHAINED:
        # Strict, since a lax path would look into lists; silent, since a strict path fails on missing values.
        path = "strict $" + "".join("." + to_json(key) for key in place.keys)
        value = func.jsonb_path_query_first(value, cast(literal(path, Text), JSONPATH), _json({}), true(), type_=JSONB)
    else:
        # Not jsonb_extract_path, for which "0" is also the first element of a list.
        for key in place.keys:
            value = value.op("->", return_type=JSONB())(cast(literal(key), Text))
    return _of(value)


def _of(value: Any) -> _Read:
    text = value.op("#>>", return_type=Text())(cast(literal("{}"), ARRAY(Text)))
    return _Read(func.coalesce(func.jsonb_typeof(value), "null"), value, text)


def _has(place: Place, condition: Callable[[_Read], Condition]) -> Condition:
    """The value is a list, and the condition holds for one of its elements."""
    read = _read(place)
    array = case((read.kind == "array", read.value), else_=_json([]))
    rows = func.jsonb_array_elements(array).table_valued("value")
    element = _of(rows.c.value.cast(JSONB))
    return exists(select(literal(1)).select_from(rows).where(condition(element)))


def _equal_scalar(read: _Read, values: Values) -> Condition:
    """The operands are one array for all rows, in which PostgreSQL looks values up without expanding it."""
    conditions: list[Condition] = []
    if values.texts:
        conditions.append(
            and_(read.kind == "string", func.coalesce(_said(read.text) == any_(_texts(values.texts)), false()))
        )
    if values.moments:
        instants = cast(_texts([each.key for each in values.moments]), ARRAY(Numeric))
        conditions.append(and_(read.kind == "string", func.coalesce(_moment_of(read.text) == any_(instants), false())))
    plain = [*values.numbers, *values.truths]
    if plain:
        same = read.value == any_(cast(_texts([to_json(each) for each in plain]), ARRAY(JSONB)))
        conditions.append(func.coalesce(same, false()))
    return or_(false(), *conditions)


def _holds(read: _Read, text: str, start: bool) -> Condition:
    said = _said(read.text)
    found = func.starts_with(said, text) if start else func.strpos(said, text) > 0
    return and_(read.kind == "string", func.coalesce(found, false()))


def _said(text: Any) -> Any:
    """A text in form C; if it has as many bytes as characters, it is ASCII."""
    return case((func.octet_length(text) == func.char_length(text), text), else_=func.normalize(text))


def _moment_of(text: Any) -> Any:
    """The key of the instant that a text names, as a number, or NULL. A cast would fail on February 30."""

    def number(value: Any) -> Any:
        return cast(value, Integer)

    def part(start: int) -> Any:
        return func.coalesce(number(func.nullif(func.substr(text, start, 2), "")), 0)

    month = number(func.substr(text, 6, 2))
    day = func.make_date(number(func.substr(text, 1, 4)), month, 1) + number(func.substr(text, 9, 2)) - 1
    second = func.replace(func.substring(text, "^.{16}:([0-9.,]+)"), ",", ".")
    offset = func.substring(text, "^.{11}.*([+-][0-9:]+)$")
    minutes = func.nullif(func.substr(func.replace(offset, ":", ""), 4, 2), "")
    shift = (
        number(func.substr(offset, 1, 3)) * 3600
        + number(func.substr(offset, 1, 1).concat(func.coalesce(minutes, "0"))) * 60
    )
    seconds = (
        literal_column(str(SHIFT))
        + cast(day - cast(literal("1970-01-01"), Date), BigInteger) * 86_400
        + part(12) * 3600
        + part(15) * 60
        + func.coalesce(cast(second, Numeric), 0)
        - func.coalesce(shift, 0)
    )
    named = case((func.extract("month", day) == month, seconds), else_=null())
    return case((text.regexp_match(TIME_PATTERN), named), else_=null())


def _instant(moment: Moment) -> Any:
    return cast(literal(moment.key, Text), Numeric)


def _texts(values: Sequence[str]) -> Any:
    return cast(literal(list(values), ARRAY(Text)), ARRAY(Text))


def _json(value: Any) -> Any:
    # As text, cast by the server: a JSONB parameter would be serialized twice.
    return cast(literal(to_json(value), Text), JSONB)
