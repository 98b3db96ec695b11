"""The validator of ids, texts and fields, for every way into a collection.

`Collection.add` and every corpus reader use it, so all accept the same values and reject others for the same reasons.

* An id is a non-empty text of at most 1,024 characters and 2,048 bytes; a whole number is its decimal text.
* A text has at most 10,000,000 characters; a blank one counts as none.
* Fields are JSON of at most 1 MiB and 100 levels. Their names are stored in Unicode's form C. Values of Python and
  NumPy become:

| value | is stored as |
| --- | --- |
| NaN, NaT, pandas' NA | null |
| `Decimal` | a number: the nearest float64; a whole number beyond 2^53 exactly |
| `datetime`, `date`, `time`, `datetime64` | ISO 8601 to the microsecond; offsets stay, naive times stay naive |
| `timedelta`, `timedelta64` | seconds |
| `UUID`, paths | their text |
| enum members | their value |
| tuples, sets, arrays, tensors, series | lists; sets in order of their JSON |
| -0.0 | 0.0, since PostgreSQL has no -0.0 |

Refused: infinities, whole numbers beyond 64 bits, bytes, and other values without a JSON form.

What this module does not know: images, stores, where documents come from.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Integral
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

from indexer.reasons import Reason, refusal

if TYPE_CHECKING:
    import numpy as np

MAX_ID, MAX_ID_BYTES = 1_024, 2_048
"""Characters of a document's id, and its bytes in UTF-8: PostgreSQL's indexes hold at most 2,704."""
MAX_TEXT = 10_000_000
"""Characters. An embedder reads far less of a text; this limit keeps a store usable."""
MAX_IMAGES = 100
"""Images of one document."""
MAX_FIELDS_BYTES = 1_048_576
"""Bytes of a document's fields as JSON in UTF-8."""
MAX_DEPTH = 100
"""Nesting of lists and objects in a document's fields; SQLite fails at 1,000."""
WHOLE = range(-(2**63), 2**63)
"""The range of whole numbers that both databases store and compare exactly."""


def checked_id(value: object) -> str:
    """A document id that both databases can store.

    Args:
        value: A non-empty text, a UUID, or a whole number, Python's or NumPy's, which becomes its decimal text.

    Raises:
        ItemError: `bad-id`, `too-long`, `nul` or `not-unicode`.
    """
    if isinstance(value, Integral) and not isinstance(value, bool | Enum):
        value = int(value)
        # Python does not convert numbers of more than 4,300 digits to text.
        value = str(value) if value.bit_length() <= 4 * MAX_ID else "9" * (MAX_ID + 1)
    if isinstance(value, UUID):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise refusal(Reason.BAD_ID, f"The id must be a non-empty text or a whole number, not {shown(value)}.")
    if len(value) > MAX_ID:
        raise refusal(Reason.TOO_LONG, f"The id has {len(value):,} characters; allowed are {MAX_ID:,}.")
    value = checked_unicode(value, "id")
    size = len(value.encode())
    if size > MAX_ID_BYTES:
        raise refusal(Reason.TOO_LONG, f"The id has {size:,} bytes in UTF-8; allowed are {MAX_ID_BYTES:,}.")
    return value


