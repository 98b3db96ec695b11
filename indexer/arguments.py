"""What callers give, checked where it comes in: a call of the wrong type is told at once, by its name.

What this module does not know: what is done with it.
"""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path

from indexer.errors import CallError

_URL = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+:/{1,2}(?=[^/\\])")
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlist, _SHORT.maxdict = 2, 80, 60, 3, 3


def told(value: object) -> str:
    """A value in a sentence: its type, and itself where it is short; `None`, `str 'shop'`, `Collection`."""
    if value is None:
        return "None"
    name = type(value).__name__.rstrip("_")
    if isinstance(value, str | int | float | list | tuple | set | dict | Path):
        return f"{name} {_SHORT.repr(value)}" if not isinstance(value, int) or value.bit_length() < 1000 else name
    return name


def whole_number(value: object, name: str, least: int, most: int | None = None) -> int:
    """A whole number, Python's or NumPy's, within bounds.

    Raises:
        CallError: It is none, or outside of them.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise CallError(f"{name} is {told(value)}; it must be a whole number of at least {least:,}.")
    number = int(value)
    if number < least:
        raise CallError(f"{name} is {number}; it must be a whole number of at least {least:,}.")
    if most is not None and number > most:
        raise CallError(f"{name} is {number}; it can be {most:,} at most.")
    return number


def finite(value: object, name: str, *, infinite: bool = False) -> float:
    """A finite number, Python's or NumPy's; or an infinite one where that means something.

    Raises:
        CallError: It is none.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not (math.isfinite(value) or math.isinf(value) and infinite)
    ):
        raise CallError(f"{name} is {told(value)}; it must be a {'' if infinite else 'finite '}number.")
    return float(value)


def flag(value: object, name: str) -> bool:
    """True or False.

    Raises:
        CallError: It is neither.
    """
    if not isinstance(value, bool):
        raise CallError(f"{name} is {told(value)}; it must be True or False.")
    return value


def names(values: object, name: str) -> tuple[str, ...]:
    """Several texts.

    Raises:
        CallError: It is one text, nothing that holds several, or holds something else.
    """
    if isinstance(values, str):
        raise CallError(f"{name} is the one text {values[:80]!r}; it takes a list.", f"Write [{values[:80]!r}].")
    if isinstance(values, bytes | Mapping) or not isinstance(values, Iterable):
        raise CallError(f"{name} is {told(values)}; it takes a list of texts.")
    found = tuple(values)
    for place, each in enumerate(found):
        if not isinstance(each, str):
            raise CallError(f"{name}[{place}] is {told(each)}; it must be a text.")
    return found


def folder(value: object, name: str) -> Path:
    """The path of a folder on this machine.

    Raises:
        CallError: It is no path, empty, or cannot be one.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise CallError(f"{name} is {told(value)}; it must be a path.", "Write Path(...) or a text.")
    text = os.fspath(value)
    if not text:
        raise CallError(f"{name} is empty.", "Write '.' for the folder you are in.")
    if "\0" in text:
        raise CallError(f"{name} is {text[:80]!r}; no path holds a NUL.")
    if (url := url_in(value)) is not None:
        raise CallError(f"{name} is the URL {url}; it must be a folder of this machine.")
    return Path(text)


def url_in(value: object) -> str | None:
    """The URL that a text, or a path made of one, is; None for a path. A path has lost one of its two slashes."""
    if not isinstance(value, str | Path):
        return None
    text = str(value)
    found = _URL.match(text)
    return None if found is None else f"{found[0].rstrip('/')}//{text[found.end() :]}"
