"""Read a collection's metadata as of one generation: spaces, segments, tombstones, documents, filters.

What this module does not know: vectors, models, how rows got here (`publish.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from indexer.errors import CallError, CorruptionError, SnapshotGoneError, StoreError
from indexer.forks import Lock
from indexer.metadata.connections import undisturbed
from indexer.metadata.database import Database, storable
from indexer.metadata.document_images import IMAGE_COLUMNS, every_image
from indexer.metadata.filter_columns import Columns
from indexer.metadata.filter_notes import FilterNotes
from indexer.metadata.filter_sql import compiled
from indexer.metadata.filters import Filter
from indexer.metadata.schema import DocumentRow, GenerationRow, SegmentRow, SpaceRow, VectorRow, living
from indexer.metadata.spaces import Space as Space
from indexer.metadata.spaces import read_spaces
from indexer.metadata.time_limit import limited
from indexer.stored_document import DocumentRecord, several_images
from indexer.types import MODALITIES, UNKNOWN, Ids, Modality
from indexer.vectors.segments import SegmentFile

MAX_PARAMETERS = 500
"""Values in one IN list: old SQLite builds allow 999 parameters in a statement."""

_DOCUMENTS = """
SELECT v.id, d.id, d.text, d.uri, d.image, d.image_sha256, coalesce(v.modality, d.modality), d.fields, d.images
FROM vectors v JOIN documents d ON v.document = d.key
WHERE v.id IN ({}) AND d.born <= ? AND (d.died IS NULL OR d.died > ?)
"""
"""The statement of `_document_rows` for SQLite's driver; the braces hold one `?` per vector."""

_MODALITY = func.coalesce(VectorRow.modality, DocumentRow.modality)
"""The modality of a vector."""

_KINDS: Mapping[str, Modality] = {each.value: each for each in Modality}

Value = TypeVar("Value")


@dataclass(frozen=True)
class Generation:
    """One published state."""

    number: int
    created: datetime
    documents: int
    next_vector: int
    note: str


