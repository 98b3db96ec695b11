"""The writer of a collection, which commits documents and vectors as the next generation.

The steps of a commit, and what a crash at each step leaves:

1. Images given as bytes were staged in `media/` while documents were read, complete but not yet durable. Those of
   the commit are all synced, then renamed, then their folders are synced (`settle_images`).
   Crash: `.tmp-` files, swept by the next writer on opening; images that no row names, removed by `check --repair` or
   the next compaction.
2. Vectors go to a new segment file, one for each space, with those of the small segments that it replaces
   (`absorbing.py`): written to a temporary file, synced, renamed, folder synced.
   Crash: a `.tmp-` file, or segments that no row names. Swept by the next writer on opening.
3. One SQL transaction: mark replaced and deleted documents as dead; insert documents, segments, vectors, means, the
ledger's
   row and the generation; point the vectors of absorbed segments at the new ones.
   Crash: the database rolls back; the state is as after 2.
4. The transaction is durable: the commit is done. Crash: nothing is missing.
5. The files of absorbed segments are removed. Crash: segments that no row names, as after 2.

Step 3 is the only commit point. Once `commit` has returned, nothing is lost; before step 3, nothing is visible.

Compaction follows steps 2 to 4 in the same order and then removes the old files; files that a crash leaves are swept
like other orphans. Creating a collection makes the tables first and `collection.json` last: what a crash leaves before
that is not a collection, and the next creation clears it away.

What this module does not know: models, search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np

from indexer.errors import CallError, LockedError, StoreError
from indexer.files.atomic import file_digest, sweep_temporary
from indexer.files.layout import SEGMENT_NAME, STARTING, Layout, own_path
from indexer.files.lock import WriterLock
from indexer.files.media import settle_images
from indexer.ingest.absorbing import absorbed
from indexer.metadata.catalog import Catalog, Space
from indexer.metadata.publish import Change, FinishedShard, NewDocument, NewVectors, Published, Sums, publish
from indexer.types import Ids, Modality, Rejected, Role, Vectors
from indexer.vectors.cache import CachedIndex, cached_indexes, index_lock, sweep_indexes
from indexer.vectors.segments import SegmentFile, first_id, open_segment, segment_name, segment_path, write_parts


@dataclass(frozen=True)
class SpaceVectors:
    """The vectors of one space in a commit. A document may have a vector in one space and none in another.

    Attributes:
        space: The space.
        places: (n,) for each row the position of its document in the commit; ascending.
        vectors: (n, dim) float32, rows of unit length.
        modalities: The modality of each row.
        extra_sums: Sums of vectors that are not stored, for the space's means.
    """

    space: Space
    places: Sequence[int]
    vectors: Vectors
    modalities: Sequence[Modality]
    extra_sums: Sums = field(default_factory=dict)


class Writer:
    """The writer; `with Writer(...) as writer:` holds the lock and sweeps what a crashed writer left.

    Args:
        catalog: The collection's catalog.
        layout: The collection's layout.
        space: The space of the vectors that `commit` takes.
        absorbs: Whether commits merge small segments into their own; see `absorbing.py`.
        patience: The most seconds to wait for another writer.
    """

    def __init__(
        self, catalog: Catalog, layout: Layout, space: Space, absorbs: bool = True, patience: float = 0.0
    ) -> None:
        self._catalog, self._layout, self._space, self._absorbs = catalog, layout, space, absorbs
        self._lock = WriterLock(layout.lock, patience)
        self.swept: list[Path] = []

    def __enter__(self) -> Writer:
        self._catalog.database.standing()  # first, so that no lock file is made in a folder that replaced ours
        self._lock.__enter__()
        try:
            self.swept = self.sweep()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                with suppress(StoreError):  # another collection's folder is left alone
                    self._require_standing()
                    sweep_temporary(self._layout.media)  # images of a commit that never happened
        finally:
            self._lock.__exit__(kind, error, trace)

    def sweep(self) -> list[Path]:
        """Remove segments and temporary files that no generation names, and stale indexes; returns what it removed.

        Only files with names that we make are removed; others are left alone.

        Raises:
            StoreError: A folder of the collection is a link, or is no longer the one that was opened.
        """
        self._layout.require_own()
        living = self._catalog.segments(self._catalog.generation().number)
        known = {each.file for each in living}
        self._require_standing()
        segments = [path for path in self._layout.segments.glob("*") if SEGMENT_NAME.fullmatch(path.name)]
        removed = [path for path in segments if path.name not in known]
        for path in removed:
            path.unlink(missing_ok=True)
        own_path(self._layout.folder, STARTING).unlink(missing_ok=True)
        for folder in (self._layout.segments, self._layout.media):
            removed += sweep_temporary(folder)
        if self._layout.indexes.is_dir():
            with (
                suppress(LockedError, StoreError),
                index_lock(self._layout.indexes),
            ):  # builders sweep, too
                removed += sweep_indexes(self._layout.indexes, (each.sha256 for each in living))
        return removed

    def commit(
        self,
        documents: Sequence[NewDocument] = (),
        vectors: Vectors | None = None,
        *,
        deleted: Sequence[str] = (),
        shard: FinishedShard | None = None,
        extra_sums: Sums | None = None,
        note: str = "",
    ) -> Published:
        """Publish documents with their vectors in the writer's own space, and deletions, as one generation.

        Args:
            documents: New documents or new versions; if an id occurs twice, the later one counts.
            vectors: (len(documents), dim) float32, rows of unit length.
            deleted: Ids to delete; unknown ones are ignored.
            shard: The ledger's row, if a job commits.
            extra_sums: Sums of vectors that are not stored, for the space's means.
            note: The reason, for `info`.

        Raises:
            CallError: The vectors do not match the documents or the space.
            StoreError: The database or the disk fails; nothing was published.
        """
        if vectors is None:
            vectors = np.empty((0, self._space.dim), np.float32)
        modalities = [each.modality for each in documents]
        own = SpaceVectors(self._space, range(len(documents)), vectors, modalities, extra_sums or {})
        return self.commit_spaces(documents, [own], deleted=deleted, shard=shard, note=note)

    def commit_spaces(
        self,
        documents: Sequence[NewDocument],
        vectors: Sequence[SpaceVectors],
        *,
        stored: Mapping[int, Modality] | None = None,
        deleted: Sequence[str] = (),
        shard: FinishedShard | None = None,
        note: str = "",
    ) -> Published:
        """Publish documents with their vectors in any number of spaces as one generation.

        Args:
            documents: As for `commit`.
            vectors: The vectors of each space that gets any.
            stored: Stored documents that get vectors, by key with their modality; positions continue through
                them.
            deleted: As for `commit`.
            shard: As for `commit`.
            note: As for `commit`.

        Raises:
            CallError: The vectors do not match the documents or their space.
            StoreError: The database or the disk fails; nothing was published.
        """
        stored = stored or {}
        for each in vectors:
            _require_fitting(each, len(documents) + len(stored))
        kept = list({document.id: place for place, document in enumerate(documents)}.values())
        if len(kept) < len(documents):
            kept_places = [*kept, *range(len(documents), len(documents) + len(stored))]
            vectors = [selected(each, kept_places) for each in vectors]
            documents = [documents[place] for place in kept]
        self._require_standing()
        if documents:
            settle_images(self._layout.media, (uri for document in documents for uri in document.every_image()))
        generation = self._catalog.generation()
        kinds = [*(each.modality for each in documents), *stored.values()]
        new, next_vector = [], generation.next_vector
        for each in vectors:
            new.append(self._written(each, kinds, generation.number, next_vector))
            next_vector += len(each.places)
        change = Change(documents, list(stored), new, deleted, shard, note)
        published = publish(self._catalog.database, change)
        for file in (file for each in new for file in each.absorbed):
            segment_path(self._layout.segments, file.file).unlink(missing_ok=True)
        return published

    def _written(self, own: SpaceVectors, kinds: Sequence[Modality], generation: int, first: int) -> NewVectors:
        """Write the vectors of a space to a new segment, complete and durable.

        Args:
            own: The vectors of the space.
            kinds: The modality of each document of the commit.
            generation: The generation before the commit.
            first: The id of the first vector.
        """
        if not len(own.places):
            return NewVectors(own.space.id, None, first, (), (), own.extra_sums)
        ids = np.arange(first, first + len(own.places), dtype=np.int64)
        old, parts = self._absorbed(own.space, generation, len(ids))
        name = segment_name(int(parts[0][1][0]) if parts else first)
        segment = write_parts(self._layout.segments, name, [*parts, (own.vectors, ids)], own.space.digest)
        differing = [
            None if kinds[place] is modality else modality
            for place, modality in zip(own.places, own.modalities, strict=True)
        ]
        sums = {**_sums(own), **own.extra_sums}
        return NewVectors(own.space.id, segment, first, own.places, differing, sums, old)

    def _absorbed(
        self, space: Space, generation: int, rows: int
    ) -> tuple[list[SegmentFile], list[tuple[Vectors, Ids]]]:
        """The segments that a commit of `rows` rows merges into its own, with their content; none if one is damaged."""
        living = self._catalog.segments(generation, space.id) if self._absorbs else []
        living.sort(key=lambda each: first_id(each.file))
        row_bytes = 4 * space.dim + 8
        if not absorbed(living, rows, row_bytes, ()):
            return [], []
        try:
            stored = [each for each in cached_indexes(self._layout.indexes) if isinstance(each, CachedIndex)]
            old = absorbed(living, rows, row_bytes, {name for each in stored for name in each.segments})
            parts = [open_segment(self._layout.segments, each, space.digest, space.dim) for each in old]
            whole = all(file_digest(self._layout.segments / each.file) == each.sha256 for each in old)
        except (OSError, StoreError):  # `check` reports the damage; the commit writes only its own rows
            return [], []
        ascends = all(len(ids) and (ids[1:] > ids[:-1]).all() for _, ids in parts)
        follows = all(one[1][-1] < other[1][0] for one, other in pairwise(parts)) if ascends else False
        return (old, parts) if whole and follows else ([], [])

    def _require_standing(self) -> None:
        """Raise an error if the collection or its lock has been replaced."""
        self._catalog.database.standing()
        self._lock.require()


def selected(own: SpaceVectors, places: Sequence[int]) -> SpaceVectors:
    """The vectors of only these documents of a commit, renumbered in the given order."""
    new = {place: number for number, place in enumerate(places)}
    rows = sorted((row for row, place in enumerate(own.places) if place in new), key=lambda row: new[own.places[row]])
    return SpaceVectors(
        own.space,
        [new[own.places[row]] for row in rows],
        own.vectors[rows],
        [own.modalities[row] for row in rows],
        own.extra_sums,
    )


def with_any_vector(
    documents: int, found: Sequence[tuple[SpaceVectors, Mapping[int, Rejected]]]
) -> tuple[list[int], list[Rejected]]:
    """The positions of the documents that got a vector in any space, and why the others got none.

    Args:
        documents: The number of documents.
        found: For each space, its vectors and the rejects of documents that got none, by position.
    """
    lacking: dict[int, Rejected] = {}
    for _, bad in reversed(found):
        lacking |= bad
    if lacking:
        having = {place for own, _ in found for place in own.places}
        lacking = {place: why for place, why in lacking.items() if place not in having}
    return [place for place in range(documents) if place not in lacking], [lacking[each] for each in sorted(lacking)]


def _require_fitting(own: SpaceVectors, documents: int) -> None:
    rows, dim = len(own.places), own.space.dim
    if own.vectors.shape != (rows, dim):
        raise CallError(f"The vectors must have the shape ({rows}, {dim}), not {own.vectors.shape}.")
    if rows and not 0 <= min(own.places) <= max(own.places) < documents:
        raise CallError(f"Vectors refer to document {max(own.places)} of a commit with {documents} documents.")
    lengths = np.linalg.norm(own.vectors, axis=1)
    if not np.all(np.abs(lengths - 1) < 1e-3):
        worst = float(lengths[np.argmax(np.abs(np.nan_to_num(lengths) - 1))])
        raise CallError(f"Vectors must have unit length; one has length {worst:.4g}.")


def _sums(own: SpaceVectors) -> Sums:
    """The count and sum of the vectors of each modality."""
    modalities = np.array([modality.value for modality in own.modalities])
    return {
        (Role.DOCUMENT, Modality(name)): (
            int((modalities == name).sum()),
            own.vectors[modalities == name].sum(axis=0, dtype=np.float64),
        )
        for name in np.unique(modalities)
    }
