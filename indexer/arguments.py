"""Checks of callers' arguments: a value of the wrong type is an error that names the argument.

What this module does not know: what the arguments are for.
"""

from __future__ import annotations

import math
import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

from indexer.errors import CallError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_URL = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+:/{1,2}(?=[^/\\])")
LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes of a file's name, and of a path, on Linux."""
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlist, _SHORT.maxdict = 2, 80, 60, 3, 3


def described(value: object) -> str:
    """A value for a message: its type, and the value itself if short; `None`, `str 'shop'`, `Collection`."""
    if value is None:
        return "None"
    name = type(value).__name__.rstrip("_")
    if isinstance(value, str | int | float | list | tuple | set | dict | Path):
        return f"{name} {_SHORT.repr(value)}" if not isinstance(value, int) or value.bit_length() < 1000 else name
    return name


def whole_number(value: object, name: str, least: int, most: int | None = None) -> int:
    """A whole number, Python's or NumPy's, within bounds.

    Raises:
        CallError: It is not a whole number, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise CallError(f"{name} is {described(value)}; it must be a whole number of at least {least:,}.")
    number = int(value)
    if number < least:
        raise CallError(f"{name} is {number}; it must be a whole number of at least {least:,}.")
    if most is not None and number > most:
        raise CallError(f"{name} is {number}; it can be {most:,} at most.")
    return number


def finite(value: object, name: str, *, infinite: bool = False) -> float:
    """A number, Python's or NumPy's; finite, unless `infinite` allows others.

    Raises:
        CallError: It is not a number, or not finite.
    """
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:  # a whole number too large for a float
        number = math.nan
    if not (math.isfinite(number) or math.isinf(number) and infinite):
        raise CallError(f"{name} is {described(value)}; it must be a {'' if infinite else 'finite '}number.")
    return number


def callback(value: object, name: str) -> None:
    """A function or None.

    Raises:
        CallError: It is something else.
    """
    if value is not None and not callable(value):
        raise CallError(f"{name} is {described(value)}; it must be a function.")


def flag(value: object, name: str) -> bool:
    """True or False.

    Raises:
        CallError: It is neither.
    """
    if not isinstance(value, bool):
        raise CallError(f"{name} is {described(value)}; it must be True or False.")
    return value


def names(values: object, name: str) -> tuple[str, ...]:
    """A list of texts.

    Raises:
        CallError: It is a single text, not iterable, or contains something else.
    """
    if isinstance(values, str):
        raise CallError(f"{name} is the one text {values[:80]!r}; it takes a list.", f"Write [{values[:80]!r}].")
    if isinstance(values, bytes | Mapping) or not isinstance(values, Iterable):
        raise CallError(f"{name} is {described(values)}; it takes a list of texts.")
    found = tuple(values)
    for place, each in enumerate(found):
        if not isinstance(each, str):
            raise CallError(f"{name}[{place}] is {described(each)}; it must be a text.")
    return found


def require_kinds(**options: tuple[object, type | UnionType]) -> None:
    """Refuse options that are not None and not of their class.

    Raises:
        CallError: An option is of another class.
    """
    for name, (value, kind) in options.items():
        if value is not None and not isinstance(value, kind):
            written = f"{kind.__name__}(...)" if isinstance(kind, type) and kind is not str else "a path or a text"
            raise CallError(f"{name} is {described(value)}.", f"Write {written}.")


def several(values: object, name: str = "documents") -> list[Any]:
    """The values of a list with one for each query.

    Raises:
        CallError: It is not a list.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise CallError(f"{name} is {described(values)}; it takes a list with an entry for each query.")
    return list(values)


def one_each(values: object, name: str, count: int) -> list[Any]:
    """The values of a list with exactly one for each query.

    Raises:
        CallError: It is not a list, or has another length.
    """
    found = several(values, name)
    if len(found) != count:
        raise CallError(f"{name} has {len(found):,} entries for {count:,} queries; it takes one for each.")
    return found


def folder(value: object, name: str) -> Path:
    """The path of a folder on this machine.

    Raises:
        CallError: It is not a path, is empty, or cannot be a path.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise CallError(f"{name} is {described(value)}; it must be a path.", "Write Path(...) or a text.")
    text = os.fspath(value)
    if not text:
        raise CallError(f"{name} is empty.", "Write '.' for the folder you are in.")
    if "\0" in text:
        raise CallError(f"{name} is {text[:80]!r}; a path cannot contain NUL.")
    try:
        parts = [os.fsencode(part) for part in Path(text).parts]
    except UnicodeEncodeError:
        raise CallError(f"{name} is {text[:80]!r}; a path cannot contain half a surrogate pair.") from None
    if max(map(len, parts), default=0) > LONGEST_NAME or sum(map(len, parts)) + len(parts) > LONGEST_PATH:
        raise CallError(f"{name} is {text[:80]!r}…, which is longer than a path can be.")
    if (url := url_in(value)) is not None:
        raise CallError(f"{name} is the URL {url}; it must be a folder of this machine.")
    return Path(text)


def url_in(value: object) -> str | None:
    """The URL in a text or in a path made from one, which has lost one of the two slashes; None for a path."""
    if not isinstance(value, str | Path):
        return None
    text = str(value)
    found = _URL.match(text)
    return None if found is None else f"{found[0].rstrip('/')}//{text[found.end() :]}"


def vector_ids(values: Any, name: str = "ids") -> npt.NDArray[np.int64]:
    """Vector ids as they come from a search: (n,) int64.

    Raises:
        CallError: They are not a list of whole numbers.
    """
    import numpy

    try:
        found = numpy.asarray(values)
    except ValueError:  # rows of several lengths
        found = numpy.empty((0, 0))
    if found.ndim != 1 or (len(found) and found.dtype.kind not in "iu"):
        raise CallError(f"{name} is {described(values)}; it takes the vector ids that a search gave, (n,) int64.")
    return found.astype(numpy.int64, copy=False)
