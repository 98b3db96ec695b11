"""The commit: one SQL transaction that publishes staged files as a generation.

What this module does not know: how segments are written (`indexer/ingest/writer.py` orders the steps).
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
"""The number of past generations whose means are kept."""


@dataclass(frozen=True)
class NewDocument:
    """A row of `documents`; if there are several images, `images` holds (image, image_sha256) of each."""

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
        """Its name in a reject: its source, or else its id."""
        return self.uri or self.id

    def every_image(self) -> list[str]:
        """The URIs of its images."""
        return [uri for uri, _ in self.images] or ([] if self.image is None else [self.image])


@dataclass(frozen=True)
class FinishedShard:
    """A shard's row in the ledger, published together with its documents."""

    job: int
    number: int
    digest: str
    added: int
    unchanged: int
    rejects: Sequence[Rejected] = ()


Sums: TypeAlias = Mapping[tuple[Role, Modality], tuple[int, npt.NDArray[np.float64]]]
"""The number of vectors and their sum, (dim,) float64, by role and modality."""


@dataclass(frozen=True)
class NewVectors:
    """The vectors that a commit adds to one space.

    Attributes:
        space: Its id.
        segment: The file that holds them, in the order of their ids, after those of the absorbed segments.
        first_vector: The id of the first one.
        places: The document of each: its position in `documents` followed by `stored` of the change.
        modalities: The modality of each; None for the document's modality.
        sums: For the space's means.
        absorbed: Segments of the space that `segment` replaces, in the order of their rows in it.
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
    """The changes of one commit.

    Attributes:
        documents: New documents and new versions; each id once.
        stored: Keys of stored documents that get vectors.
        vectors: The vectors of both, by space.
        deleted: Document ids to delete; unknown ids are ignored.
        shard: The ledger's row, if the commit is a job's.
        note: The reason, for `info`.
    """

    documents: Sequence[NewDocument] = ()
    stored: Sequence[int] = ()
    vectors: Sequence[NewVectors] = ()
    deleted: Sequence[str] = ()
    shard: FinishedShard | None = None
    note: str = ""


@dataclass(frozen=True)
class Published:
    """The outcome of a commit."""

    generation: int
    added: int
    replaced: int
    deleted: int


def create_first_generation(database: Database) -> None:
    """Publish the empty generation 0; does nothing if it exists."""
    with database.write() as connection:
        if connection.execute(select(func.count()).select_from(GenerationRow)).scalar_one() == 0:
            _publish(connection, 0, 0, 0, "created")


def copy_generation(connection: Connection, note: str, documents: int = 0) -> int:
    """Publish the next generation inside the caller's transaction.

    Args:
        connection: A writing transaction that makes the generation's changes.
        note: The reason, for `info`.
        documents: The change in the number of documents.

    Returns:
        Its number.
    """
    last = _last_generation(connection)
    _publish(connection, last.number + 1, last.documents + documents, last.next_vector, note)
    return int(last.number) + 1


def publish(database: Database, change: Change) -> Published:
    """Commit a change as the next generation, atomically and durably."""
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
    """Write a shard into the ledger, replacing an earlier one with its number."""
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
    # Read afterwards: RETURNING in a defined order takes a statement per row. Keys only increase.
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
    """Point the vectors of absorbed segments at the new segment; returns the number of rows.

    The row of an absorbed segment stays, since a reader may be opening the previous generation.
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
        # A reader that is opening an earlier generation still finds its means. Older ones are dropped to save space.
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