def checked_text(value: object, what: str = "text") -> str | None:
    """A text that both databases can store; None for a blank one.

    Args:
        value: A text or None.
        what: Its name in messages.

    Raises:
        ItemError: `bad-text`, `too-long`, `nul` or `not-unicode`.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise refusal(Reason.BAD_TEXT, f"The {what} must be a text, not {type(value).__name__}.")
    if len(value) > MAX_TEXT:
        raise refusal(Reason.TOO_LONG, f"The {what} has {len(value):,} characters; allowed are {MAX_TEXT:,}.")
    return checked_unicode(value, what) if value.strip() else None


def checked_fields(value: object) -> dict[str, Any]:
    """Fields as plain JSON: only `dict`, `list`, `str`, `int`, `float`, `bool` and None.

    Args:
        value: A mapping; the table above lists the types of its values.

    Raises:
        ItemError: `bad-fields`, naming the field; `too-long`, `nul` or `not-unicode`.
    """
    if not isinstance(value, Mapping):
        raise refusal(Reason.BAD_FIELDS, f"The fields must be an object with names, not {type(value).__name__}.")
    fields = _object(value, "", 0)
    size = len(canonical_json(fields))
    if size > MAX_FIELDS_BYTES:
        largest = max(fields, key=lambda name: len(canonical_json(fields[name])))
        raise _too_long(f"The fields have {size:,} bytes as JSON, most of them in {_shown(largest)}")
    return fields


def canonical_json(value: Any) -> bytes:
    """The JSON of checked fields, in UTF-8; equal objects give equal bytes."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def checked_unicode(value: str, what: str) -> str:
    """A text without NUL and without halves of surrogate pairs, which databases cannot store.

    Raises:
        ItemError: `nul` or `not-unicode`.
    """
    if "\0" in value:
        raise refusal(Reason.NUL, f"The {what} contains NUL at character {value.index(chr(0)):,}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise refusal(Reason.NOT_UNICODE, f"The {what} has a lone surrogate at character {error.start:,}.") from None
    return str(value)  # the plain text of a subclass, such as NumPy's


def checked_name(name: object, where: str) -> str:
    """The name of a field or of a part of one: a text in form C; a whole number becomes its decimal text.

    Args:
        name: The name.
        where: The names of the enclosing fields, each followed by a dot; empty for a top-level field.

    Raises:
        ItemError: `bad-fields`, `nul` or `not-unicode`.
    """
    if isinstance(name, Integral) and not isinstance(name, bool) and int(name) in WHOLE:
        name = str(int(name))
    if not isinstance(name, str):
        inside = f" in {_shown(where[:-1])}" if where else ""
        raise refusal(Reason.BAD_FIELDS, f"The name of a field must be a text; {shown(name)}{inside} is not.")
    return unicodedata.normalize("NFC", checked_unicode(name, "name of a field"))


def shown(value: object) -> str:
    """A value for a message: the first 80 characters of its `repr`, or its type if that fails."""
    try:
        return f"{value!r:.80}"
    except (ValueError, RecursionError):  # a number of more than 4,300 digits; deeply nested lists
        return f"a {type(value).__name__}"


def _object(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    _require_short(len(value), where[:-1])
    checked: dict[str, Any] = {}
    for key, inner in value.items():
        name = checked_name(key, where)
        if name in checked:
            raise refusal(Reason.BAD_FIELDS, f"Two fields have the name {_shown(where + name)}.")
        checked[name] = _value(inner, where + name, depth + 1)
    return checked


def _list(values: Iterable[Any], where: str, depth: int) -> list[Any]:
    return [_value(each, where, depth + 1) for each in values]


def _value(value: Any, where: str, depth: int) -> Any:
    """A field's value as plain JSON."""
    if depth > MAX_DEPTH:
        raise refusal(Reason.BAD_FIELDS, f"The field {_shown(where)} is nested more than {MAX_DEPTH} deep.")
    match value:
        case None | bool():
            return value
        case Enum():
            return _value(value.value, where, depth + 1)
        case str():
            _require_short(len(value), where)
            return checked_unicode(value, f"field {_shown(where)}")
        case int():
            return _whole(value, where)
        case float():
            return _number(value, where)
        case Mapping():
            return _object(value, f"{where}.", depth)
        case list() | tuple():
            return _list(_short(value, where), where, depth)
        case bytes() | bytearray() | memoryview():
            raise refusal(
                Reason.BAD_FIELDS,
                f"The field {_shown(where)} holds bytes, not JSON. Write them as text (value.hex()), "
                "or give them as the document's image if they are one.",
            )
        case AbstractSet():
            return sorted(_list(_short(value, where), where, depth), key=canonical_json)
        case Sequence():
            return _list(_short(value, where), where, depth)
        case _:
            return _foreign(value, where, depth)


def _foreign(value: Any, where: str, depth: int) -> Any:
    """Convert values that are neither JSON nor Python's own containers."""
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' NA and NaT; NaT is also a datetime
        return None
    match value:
        case Decimal():
            return _decimal(value, where)
        case datetime():
            return datetime.isoformat(value)  # pandas' own would write nanoseconds, too
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case UUID():
            return str(value)
        case PurePath():
            return checked_unicode(str(value), f"field {_shown(where)}")
    return _array(value, where, depth)


def _array(value: Any, where: str, depth: int) -> Any:
    """Convert arrays and scalars of NumPy and other libraries."""
    import numpy as np  # imported here: reading a corpus of texts does not need it

    match value:
        case np.ndarray() if value.ndim:
            return _list(_short(value, where), where, depth)  # not tolist, which turns times into numbers
        case np.ndarray():
            return _value(value[()], where, depth + 1)
        case np.bool_():
            return bool(value)
        case np.datetime64():
            return _moment(value, where)
        case np.timedelta64():  # before whole numbers: it is also one
            return _duration(value, where)
        case np.integer():
            return _whole(int(value), where)
        case np.floating():
            return _number(float(value), where)
        case np.void() if value.dtype.names:
            return _object({name: value[name] for name in value.dtype.names}, f"{where}.", depth)
        case np.generic():
            raise _no_form(value, where)
    if callable(getattr(value, "tolist", None)):  # tensors, series
        return _value(value.tolist(), where, depth + 1)
    raise _no_form(value, where)


def _whole(value: int, where: str) -> int:
    if value not in WHOLE:
        raise refusal(
            Reason.BAD_FIELDS,
            f"The field {_shown(where)} holds a whole number of {value.bit_length()} bits; databases compare 64. "
            "Write it as a text.",
        )
    return int(value)


def _number(value: float, where: str) -> float | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        raise refusal(Reason.BAD_FIELDS, f"The field {_shown(where)} is infinite; JSON has only finite numbers.")
    return float(value) + 0.0


def _decimal(value: Decimal, where: str) -> int | float | None:
    if value.is_nan():
        return None
    number = _number(float(value), where)
    if number is not None and abs(number) >= 2**53 and value == value.to_integral_value():
        return _whole(int(value), where)
    return number


def _moment(value: np.datetime64, where: str) -> str | None:
    import numpy as np

    if np.isnat(value):
        return None
    fine = np.datetime_data(value)[0] in ("ns", "ps", "fs", "as")
    moment = (value.astype("datetime64[us]") if fine else value).item()
    if not isinstance(moment, date):
        raise refusal(Reason.BAD_FIELDS, f"The field {_shown(where)} holds a time beyond the year 9999, or before 1.")
    return moment.isoformat()


def _duration(value: np.timedelta64, where: str) -> float | None:
    import numpy as np

    if np.isnat(value):
        return None
    if np.datetime_data(value)[0] in ("Y", "M", "generic"):
        raise refusal(Reason.BAD_FIELDS, f"The field {_shown(where)} holds {value!r}, not a number of seconds.")
    return float(value / np.timedelta64(1, "s"))


def _short(values: Any, where: str) -> Any:
    _require_short(len(values), where)
    return values


def _require_short(parts: int, where: str) -> None:
    """Refuse at once what must exceed the limit: each part takes at least one byte."""
    if parts > MAX_FIELDS_BYTES:
        name = f"field {_shown(where)} has" if where else "fields have"
        raise _too_long(f"The {name} {parts:,} parts")


def _no_form(value: object, where: str) -> Exception:
    return refusal(
        Reason.BAD_FIELDS,
        f"The field {_shown(where)} holds a {type(value).__name__}, which has no form in JSON. "
        "Write it as a text, a number, a list or an object.",
    )


def _too_long(fault: str) -> Exception:
    return refusal(Reason.TOO_LONG, f"{fault}; allowed are {MAX_FIELDS_BYTES:,} bytes.")


def _shown(name: str) -> str:
    """A field's name for a message; it may contain anything."""
    return ascii(name[:80]) if not name.isprintable() else repr(name[:80])
