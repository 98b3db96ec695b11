"""`where` to SQL: `{"price": {"$lt": 50}, "style": {"$in": ["flat", "3D"]}}` over a document's fields.

    {"field": value}                     equal (a list field matches if any element is equal)
    {"field": {"$op": operand, ...}}     $eq $ne $lt $lte $gt $gte $in $nin $exists $contains
    {"$and": [...]} {"$or": [...]} {"$not": {...}}
    "a.b"                                reaches into nested objects

Comparisons are between equal types: `$lt: 50` never matches the text "40". `$ne`, `$nin` and `$not` also match
documents that lack the field, and a field that is null counts as lacking. Texts are ordered by code point. Names reach
into objects only, never into lists. Field names and values are always bound parameters.

What a filter means is written once (`evaluate`); how fields are read is a `Fields`: SQL of either database here, and
columns in memory in `columns.py`.

What this module does not know: anything but the `documents` table.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import eq, ge, gt, le, lt
from typing import Any, Generic, TypeAlias, TypeVar

from sqlalchemy import ColumnElement, Text, and_, case, cast, exists, false, func, literal, not_, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from indexer.errors import FilterError
from indexer.store.database import storable, to_json
from indexer.store.schema import DocumentRow

Where: TypeAlias = Mapping[str, Any]
Condition: TypeAlias = ColumnElement[bool]
T = TypeVar("T")

_MAX_DEPTH = 16
_MAX_OPERANDS = 10_000
_MAX_CONDITIONS = 100
"""Of one filter: SQLite refuses expressions more than 1,000 deep, each condition may take six terms, and a list of
ORs is as deep as it is long."""


def compile_where(where: Where, dialect: str) -> Condition:
    """The SQL condition over `documents` that a `where` stands for.

    Args:
        where: See the module.
        dialect: `sqlite` or `postgresql`.

    Raises:
        FilterError: An unknown operator, an operand of the wrong type, a bad field name, or too deep a nesting.
    """
    return evaluate(where, _PostgresFields() if dialect == "postgresql" else _SqliteFields())


def column(keys: list[str], dialect: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """SQL for what the database calls the type of a field, and for the field's value; NULL where it is missing."""
    if dialect == "postgresql":
        found = _PostgresFields().value(keys)
        return func.jsonb_typeof(found), found
    return func.json_type(DocumentRow.fields, _path(keys)), func.json_extract(DocumentRow.fields, _path(keys))


def evaluate(where: Where, fields: Fields[T]) -> T:
    """What a `where` comes to over some fields; raises as `compile_where`."""
    return _compile(where, fields, 0)


def _compile(where: Any, fields: Fields[T], depth: int) -> T:
    if depth > _MAX_DEPTH:
        raise FilterError(f"The filter is nested more than {_MAX_DEPTH} deep.")
    if not isinstance(where, Mapping):
        raise FilterError(
            f"A filter is an object, not {_shown(where)}.",
            'Write for example {"style": "flat", "price": {"$lt": 50}}.',
        )
    if not where:
        fields.count(1)
    conditions: list[T] = []
    for name, operand in where.items():
        if not isinstance(name, str):
            raise FilterError(f"A field's name is a text, not {_shown(name)}.")
        if name in ("$and", "$or"):
            if not isinstance(operand, Sequence) or isinstance(operand, str) or not operand:
                raise FilterError(f"{name} takes a list of filters, not {_shown(operand)}.")
            parts = [_compile(each, fields, depth + 1) for each in operand]
            conditions.append(fields.all(parts) if name == "$and" else fields.any(parts))
        elif name == "$not":
            conditions.append(fields.opposite(_compile(operand, fields, depth + 1)))
        elif name.startswith("$"):
            raise FilterError(f"{name!r} is not known here.", "Known: $and, $or, $not, or a field's name.")
        else:
            conditions.append(_compile_field(name, operand, fields))
    return fields.all(conditions)


def _compile_field(name: str, operand: Any, fields: Fields[T]) -> T:
    keys = name.split(".")
    if not all(keys) or any(character in name for character in '"\\') or not storable(name):
        raise FilterError(f"{name!r} is no field name: no empty part, quote, backslash, NUL or half surrogate pair.")
    if not isinstance(operand, Mapping):
        fields.count(1)
        return _equal(fields, keys, operand)
    if not operand:
        raise FilterError(f"The filter on {name!r} is empty.", f"Known operators: {', '.join(_OPERATORS)}.")
    conditions = []
    fields.count(len(operand))
    for operator, value in operand.items():
        if operator not in _OPERATORS:
            raise FilterError(
                f"The operator {operator!r} is not known here.",
                f"Known: {', '.join(_OPERATORS)}; around whole filters: $and, $or, $not.",
            )
        conditions.append(_OPERATORS[operator](fields, keys, value))
    return fields.all(conditions)


