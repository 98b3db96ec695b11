"""The commit: one SQL transaction that makes a generation out of what was written aside.

What this module does not know: how segments got on disk (`indexer/ingest/writer.py` orders the steps).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, delete, func, insert, select, update

from indexer.metadata.catalog import MAX_PARAMETERS
from indexer.metadata.database import Database, storable
from indexer.metadata.schema import (
    DocumentRow,
    GenerationRow,
    JobShardRow,
    MeanRow,
    RejectRow,
    SegmentRow,
    VectorRow,
    living,
)
from indexer.types import Modality, Rejected, Role
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

    @property
    def name(self) -> str:
        """What to call it in a reject: where it came from, or else its id."""
        return self.uri or self.id

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


Sums: TypeAlias = Mapping[tuple[Role, Modality], tuple[int, npt.NDArray[np.float64]]]
"""By role and modality, how many vectors there were and their sum, (dim,) float64."""


@dataclass(frozen=True)
class NewVectors:
    """The vectors that a commit adds to one space.

    Attributes:
        space: Its id.
        segment: The file that holds them, in the order of their ids, behind those of the absorbed segments.
        first_vector: The id of the first one.
        places: Whose vector each is: the place of its document among `documents` and then `stored` of the change.
        modalities: What each was made of; None where that is the document's modality.
        sums: For the space's means.
        absorbed: Living segments of the space, in the order in which `segment` has their rows; they die.
    """

    space: int
    segment: SegmentFile | None
    first_vector: int
    places: Sequence[int]
    modalities: Sequence[Modality | None]
    sums: Sums = field(default_factory=dict)
    absorbed: Sequence[SegmentFile] = ()


@dataclass(frozen=True)
class Change:
    """All that one commit does.

    Attributes:
        documents: New documents and new versions; of one id once.
        stored: Keys of documents that are stored, and get vectors.
        vectors: Of both, by space.
        deleted: Document ids to bury; ids not in the collection are passed over.
        shard: The ledger's row, if the commit is a job's.
        note: Why, for `info`.
    """

    documents: Sequence[NewDocument] = ()
    stored: Sequence[int] = ()
    vectors: Sequence[NewVectors] = ()
    deleted: Sequence[str] = ()
    shard: FinishedShard | None = None
    note: str = ""


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


def publish(database: Database, change: Change) -> Published:
    """Commit a change as the next generation, durably, all of it or none."""
    with database.write() as connection:
        last = _last_generation(connection)
        generation, next_vector = last.number + 1, last.next_vector
        deleted = _bury(connection, change.deleted, generation)
        replaced = _bury(connection, [document.id for document in change.documents], generation)
        keys = [*_insert_documents(connection, change.documents, generation), *change.stored]
        for each in change.vectors:
            if each.segment is not None:
                _insert_vectors(connection, each, each.segment, keys, generation)
                next_vector = each.first_vector + len(each.places)
            _add_to_means(connection, each.space, each.sums, generation)
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


def _insert_documents(connection: Connection, documents: Sequence[NewDocument], generation: int) -> list[int]:
    """The keys of the documents, in their order."""
    if not documents:
        return []
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
            for each in documents
        ],
    )
    # Asked for afterwards, since RETURNING takes a statement for each row where their order counts. Keys only rise.
    added = connection.execute(select(DocumentRow.id, DocumentRow.key).where(DocumentRow.key > before))
    keys = {row[0]: row[1] for row in added}
    return [keys[each.id] for each in documents]


def _insert_vectors(
    connection: Connection, new: NewVectors, file: SegmentFile, keys: Sequence[int], generation: int
) -> None:
    segment = connection.execute(
        insert(SegmentRow)
        .values(
            space=new.space,
            file=file.file,
            sha256=file.sha256,
            size=file.size,
            rows=file.rows,
            born=generation,
        )
        .returning(SegmentRow.id)
    ).scalar_one()
    start = _absorb(connection, new.absorbed, segment, generation)
    connection.execute(
        insert(VectorRow),
        [
            {
                "id": new.first_vector + row,
                "document": keys[place],
                "space": new.space,
                "role": Role.DOCUMENT.value,
                "segment": segment,
                "row": start + row,
                "modality": modality,
            }
            for row, (place, modality) in enumerate(zip(new.places, new.modalities, strict=True))
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


def _add_to_means(connection: Connection, space: int, sums: Sums, generation: int) -> None:
    for (role, modality), (count, total) in sums.items():
        before = connection.execute(
            select(MeanRow.rows, MeanRow.total)
            .where(MeanRow.space == space, MeanRow.role == role.value, MeanRow.modality == modality.value)
            .order_by(MeanRow.generation.desc())
            .limit(1)
        ).one_or_none()
        if before is not None:
            count, total = count + before.rows, total + np.frombuffer(before.total, "<f8")
        connection.execute(
            insert(MeanRow).values(
                space=space,
                role=role.value,
                modality=modality.value,
                generation=generation,
                rows=count,
                total=np.asarray(total, "<f8").tobytes(),
            )
        )
        # A reader that is just opening an earlier generation finds its means; they are small, but not nothing.
        own = [MeanRow.space == space, MeanRow.role == role.value, MeanRow.modality == modality.value]
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
