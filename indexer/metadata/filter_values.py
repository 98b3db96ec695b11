"""How filters compare values: texts in one Unicode form, times as instants, numbers exactly.

SQL of both databases and in-memory columns agree with these functions; SQLite calls them (`filter_sqlite.py`).

What this module does not know: fields, documents, SQL.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple, TypeAlias

Number: TypeAlias = int | float

TIME_PATTERN = (
    r"^((?!0000)[0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"(?:[Tt ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:[.,]([0-9]+))?)?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9]))?)?)?$"
)
"""An ISO 8601 date, or date and time, that Python and PostgreSQL both parse. `$` is the end of the text."""
_TIME = re.compile(TIME_PATTERN.removesuffix("$") + r"\Z")
SHIFT = 10**11
"""Seconds that make every instant of the years 1 to 9999 positive, so that keys sort as texts."""


class Moment(NamedTuple):
    """An instant: whole seconds since 1970 in UTC, and the digits of the fraction without trailing zeros."""

    seconds: int
    fraction: str

    @property
    def key(self) -> str:
        """A text that sorts like the instants."""
        return f"{self.seconds + SHIFT:012d}.{self.fraction}"


def nfc(text: str) -> str:
    """A text in Unicode's normal form C, in which texts and names are compared."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    """A text in Unicode's normal form D, in which macOS names files."""
    return text if text.isascii() else unicodedata.normalize("NFD", text)


def forms(text: str) -> tuple[str, ...]:
    """A text in form C, in form D and unchanged, each once."""
    return tuple(dict.fromkeys((nfc(text), nfd(text), text)))


def moment(text: str) -> Moment | None:
    """The instant that an ISO 8601 text names, or None if it names none.

    A date alone is its first moment, and a time without an offset is in UTC.
    """
    if len(text) < 10 or text[4] != "-" or (found := _TIME.match(text)) is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal() - 719_163
    except ValueError:  # the 30th of February
        return None
    seconds = days * 86_400
    if hour:
        seconds += int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    if sign:
        shift = int(hours) * 3600 + int(minutes or 0) * 60
        seconds -= shift if sign == "+" else -shift
    return Moment(seconds, (fraction or "").rstrip("0"))


def moment_of(value: date | datetime) -> Moment:
    """The instant of a Python date or time; without a time zone it is in UTC.

    Raises:
        ValueError: It is not a time, such as pandas' `NaT`.
    """
    seconds = (value.toordinal() - 719_163) * 86_400
    if not isinstance(value, datetime):
        return Moment(seconds, "")
    offset = value.utcoffset() or timedelta(0)
    seconds += value.hour * 3600 + value.minute * 60 + value.second - offset.days * 86_400 - offset.seconds
    # pandas' timestamps have nanoseconds, too.
    digits = f"{value.microsecond:06d}{getattr(value, 'nanosecond', 0):03d}"
    return Moment(seconds, digits.rstrip("0"))


@dataclass(frozen=True)
class Values:
    """Values that a field may be equal to, by type.

    Attributes:
        truths: Booleans.
        numbers: Whole numbers of any size, and floats.
        texts: Texts in form C; for `$id` in every form.
        moments: Instants, which equal texts that name them.
    """

    truths: tuple[bool, ...] = ()
    numbers: tuple[Number, ...] = ()
    texts: tuple[str, ...] = ()
    moments: tuple[Moment, ...] = ()

    @classmethod
    def of(cls, values: Iterable[bool | Number | str | Moment]) -> Values:
        """Sort values by type; a text that names an instant counts as an instant."""
        truths: list[bool] = []
        numbers: list[Number] = []
        texts: list[str] = []
        moments: list[Moment] = []
        for value in values:
            if isinstance(value, bool):
                truths.append(value)
            elif isinstance(value, int | float):
                numbers.append(value)
            elif isinstance(value, Moment):
                moments.append(value)
            elif (at := moment(value)) is not None:
                moments.append(at)
            else:
                texts.append(nfc(value))
        return cls(tuple(truths), tuple(numbers), tuple(texts), tuple(moments))

    def __len__(self) -> int:
        return len(self.truths) + len(self.numbers) + len(self.texts) + len(self.moments)


@dataclass(frozen=True)
class TextBound:
    """A text to compare other texts with.

    Attributes:
        text: The text in form C, compared with texts that name no instant.
        moment: The instant it names, compared with texts that name one; None if it names none.
    """

    text: str
    moment: Moment | None = None


Bound: TypeAlias = Number | TextBound | Moment
"""The operand of a comparison. A `Moment` compares only with texts that name instants."""