def _equal(fields: Fields[T], keys: list[str], value: Any) -> T:
    if value is None:
        return fields.opposite(fields.present(keys))
    _require_scalar("$eq", value)
    return fields.any([fields.compare(keys, "==", value), fields.contains(keys, value)])


def _contains(fields: Fields[T], keys: list[str], value: Any) -> T:
    _require_scalar("$contains", value)
    return fields.contains(keys, value)


def _in(fields: Fields[T], keys: list[str], values: Any) -> T:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise FilterError(f"$in and $nin take a list, not {_shown(values)}.")
    if len(values) > _MAX_OPERANDS:
        raise FilterError(f"$in and $nin take at most {_MAX_OPERANDS} values; there are {len(values)}.")
    scalars = [value for value in values if value is not None]
    for value in scalars:
        _require_scalar("$in and $nin", value)
    among = fields.among(keys, scalars) if scalars else fields.any([])
    return fields.any([among, fields.opposite(fields.present(keys))]) if len(scalars) < len(values) else among


def _exists(fields: Fields[T], keys: list[str], value: Any) -> T:
    if not isinstance(value, bool):
        raise FilterError(f"$exists takes true or false, not {_shown(value)}.")
    return fields.present(keys) if value else fields.opposite(fields.present(keys))


def _order(sign: str) -> Callable[[Fields[Any], list[str], Any], Any]:
    def condition(fields: Fields[T], keys: list[str], value: Any) -> T:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise FilterError(f"Order is among numbers or among texts; {_shown(value)} is neither.")
        _require_scalar(sign, value)
        return fields.compare(keys, sign, value)

    return condition


_OPERATORS: dict[str, Callable[[Fields[Any], list[str], Any], Any]] = {
    "$eq": _equal,
    "$ne": lambda fields, keys, value: fields.opposite(_equal(fields, keys, value)),
    "$lt": _order("<"),
    "$lte": _order("<="),
    "$gt": _order(">"),
    "$gte": _order(">="),
    "$in": _in,
    "$nin": lambda fields, keys, values: fields.opposite(_in(fields, keys, values)),
    "$exists": _exists,
    "$contains": _contains,
}


def _require_scalar(operator: str, value: Any) -> None:
    if not isinstance(value, bool | int | float | str):
        raise FilterError(f"{operator} takes a text, a number or a truth value, not {_shown(value)}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise FilterError(f"{operator} takes a finite number, not {value}.")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise FilterError(f"{operator} takes a 64-bit integer, not {value}.")
    if isinstance(value, str) and not storable(value):
        raise FilterError(f"{operator}: the text holds a NUL or half a surrogate pair, which no stored field can.")


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}"


class Fields(ABC, Generic[T]):
    """How fields are read, and what conditions on them are made of.

    Every condition is true or false of a document, never neither, so that its opposite is sound.
    """

    _conditions = 0

    def count(self, more: int) -> None:
        """Refuse a filter that no database could run."""
        self._conditions += more
        if self._conditions > _MAX_CONDITIONS:
            raise FilterError(
                f"The filter has more than {_MAX_CONDITIONS} conditions.", "Use $in for many values of one field."
            )

    @abstractmethod
    def present(self, keys: list[str]) -> T:
        """The field is there and not null."""

    @abstractmethod
    def compare(self, keys: list[str], sign: str, value: Any) -> T:
        """The field is of the value's type and compares so; the sign is one of `SIGNS`."""

    @abstractmethod
    def contains(self, keys: list[str], value: Any) -> T:
        """The field is a list that has the value."""

    @abstractmethod
    def among(self, keys: list[str], values: list[Any]) -> T:
        """The field is one of the values, or a list that has one."""

    @abstractmethod
    def all(self, conditions: Sequence[T]) -> T:
        """All of them hold; of none, always."""

    @abstractmethod
    def any(self, conditions: Sequence[T]) -> T:
        """One of them holds; of none, never."""

    @abstractmethod
    def opposite(self, condition: T) -> T:
        """It does not hold."""


SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "==": eq,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}


class _SqlFields(Fields[Condition]):
    def all(self, conditions: Sequence[Condition]) -> Condition:
        return and_(true(), *conditions)

    def any(self, conditions: Sequence[Condition]) -> Condition:
        return or_(false(), *conditions)

    def opposite(self, condition: Condition) -> Condition:
        return not_(condition)


