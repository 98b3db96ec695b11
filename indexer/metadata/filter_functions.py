"""SQL functions that SQLite lacks, written in Python.

What this module does not know: SQL, how a filter is written.
"""

from __future__ import annotations

import json
import sqlite3
from functools import lru_cache

from indexer.metadata.filter_values import Number, moment, nfc


def add_functions(connection: sqlite3.Connection) -> None:
    """Register the functions that filters call on a connection."""
    for name, arguments, function in (
        ("underdrawing_nfc", 1, nfc),
        ("underdrawing_moment", 1, _moment_key),
        ("underdrawing_at", 2, _at),
        ("underdrawing_order", 2, _order),
        ("underdrawing_equal", 2, _equal),
    ):
        connection.create_function(name, arguments, function, deterministic=True)


def _moment_key(text: str) -> str | None:
    at = moment(text)
    return None if at is None else at.key


def _at(document: str, keys: str) -> str | None:
    """The JSON of the value at this path."""
    value = json.loads(document)
    for key in json.loads(keys):
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _order(twice: str, other: str) -> int:
    """Compare a whole number, given twice in a JSON list, with another number: -1, 0 or 1."""
    one, number = json.loads(twice)[0], json.loads(other)
    return int(one > number) - int(one < number)


def _equal(twice: str, wanted: str) -> bool:
    """Whether a whole number, given twice in a JSON list, is one of these."""
    return json.loads(twice)[0] in _numbers(wanted)


@lru_cache(64)
def _numbers(wanted: str) -> frozenset[Number]:
    return frozenset(json.loads(wanted))
