"""The one writer of a collection: it takes vectors, not models, and turns them into the next generation.

A commit, step by step, and what a crash at each leaves:

1. Images given as bytes were put aside in `media/` while documents were read, whole and not yet durable. Those of
   the commit are all synced, then renamed, then their folders synced (`settle_images`).
   Crash: `.tmp-` files, swept by the next writer on opening; images that no row names, removed by `check --repair` or
   the next compaction.
2. Vectors go to a new segment file, with those of small segments that it takes the place of (`absorbing.py`): written
   aside, synced, renamed, folder synced.
   Crash: a `.tmp-` file, or a segment that no row names. Swept by the next writer on opening.
3. One SQL transaction: bury replaced and deleted documents; insert documents, segment, vectors, means, the ledger's
   row and the generation; point the vectors of absorbed segments at the new one.
   Crash: the database rolls back, so as after 2.
4. The transaction is durable: the commit is done. Crash: nothing is missing.
5. The files of absorbed segments are removed. Crash: segments that no row names, as after 2.

Step 3 is the only commit point. What `commit` returned from is never lost; what it did not is not there at all.

Compaction takes the steps 2 to 4 in the same order, and removes the old files after them; what a crash leaves of those
is swept like any other orphan. A collection starts with its tables, and with `collection.json` last: what a crash
leaves before that is no collection, and the next start clears it away.

What this module does not know: models, search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from indexer.errors import CallError, LockedError, StoreError
from indexer.files.atomic import file_digest, own_path, sweep_temporary
from indexer.files.layout import SEGMENT_NAME, STARTING, Layout
from indexer.files.lock import WriterLock
from indexer.files.media import settle_images
from indexer.ingest.absorbing import absorbed
from indexer.metadata.catalog import Catalog, Space
from indexer.metadata.publish import Change, FinishedShard, NewDocument, Published, publish
from indexer.types import Ids, Modality, Role, Vectors
from indexer.vectors.cache import CachedIndex, cached_indexes, index_lock, sweep_indexes
from indexer.vectors.segments import SegmentFile, first_id, open_segment, segment_name, segment_path, write_parts


class Writer:
    """`with Writer(...) as writer:` holds the lock, and sweeps what a crashed writer left.

    Args:
        catalog: The collection's.
        layout: The collection's.
        space: Whose vectors are written.
        absorbs: Whether commits take small segments into their own; see `absorbing.py`.
    """

    def __init__(self, catalog: Catalog, layout: Layout, space: Space, absorbs: bool = True) -> None:
        self._catalog, self._layout, self._space, self._absorbs = catalog, layout, space, absorbs
        self._lock = WriterLock(layout.lock)
        self.swept: list[Path] = []

    def __enter__(self) -> Writer:
        self._catalog.database.standing()  # before a lock file is made in what took the folder's place
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
                    sweep_temporary(self._layout.media)  # images of a commit that will not be
        finally:
            self._lock.__exit__(kind, error, trace)

    def sweep(self) -> list[Path]:
        """Remove segments and temporary files that no generation names, and stale indexes; returns what it removed.

        Only files whose names are of our own making; others are left alone.

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
            with suppress(LockedError, StoreError), index_lock(self._layout.indexes):  # who builds an index sweeps, too
                removed += sweep_indexes(self._layout.indexes, (each.sha256 for each in living))
        return removed

    def commit(
        self,
        documents: Sequence[NewDocument] = (),
        vectors: Vectors | None = None,
        *,
        deleted: Sequence[str] = (),
        shard: FinishedShard | None = None,
        extra_sums: Mapping[tuple[Role, Modality], tuple[int, npt.NDArray[np.float64]]] | None = None,
        note: str = "",
    ) -> Published:
        """Publish documents with their vectors, and deletions, as one generation.

        Args:
            documents: New documents or new versions; of two with one id the later counts.
            vectors: (len(documents), dim) float32, rows of unit length.
            deleted: Ids to delete; unknown ones are passed over.
            shard: The ledger's row, if a job commits.
            extra_sums: Sums of vectors that are not stored, for the space's means.
            note: Why, for `info`.

        Raises:
            CallError: The vectors do not fit the documents or the space.
            StoreError: The database or the disk refuses; nothing was published.
        """
        kept = list({document.id: row for row, document in enumerate(documents)}.values())
        vectors = self._checked(vectors, len(documents))[kept]
        change = Change(
            documents=[documents[row] for row in kept],
            deleted=deleted,
            sums={**self._sums([documents[row] for row in kept], vectors), **(extra_sums or {})},
            shard=shard,
            note=note,
        )
        self._require_standing()
        if kept:
            settle_images(self._layout.media, (uri for document in change.documents for uri in document.every_image()))
            generation = self._catalog.generation()
            first = generation.next_vector
            ids = np.arange(first, first + len(kept), dtype=np.int64)
            old, parts = self._absorbed(generation.number, len(kept))
            name = segment_name(int(parts[0][1][0]) if parts else first)
            segment = write_parts(self._layout.segments, name, [*parts, (vectors, ids)], self._space.digest)
            change = replace(change, segment=segment, first_vector=first, absorbed=old)
        published = publish(self._catalog.database, self._space, change)
        for each in change.absorbed:
            segment_path(self._layout.segments, each.file).unlink(missing_ok=True)
        return published

    def _absorbed(self, generation: int, rows: int) -> tuple[list[SegmentFile], list[tuple[Vectors, Ids]]]:
        """The segments that a commit of so many rows takes into its own, with their content; none if one is damaged."""
        living = self._catalog.segments(generation, self._space.id) if self._absorbs else []
        living.sort(key=lambda each: first_id(each.file))
        row_bytes = 4 * self._space.dim + 8
        if not absorbed(living, rows, row_bytes, ()):
            return [], []
        try:
            stored = [each for each in cached_indexes(self._layout.indexes) if isinstance(each, CachedIndex)]
            old = absorbed(living, rows, row_bytes, {name for each in stored for name in each.segments})
            parts = [open_segment(self._layout.segments, each, self._space.digest, self._space.dim) for each in old]
            whole = all(file_digest(self._layout.segments / each.file) == each.sha256 for each in old)
        except (OSError, StoreError):  # `check` tells of it; the commit has its own file
            return [], []
        ascends = all(len(ids) and (ids[1:] > ids[:-1]).all() for _, ids in parts)
        follows = all(one[1][-1] < other[1][0] for one, other in pairwise(parts)) if ascends else False
        return (old, parts) if whole and follows else ([], [])

    def _require_standing(self) -> None:
        """Refuse to go on where something has taken the place of the collection, or of its lock."""
        self._catalog.database.standing()
        self._lock.require()

    def _checked(self, vectors: Vectors | None, rows: int) -> Vectors:
        if vectors is None:
            vectors = np.empty((0, self._space.dim), np.float32)
        if vectors.shape != (rows, self._space.dim):
            raise CallError(f"{rows} documents in a space of {self._space.dim} want that shape; got {vectors.shape}.")
        lengths = np.linalg.norm(vectors, axis=1)
        if not np.all(np.abs(lengths - 1) < 1e-3):
            worst = float(lengths[np.argmax(np.abs(np.nan_to_num(lengths) - 1))])
            raise CallError(f"Vectors are stored with unit length; one has length {worst:.4g}.")
        return vectors

    @staticmethod
    def _sums(
        documents: Sequence[NewDocument], vectors: Vectors
    ) -> dict[tuple[Role, Modality], tuple[int, npt.NDArray[np.float64]]]:
        modalities = np.array([document.modality.value for document in documents])
        return {
            (Role.DOCUMENT, Modality(name)): (
                int((modalities == name).sum()),
                vectors[modalities == name].sum(axis=0, dtype=np.float64),
            )
            for name in np.unique(modalities)
        }
