"""A time limit for filters in PostgreSQL, which would otherwise run on after the client has gone.

What this module does not know: the statements.
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
"""PostgreSQL's error code for a canceled statement."""


@contextmanager
def limited(connection: Connection) -> Iterator[None]:
    """In this block PostgreSQL cancels a statement that takes too long; SQLite, which runs in this process, does not.

    The limit is `DEFAULT` seconds or the value of the environment variable `VARIABLE`; 0 means no limit. It applies
    until the transaction ends.

    Raises:
        StoreError: The statement was canceled.
        CallError: The variable is not a number of seconds.
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
            f"PostgreSQL canceled a filter after {seconds:g} seconds.",
            f"Ask for less in one filter, or allow more: {VARIABLE}=600 (0 for no limit).",
        ) from error


def limit() -> float:
    """The time limit of one filter in PostgreSQL, in seconds.

    Raises:
        CallError: The variable is not a number of seconds.
    """
    given = os.environ.get(VARIABLE, "").strip()
    try:
        seconds = float(given) if given else DEFAULT
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST:
        raise CallError(
            f"The variable {VARIABLE} is {given[:40]!r}; it takes seconds, from 0 to {MOST:,}.",
            f"Leave it unset for {DEFAULT:g}, or write 0 for no limit.",
        )
    return seconds
