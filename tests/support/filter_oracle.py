"""What `docs/filters.md` says about filters, in plain Python, written without a look at the code."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime


def escaped(name):
    """A field's name as filters write it."""
    name = name.replace("\\", "\\\\").replace(".", "\\.")
    return "\\" + name if name.startswith("$") else name


def instant(text):
    """Seconds and the digits behind them, of an ISO 8601 text; None of any other."""
    clock, _, digits = text.replace(",", ".").partition(".")
    tail = digits.lstrip("0123456789")
    digits = digits[: len(digits) - len(tail)]
    try:
        at = datetime.fromisoformat(
            (clock + tail).replace("-01", "-01:00") if text.endswith("-01") and digits else clock + tail
        )
    except ValueError:
        return None
    if len(text) < 10 or text[4] != "-" or (digits and clock.count(":") < 2):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    seconds = (at.replace(tzinfo=None) - datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)) - at.utcoffset()
    return round(seconds.total_seconds()), digits.rstrip("0")


def nfc(text):
    return unicodedata.normalize("NFC", text)


def kind(value):
    """What compares with what: texts, numbers, booleans."""
    return bool if isinstance(value, bool) else float if isinstance(value, int | float) else type(value)


def same(one, other):
    if isinstance(other, dict):
        return isinstance(one, str) and instant(one) == instant(other["$date"])
    if kind(one) is not kind(other):
        return False
    if isinstance(one, str):
        return nfc(one) == nfc(other) or (instant(one) is not None and instant(one) == instant(other))
    return one == other


def matches(fields, where):
    """What `docs/filters.md` says about filters, in Python; the fields are those of `described`."""
    return all(holds(fields, name, operand) for name, operand in where.items())


def described(identifier, text, fields):
    """A document as `matches` reads it."""
    return {**fields, ID: identifier, TEXT: text}


ID, TEXT = object(), object()


def parts(path):
    """The names in a path."""
    found, rest = [""], iter(path)
    for character in rest:
        if character == ".":
            found.append("")
        else:
            found[-1] += next(rest) if character == "\\" else character
    return found


def lookup(fields, keys):
    for key in keys:
        if not isinstance(fields, dict):
            return None
        fields = next(
            (value for name, value in fields.items() if isinstance(name, str) and nfc(name) == nfc(key)), None
        )
    return fields


def holds(fields, name, operand):
    if name == "$and":
        return all(matches(fields, each) for each in operand)
    if name == "$or":
        return any(matches(fields, each) for each in operand)
    if name == "$not":
        return not matches(fields, operand)
    tests = operand if isinstance(operand, dict) and "$date" not in operand else {"$eq": operand}
    if name in ("$id", "$text"):
        value = fields[ID if name == "$id" else TEXT]
        return all(PLAIN[operator](value, wanted) for operator, wanted in tests.items())
    value = lookup(fields, [name]) if "\\" not in name else None
    value = lookup(fields, parts(name)) if value is None else value
    return all(OPERATORS[operator](value, wanted) for operator, wanted in tests.items())


def equals(value, wanted):
    if wanted is None:
        return value is None
    return same(value, wanted) or among(value, wanted)


def among(value, wanted):
    return isinstance(value, list) and any(same(each, wanted) for each in value)


def contains(value, wanted):
    if isinstance(value, str) and isinstance(wanted, str):
        return nfc(wanted) in nfc(value)
    return among(value, wanted)


def starts(value, wanted):
    return any(
        isinstance(each, str) and nfc(each).startswith(nfc(wanted))
        for each in (value if isinstance(value, list) else [value])
    )


def ordered(compare):
    def test(value, wanted):
        typed = isinstance(wanted, dict)
        wanted = wanted["$date"] if typed else wanted
        if kind(value) is not kind(wanted):
            return False
        if not isinstance(value, str):
            return compare(value, wanted)
        if instant(value) and instant(wanted):
            return compare(instant(value), instant(wanted))
        return not typed and compare(nfc(value), nfc(wanted))

    return test


def plain(operator):
    """Of ids and texts, which are never read as times."""
    tests = {
        "$eq": lambda value, wanted: value is not None and nfc(value) == nfc(wanted),
        "$gt": lambda value, wanted: value is not None and nfc(value) > nfc(wanted),
        "$exists": lambda value, wanted: (value is not None) is wanted,
        "$in": lambda value, wanted: value is not None and nfc(value) in map(nfc, wanted),
        "$contains": lambda value, wanted: value is not None and nfc(wanted) in nfc(value),
        "$startsWith": lambda value, wanted: value is not None and nfc(value).startswith(nfc(wanted)),
    }
    tests["$ne"] = lambda value, wanted: not tests["$eq"](value, wanted)
    return tests[operator]


PLAIN = {operator: plain(operator) for operator in ("$eq", "$ne", "$gt", "$in", "$contains", "$startsWith", "$exists")}
OPERATORS = {
    "$eq": equals,
    "$ne": lambda value, wanted: not equals(value, wanted),
    "$lt": ordered(lambda value, wanted: value < wanted),
    "$lte": ordered(lambda value, wanted: value <= wanted),
    "$gt": ordered(lambda value, wanted: value > wanted),
    "$gte": ordered(lambda value, wanted: value >= wanted),
    "$in": lambda value, wanted: any(equals(value, each) for each in wanted),
    "$nin": lambda value, wanted: not any(equals(value, each) for each in wanted),
    "$exists": lambda value, wanted: (value is not None) is wanted,
    "$contains": contains,
    "$startsWith": starts,
}
