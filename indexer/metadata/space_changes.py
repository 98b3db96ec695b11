"""SQL statements that add and drop spaces and choose the default.

The caller holds the writer's lock.

What this module does not know: models, segments on disk.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, insert, or_, select, update

from indexer.metadata.connections import undisturbed
from indexer.metadata.database import Database
from indexer.metadata.publish import copy_generation
from indexer.metadata.schema import (
    COSINE,
    DocumentRow,
    IdentityRow,
    JobRow,
    JobShardRow,
    RejectRow,
    SegmentRow,
    SpaceRow,
    VectorRow,
)
from indexer.metadata.spaces import Space
from indexer.types import Parts


def create_space(
    database: Database,
    name: str,
    digest: str,
    model: str,
    dim: int,
    parts: Parts,
    fingerprint: dict[str, Any],
    note: str | None = None,
) -> int:
    """Register an embedding space and, if there is a note, publish a generation with it; returns the space's id."""
    values = {
        "name": name, "digest": digest, "model": model, "dim": dim, "metric": COSINE,
        "parts": parts.value, "fingerprint": fingerprint,
    }  # fmt: skip
    with database.write() as connection:
        created = connection.execute(insert(SpaceRow).values(values).returning(SpaceRow.id)).scalar_one()
        if note is not None:
            copy_generation(connection, note)
    return int(created)


def drop_space(database: Database, space: Space) -> None:
    """Drop a space and its segments in a new generation.

    Its rows stay until compaction, for readers pinned to an older generation.
    """
    with database.write() as connection:
        number = copy_generation(connection, f"dropped the space {space.name}")
        connection.execute(update(SpaceRow).where(SpaceRow.id == space.id).values(died=number))
        connection.execute(
            update(SegmentRow).where(SegmentRow.space == space.id, SegmentRow.died.is_(None)).values(died=number)
        )
        jobs = select(JobRow.id).where(JobRow.space == space.id)
        for table in (RejectRow, JobShardRow):
            connection.execute(delete(table).where(table.job.in_(jobs)))
        connection.execute(delete(JobRow).where(JobRow.space == space.id))


def set_default(database: Database, space: Space) -> None:
    """Set the default space of the collection."""
    with database.write() as connection:
        connection.execute(update(IdentityRow).values(space=space.id))
        copy_generation(connection, f"the default space is {space.name}")


@undisturbed
def default_space(database: Database) -> int | None:
    """The id of the default space, or None if none was set."""
    with database.read() as connection:
        found = connection.execute(select(IdentityRow.space)).scalar()
    return None if found is None else int(found)


@undisturbed
def vectors_of(database: Database, generation: int) -> dict[int, int]:
    """The number of living documents with a vector in each space of a generation, by the space's id."""
    lives = (DocumentRow.born <= generation, or_(DocumentRow.died.is_(None), DocumentRow.died > generation))
    query = (
        select(VectorRow.space, func.count())
        .join(DocumentRow, VectorRow.document == DocumentRow.key)
        .where(*lives)
        .group_by(VectorRow.space)
    )
    with database.read() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}