class Catalog:
    """The metadata of one collection, read-only."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.columns = Columns(database)
        self.filter_notes = FilterNotes(database)
        self._modalities: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self._modalities_lock = Lock()
        self._highest = -1

    @undisturbed
    def generation(self) -> Generation:
        """The newest published state.

        Raises:
            CorruptionError: There is none.
            StoreError: It is older than one that was read before.
        """
        before = self._highest
        with self.database.read() as connection:
            row = connection.execute(
                select(GenerationRow.__table__).order_by(GenerationRow.number.desc()).limit(1)
            ).first()
        return Generation(self._advanced(None if row is None else row[0], before), *row[1:] if row else ())

    def newest(self) -> int:
        """The number of the newest published state, which every search reads first. Raises as `generation`."""
        before = self._highest
        rows = self.database.read_directly("SELECT max(number) FROM generations", ())
        return self.generation().number if rows is None else self._advanced(rows[0][0], before)

    def _advanced(self, number: Any, before: int) -> int:
        """Check the number of a generation against the highest known one, `before`."""
        if not isinstance(number, int):
            raise self._damaged("it names no generation")
        if number < before:
            raise StoreError(
                f"{self.database.shown} is at generation {number} and was at {before} before: it was restored to an "
                "earlier state while it was open.",
                "Open the collection again.",
            )
        self._highest = max(self._highest, number)
        return number

    @undisturbed
    def spaces(self, generation: int) -> list[Space]:
        """The spaces of a generation, oldest first, with their means as of then.

        Raises:
            CorruptionError: Their rows are invalid; see `read_spaces`.
        """
        with self.database.read() as connection:
            return read_spaces(connection, generation, self._damaged)

    def living_spaces(self) -> list[int]:
        """The ids of the current spaces, oldest first, which every writer reads."""
        rows = self.database.read_directly("SELECT id FROM spaces WHERE died IS NULL ORDER BY id", ())
        if rows is not None:
            return [row[0] for row in rows]
        query = select(SpaceRow.id).where(SpaceRow.died.is_(None)).order_by(SpaceRow.id)
        with self.database.read() as connection:
            return list(connection.execute(query).scalars())

    @undisturbed
    def segments(self, generation: int, space: int | None = None) -> list[SegmentFile]:
        """The segments that live in a generation, oldest first."""
        query = select(SegmentRow).where(_alive(SegmentRow, generation)).order_by(SegmentRow.id)
        if space is not None:
            query = query.where(SegmentRow.space == space)
        with self._pinned(generation) as connection:
            rows = connection.execute(query.with_only_columns(*SegmentRow.__table__.columns)).all()
        return [SegmentFile(row.file, row.sha256, row.size, row.rows) for row in rows]

    @undisturbed
    def tombstones(self, generation: int, space: int) -> Ids:
        """Vectors whose document is dead in a generation: (n,) int64, ascending.

        Vectors of removed segments are included: a vector may move to another segment while a reader opens its own.
        """
        dead = and_(DocumentRow.died.is_not(None), DocumentRow.died <= generation)
        with self._pinned(generation) as connection:
            return self._ids(row[0] for row in connection.execute(_vectors_of(space, VectorRow.id).where(dead)))

    def require(self, generation: int) -> None:
        """Raise `SnapshotGoneError` if a generation was compacted away, so that rows may be gone."""
        rows = self.database.read_directly("SELECT 1 FROM generations WHERE number = ?", (generation,))
        if rows is None:
            with self._pinned(generation):
                return
        if not rows:
            raise _gone(generation)

    @undisturbed
    def matching(self, where: Filter, generation: int, space: int) -> Ids:
        """Vectors of living documents that a filter lets through: (n,) int64, ascending.

        Raises:
            StoreError: The database gave up after its time limit; see `time_limit.py`.
        """
        condition = compiled(where.node, self.database.engine.dialect.name)
        query = _vectors_of(space, VectorRow.id).where(condition, _alive(DocumentRow, generation))
        with self._pinned(generation) as connection, limited(connection):
            # Bypasses SQLAlchemy's rows, which take as long as the database when a filter matches most documents.
            cursor = connection.execute(query).cursor
            assert cursor is not None  # None only if a statement returns no rows
            return self._ids(row[0] for row in cursor.fetchall())

    @undisturbed
    def vector_ids(self, ids: Sequence[str], generation: int, space: int) -> Ids:
        """The vector ids of documents, in the order of their ids.

        Raises:
            CallError: Some ids are not in the collection.
        """
        found = self.known_vector_ids(ids, generation, space)
        missing = [each for each in ids if each not in found]
        if missing:
            raise CallError(
                f"The document {missing[0]!r} is not in the collection."
                if len(missing) == 1
                else f"{len(missing)} of {len(ids)} documents are not in the collection; the first is {missing[0]!r}."
            )
        return np.array([found[each] for each in ids], np.int64)

    @undisturbed
    def known_vector_ids(self, ids: Sequence[str], generation: int, space: int) -> dict[str, int]:
        """The vector ids of the documents that live in a generation, by document id."""
        found: dict[str, int] = {}
        with self._pinned(generation) as connection:
            for some in batches([each for each in ids if storable(each)]):
                # Two statements: with both conditions in one, neither database uses an index.
                for alive in (living(connection.dialect.name), DocumentRow.died > generation):
                    rest = [each for each in some if each not in found]
                    query = _vectors_of(space, DocumentRow.id, VectorRow.id).where(
                        DocumentRow.id.in_(rest), DocumentRow.born <= generation, alive
                    )
                    found.update((row[0], row[1]) for row in (connection.execute(query) if rest else ()))
        return found

    @undisturbed
    def with_images(self, digests: Iterable[str], generation: int, space: int) -> dict[str, list[tuple[int, str]]]:
        """The living documents whose only image has a given content: their vector ids and ids, by content.

        A document with several images, such as a page, is not a copy of one of them.
        """
        found: dict[str, list[tuple[int, str]]] = {}
        with self._pinned(generation) as connection:
            for some in batches(sorted(digests)):
                query = _vectors_of(space, DocumentRow.image_sha256, VectorRow.id, DocumentRow.id).where(
                    DocumentRow.image_sha256.in_(some), DocumentRow.images.is_(None), _alive(DocumentRow, generation)
                )
                for digest, vector, name in connection.execute(query):
                    found.setdefault(digest, []).append((vector, name))
        return found

    def documents(self, vectors: Sequence[int], generation: int) -> dict[int, DocumentRecord]:
        """The living documents of vectors, by vector id; dead and unknown ones are left out."""
        found: dict[int, DocumentRecord] = {}
        for some in batches(vectors):
            for row in self._document_rows(some, generation):
                images = None if row[8] is None else several_images(row[8], self.database.shown)
                found[row[0]] = DocumentRecord._make((*row[:6], _KINDS.get(row[6]) or Modality(row[6]), row[7], images))
        return found

    def _document_rows(self, vectors: Sequence[int], generation: int) -> Sequence[Any]:
        marks = ",".join("?" * len(vectors))
        rows = self.database.read_directly(_DOCUMENTS.format(marks), (*vectors, generation, generation))
        if rows is not None:
            try:  # parsed in one call: one per row would take as long as the statement
                fields = json.loads(f"[{','.join([row[7] for row in rows])}]")
                images = [None if row[8] is None else json.loads(row[8]) for row in rows]
                return [(*row[:7], *own) for row, *own in zip(rows, fields, images, strict=True)]
            except (TypeError, ValueError) as error:
                raise self._damaged(f"fields of a document are not JSON ({error})") from error
        columns = (
            VectorRow.id, DocumentRow.id, DocumentRow.text, DocumentRow.uri, DocumentRow.image,
            DocumentRow.image_sha256, _MODALITY, DocumentRow.fields, DocumentRow.images,
        )  # fmt: skip
        with self.database.read() as connection:
            return connection.execute(
                select(*columns)
                .join(DocumentRow, VectorRow.document == DocumentRow.key)
                .where(VectorRow.id.in_(vectors), _alive(DocumentRow, generation))
            ).all()

    def living_images(self, generation: int) -> Iterator[tuple[str, str, str | None]]:
        """(document id, image, sha256) of every image of a living document; of several, each in order."""
        last = -1
        while True:  # in pages: no transaction stays open while the caller reads files
            query = select(*IMAGE_COLUMNS, DocumentRow.key).where(
                DocumentRow.image.is_not(None), _alive(DocumentRow, generation), DocumentRow.key > last
            )
            with self._pinned(generation) as connection:
                rows = connection.execute(query.order_by(DocumentRow.key).limit(1000)).all()
            if not rows:
                return
            yield from every_image((row[:-1] for row in rows), self.database.shown)
            last = rows[-1].key

    @undisturbed
    def ids_of_source(self, source: str) -> set[str]:
        """The ids of the living documents that came from a source."""
        with self.database.read() as connection:
            query = select(DocumentRow.id).where(DocumentRow.source == source, DocumentRow.died.is_(None))
            return set(connection.execute(query).scalars())

    @undisturbed
    def modalities(self, below: int) -> npt.NDArray[np.uint8]:
        """The modality of each vector, as its position in `MODALITIES`; `UNKNOWN` if its row is gone.

        A vector id is never reused, so what was read stays true, and only new ids are read.

        Args:
            below: The end of the ids, exclusive; a generation's `next_vector`.

        Returns:
            (below or more,) uint8, by vector id, for all spaces.

        Raises:
            CorruptionError: A row names an unknown modality.
        """
        with self._modalities_lock:
            known = len(self._modalities)
            if known < below:
                query = (
                    select(VectorRow.id, _MODALITY)
                    .join(DocumentRow, VectorRow.document == DocumentRow.key)
                    .where(VectorRow.id >= known, VectorRow.id < below)
                )
                codes = {modality.value: code for code, modality in enumerate(MODALITIES)}
                fresh = np.full(below - known, UNKNOWN, np.uint8)
                with self.database.read() as connection:
                    for identifier, modality in connection.execution_options(yield_per=10_000).execute(query):
                        if modality not in codes:
                            raise self._damaged(f"the vector {identifier} is of the modality {modality!r}")
                        fresh[identifier - known] = codes[modality]
                self._modalities = np.concatenate([self._modalities, fresh])
            return self._modalities

    @undisturbed
    def counts(self, generation: int) -> dict[str, int]:
        """The number of living documents by modality."""
        kind = DocumentRow.modality
        query = select(kind, func.count()).where(_alive(DocumentRow, generation)).group_by(kind)
        with self._pinned(generation) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def _damaged(self, how: str) -> CorruptionError:
        return CorruptionError(
            f"{self.database.shown} is damaged: {how}.", "Restore it from a backup, or index again into a new folder."
        )

    @contextmanager
    def _pinned(self, generation: int) -> Iterator[Connection]:
        """A connection for reading that sees all of a generation.

        Raises:
            SnapshotGoneError: Its rows may be gone: compaction drops earlier generations.
        """
        with self.database.read() as connection:
            known = select(GenerationRow.number).where(GenerationRow.number == generation)
            if connection.execute(known).first() is None:
                raise _gone(generation)
            yield connection

    def _ids(self, values: Iterable[Any]) -> Ids:
        """Vector ids, ascending."""
        try:
            ids = np.fromiter(values, np.int64)
        except TypeError as error:
            raise self._damaged("the id of a vector is not a number") from error
        ids.sort()
        return ids


def _vectors_of(space: int, *columns: Any) -> Select[Any]:
    """Columns of a space's vectors, joined with their documents."""
    return select(*columns).join(DocumentRow, VectorRow.document == DocumentRow.key).where(VectorRow.space == space)


def _alive(row: type[DocumentRow] | type[SegmentRow], generation: int) -> ColumnElement[bool]:
    born: InstrumentedAttribute[int] = row.born
    died: InstrumentedAttribute[int | None] = row.died
    return and_(born <= generation, or_(died.is_(None), died > generation))


def batches(values: Sequence[Value]) -> Iterator[Sequence[Value]]:
    """The values in parts, one for each statement."""
    for start in range(0, len(values), MAX_PARAMETERS):
        yield values[start : start + MAX_PARAMETERS]


def _gone(generation: int) -> SnapshotGoneError:
    return SnapshotGoneError(f"Generation {generation} was compacted away.", "Open a new snapshot.")
