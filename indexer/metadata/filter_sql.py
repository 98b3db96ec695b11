"""Filters as SQL of either database.

What this module does not know: anything but the `documents` table.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement

from indexer.metadata import filter_postgres, filter_sqlite
from indexer.metadata.filter_nodes import Node, Place


def compiled(node: Node, dialect: str) -> ColumnElement[bool]:
    """The SQL condition over `documents` that a filter stands for; the dialect is `sqlite` or `postgresql`."""
    return filter_postgres.compiled(node) if dialect == "postgresql" else filter_sqlite.compiled(node)


def typed(place: Place, dialect: str) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """SQL for what the database calls the type of a value, and for the value; "null" where it is missing."""
    return filter_postgres.typed(place) if dialect == "postgresql" else filter_sqlite.typed(place)
