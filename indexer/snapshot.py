"""A pinned generation of a collection, to search and read; it never changes.

Opening maps segments and reads the tombstones; nothing is copied. Dead vectors are never returned. If another process
compacts the collection meanwhile, mapped vectors and documents that still live stay readable; calls that ask SQL for
more (filters, exclusions, ids, documents deleted since) raise `SnapshotGoneError`: open a new snapshot.

`centered` gives the same generation with the modality gap corrected, as a snapshot over another view.

What this module does not know: models, how vectors are stored and found, how a generation was made.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.arguments import described, names, vector_ids, whole_number
from indexer.deprecation import warn_renamed
from indexer.errors import CallError, ItemError, SnapshotGoneError, SpaceMismatchError
from indexer.files.layout import Layout
from indexer.forks import Lock
from indexer.metadata.catalog import Catalog, Generation, Space
from indexer.metadata.filter_nodes import Node
from indexer.metadata.filters import Where, parse
from indexer.stored_document import StoredDocument, stored_documents
from indexer.types import MODALITIES, UNKNOWN, Center, Ids, Mean, Modality, Role, Scores, Vectors
from indexer.validate import checked_id
from indexer.vectors.centered import CenteredView
from indexer.vectors.modality_gap import document_means, settled
from indexer.vectors.protocol import Neighbors, Pinned, VectorStore, VectorView
from indexer.vectors.segments import damaged
from indexer.vectors.unit import query_rows

__all__ = ["Mean", "Snapshot", "Space", "StoredDocument"]

REMEMBERED, REMEMBERED_IDS = 16, 1 << 22
"""The most filters whose matches are cached, and the most ids in all (32 MB)."""
READ_AHEAD = 500
"""Documents that iteration reads at once."""
MOST_HITS = 10_000_000
"""The most hits of one search: more would not fit in memory."""


class Snapshot:
    """A pinned generation. Threads may share one.

    Attributes:
        space: The space, with its means as of the generation; a centered snapshot's means are zero.
        generation: Its number.
        published: Its record.
        view: The view that searches its vectors.
        center: Whether the modality gap is corrected: `off`, or the argument of `centered`.

    Args:
        catalog: The collection's catalog.
        layout: The collection's folder.
        space: The space.
        generation: The generation.
        store: Opens the view.
        before: A snapshot of an earlier generation, whose parts the view may reuse.
    """

    def __init__(
        self,
        catalog: Catalog,
        layout: Layout,
        space: Space,
        generation: Generation,
        store: VectorStore,
        before: Snapshot | None = None,
    ) -> None:
        self._catalog, self._media = catalog, layout.media
        self.space = space
        self.generation = generation.number
        self.published = generation
        self.center = Center.OFF
        self._stored: Snapshot | None = None  # not `self`: a reference cycle would keep its memory maps open
        pinned = Pinned(space.digest, space.dim, catalog.segments(self.generation, space.id), generation.next_vector)
        try:
            self.view: VectorView = store.open(pinned, None if before is None else before.view)
        except FileNotFoundError as error:
            if catalog.generation().number != self.generation:
                raise SnapshotGoneError(
                    f"Generation {self.generation} was compacted away while it was opened.", "Open a new snapshot."
                ) from error
            raise damaged(Path(error.filename), "it is missing") from error
        self._dead = self.view.held(catalog.tombstones(self.generation, space.id))
        self._count = self.view.size - len(self._dead)
        self._lock = Lock()
        self._filters: dict[Node, Ids] = {}
        self._auto: Center | None = None
        self._centered: dict[Center, Snapshot] = {}

    @property
    def plain(self) -> Snapshot:
        """The snapshot of the stored vectors: this one, unless it is centered."""
        return self if self._stored is None else self._stored

    def centered(self, center: Center) -> Snapshot:
        """This generation with the modality gap corrected, see `indexer/vectors/centered.py`; plain if `center` is off.

        Subtract the queries' own mean from the query vectors of a centered snapshot; they may then be zero.

        Args:
            center: `auto` decides by the documents; see `indexer/vectors/modality_gap.py`.

        Raises:
            SnapshotGoneError: The generation was compacted away before its modalities were read.
        """
        plain = self.plain
        if center is Center.AUTO:  # settled once: a generation does not change
            center = plain._auto = plain._auto or settled(center, plain.space, lambda: plain.living)
        if center is Center.OFF:
            return plain
        # Cached: samples and modalities are the same for all queries of a generation.
        if center not in self._centered:
            self._centered[center] = self._without_gap(center)
        return self._centered[center]

    def _without_gap(self, center: Center) -> Snapshot:
        _ = self.plain.living  # refuses a generation whose modalities are gone
        dim, known = self.space.dim, document_means(self.plain.space)
        means = np.stack([known[each].vector if each in known else np.zeros(dim) for each in MODALITIES])
        other = copy.copy(self.plain)
        other._stored, other.center = self.plain, center
        other.view = CenteredView(
            self.plain.view, center, means, self.plain.modality_codes, np.flatnonzero(self.plain._lives)
        )
        nothing = Mean(1, np.zeros(dim, np.float32))
        other.space = replace(self.space, means={(role, each): nothing for role in Role for each in MODALITIES})
        return other

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing, for symmetry with `Collection`: memory maps are released with the object."""

    def __len__(self) -> int:
        return self._count

    def __contains__(self, identifier: object) -> bool:
        try:
            wanted = checked_id(identifier)
        except ItemError:
            return False
        return bool(self._catalog.known_vector_ids([wanted], self.generation, self.space.id))

    def __iter__(self) -> Iterator[StoredDocument]:
        """Every document, in the order they were stored, read as needed."""
        ids = np.flatnonzero(self._lives)
        for start in range(0, len(ids), READ_AHEAD):
            yield from self.documents(ids[start : start + READ_AHEAD])

    def __bool__(self) -> bool:
        return True  # a snapshot is true even if empty

    def get(self, identifier: str | int) -> StoredDocument | None:
        """The document with that id, or None.

        Raises:
            CallError: The value cannot be an id.
            SnapshotGoneError: The generation was compacted away.
        """
        try:
            wanted = checked_id(identifier)
        except ItemError as error:
            raise CallError(f"id is {described(identifier)}. {error.detail}") from None
        found = self._catalog.known_vector_ids([wanted], self.generation, self.space.id)
        return self.documents(np.array([found[wanted]], np.int64))[0] if found else None

    def known(self, identifiers: Sequence[str]) -> set[str]:
        """The given ids that a document of this generation has."""
        return set(self._catalog.known_vector_ids(identifiers, self.generation, self.space.id))

    @property
    def index(self) -> str:
        """The kind of index in use and the reason."""
        return self.view.reason

    @property
    def index_facts(self) -> Mapping[str, Any]:
        """How the built index was made, with its measured recall; empty if there is none."""
        return self.view.facts

    @property
    def scans(self) -> bool:
        """Whether a search reads every row; otherwise an index finds candidates."""
        return self.view.scans

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings for all who search it; empty if it searches as the settings say."""
        return self.view.notes

    @property
    def remarks(self) -> tuple[str, ...]:
        """The old name of `notes`."""
        warn_renamed("Snapshot.remarks", "Snapshot.notes")
        return self.notes

    @cached_property
    def modality_codes(self) -> npt.NDArray[np.uint8]:
        """The modality of each vector, by vector id, as its place in `MODALITIES`: (next vector id or more,) uint8."""
        return self._catalog.modalities(self.published.next_vector)

    @cached_property
    def _lives(self) -> npt.NDArray[np.bool_]:
        """Whether each vector's document lives, by vector id: (next vector id,) bool."""
        lives = np.zeros(self.published.next_vector, np.bool_)
        lives[self.view.all_ids()] = True
        lives[self._dead] = False
        return lives

    @cached_property
    def living(self) -> dict[Modality, int]:
        """The number of living vectors of each modality that has any.

        Raises:
            SnapshotGoneError: The generation was compacted away before its modalities were read.
        """
        codes, kinds = self.modality_codes, len(MODALITIES) + 1
        stored = np.bincount(codes[self.view.all_ids()], minlength=kinds)
        counts = stored - np.bincount(codes[self._dead], minlength=kinds)
        if counts[UNKNOWN]:
            raise SnapshotGoneError(f"Generation {self.generation} was compacted away.", "Open a new snapshot.")
        return {modality: int(counts[code]) for code, modality in enumerate(MODALITIES) if counts[code]}

    def search(
        self,
        vectors: Vectors,
        k: int,
        where: Where | None = None,
        exclude: Sequence[str] = (),
        modalities: Collection[Modality] = (),
    ) -> Neighbors:
        """The k nearest living vectors of each query, best first.

        Args:
            vectors: (n, dim) float32, of any length: scores are cosines.
            k: At least 1. If k documents match, k are returned, else all that match, padded with -1 and -inf.
            where: A filter on the documents' fields.
            exclude: Document ids to leave out; unknown ids are ignored.
            modalities: Only documents whose vector is of one of these; empty for all.

        Raises:
            FilterError: The filter does not parse.
            CallError: k is not a whole number of at least 1.
            QueryError: A query is zero, or holds a value that is not finite.
            SpaceMismatchError: The vectors have another dimension.
            SnapshotGoneError: The generation was compacted away, and there is a filter or an exclusion.
        """
        queries = query_rows(self._checked(vectors), zero=self.center is not Center.OFF)
        if type(k) is not int or not 1 <= k <= MOST_HITS:
            k = whole_number(k, "k", 1, MOST_HITS)
        return self.view.search(queries, k, self._allowed(where, modalities), self._hidden(exclude))

    def scores(self, vectors: Vectors, ids: Ids) -> Scores:
        """Exact inner products, (n, len(ids)) float32: a document's score does not depend on how it was found."""
        return self.view.score(self._rows(vectors), ids)

    def scan(
        self,
        vectors: Vectors,
        where: Where | None = None,
        exclude: Sequence[str] = (),
        modalities: Collection[Modality] = (),
    ) -> tuple[Ids, Scores]:
        """Every living vector that matches: ascending ids (N,) and scores (n, N) float32."""
        return self.view.scan(self._rows(vectors), self.eligible(where, exclude, modalities))

    def vectors(self, ids: Ids) -> Vectors:
        """Stored vectors, (len(ids), dim) float32."""
        return self.view.fetch(_ids(ids))

    def vector_ids(self, document_ids: Sequence[str]) -> Ids:
        """The vector ids of documents, in the order of their ids.

        Raises:
            CallError: An id is not in this generation.
        """
        return self._catalog.vector_ids(names(document_ids, "document_ids"), self.generation, self.space.id)

    def with_images(self, digests: Collection[str]) -> dict[str, list[tuple[int, str]]]:
        """The documents with an image of each content (sha256 in hex): their vector ids and ids, by content."""
        return self._catalog.with_images(digests, self.generation, self.space.id) if digests else {}

    def documents(self, ids: Ids) -> list[StoredDocument]:
        """The documents of vectors, in the given order.

        Raises:
            SnapshotGoneError: Their rows were compacted away.
        """
        wanted = _ids(ids).tolist()
        found = self._catalog.documents(wanted, self.generation)
        missing = [each for each in wanted if each not in found]
        if missing:
            raise SnapshotGoneError(
                f"Generation {self.generation} was compacted away: {len(missing)} of {len(ids)} documents are gone.",
                "Open a new snapshot.",
            )
        return stored_documents([found[each] for each in wanted], self._media)

    def require_filter(self, where: Where) -> None:
        """Check that a filter parses, without the database. Raises `FilterError`."""
        parse(where)

    def filter_notes(self, where: Where) -> tuple[str, ...]:
        """Warnings about a filter: fields that no document has, values of types that no document has there.

        Raises:
            FilterError: It does not parse.
        """
        return self._catalog.filter_notes.of(parse(where), self.generation)

    def matching(self, where: Where) -> Ids:
        """The living vectors that a filter lets through, ascending. The last few filters are cached."""
        read = parse(where)
        key = read.node
        with self._lock:
            ids = self._filters.pop(key, None)
        if ids is None:
            mask = self._catalog.columns.matching(read, self.space.id, self.published.next_vector)
            if mask is None:
                ids = self._catalog.matching(read, self.generation, self.space.id)
            else:
                self._catalog.require(self.generation)  # last: what exists now existed when columns were read
                ids = np.flatnonzero(mask & self._lives)
            ids.setflags(write=False)  # later calls get the same array
        with self._lock:
            self._filters[key] = ids
            while len(self._filters) > REMEMBERED or sum(map(len, self._filters.values())) > REMEMBERED_IDS:
                del self._filters[next(iter(self._filters))]
        return ids

    def eligible(
        self, where: Where | None = None, exclude: Sequence[str] = (), modalities: Collection[Modality] = ()
    ) -> Ids | None:
        """The vectors that such a search may return, ascending, or None for all. Raises as `search`."""
        allowed, hidden = self._allowed(where, modalities), self._hidden(exclude)
        if len(hidden) == 0:
            return allowed
        return np.setdiff1d(self.view.all_ids() if allowed is None else allowed, hidden, assume_unique=True)

    def _allowed(self, where: Where | None, modalities: Collection[Modality]) -> Ids | None:
        """The ids a search may return, or None for all that are not hidden."""
        given = (modalities,) if isinstance(modalities, str) else modalities
        kinds = [Modality(each) for each in _names(given, "modalities")]
        if not kinds:
            return None if where is None else self.matching(where)
        _ = self.living  # raises if the modalities are gone; a mask would drop their rows silently
        wanted = [MODALITIES.index(each) for each in kinds]
        ids = self.view.all_ids() if where is None else self.matching(where)
        return ids[np.isin(self.modality_codes[ids], wanted)]

    def _hidden(self, exclude: Sequence[str]) -> Ids:
        """The ids that no search returns, ascending: those of dead and of excluded documents."""
        exclude = _names(exclude, "exclude")
        if not exclude:
            return self._dead
        left_out = self._catalog.known_vector_ids(exclude, self.generation, self.space.id)
        return np.union1d(self._dead, np.fromiter(left_out.values(), np.int64))

    def _checked(self, vectors: Any) -> npt.NDArray[Any]:
        """Query vectors, (n, dim), of any numeric type."""
        try:
            found = np.asarray(vectors)
        except ValueError:  # rows of several lengths
            found = np.empty(0, object)
        if found.dtype.kind not in "fiu":
            raise CallError(f"vectors is {described(vectors)}; it takes an array (n, dim) of numbers.")
        if found.ndim != 2 or found.shape[1] != self.space.dim:
            raise SpaceMismatchError(
                f"The queries have shape {found.shape}; this space has dimension {self.space.dim}."
            )
        return found

    def _rows(self, vectors: Any) -> Vectors:
        """Query vectors, not scaled, (n, dim) float32."""
        return np.asarray(self._checked(vectors), np.float32)


def _names(values: Any, name: str) -> tuple[str, ...]:
    """`names`, with a fast path for none, as in nearly every search."""
    return () if isinstance(values, tuple) and not values else names(values, name)


def _ids(ids: Any) -> Ids:
    """`vector_ids`, but for ids just as a search gives them."""
    return ids if isinstance(ids, np.ndarray) and ids.dtype == np.int64 and ids.ndim == 1 else vector_ids(ids)
