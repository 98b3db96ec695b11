"""The commit: one SQL transaction that makes a generation out of what was written aside.

What this module does not know: how segments got on disk (`indexer/ingest/writer.py` orders the steps).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, delete, func, insert, select, update

from indexer.metadata.catalog import MAX_PARAMETERS, Space
from indexer.metadata.database import Database, storable
from indexer.metadata.schema import (
    DocumentRow,
    GenerationRow,
    JobShardRow,
    MeanRow,
    RejectRow,
    SegmentRow,
    SpaceRow,
    VectorRow,
    living,
)
from indexer.types import Metric, Modality, Parts, Rejected, Role
from indexer.vectors.segments import SegmentFile

MEANS_KEPT = 64
"""Generations back to which the means are kept."""


@dataclass(frozen=True)
class NewDocument:
    """A row for `documents`; `images` has (image, image_sha256) of each where there are several."""

    id: str
    text: str | None
    uri: str | None
    image: str | None
    image_sha256: str | None
    modality: Modality
    fields: dict[str, Any]
    source: str | None = None
    stamp: str | None = None
    content: str | None = None
    images: Sequence[tuple[str, str]] = ()

    def every_image(self) -> list[str]:
        """The URIs of all its images."""
        return [uri for uri, _ in self.images] or ([] if self.image is None else [self.image])


@dataclass(frozen=True)
class FinishedShard:
    """The ledger's row of a job's shard, published with its documents or not at all."""

    job: int
    number: int
    digest: str
    added: int
    unchanged: int
    rejects: Sequence[Rejected] = ()


@dataclass(frozen=True)
class Change:
    """All that one commit does.

    Attributes:
        documents: New versions, in the order of the segment's rows.
        segment: The file that holds their vectors, first id first, behind those of the absorbed segments; None if
            there are no documents.
        first_vector: The id of the segment's first row.
        deleted: Document ids to bury; ids not in the collection are passed over.
        sums: Sum and count of new vectors by (role, modality), for the space's means.
        shard: The ledger's row, if the commit is a job's.
        note: Why, for `info`.
        absorbed: Living segments, in the order in which `segment` has their rows; they die.
    """

    documents: Sequence[NewDocument] = ()
    segment: SegmentFile | None = None
    first_vector: int = 0
    deleted: Sequence[str] = ()
    sums: Mapping[tuple[Role, Modality], tuple[int, npt.NDArray[np.float64]]] = field(default_factory=dict)
    shard: FinishedShard | None = None
    note: str = ""
    absorbed: Sequence[SegmentFile] = ()


@dataclass(frozen=True)
class Published:
    """What a commit did."""

    generation: int
    added: int
    replaced: int
    deleted: int


def create_first_generation(database: Database) -> None:
    """Generation 0: empty. Done once, and harmless when done again."""
    with database.write() as connection:
        if connection.execute(select(func.count()).select_from(GenerationRow)).scalar_one() == 0:
            _publish(connection, 0, 0, 0, "created")


def create_space(
    database: Database, digest: str, model: str, dim: int, parts: Parts, fingerprint: dict[str, Any]
) -> None:
    """Register an embedding space."""
    with database.write() as connection:
        connection.execute(
            insert(SpaceRow).values(
                digest=digest,
                model=model,
                dim=dim,
                metric=Metric.COSINE.value,
                parts=parts.value,
                fingerprint=fingerprint,
            )
        )


def copy_generation(connection: Connection, note: str, documents: int = 0) -> int:
    """Publish a generation like the last one, inside the caller's transaction.

    Args:
        connection: Of a writing transaction, which changes what the generation stands for.
        note: Why.
        documents: How many documents more (or fewer) it has.

    Returns:
        Its number.
    """
    last = _last_generation(connection)
    _publish(connection, last.number + 1, last.documents + documents, last.next_vector, note)
    return int(last.number) + 1


def publish(database: Database, space: Space, change: Change) -> Published:
    """Commit a change as the next generation, durably, all of it or none."""
    with database.write() as connection:
        last = _last_generation(connection)
        generation = last.number + 1
        deleted = _bury(connection, change.deleted, generation)
        replaced = _bury(connection, [document.id for document in change.documents], generation)
        next_vector = last.next_vector
        if change.segment is not None:
            _insert_documents(connection, space, change, generation)
            next_vector = change.first_vector + len(change.documents)
        _add_to_means(connection, space, change, generation)
        if change.shard is not None:
            finish_shard(connection, change.shard)
        documents = last.documents - deleted - replaced + len(change.documents)
        _publish(connection, generation, documents, next_vector, change.note)
    return Published(generation, len(change.documents) - replaced, replaced, deleted)


def finish_shard(connection: Connection, shard: FinishedShard) -> None:
    """Write a shard into the ledger, in place of an earlier one of its number."""
    connection.execute(delete(RejectRow).where(RejectRow.job == shard.job, RejectRow.shard == shard.number))
    connection.execute(delete(JobShardRow).where(JobShardRow.job == shard.job, JobShardRow.number == shard.number))
    connection.execute(
        insert(JobShardRow).values(
            job=shard.job,
            number=shard.number,
            digest=shard.digest,
            added=shard.added,
            unchanged=shard.unchanged,
            rejected=len(shard.rejects),
        )
    )
    if shard.rejects:
        connection.execute(
            insert(RejectRow),
            [
                {"job": shard.job, "shard": shard.number, "uri": each.uri, "reason": each.reason, "detail": each.detail}
                for each in shard.rejects
            ],
        )  # fmt: skip


def _insert_documents(connection: Connection, space: Space, change: Change, generation: int) -> None:
    assert change.segment is not None
    segment = connection.execute(
        insert(SegmentRow)
        .values(
            space=space.id,
            file=change.segment.file,
            sha256=change.segment.sha256,
            size=change.segment.size,
            rows=change.segment.rows,
            born=generation,
        )
        .returning(SegmentRow.id)
    ).scalar_one()
    start = _absorb(connection, change.absorbed, segment, generation)
    before = connection.execute(select(func.max(DocumentRow.key))).scalar_one() or 0
    connection.execute(
        insert(DocumentRow),
        [
            {
                "id": each.id,
                "text": each.text,
                "uri": each.uri,
                "image": each.image,
                "image_sha256": each.image_sha256,
                "images": [list(own) for own in each.images] or None,
                "content": each.content,
                "modality": each.modality.value,
                "fields": each.fields,
                "source": each.source,
                "stamp": each.stamp,
                "born": generation,
            }
            for each in change.documents
        ],
    )
    # Asked for afterwards, since RETURNING takes a statement for each row where their order counts. Keys only rise.
    added = connection.execute(select(DocumentRow.id, DocumentRow.key).where(DocumentRow.key > before))
    keys = {row[0]: row[1] for row in added}
    connection.execute(
        insert(VectorRow),
        [
            {
                "id": change.first_vector + row,
                "document": keys[each.id],
                "space": space.id,
                "role": Role.DOCUMENT.value,
                "segment": segment,
                "row": start + row,
            }
            for row, each in enumerate(change.documents)
        ],
    )


def _absorb(connection: Connection, absorbed: Sequence[SegmentFile], into: int, generation: int) -> int:
    """Point the vectors of segments at the one that has their rows now; returns how many rows those are.

    A segment that died is kept as a row, since a reader may be opening the generation before.
    """
    start = 0
    for each in absorbed:
        own = connection.execute(
            update(SegmentRow)
            .where(SegmentRow.file == each.file, SegmentRow.died.is_(None))
            .values(died=generation)
            .returning(SegmentRow.id)
        ).scalar_one()
        connection.execute(
            update(VectorRow).where(VectorRow.segment == own).values(segment=into, row=VectorRow.row + start)
        )
        start += each.rows
    return start


def _bury(connection: Connection, ids: Sequence[str], generation: int) -> int:
    buried = 0
    ids = [each for each in ids if storable(each)]
    for start in range(0, len(ids), MAX_PARAMETERS):
        result = connection.execute(
            update(DocumentRow)
            .where(DocumentRow.id.in_(ids[start : start + MAX_PARAMETERS]), living(connection.dialect.name))
            .values(died=generation)
        )
        buried += result.rowcount
    return buried


def _add_to_means(connection: Connection, space: Space, change: Change, generation: int) -> None:
    for (role, modality), (count, total) in change.sums.items():
        before = connection.execute(
            select(MeanRow.rows, MeanRow.total)
            .where(MeanRow.space == space.id, MeanRow.role == role.value, MeanRow.modality == modality.value)
            .order_by(MeanRow.generation.desc())
            .limit(1)
        ).one_or_none()
        if before is not None:
            count, total = count + before.rows, total + np.frombuffer(before.total, "<f8")
        connection.execute(
            insert(MeanRow).values(
                space=space.id,
                role=role.value,
                modality=modality.value,
                generation=generation,
                rows=count,
                total=np.asarray(total, "<f8").tobytes(),
            )
        )
        # A reader that is just opening an earlier generation finds its means; they are small, but not nothing.
        own = [MeanRow.space == space.id, MeanRow.role == role.value, MeanRow.modality == modality.value]
        kept = select(func.max(MeanRow.generation)).where(*own, MeanRow.generation <= generation - MEANS_KEPT)
        connection.execute(delete(MeanRow).where(*own, MeanRow.generation < kept.scalar_subquery()))


def _last_generation(connection: Connection) -> Any:
    return connection.execute(
        select(GenerationRow.number, GenerationRow.documents, GenerationRow.next_vector)
        .order_by(GenerationRow.number.desc())
        .limit(1)
    ).one()


def _publish(connection: Connection, number: int, documents: int, next_vector: int, note: str) -> None:
    connection.execute(
        insert(GenerationRow).values(
            number=number, created=datetime.now(UTC), documents=documents, next_vector=next_vector, note=note
        )
    )
