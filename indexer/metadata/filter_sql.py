"""Filters as SQL, for both databases.

What this module does not know: any table except `documents`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement

from indexer.metadata import filter_postgres, filter_sqlite
from indexer.metadata.filter_nodes import Node, Place


def compiled(node: Node, dialect: str) -> ColumnElement[bool]:
    """The SQL condition on `documents` for a filter; the dialect is `sqlite` or `postgresql`."""
    return filter_postgres.compiled(node) if dialect == "postgresql" else filter_sqlite.compiled(node)


def typed(place: Place, dialect: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """SQL for the database's name of a value's type ("null" if it is missing), and for the value."""
    return filter_postgres.typed(place) if dialect == "postgresql" else filter_sqlite.typed(place)