class _SqliteFields(_SqlFields):
    def present(self, keys: list[str]) -> Condition:
        return func.coalesce(func.json_type(DocumentRow.fields, _path(keys)), "null") != "null"

    def compare(self, keys: list[str], sign: str, value: Any) -> Condition:
        path = _path(keys)
        kind = func.coalesce(func.json_type(DocumentRow.fields, path), "null")
        # JSON_EXTRACT gives true and false as 1 and 0: the type test keeps them apart from numbers.
        extracted = func.json_extract(DocumentRow.fields, path)
        # It comes second, being asked of those alone that compare so: SQLite stops at the first that is false.
        return and_(func.coalesce(SIGNS[sign](extracted, _parsed(value)), false()), kind.in_(_sqlite_types(value)))

    def contains(self, keys: list[str], value: Any) -> Condition:
        path = _path(keys)
        element = func.json_each(DocumentRow.fields, path).table_valued("value", "type")
        return and_(
            func.coalesce(func.json_type(DocumentRow.fields, path), "null") == "array",
            exists(
                select(literal(1))
                .select_from(element)
                .where(element.c.type.in_(_sqlite_types(value)), element.c.value == _parsed(value))
            ),
        )

    def among(self, keys: list[str], values: list[Any]) -> Condition:
        path = _path(keys)
        kind = func.coalesce(func.json_type(DocumentRow.fields, path), "null")
        extracted = func.json_extract(DocumentRow.fields, path)
        element = func.json_each(DocumentRow.fields, path).table_valued("value", "type")
        scalar, listed = [], []
        for types, some in _by_type(values):
            wanted = func.json_each(to_json(some)).table_valued("value")
            scalar.append(and_(func.coalesce(extracted.in_(select(wanted.c.value)), false()), kind.in_(types)))
            listed.append(and_(element.c.type.in_(types), element.c.value.in_(select(wanted.c.value))))
        inside = exists(select(literal(1)).select_from(element).where(or_(*listed)))
        return or_(*scalar, and_(kind == "array", inside))


class _PostgresFields(_SqlFields):
    def present(self, keys: list[str]) -> Condition:
        return func.coalesce(func.jsonb_typeof(self.value(keys)), "null") != "null"

    def compare(self, keys: list[str], sign: str, value: Any) -> Condition:
        kind = {bool: "boolean", str: "string"}.get(type(value), "number")
        found = self.value(keys)
        if isinstance(value, str):
            # As bytes, as SQLite does; jsonb itself would use the database's collation.
            said = found.op("#>>", return_type=Text())(cast(literal("{}"), ARRAY(Text)))
            compared = SIGNS[sign](said.collate("C"), literal(value))
        else:
            compared = SIGNS[sign](found, _json(value))
        return and_(func.coalesce(func.jsonb_typeof(found), "null") == kind, func.coalesce(compared, false()))

    def contains(self, keys: list[str], value: Any) -> Condition:
        found = self.value(keys)
        return and_(
            func.coalesce(func.jsonb_typeof(found), "null") == "array",
            func.coalesce(found.op("@>", is_comparison=True)(_json([value])), false()),
        )

    def among(self, keys: list[str], values: list[Any]) -> Condition:
        found = self.value(keys)
        wanted = select(func.jsonb_array_elements(_json(values)))
        array = case((func.jsonb_typeof(found) == "array", found), else_=_json([]))
        element = func.jsonb_array_elements(array).table_valued("value")
        inside = exists(select(literal(1)).select_from(element).where(element.c.value.in_(wanted)))
        return or_(func.coalesce(found.in_(wanted), false()), inside)

    def value(self, keys: list[str]) -> Any:
        """The field as jsonb."""
        # Not jsonb_extract_path, to which "0" is also the first element of a list.
        value: Any = DocumentRow.fields
        for key in keys:
            value = value.op("->", return_type=JSONB())(cast(literal(key), Text))
        return value


def _path(keys: list[str]) -> str:
    # Escaped as the stored names are: older SQLite compares them as they are written.
    return "$" + "".join("." + json.dumps(key, ensure_ascii=False) for key in keys)


def _parsed(value: Any) -> Any:
    # Fractions through SQLite's own parser, as the stored ones: it may differ from Python's in the last digit.
    return func.json_extract(to_json(value), "$") if isinstance(value, bool | float) else value


def _sqlite_types(value: Any) -> list[str]:
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return ["text"] if isinstance(value, str) else ["integer", "real"]


def _by_type(values: list[Any]) -> Iterator[tuple[list[str], list[Any]]]:
    """The values that are of one type, and that type's names in SQLite."""
    for truth in (True, False):
        if any(value is truth for value in values):
            yield _sqlite_types(truth), [truth]
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    for some in (texts, numbers):
        if some:
            yield _sqlite_types(some[0]), some


def _json(value: Any) -> Any:
    # As text, cast by the server: a JSONB parameter would be serialised twice.
    return cast(literal(to_json(value), Text), JSONB)
