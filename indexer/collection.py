"""A collection: the thing you open. Documents in, snapshots out; the model is loaded when it is first needed.

    with Collection.open("shop", model="bundled:emoji-clip") as shop:
        shop.add([Document("1", image=Path("cat.jpg"), fields={"price": 20})])
        shop.snapshot().search(...)

What this module does not know: queries beyond vectors, corpora, how any model works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from indexer import arguments, description
from indexer.corpus.image_rules import ImageRules
from indexer.embed.base import Dtype, Embedder
from indexer.embed.devices import AUTO, checked_device
from indexer.errors import (
    CallError,
    CollectionNotFoundError,
    LockedError,
    MissingExtraError,
    SnapshotGoneError,
    SpaceMismatchError,
    StoreError,
)
from indexer.files.layout import Layout
from indexer.forks import Lock
from indexer.ingest import adding, maintenance
from indexer.ingest.adding import Added, Sums
from indexer.ingest.indexing import build_indexes, checked_samples
from indexer.ingest.prepare import Ingest
from indexer.ingest.writer import Writer
from indexer.lazy_embedder import LazyEmbedder, require_same_space
from indexer.metadata.catalog import Catalog, Space
from indexer.metadata.database import Database, parse_url
from indexer.metadata.opening import open_metadata, space_of
from indexer.metadata.starting import start
from indexer.snapshot import Snapshot, StoredDocument
from indexer.types import Document, Modality, Parts, Role, Vectors
from indexer.vectors.cache import CachedIndex, cached_indexes
from indexer.vectors.local import LocalStore
from indexer.vectors.opening import COVERED
from indexer.vectors.protocol import BuiltIndex, IndexKind, IndexSettings, OnProgress, VectorStore
from indexer.vectors.selection import CODED_ROWS


class Collection:
    """Use `Collection.open`. Threads may share one; processes open their own."""

    def __init__(
        self,
        layout: Layout,
        database: Database,
        space: Space,
        settings: IndexSettings,
        embedder: LazyEmbedder,
        auto_compact: bool = True,
    ) -> None:
        self.layout, self.database, self.settings = layout, database, settings
        self.catalog = Catalog(database)
        self.space_id = space.id
        self._plain, self._merges = space, auto_compact
        self._centers = (Role.QUERY, Modality.TEXT) in space.means
        self._lazy, self._opening = embedder, Lock()
        self._newest: Snapshot | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: str | Embedder | None = None,
        *,
        create: bool = True,
        parts: Parts | str | None = None,
        index: IndexSettings | IndexKind | str | None = None,
        database: str | None = None,
        dtype: Dtype | str | None = None,
        device: str = AUTO,
        trust: bool = False,
        auto_compact: bool = True,
    ) -> Collection:
        """Open a collection, or start one.

        Args:
            path: Its folder.
            model: Its embedder or the embedder's name. Needed to start one; for an existing one it may be left out,
                and if given must be the one it was made with.
            create: Start one if there is none.
            parts: Which parts of documents are embedded; fixed when it is started (`auto` unless told).
            index: How to search it: `IndexSettings`, or the name of a kind, such as "hnsw". Opening builds nothing.
            database: A PostgreSQL URL for the metadata, for each opening; SQLite in the folder without it.
            dtype: Arithmetic of the model, if it is loaded by name; fixed when it is started (float32 unless told).
            device: Where the model runs: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` or `mps`. Vectors
                do not depend on it but for their last digits.
            trust: Whether a model that the collection names by a path is loaded, though `model` does not name it.
                Without it, first use of the model raises `UntrustedModelError`.
            auto_compact: Whether commits merge small segments into their own (`indexer/ingest/absorbing.py`).

        Raises:
            CollectionNotFoundError: There is none, and no model to start one with.
            SpaceMismatchError: It was made with another model, other weights, parts or arithmetic.
            FormatError: A newer release made it.
            CorruptionError: What identifies it is damaged, or folder and metadata are of two collections.
            StoreError: A link in the folder leads elsewhere.
            ModelError: The model cannot be loaded.
            DeviceError: This machine has no such device.
            CallError: There is no device of that name, `database` is no URL of a database that can be used, or the
                collection has another.
            UnknownNameError: There is no such kind of index.
        """
        folder = arguments.folder(path, "path")
        adding.require_opening(model)
        arguments.flag(create, "create")
        arguments.flag(trust, "trust")
        arguments.flag(auto_compact, "auto_compact")
        checked_device(device)
        if not isinstance(index, IndexSettings):
            index = IndexSettings(kind=IndexKind.AUTO if index is None else IndexKind(index))
        if database is not None:
            parse_url(database)  # before a model is fetched
        if not Layout.exists(folder):
            if not create or model is None:
                raise CollectionNotFoundError(
                    f"There is no collection at {folder}.",
                    "Name the model to start one with, such as model='bundled:emoji-clip'.",
                )
            parts = Parts.AUTO if parts is None else Parts(parts)
            embedder = LazyEmbedder(model, Dtype.FLOAT32 if dtype is None else Dtype(dtype), device).get()
            start(folder, embedder, parts, database)
            model = embedder
        layout, base, space = open_metadata(folder, database)
        try:
            if parts is not None and Parts(parts) is not space.parts:
                raise SpaceMismatchError(
                    f"{folder} embeds the parts {space.parts.value!r} of documents, not {Parts(parts).value!r}.",
                    "Leave parts out, or index into a new folder.",
                )
            kept = space.fingerprint["dtype"] if dtype is None else Dtype(dtype)
            unnamed = model is None and not trust
            lazy = LazyEmbedder(
                model if model is not None else space.model, kept, device, chosen_by=folder if unnamed else None
            )
            collection = cls(layout, base, space, index, lazy, auto_compact)
            if model is not None:
                require_same_space(folder, lazy.comparable(space, folder), space)
        except BaseException:
            base.close()
            raise
        return collection

    def __len__(self) -> int:
        return len(self.snapshot())

    def __contains__(self, identifier: object) -> bool:
        return identifier in self.snapshot()

    def __iter__(self) -> Iterator[StoredDocument]:
        """The documents of the newest generation, in the order they were stored, as they are asked for."""
        return iter(self.snapshot())

    def __bool__(self) -> bool:
        return True  # an open collection, however empty

    def __repr__(self) -> str:
        newest = self.catalog.generation()
        return (
            f"Collection({str(self.path)!r}: {newest.documents:,} documents, {self.space.model}, "
            f"generation {newest.number})"
        )

    def get(self, identifier: str | int) -> StoredDocument | None:
        """The document of that id, or None; raises `CallError` if it is nothing that an id can be."""
        return self.snapshot().get(identifier)

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the database connections and the memory maps back."""
        self._newest = None
        self.database.close()

    @property
    def path(self) -> Path:
        """The collection's folder."""
        return self.layout.folder

    @property
    def space(self) -> Space:
        """The embedding space, with its means as of now."""
        return space_of(self.database)

    @cached_property
    def embedder(self) -> Embedder:
        """The model, loaded on first use.

        Raises:
            SpaceMismatchError: What loads is not what the collection was made with.
            UntrustedModelError: It is named by a path, by the collection alone; see `open`.
            ModelError: It cannot be loaded.
        """
        embedder = self._lazy.get()
        require_same_space(self.path, embedder, self._plain)
        return embedder

    @cached_property
    def store(self) -> VectorStore:
        """What opens and builds its vectors, with `settings`."""
        return LocalStore(self.layout, self.settings)

    @property
    def device(self) -> str:
        """Where its model runs."""
        return self._lazy.device

    def snapshot(self) -> Snapshot:
        """The newest generation, pinned. As long as it is the newest, every call gives the same object.

        Raises:
            CorruptionError: A segment is damaged.
            StoreError: Something has taken the place of the collection since it was opened.
        """
        while True:
            self.database.standing()
            number = self.catalog.newest()
            with self._opening:
                held = self._newest
                if held is not None and held.generation >= number and not held.outdated:
                    return held
                generation = self.catalog.generation()
                space = next(each for each in self.catalog.spaces(generation.number) if each.id == self.space_id)
                try:
                    self._newest = Snapshot(self.catalog, self.layout, space, generation, self.store, held)
                except SnapshotGoneError:
                    # Compacted between the two reads: the next round sees what it was compacted into.
                    continue
                return self._newest

    def writer(self) -> Writer:
        """The one writer; `with` it, the lock is held.

        Raises:
            LockedError: On entering, when another writer holds it.
        """
        return Writer(self.catalog, self.layout, self._plain, self._merges)

    def ingest(self, images: ImageRules = ImageRules()) -> Ingest:  # noqa: B008  # it is frozen
        """The way in for documents; picklable, holds no model."""
        return Ingest(self.embedder.preparer(), self._plain.parts, self.layout.media, images)

    def add(
        self,
        documents: Iterable[Document] | Document,
        *,
        skip_rejected: bool = False,
        max_pixels: int | None = None,
        exif: bool = True,
    ) -> Added:
        """Embed and store documents, replacing those of the same id, as one generation.

        A document that cannot be used is rejected with its reason; the others are stored. Of one id twice in a call
        the first document counts, and the other is rejected.

        Args:
            documents: Any number, or one.
            skip_rejected: Whether it is no error if all of them are rejected.
            max_pixels: Of one image when it is decoded; see `ImageRules`.
            exif: Whether a photograph's date, camera, lens, position and size become fields; the document's own win.

        Raises:
            CallError: What is given is no document, and holds something else than documents; nothing is stored.
            RejectedError: Documents were given, and none can be stored; `rejected` says why.
            LockedError: Another writer holds the collection.
        """
        arguments.flag(skip_rejected, "skip_rejected")
        with self.writer() as writer:
            ready, rejected = adding.prepared(documents, self.ingest(ImageRules(max_pixels, exif)))
            stored, vectors, lacking = adding.embedded(self.embedder, ready) if ready else ([], None, [])
            rejected += lacking
            if not stored:
                if not skip_rejected:
                    adding.require_some(rejected)
                return Added(0, 0, rejected, self.catalog.generation().number)
            published = writer.commit(
                stored,
                vectors,
                extra_sums=self.missing_query_mean(),
                note="added",
            )
        self.keep_index(only=IndexKind.EXACT)
        return Added(published.added, published.replaced, rejected, published.generation)

    def build_index(
        self,
        queries: Mapping[str, Vectors] | None = None,
        *,
        coverage: float = 1.0,
        on_progress: OnProgress | None = None,
    ) -> list[BuiltIndex]:
        """Build the index that searches with these settings use; nothing else ever builds one but `index_corpus`.

        It is built aside: searches go on meanwhile, and use it as soon as it is there, in other processes too. An
        approximate index is tuned until every kind of query reaches the recall of the settings, or is answered exactly
        (`indexer/vectors/tuning.py`); `info` shows the recall of each.

        Args:
            queries: Query vectors to tune by instead of those that the model makes, by what they are: (n, dim) each.
                With them the model is not loaded.
            coverage: Nothing is built where the index there is covers this share of the vectors.
            on_progress: Called with what is done, how much of it, and of how much.

        Returns:
            What was built; empty where nothing was wanting, or where scanning is quick enough.

        Raises:
            LockedError: Another process or thread is building.
            MissingExtraError: There is no FAISS.
            StoreError: The disk refuses.
            SpaceMismatchError: `queries` have another dimension.
        """
        arguments.callback(on_progress, "on_progress")
        if not 0 < arguments.finite(coverage, "coverage") <= 1:
            raise CallError(f"coverage is {coverage}; it is a share of the vectors, above 0 and at most 1.")
        given = None if queries is None else checked_samples(queries, self.space.dim)
        return build_indexes(self.store, self.snapshot(), given, lambda: self.embedder, coverage, None, on_progress)

    def keep_index(self, on_progress: OnProgress | None = None, only: IndexKind | None = None) -> list[BuiltIndex]:
        """`build_index` where the index there is covers less than four fifths of the vectors; fails at nothing.

        Where none can be built (another process builds one, the disk is full, no FAISS), answers are exact and say so.
        """
        few = self.catalog.generation().documents < CODED_ROWS
        if few and self.settings.kind in (IndexKind.AUTO, IndexKind.EXACT):
            return []
        with suppress(LockedError, StoreError, MissingExtraError):
            return build_indexes(self.store, self.snapshot(), None, lambda: self.embedder, COVERED, only, on_progress)
        return []

    def delete(self, ids: Iterable[str | int]) -> int:
        """Delete documents by id, as one generation; returns how many there were.

        Raises:
            CallError: The ids are no list, or hold something else than texts and whole numbers.
            LockedError: Another writer holds the collection.
        """
        wanted = adding.ids_to_delete(ids)
        with self.writer() as writer:
            return writer.commit(deleted=wanted, note="deleted").deleted

    def missing_query_mean(self) -> Sums:
        """The sum of generic query texts' vectors, if the space has none yet; read once, since it stays."""
        self._centers = self._centers or (Role.QUERY, Modality.TEXT) in self.space.means
        if self._centers or Modality.TEXT not in self.embedder.modalities:
            return {}
        return adding.generic_sums(self.embedder)

    def check(self, on_file: Callable[[Path], None] | None = None) -> maintenance.Report:
        """Compare files with checksums and counts with rows; see `maintenance.check`."""
        arguments.callback(on_file, "on_file")
        return maintenance.check(self.catalog, self.layout, self.space, on_file)

    def repair(self) -> list[str]:
        """Drop what is damaged so that indexing again brings it back; see `maintenance.repair`."""
        return maintenance.repair(self.catalog, self.layout, self.space)

    def compact(self) -> tuple[int, int]:
        """Merge segments, drop the dead, build an index anew; returns how many segments there were and are."""
        had = any(isinstance(each, CachedIndex) for each in cached_indexes(self.layout.indexes))
        done = maintenance.compact(self.catalog, self.layout, self.space)
        if had:  # it was built from segments that are gone
            self.build_index(coverage=COVERED)
        return done

    def info(self) -> dict[str, Any]:
        """What the collection is and holds, as plain JSON."""
        return description.info(self)

    def explain(self) -> dict[str, Any]:
        """Which index a search will use and why, and what the others would take, as plain JSON. Builds nothing."""
        return description.explain(self)
