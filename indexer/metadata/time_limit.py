"""A time limit for filters in PostgreSQL, which would otherwise go on when nobody waits any more.

What this module does not know: what is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError

from indexer.errors import CallError, StoreError

VARIABLE = "UNDERDRAWING_STATEMENT_SECONDS"
DEFAULT = 60.0
MOST = 2_000_000
CANCELED = "57014"
"""What PostgreSQL calls a statement that it gave up."""


@contextmanager
def limited(connection: Connection) -> Iterator[None]:
    """Within this block PostgreSQL gives up on a statement that takes too long; SQLite, which is us, does not.

    The limit is `DEFAULT` seconds, or as many as the variable `VARIABLE` says; 0 is none. It lasts until the
    transaction ends.

    Raises:
        StoreError: It gave up.
        CallError: The variable is no number of seconds.
    """
    if connection.dialect.name == "sqlite":
        yield
        return
    seconds = limit()
    connection.execute(select(func.set_config("statement_timeout", str(round(seconds * 1000)), True)))
    try:
        yield
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != CANCELED:
            raise
        raise StoreError(
            f"PostgreSQL gave up on a filter after {seconds:g} seconds.",
            f"Ask for less in one filter, or allow more: {VARIABLE}=600 (0 for no limit).",
        ) from error


def limit() -> float:
    """The seconds that PostgreSQL may take for one filter.

    Raises:
        CallError: The variable is no number of seconds.
    """
    told = os.environ.get(VARIABLE, "").strip()
    try:
        seconds = float(told) if told else DEFAULT
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST:
        raise CallError(
            f"The variable {VARIABLE} is {told[:40]!r}; it takes seconds, from 0 to {MOST:,}.",
            f"Leave it unset for {DEFAULT:g}, or write 0 for no limit.",
        )
    return seconds
