"""Embedding spaces with their means, as of a generation.

What this module does not know: vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, and_, func, not_, or_, select

from indexer.errors import CorruptionError
from indexer.metadata.schema import MeanRow, SpaceRow
from indexer.types import Mean, Modality, Parts, Role


@dataclass(frozen=True)
class Space:
    """One embedding space of a collection.

    Attributes:
        id: Its number in the tables.
        digest: The digest of the model's fingerprint.
        model: The name by which the model was loaded.
        dim: Length of a vector.
        parts: Which parts of a document are embedded.
        fingerprint: The model's fingerprint.
        means: The means of its vectors, by role and modality.
        name: Its name in the collection; the model's name by default.
    """

    id: int
    digest: str
    model: str
    dim: int
    parts: Parts
    fingerprint: Mapping[str, Any]
    means: Mapping[tuple[Role, Modality], Mean]
    name: str = ""


def read_spaces(connection: Connection, generation: int, damaged: Callable[[str], CorruptionError]) -> list[Space]:
    """The spaces of a generation, oldest first, with only the newest of their means, to which every commit adds.

    Args:
        connection: A connection for reading.
        generation: The generation.
        damaged: Makes the error for invalid rows.

    Raises:
        CorruptionError: A fingerprint is incomplete, or a mean belongs to no space, has another dimension, or is longer
            than unit vectors allow.
    """
    lives = or_(SpaceRow.died.is_(None), SpaceRow.died > generation)
    rows = connection.execute(select(SpaceRow.__table__).where(lives).order_by(SpaceRow.id)).all()
    key = (MeanRow.space, MeanRow.role, MeanRow.modality)
    newest = (
        select(*key, func.max(MeanRow.generation).label("generation"))
        .where(MeanRow.generation <= generation, MeanRow.space.not_in(select(SpaceRow.id).where(not_(lives))))
        .group_by(*key)
        .subquery()
    )
    same = [column == newest.c[column.key] for column in (*key, MeanRow.generation)]
    sums = connection.execute(select(MeanRow.__table__).join(newest, and_(*same))).all()
    for row in rows:
        if not isinstance(row.fingerprint, dict) or "dtype" not in row.fingerprint:
            raise damaged(f"the fingerprint of the space {row.id} is not whole")
    means: dict[int, dict[tuple[Role, Modality], Mean]] = {row.id: {} for row in rows}
    for row in sums:
        dim = next((each.dim for each in rows if each.id == row.space), None)
        if dim is None or not isinstance(row.total, bytes) or len(row.total) != 8 * dim:
            raise damaged(f"a mean of the space {row.space} does not fit it")
        total = np.frombuffer(row.total, "<f8")
        if not (np.abs(total) <= 1.01 * row.rows + 1).all():  # written so that NaN counts as damage, too
            raise damaged(f"a mean of the space {row.space} is longer than its vectors")
        mean = Mean(row.rows, np.asarray(total / max(1, row.rows), np.float32))
        means[row.space][Role(row.role), Modality(row.modality)] = mean
    return [
        Space(
            id=row.id,
            digest=row.digest,
            model=row.model,
            dim=row.dim,
            parts=Parts(row.parts),
            fingerprint=row.fingerprint,
            means=means[row.id],
            name=row.name,
        )
        for row in rows
    ]
