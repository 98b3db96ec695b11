"""The collection: add documents, open snapshots. Its models are loaded when first needed.

    with Collection.open("shop", model="bundled:emoji-clip") as shop:
        shop.add([Document("1", image=Path("cat.jpg"), fields={"price": 20})])
        shop.snapshot().search(...)

What this module does not know: queries other than vectors, corpora, how models work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer import arguments, description
from indexer.corpus.image_rules import ImageRules
from indexer.embed.base import Dtype, Embedder
from indexer.embed.devices import AUTO, checked_device
from indexer.errors import CollectionNotFoundError
from indexer.files.layout import Layout
from indexer.ingest.adding import Added, add, ids_to_delete, missing_query_mean, require_opening
from indexer.ingest.check import Report, check
from indexer.ingest.filling import Filled, fill
from indexer.ingest.indexing import build_index, compact_and_build, keep_index
from indexer.ingest.repair import repair
from indexer.ingest.spaces import SpaceStatus, drop, make_default, register, statuses
from indexer.ingest.summary import Progress
from indexer.ingest.writer import Writer
from indexer.lazy_embedder import LazyEmbedder
from indexer.metadata.catalog import Catalog, Space
from indexer.metadata.connections import parse_url
from indexer.metadata.database import Database
from indexer.metadata.opening import open_metadata, start
from indexer.metadata.publish import Sums
from indexer.open_spaces import OpenSpaces, Snapshots, open_spaces
from indexer.snapshot import Snapshot, StoredDocument
from indexer.types import Document, Parts, Vectors
from indexer.vectors.protocol import BuiltIndex, IndexKind, IndexSettings, OnProgress
from indexer.vectors.stores import IndexChange, open_store, opened_with, require_known


class Collection:
    """Use `Collection.open`. Threads may share one; processes open their own."""

    def __init__(
        self,
        layout: Layout,
        database: Database,
        open_spaces: OpenSpaces,
        settings: IndexSettings,
        auto_compact: bool = True,
    ) -> None:
        self.layout, self.database, self.settings = layout, database, settings
        self.catalog, self.open_spaces, self._merges = Catalog(database), open_spaces, auto_compact
        self.store = open_store(layout, settings)
        self.snapshots = Snapshots(self.catalog, layout, open_spaces, self.store)

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: str | Embedder | None = None,
        *,
        create: bool = True,
        space: str | None = None,
        parts: Parts | str | None = None,
        index: IndexChange = None,
        vector_store: str | None = None,
        database: str | None = None,
        dtype: Dtype | str | None = None,
        device: str = AUTO,
        trust: bool = False,
        auto_compact: bool = True,
    ) -> Collection:
        """Open a collection, or create one.

        Args:
            path: Its folder.
            model: An embedder or its name. Needed to create a collection. For an existing one it is optional, and must
                be the model of one of its spaces, which becomes the default.
            create: Create the collection if there is none.
            space: The name of the space to use by default. Without it and `model`, the collection's own default is
                used.
            parts: Which parts of documents are embedded; fixed when a space is made (default `auto`).
            index: How this object searches: `IndexSettings`, or a change to the collection's settings, such as
                {"recall": 0.99} or the name of a kind, "hnsw". `build_index` stores it. Opening builds nothing.
            vector_store: The name of its vector store, one of `STORES`; default `local`. Stored like `index`.
            database: A PostgreSQL URL for the metadata, needed at every opening; without it, SQLite in the folder.
            dtype: Arithmetic of a model that is loaded by name; fixed when a space is made (default float32).
            device: Where the model runs: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1` or `mps`. It changes
                only the last digits of vectors.
            trust: Whether to load a model that the collection names by a path and `model` does not name. Otherwise the
                first use of such a model raises `UntrustedModelError`.
            auto_compact: Whether commits merge small segments into their own (`indexer/ingest/absorbing.py`).

        Raises:
            CollectionNotFoundError: There is none, and no model to create one with.
            SpaceMismatchError: It was made with another model, other weights, parts or arithmetic.
            FormatError: A newer release made it.
            CorruptionError: Its identity is damaged, or folder and metadata belong to different collections.
            StoreError: A link in the folder leads elsewhere.
            ModelError: The model cannot be loaded.
            DeviceError: This machine has no such device.
            CallError: An option is invalid, or the collection uses another database.
            UnknownNameError: There is no such kind of index, setting, vector store or space.
        """
        folder = arguments.folder(path, "path")
        require_opening(model)
        arguments.flag(create, "create")
        arguments.flag(trust, "trust")
        arguments.flag(auto_compact, "auto_compact")
        checked_device(device)
        require_known(index, vector_store)  # before a model is fetched
        if database is not None:
            parse_url(database)  # before a model is fetched
        if starts := not Layout.exists(folder):
            if not create or model is None:
                raise CollectionNotFoundError(
                    f"There is no collection at {folder}.",
                    "Name a model to create one with, such as model='bundled:emoji-clip'.",
                )
            embedder = LazyEmbedder(model, Dtype.FLOAT32 if dtype is None else Dtype(dtype), device).get()
            start(folder, embedder, Parts.AUTO if parts is None else Parts(parts), database)
            model = embedder
        layout, base = open_metadata(folder, database)
        try:
            layout, settings = opened_with(layout, index, vector_store, keeping=starts)
            spaces = open_spaces(
                Catalog(base), folder, model, space, None if parts is None else Parts(parts),
                None if dtype is None else Dtype(dtype), device, trust,
            )  # fmt: skip
            return cls(layout, base, spaces, settings, auto_compact)
        except BaseException:
            base.close()
            raise

    def __len__(self) -> int:
        return self.snapshot().published.documents

    def __contains__(self, identifier: object) -> bool:
        return any(identifier in each for each in self.snapshots.every())

    def __iter__(self) -> Iterator[StoredDocument]:
        """The documents of the newest generation, in the order they were stored, read as needed."""
        return self.snapshots.documents()

    def __bool__(self) -> bool:
        return True  # an open collection is true even if empty

    def __repr__(self) -> str:
        newest, model = self.catalog.generation(), self.open_spaces.default.space.model
        content = f"{newest.documents:,} documents, {model}, generation {newest.number}"
        return f"Collection({str(self.path)!r}: {content})"

    def get(self, identifier: str | int) -> StoredDocument | None:
        """The document with that id, or None. Raises `CallError` if the value cannot be an id."""
        return next((found for each in self.snapshots.every() if (found := each.get(identifier)) is not None), None)

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the database connections and the memory maps."""
        self.snapshots.close()
        self.database.close()

    @property
    def path(self) -> Path:
        """The collection's folder."""
        return self.layout.folder

    @property
    def space(self) -> Space:
        """The default space, with its means as of now."""
        default = self.open_spaces.default.space
        return next((each for each in self.catalog.spaces(self.catalog.newest()) if each.id == default.id), default)

    @property
    def embedder(self) -> Embedder:
        """The model of the default space, loaded on first use; raises as `embedder_of`."""
        return self.open_spaces.default.embedder

    def embedder_of(self, space: str | None = None) -> Embedder:
        """The model of a space, loaded on first use.

        Args:
            space: Its name; the default space without it.

        Raises:
            UnknownNameError: There is no such space.
            SpaceMismatchError: The loaded model is not the one that made the space.
            UntrustedModelError: Only the collection names it, by a path; see `open`.
            ModelError: It cannot be loaded.
        """
        return self.open_spaces.named(space).embedder

    @property
    def device(self) -> str:
        """Where the model of the default space runs."""
        return self.open_spaces.default.device

    def snapshot(self, space: str | None = None) -> Snapshot:
        """The newest generation of a space, pinned. While it is the newest, every call returns the same object.

        Args:
            space: Its name; the default space without it.

        Raises:
            UnknownNameError: There is no such space.
            CorruptionError: A segment is damaged.
            StoreError: Something has taken the place of the collection since it was opened, or the space was dropped.
        """
        return self.snapshots.newest(space)

    def writer(self, patience: float = 0.0) -> Writer:
        """The collection's writer, which holds the lock inside a `with` block.

        Raises:
            LockedError: On entering, another writer holds the lock for more than `patience` seconds.
        """
        return Writer(self.catalog, self.layout, self.open_spaces.default.space, self._merges, patience)

    def add(
        self,
        documents: Iterable[Document] | Document,
        *,
        skip_rejected: bool = False,
        max_pixels: int | None = None,
        exif: bool = True,
        spaces: Sequence[str] | None = None,
    ) -> Added:
        """Embed and store documents, replacing those of the same id, as one generation.

        A document that cannot be used is rejected with its reason; the others are stored. If a call gives an id twice,
            the second document is rejected.

        Args:
            documents: One document or any number.
            skip_rejected: Whether to accept that all of them are rejected.
            max_pixels: The most pixels of one decoded image; see `ImageRules`.
            exif: Whether a photograph's date, camera, lens, position and size become fields. The document's own
                fields win.
            spaces: The names of the spaces in which to embed them; default all. `fill_space` fills the others.

        Raises:
            CallError: An argument is not a document; nothing is stored.
            RejectedError: None of the documents can be stored; `rejected` says why.
            LockedError: Another writer holds the collection.
        """
        arguments.flag(skip_rejected, "skip_rejected")
        return add(self, documents, ImageRules(max_pixels, exif), skip_rejected, spaces)

    def add_space(
        self,
        model: str | Embedder,
        name: str | None = None,
        *,
        parts: Parts | str | None = None,
        dtype: Dtype | str | None = None,
        workers: int = 0,
        shard_size: int = 2048,
        max_pixels: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Filled:
        """Embed all documents with another model, too. From now on, `add` and `index_corpus` use it for every document.

        Searches use the new space if they name it, or once it is the default (`set_default_space`). If killed, it
            continues when called again. Meanwhile documents can be added and deleted, also by other processes.

        Args:
            model: An embedder or its name.
            name: The name of the space; default the model's name.
            parts: Which parts of documents are embedded; default those of the default space, or the only ones that
                the model reads.
            dtype: Arithmetic of a model that is loaded by name (default float32).
            workers: As for `index_corpus`.
            shard_size: As for `index_corpus`.
            max_pixels: As for `index_corpus`.
            on_progress: As for `index_corpus`.

        Raises:
            CallError: Another space has the name.
            LockedError: Another writer holds the collection; when a shard is committed, for more than a minute.
            StoreError: The disk or the database fails; what was committed stays.
        """
        require_opening(model)
        embedder = LazyEmbedder(model, dtype or Dtype.FLOAT32, self.open_spaces.device).get()
        own = register(self, embedder, name, None if parts is None else Parts(parts))
        return fill(self, own, workers=workers, shard_size=shard_size, max_pixels=max_pixels, on_progress=on_progress)

    def fill_space(self, name: str, *, max_pixels: int | None = None) -> Filled:
        """Embed the documents that have no vector in a space. Raises the errors of `add_space`."""
        return fill(self, self.open_spaces.named(name), max_pixels=max_pixels)

    @property
    def spaces(self) -> list[SpaceStatus]:
        """The embedding spaces, the default first, with the number of documents in each."""
        return statuses(self)

    def set_default_space(self, name: str) -> None:
        """Choose the space that is used by default, here and in later openings.

        Other open objects keep their default. Do not call it while other threads search this object. Raises
            `UnknownNameError` and `LockedError`.
        """
        make_default(self, name)

    def drop_space(self, name: str) -> int:
        """Remove a space and its vectors; returns how many there were. Documents stay; `compact` drops the rows.

        Raises the errors of `set_default_space`, and `CallError` for the default space.
        """
        return drop(self, name)

    def build_index(
        self,
        queries: Mapping[str, Vectors] | None = None,
        *,
        settings: IndexChange = None,
        coverage: float = 1.0,
        on_progress: OnProgress | None = None,
        space: str | None = None,
    ) -> list[BuiltIndex]:
        """Build the index that searches use, and store its settings. Apart from this, only `index_corpus` builds one.

        Searches go on during the build and use the index as soon as it is complete, in other processes too. An
        approximate index is tuned until every kind of query reaches the recall of the settings, or is answered exactly
        (`indexer/vectors/tuning.py`); `info` shows the recall of each kind.

        Args:
            queries: Query vectors to tune by, by kind, (n, dim) each, instead of those that the model makes. With them
                the model is not loaded.
            settings: As `index` of `open`: how to build and search from now on. They are stored with the collection.
            coverage: Nothing is built if the existing index covers this share of the vectors.
            on_progress: Called with the step, the amount done, and the total.
            space: The name of the space whose index is built; the default space without it.

        Returns:
            What was built; empty if nothing was missing, or if scanning is fast enough.

        Raises:
            LockedError: Another process or thread is building.
            MissingExtraError: FAISS is not installed.
            StoreError: The disk is full or fails.
            SpaceMismatchError: `queries` have another dimension.
        """
        return build_index(self, self.open_spaces.named(space), queries, settings, coverage, on_progress)

    def keep_index(
        self,
        on_progress: OnProgress | None = None,
        only: IndexKind | None = None,
        spaces: Sequence[str] | None = None,
    ) -> list[BuiltIndex]:
        """Call `build_index` if the index covers less than four fifths of the vectors; never fails.

        If none can be built (another process is building, the disk is full, no FAISS), answers are exact and say so.
        """
        return keep_index(self, spaces, on_progress, only)

    def delete(self, ids: Iterable[str | int]) -> int:
        """Delete documents by id, as one generation; returns how many there were.

        Raises:
            CallError: The ids are not a list of texts and whole numbers.
            LockedError: Another writer holds the collection.
        """
        wanted = ids_to_delete(ids)
        with self.writer() as writer:
            return writer.commit(deleted=wanted, note="deleted").deleted

    def missing_query_mean(self) -> Sums:
        """The sum of the vectors of generic query texts, if the space has no mean of query texts yet."""
        return missing_query_mean(self.open_spaces.default, self.catalog)

    def check(self, on_file: Callable[[Path], None] | None = None) -> Report:
        """Compare files with checksums and counts with rows; see `indexer.ingest.check`."""
        arguments.callback(on_file, "on_file")
        return check(self.catalog, self.layout, on_file)

    def repair(self) -> list[str]:
        """Drop what is damaged, so that indexing again restores it; see `indexer.ingest.repair`."""
        return repair(self.catalog, self.layout)

    def compact(self) -> tuple[int, int]:
        """Merge segments, drop dead rows, rebuild indexes; returns the numbers of segments before and after."""
        return compact_and_build(self)

    def info(self) -> dict[str, Any]:
        """A description of the collection and its content, as plain JSON."""
        return description.info(self)

    def explain(self) -> dict[str, Any]:
        """The index that a search will use, why, and the cost of the others, as plain JSON. Builds nothing."""
        return description.explain(self)
