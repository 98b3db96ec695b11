"""Convert errors of SQLAlchemy and of SQLite's driver into ours.

What this module does not know: which statement failed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from indexer.errors import CorruptionError, StoreError

_DAMAGE = ("malformed", "not a database", "disk image", "Could not decode to UTF-8")
"""Messages of SQLite and its driver about a damaged file."""


_OPERATIONAL = (OperationalError, sqlite3.OperationalError)


@contextmanager
def mapped(shown: str) -> Iterator[None]:
    """Convert errors of SQLAlchemy and SQLite's driver in the block into ours, which name the database."""
    try:
        yield
    except (DatabaseError, sqlite3.Error) as error:  # SQLite's own errors come from the driver used without SQLAlchemy
        if any(sign in str(error) for sign in _DAMAGE):
            raise CorruptionError(
                f"{shown} is damaged: {_cause(error)}.",
                "Restore it from a backup, or index again into a new folder.",
            ) from error
        remedy = "Is the database reachable, writable and not full?" if isinstance(error, _OPERATIONAL) else None
        raise StoreError(f"{shown}: {_cause(error)}.", remedy) from error
    except SQLAlchemyError as error:
        raise StoreError(f"{shown}: {_cause(error)}.") from error
    except ValueError as error:
        # A damaged value is not a text, JSON or time; found by flipping bits of the file.
        raise CorruptionError(
            f"{shown} is damaged: {error}.", "Restore it from a backup, or index again into a new folder."
        ) from error


def _cause(error: SQLAlchemyError | sqlite3.Error) -> str:
    original = getattr(error, "orig", None) or error
    return (str(original).strip() or type(original).__name__).splitlines()[0]
