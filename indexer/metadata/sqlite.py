"""SQLite for writers: making and pooling connections, and closing them before a fork.

What this module does not know: any table.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import QueuePool

BUSY_MILLISECONDS = 30_000
POOLED = 32


def sqlite_engine(url: URL, to_json: Callable[[Any], str]) -> Engine:
    """An engine with a pool of up to POOLED connections: a new connection costs as much as a search."""
    engine = create_engine(url, poolclass=QueuePool, pool_size=POOLED, max_overflow=-1, json_serializer=to_json)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "checkout", _refuse_inherited)
    _close_before_forks(engine)
    return engine


def begin_sqlite(connection: Connection) -> None:
    """Begin a transaction; a writing one takes the write lock at once."""
    write = connection.get_execution_options().get("underdrawing_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _prepare_sqlite(connection: Any, record: Any) -> None:
    record.info["pid"] = os.getpid()
    # Transactions are begun explicitly below: the driver would start a read transaction and upgrade it later,
    # which fails immediately if another process has written meanwhile.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_MILLISECONDS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _refuse_inherited(_connection: Any, record: Any, proxy: Any) -> None:
    """Refuse, in a child, a connection that was in use at the fork; idle ones were closed before it."""
    if record.info["pid"] != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None
        raise DisconnectionError("The connection belongs to another process.")


def _close_before_forks(engine: Engine) -> None:
    """Register a hook that closes idle connections before this process forks.

    SQLite counts the locks of a file within a process, and that count crosses the fork: a child whose parent had idle
    connections assumes locks that only the parent holds, and its commits can be lost.
    """
    if not hasattr(os, "register_at_fork"):
        return
    known = weakref.ref(engine)

    def close() -> None:
        if (own := known()) is not None:
            own.dispose()

    os.register_at_fork(before=close)
