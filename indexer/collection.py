"""A collection: the thing you open. Documents in, snapshots out; the model is loaded when it is first needed.

    with Collection.open("shop", model="bundled:emoji-clip") as shop:
        shop.add([Document("1", image=Path("cat.jpg"), fields={"price": 20})])
        shop.snapshot().search(...)

What this module does not know: queries beyond vectors, corpora, how any model works.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer import arguments, maintenance
from indexer.adding import Added, ids_to_delete, prepared, require_opening, require_some
from indexer.bundled import generic_texts
from indexer.embed.protocol import Dtype, Embedder
from indexer.errors import (
    CallError,
    CollectionNotFoundError,
    CorruptionError,
    SnapshotGoneError,
    SpaceMismatchError,
)
from indexer.image_rules import ImageRules
from indexer.index.choose import allowed_bytes, alternatives
from indexer.index.protocol import Device, IndexSettings
from indexer.ingest import Ingest, embed
from indexer.layout import Layout
from indexer.lazy_embedder import LazyEmbedder
from indexer.searcher import available_memory, choose
from indexer.snapshot import Snapshot, StoredDocument
from indexer.store.catalog import Catalog, Space
from indexer.store.database import Database, parse_url
from indexer.store.ledger import jobs
from indexer.store.lock import WriterLock
from indexer.store.publish import create_first_generation, create_space
from indexer.store.upgrading import current
from indexer.types import Document, Item, Modality, Parts, Role
from indexer.writer import Writer

if TYPE_CHECKING:
    from indexer.index.cards import Cards

Sums = dict[tuple[Role, Modality], tuple[int, npt.NDArray[np.float64]]]


class Collection:
    """Use `Collection.open`. Threads may share one; processes open their own."""

    def __init__(
        self,
        layout: Layout,
        database: Database,
        space: Space,
        settings: IndexSettings,
        embedder: LazyEmbedder,
    ) -> None:
        self.layout, self.database, self.settings = layout, database, settings
        self.catalog = Catalog(database)
        self.space_id = space.id
        self._lazy = embedder
        self._opening = threading.Lock()
        self._newest: Snapshot | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: str | Embedder | None = None,
        *,
        create: bool = True,
        parts: Parts | str | None = None,
        index: IndexSettings | None = None,
        database: str | None = None,
        dtype: Dtype | str | None = None,
        device: str = "cpu",
        trust: bool = False,
    ) -> Collection:
        """Open a collection, or start one.

        Args:
            path: Its folder.
            model: Its embedder or the embedder's name. Needed to start one; for an existing one it may be left out,
                and if given must be the one it was made with.
            create: Start one if there is none.
            parts: Which parts of documents are embedded; fixed when it is started (`auto` unless told).
            index: How to search it; see `IndexSettings`.
            database: A PostgreSQL URL for the metadata, for each opening; SQLite in the folder without it.
            dtype: Arithmetic of the model, if it is loaded by name; fixed when it is started (float32 unless told).
            device: Where the model runs.
            trust: Whether a model that the collection names by a path is loaded, though `model` does not name it.
                Without it, first use of the model raises `UntrustedModelError`.

        Raises:
            CollectionNotFoundError: There is none, and no model to start one with.
            SpaceMismatchError: It was made with another model, other weights, parts or arithmetic.
            FormatError: A newer release made it.
            CorruptionError: What identifies it is damaged.
            ModelError: The model cannot be loaded.
            CallError: `database` is no URL of a database that can be used, or the collection has another.
        """
        folder = arguments.folder(path, "path")
        require_opening(model, index, device)
        if database is not None:
            parse_url(database)  # before a model is fetched
        if not Layout.exists(folder):
            if not create or model is None:
                raise CollectionNotFoundError(
                    f"There is no collection at {folder}.",
                    "Name the model to start one with, such as model='bundled:emoji-clip'.",
                )
            parts = Parts(parts or Parts.AUTO)
            embedder = LazyEmbedder(model, dtype or Dtype.FLOAT32, device).get()
            cls._create(folder, embedder, parts, database)
            model = embedder
        layout = Layout.read(folder)
        base = _connect(layout, database)
        try:
            base = current(base, layout.lock)
            space = cls._space(base)
            if parts is not None and Parts(parts) is not space.parts:
                raise SpaceMismatchError(
                    f"{folder} embeds the parts {space.parts.value!r} of documents, not {Parts(parts).value!r}.",
                    "Leave parts out, or index into a new folder.",
                )
            kept = dtype or space.fingerprint["dtype"]
            unnamed = model is None and not trust
            lazy = LazyEmbedder(
                model if model is not None else space.model, kept, device, chosen_by=folder if unnamed else None
            )
            collection = cls(layout, base, space, index or IndexSettings(), lazy)
            if model is not None:
                collection._require_same_space(lazy.comparable(space, folder), space)
        except BaseException:
            base.close()
            raise
        return collection

    @staticmethod
    def _create(folder: Path, embedder: Embedder, parts: Parts, database: str | None) -> None:
        """Make the tables, then publish the folder as a collection: a start broken off can be made again."""
        fingerprint = embedder.fingerprint()
        layout = Layout.plan(folder, parse_url(database).get_backend_name() if database else "sqlite")
        _require_fitting(layout, database)
        with WriterLock(layout.lock):
            if Layout.exists(folder):
                return  # another process was faster
            layout.clear()
            with closing(_connect(layout, database)) as base:
                base.create()
                create_first_generation(base)
                create_space(base, fingerprint.digest, embedder.name, embedder.dim, parts, asdict(fingerprint))
            layout.publish()

    @staticmethod
    def _space(database: Database) -> Space:
        catalog = Catalog(database)
        spaces = catalog.spaces(catalog.generation().number)
        if not spaces:
            raise CorruptionError(f"{database.shown} names no embedding space.", "Delete the folder and index again.")
        return spaces[0]

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
        return self._space(self.database)

    @cached_property
    def embedder(self) -> Embedder:
        """The model, loaded on first use.

        Raises:
            SpaceMismatchError: What loads is not what the collection was made with.
            UntrustedModelError: It is named by a path, by the collection alone; see `open`.
            ModelError: It cannot be loaded.
        """
        embedder = self._lazy.get()
        self._require_same_space(embedder, self.space)
        return embedder

    @cached_property
    def cards(self) -> Cards:
        """The graphics cards that hold copies of its indexes, for settings that say `cuda`.

        Raises:
            DeviceError: There is none, or FAISS is a build for the CPU.
            MissingExtraError: There is no FAISS.
        """
        from indexer.index import cards

        return cards.Cards(cards.cuda_cards())

    def snapshot(self) -> Snapshot:
        """The newest generation, pinned. As long as it is the newest, every call gives the same object.

        Raises:
            CorruptionError: A segment is damaged.
        """
        while True:
            number = self.catalog.newest()
            with self._opening:  # an index that has to be built is built once, and other threads wait for it
                if self._newest is not None and self._newest.generation >= number:
                    return self._newest
                generation = self.catalog.generation()
                space = next(each for each in self.catalog.spaces(generation.number) if each.id == self.space_id)
                try:
                    self._newest = Snapshot(
                        self.catalog, self.layout, space, generation, self.settings, lambda: self.cards
                    )
                except SnapshotGoneError:
                    # Compacted between the two reads: the next round sees what it was compacted into.
                    continue
                return self._newest

    def writer(self) -> Writer:
        """The one writer; `with` it, the lock is held.

        Raises:
            LockedError: On entering, when another writer holds it.
        """
        return Writer(self.catalog, self.layout, self.space)

    def ingest(self, images: ImageRules = ImageRules()) -> Ingest:  # noqa: B008  # it is frozen
        """The way in for documents; picklable, holds no model."""
        return Ingest(self.embedder.preparer(), self.space.parts, self.layout.media, images)

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
        with self.writer() as writer:
            ready, rejected = prepared(documents, self.ingest(ImageRules(max_pixels, exif)))
            if not ready:
                if not skip_rejected:
                    require_some(rejected)
                return Added(0, 0, rejected, self.catalog.generation().number)
            published = writer.commit(
                [each.document for each in ready],
                embed(self.embedder, ready),
                extra_sums=self.missing_query_mean(),
                note="added",
            )
        return Added(published.added, published.replaced, rejected, published.generation)

    def delete(self, ids: Iterable[str | int]) -> int:
        """Delete documents by id, as one generation; returns how many there were.

        Raises:
            CallError: The ids are no list, or hold something else than texts and whole numbers.
            LockedError: Another writer holds the collection.
        """
        wanted = ids_to_delete(ids)
        with self.writer() as writer:
            return writer.commit(deleted=wanted, note="deleted").deleted

    def missing_query_mean(self) -> Sums:
        """The sum of generic query texts' vectors, if the space has none yet: what `product` centres texts with."""
        if (Role.QUERY, Modality.TEXT) in self.space.means or Modality.TEXT not in self.embedder.modalities:
            return {}
        vectors = self.embedder.encode_query([Item(text=each) for each in generic_texts()])
        return {(Role.QUERY, Modality.TEXT): (len(vectors), vectors.sum(axis=0, dtype=np.float64))}

    def check(self, on_file: Callable[[Path], None] | None = None) -> maintenance.Report:
        """Compare files with checksums and counts with rows; see `maintenance.check`."""
        return maintenance.check(self.catalog, self.layout, self.space, on_file)

    def repair(self) -> list[str]:
        """Drop what is damaged so that indexing again brings it back; see `maintenance.repair`."""
        return maintenance.repair(self.catalog, self.layout, self.space)

    def compact(self) -> tuple[int, int]:
        """Merge segments and drop the dead; returns how many segments there were and are."""
        return maintenance.compact(self.catalog, self.layout, self.space)

    def info(self) -> dict[str, Any]:
        """What the collection is and holds, as plain JSON."""
        snapshot = self.snapshot()
        segments = self.catalog.segments(snapshot.generation, snapshot.space.id)
        return {
            "path": str(self.path),
            "metadata": self.database.shown,
            "model": snapshot.space.model,
            "parts": snapshot.space.parts.value,
            "dim": snapshot.space.dim,
            "fingerprint": dict(snapshot.space.fingerprint),
            "generation": snapshot.generation,
            "published": snapshot.published.created.isoformat(timespec="seconds"),
            "documents": snapshot.published.documents,
            "by_modality": self.catalog.counts(snapshot.generation),
            "segments": len(segments),
            "vector_bytes": sum(each.size for each in segments),
            "tombstones": sum(each.rows for each in segments) - len(snapshot),
            "index": " ".join((*snapshot.remarks, snapshot.index)),
            "recall_at_10": snapshot.index_facts.get("recall_at_10"),
            "jobs": jobs(self.database),
        }

    def explain(self) -> dict[str, Any]:
        """Which index a search will use and why, and what the others would take, as plain JSON. Builds nothing."""
        rows = sum(each.rows for each in self.catalog.segments(self.catalog.generation().number, self.space_id))
        dim = self.space.dim
        chosen, settings, remark = choose(rows, dim, self.settings, lambda: self.cards)
        available = available_memory() if settings.device is Device.CPU else self.cards.available
        return {
            "vectors": rows,
            "dim": dim,
            "device": settings.device.value,
            "allowed_bytes": allowed_bytes(settings, available),
            "kind": chosen.kind.value,
            "codes": chosen.codes.value,
            "bytes": chosen.bytes,
            "reason": chosen.reason if remark is None else f"{remark} {chosen.reason}",
            "alternatives": [asdict(each) for each in alternatives(rows, dim, settings, available)],
        }

    def _require_same_space(self, embedder: Embedder, space: Space) -> None:
        found = embedder.fingerprint()
        if found.digest == space.digest:
            return
        now, then = asdict(found), space.fingerprint
        differing = [key for key in now if key not in ("model", "decoding") and now[key] != then.get(key)]
        details = "; ".join(f"{key} {str(then.get(key))[:60]!r}, now {str(now[key])[:60]!r}" for key in differing)
        raise SpaceMismatchError(
            f"{self.path} was made with {space.model} ({details}); {embedder.name} gives other vectors.",
            f"Open it with {space.model}, or index again into a new folder: "
            f"underdrawing index SOURCE NEW_FOLDER --model {embedder.name}",
        )


def _connect(layout: Layout, database: str | None) -> Database:
    _require_fitting(layout, database)
    return Database.in_file(layout.database) if database is None else Database(database, layout.schema)


def _require_fitting(layout: Layout, database: str | None) -> None:
    if layout.backend == "sqlite" and database is not None:
        raise CallError(
            f"{layout.folder} keeps its metadata in SQLite, in the collection's folder; it has no use for a URL.",
            "Leave database out.",
        )
    if layout.backend != "sqlite" and database is None:
        raise CallError(
            f"{layout.folder} keeps its metadata in PostgreSQL.",
            "Give its URL: database=… or --database URL.",
        )
