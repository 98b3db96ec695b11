"""The batch job: index a corpus into a collection; resumable after a kill at any moment.

    records ─ shards ─► decode (processes, or a thread) ─► model, batches side by side ─► commit, a shard at a time

While the model works on its batches, the next ones are decoded. Memory holds only a few chunks of pixels, a batch for
the model and a shard's vectors, however large the corpus is.

The corpus is cut into shards of consecutive records. A shard's documents, its rejects and its row in the ledger are
published by one transaction, so a shard is either done or not. Another run reads the corpus again, skips shards with
the same content whose documents are all stored, embeds only what changed in the others, and so ends in the same state
as an uninterrupted run. The parts of the job are in `indexer/ingest/`.

What this module does not know: any corpus format, any model, how commits work.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from indexer.arguments import callback, described, finite, flag, url_in, whole_number
from indexer.corpus.formats import reader_in
from indexer.corpus.image_rules import ImageRules
from indexer.corpus.paths import printable
from indexer.corpus.readers import open_corpus
from indexer.corpus.records import Corpus, Record
from indexer.corpus.transforms import Transform, transformed
from indexer.errors import CallError, ItemError
from indexer.ingest.adding import missing_query_mean, way_in
from indexer.ingest.decoding import decoded_ahead, decoders, ingest_chunk
from indexer.ingest.ids import Ids, Resolved, with_id
from indexer.ingest.prepare import named
from indexer.ingest.prune import Hidden, require_few
from indexer.ingest.reuse import StoredVectors
from indexer.ingest.shards import Batches, Shard, digest_of
from indexer.ingest.streams import Streams
from indexer.ingest.summary import Progress, Summary, count_kind
from indexer.ingest.target import Target
from indexer.ingest.writer import Writer
from indexer.metadata.holdings import has_source, holders
from indexer.metadata.jobs import Ledger
from indexer.metadata.publish import FinishedShard
from indexer.open_spaces import OpenSpace
from indexer.reasons import Reason
from indexer.types import Document, PassedOver, Rejected
from indexer.validate import checked_id
from indexer.vectors.protocol import OnProgress

__all__ = ["Progress", "Summary", "index_corpus"]

CHUNK = 16
"""Records that are sent to a worker together: fewer cost more messages, more make the pipeline uneven."""
TOLD_EVERY = 256
"""Entries read between two progress calls; each prepared chunk is reported, too."""
MAX_SHARD_BYTES = 256 * 1024 * 1024
"""Bytes of images, texts and fields that a shard's records hold: shards of large records have fewer documents."""
PRUNE_MOST = 0.2
"""The largest share of a source's documents that is pruned without asking."""

Thing = TypeVar("Thing")


def index_corpus(
    source: str | Path | Corpus,
    collection: Target,
    *,
    workers: int = 0,
    shard_size: int = 2048,
    replace: bool = False,
    prune: bool = False,
    prune_most: float = PRUNE_MOST,
    confirm: Callable[[CallError], bool] | None = None,
    max_pixels: int | None = None,
    exif: bool = True,
    transforms: Sequence[str | Transform] = (),
    spaces: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_index: OnProgress | None = None,
) -> Summary:
    """Index a corpus, or continue indexing it.

    If another source's document has a record's id, an id made from a place gets the source's name as prefix, and a
    record with an id that a user wrote is rejected as `other-source`. A document whose content is already stored reuses
    its vector.

    Args:
        source: A folder, `.jsonl`, `.parquet`, `.tar`, or a `Corpus`.
        collection: The collection to write to.
        workers: Processes that decode ahead of the model; 0 decodes in threads of this process. With processes, a
            script must guard its start with `if __name__ == "__main__":`, as multiprocessing asks.
        shard_size: Documents per commit; fewer if their images come as more than 256 MiB of bytes. A kill loses at
            most the work on one shard and what was decoded ahead.
        replace: For ids that a user wrote, replace other sources' documents instead of rejecting this source's.
        prune: Remove documents that an earlier run took from this source and that it no longer has, except those that
            may lie under what could not be read.
        prune_most: The largest share, 0 to 1, of the source's documents that is removed.
        confirm: Called with the error if more would be removed; True removes them, False raises the error.
        max_pixels: The most pixels of one decoded image; see `ImageRules`.
        exif: Whether a photograph's date, camera, lens, position and size become fields; see `indexer/corpus/exif.py`.
        transforms: Transforms that change the records first, in this order, by name such as `text-from:title` or as
            `Transform`s; see `indexer/corpus/transforms.py`. Records that a changed list alters are indexed again.
        spaces: The names of the spaces in which to embed documents; default all. `Collection.fill_space` fills the
            others later.
        on_progress: Called after each chunk, and while the corpus is read.
        on_index: Called while the index is built, at the end, if the existing one covers too little.

    Raises:
        UnknownNameError: There is no transform with a given name.
        PluginError: A transform of another package cannot be imported.
        CallError: The source cannot be read, a number is invalid, or more than `prune_most` would be pruned; then
            nothing is pruned, but everything else is done.
        LockedError: Another writer holds the collection.
        StoreError: The disk or the database fails; what was committed stays.
    """
    shard_size, workers = whole_number(shard_size, "shard_size", 1), whole_number(workers, "workers", 0, 1024)
    if not hasattr(collection, "writer"):
        opened = (
            f"Collection.open({str(collection)!r}, model=...)" if isinstance(collection, str | Path) else "a Collection"
        )
        raise CallError(
            f"collection is {described(collection)}; index_corpus needs an open Collection.", f"Give {opened}."
        )
    if not 0 <= finite(prune_most, "prune_most") <= 1:
        raise CallError(f"prune_most is {prune_most}; it is a share, from 0 to 1.")
    flag(replace, "replace")
    flag(prune, "prune")
    for name, each in (("confirm", confirm), ("on_progress", on_progress), ("on_index", on_index)):
        callback(each, name)
    rules = ImageRules(max_pixels, exif)
    if isinstance(source, str) and not source:
        raise CallError("The source is empty.", "Write '.' for the folder you are in.")
    if (url := url_in(source)) is not None and reader_in(str(source)) is None:
        raise CallError(f"The source is the URL {url}; nothing is fetched.", "Download it, and give the file.")
    corpus = open_corpus(source) if isinstance(source, str | Path) else source
    if not isinstance(getattr(corpus, "source", None), str):
        raise CallError(
            f"index_corpus takes a path or a Corpus, not {type(source).__name__}.",
            "For documents at hand there is Collection.add.",
        )
    corpus = transformed(corpus, transforms)
    started = time.monotonic()
    with ExitStack() as stack:
        writer = stack.enter_context(collection.writer())
        executor = stack.enter_context(decoders(workers))
        chosen = collection.open_spaces.some(spaces)
        models = {
            each.space.id: Streams(each.embedder, stack.enter_context(each.embedder.threads())) for each in chosen
        }
        job = _Job(
            corpus, collection, writer, chosen, models, shard_size, replace, rules, on_progress or (lambda _: None)
        )
        job.run(executor, max(1, workers))
        pruned, kept = job.prune(prune_most, confirm) if prune else (0, 0)
    generation = collection.catalog.generation()
    seconds = time.monotonic() - started
    collection.keep_index(on_index, spaces=spaces)
    return Summary(
        source=corpus.source,
        documents=generation.documents,
        added=job.progress.added,
        unchanged=job.progress.unchanged,
        pruned=pruned,
        rejected=job.progress.rejected,
        seconds=seconds,
        generation=generation.number,
        waited=max(0.0, seconds - sum(each.busy_seconds for each in models.values())),
        reasons=job.ledger.reject_counts(),
        rejects=job.ledger.rejects(limit=1000),
        passed_over=job.passed_over,
        replaced=job.replaced,
        replaced_from=job.replaced_from,
        moved=job.moved,
        reused=job.reused,
        kept=kept,
        found=bool(job.progress.added + job.progress.unchanged)
        or has_source(collection.catalog.database, corpus.source),
    )


class _Job:
    def __init__(
        self,
        corpus: Corpus,
        target: Target,
        writer: Writer,
        spaces: Sequence[OpenSpace],
        models: Mapping[int, Streams],
        shard_size: int,
        replace: bool,
        images: ImageRules,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._corpus, self._target, self._writer = corpus, target, writer
        self._spaces, self._models = spaces, models
        self._shard_size, self._images, self._on_progress = shard_size, images, on_progress
        database = target.catalog.database
        self._database = database
        self._ids = Ids(database, corpus.source, replace)
        self._stored = {each.space.id: StoredVectors(database, target.layout.segments, each.space) for each in spaces}
        self.progress = Progress()
        self.passed_over: Counter[str] = Counter()
        self.replaced, self.moved, self.reused = 0, 0, 0
        self.replaced_from: Counter[str] = Counter()
        self.ledger = Ledger(database, corpus.source, {"shard_size": shard_size})
        self._finished = self.ledger.digests()
        self._hidden, self._places = Hidden(), Hidden()  # prefixes of ids, and of the URIs of documents
        # 64-bit hashes, not ids: only this grows with the corpus.
        self._seen: set[int] = set()

    def run(self, executor: Executor, workers: int) -> None:
        """Process all shards, decoding a few chunks per worker ahead."""
        ingest, shards = way_in(self._target, self._spaces, self._images), 0
        prepare = partial(ingest_chunk, ingest, self._corpus.source)
        depth = max(4 * workers, *(each.ahead // CHUNK for each in self._models.values()))
        for (shard, chunk), outcome in decoded_ahead(self._work(), executor, prepare, depth):
            shards = max(shards, shard.number + 1)
            contents = [each.document.content for each in outcome if not isinstance(each, Rejected)]
            known = {space: stored.find(contents) for space, stored in self._stored.items()}
            for resolved, each in zip(chunk, outcome, strict=True):
                shard.take(resolved, each, known)
            shard.chunks -= 1
            self.progress.prepared += len(outcome)
            shard.embed(self._models)
            if shard.chunks == 0:
                self._commit(shard)
            self._on_progress(self.progress)
        self.ledger.finish(
            shards,
            {
                "passed_over": dict(self.passed_over),
                "replaced": self.replaced,
                "replaced_from": dict(self.replaced_from),
                "moved": self.moved,
                "reused": self.reused,
            },
        )

    def prune(self, most: float, confirm: Callable[[CallError], bool] | None) -> tuple[int, int]:
        """Delete the documents of this source that this run did not see; returns how many, and how many were kept."""
        known = self._target.catalog.ids_of_source(self._corpus.source)
        unseen = sorted(each for each in known if _short_hash(each) not in self._seen)
        gone = [each for each in unseen if not self._hidden.covers(self._ids.plain(each))]
        # An id that a user wrote says nothing about its place; the document's URI does.
        held = holders(self._database, gone)
        gone = [each for each in gone if each not in held or not self._places.covers(held[each].uri or "")]
        if gone:
            try:
                require_few(printable(self._corpus.source), len(gone), len(known), most)
            except CallError as error:
                if confirm is None or not confirm(error):
                    raise
            self._writer.commit(deleted=gone, note=f"pruned {self._corpus.source}")
        return len(gone), len(unseen) - len(gone)

    def _work(self) -> Iterator[tuple[tuple[Shard, list[Resolved]], list[Record]]]:
        """Shards in order, in chunks; a shard with nothing to do has one empty chunk."""
        for number, entries in enumerate(_shards(self._entries(), self._shard_size)):
            shard = self._plan(number, entries)
            chunks = list(_chunked(shard.todo, CHUNK)) or [[]]
            shard.chunks = len(chunks)
            for chunk in chunks:
                yield (shard, chunk), [each.record for each in chunk]

    def _entries(self) -> Iterator[Record | Rejected]:
        """The corpus's records and rejects; entries that its reader passes over are counted here."""
        for count, entry in enumerate(self._corpus, start=1):
            self.progress.read = count
            self.progress.place = entry.document.uri if isinstance(entry, Record) else entry.uri
            if count % TOLD_EVERY == 0:
                self._on_progress(self.progress)
            if not isinstance(entry, Record) and entry.hides is not None:
                self._hidden.add(entry.hides)
                self._places.add(entry.uri or "nowhere")
            if isinstance(entry, PassedOver):
                count_kind(self.passed_over, entry.kind)
                self.progress.passed_over += 1
                continue
            yield entry

    def _plan(self, number: int, entries: list[Record | Rejected]) -> Shard:
        """Plan the work on a shard."""
        checked = [self._checked(each) for each in entries]
        rejects = [each for each in checked if isinstance(each, Rejected)]
        resolved = self._ids.resolve([each for each in checked if isinstance(each, Record)])
        self._seen.update(_short_hash(id) for each in resolved if isinstance(each, Resolved) for id in each.ids)
        taken = [each for each in resolved if isinstance(each, Rejected)]
        fresh = [each for each in resolved if isinstance(each, Resolved)]
        todo = [each for each in fresh if each.stamp != each.record.stamp]
        unchanged = len(fresh) - len(todo)
        # The digest is over records with their stored ids, in the order of the corpus.
        found = iter(resolved)
        digest = digest_of(
            [
                entry if isinstance(check, Rejected) else _record_or_reject(next(found))
                for entry, check in zip(entries, checked, strict=True)
            ],
            self._images.key,
        )
        # Same content as when the shard was finished: records that are not stored were rejected then.
        settled = self.ledger.rejected(number) if self._finished.get(number) == digest else None
        if settled is not None and len(todo) + len(rejects) + len(taken) == settled:
            return Shard(number, digest, [], unchanged, [], settled_rejects=settled)
        batches = {each.space.id: Batches(each.space) for each in self._spaces}
        return Shard(number, digest, todo, unchanged, rejects + taken, batches)

    def _checked(self, entry: Record | Rejected) -> Record | Rejected:
        """A record whose id is valid and new in this run, or a reject."""
        if isinstance(entry, Rejected):
            return entry
        try:
            identifier = checked_id(entry.document.id)
        except ItemError as error:
            return Rejected(printable(named(entry.document)), error.reason, error.detail)
        key = _short_hash(identifier)
        if key in self._seen:
            detail = f"The id {identifier[:200]!r} was used before in this source; the first record counts."
            return Rejected(printable(named(entry.document)), Reason.DUPLICATE_ID.value, detail)
        self._seen.add(key)
        return entry if identifier == entry.document.id else with_id(entry, identifier)

    def _commit(self, shard: Shard) -> None:
        self.progress.unchanged += shard.unchanged
        if shard.settled_rejects is not None:
            self.progress.rejected += shard.settled_rejects
            return
        vectors = shard.vectors()
        finished = FinishedShard(
            self.ledger.job, shard.number, shard.digest, len(shard.documents), shard.unchanged, shard.rejects
        )
        if shard.documents:
            catalog = self._target.catalog
            vectors = [
                replace(own, extra_sums=missing_query_mean(each, catalog))
                for own, each in zip(vectors, self._spaces, strict=True)
            ]
            published = self._writer.commit_spaces(
                shard.documents, vectors, shard=finished, note=f"indexed {self._corpus.source}, shard {shard.number}"
            )
            self.replaced += published.replaced
            for own in vectors:
                self._stored[own.space.id].committed(shard.documents[place].content for place in own.places)
        else:
            self.ledger.record(finished)
        self.progress.added += len(shard.documents)
        self.progress.rejected += len(shard.rejects)
        self.replaced_from.update(shard.replaced_from)
        self.moved += shard.moved
        self.reused += shard.reused


def _record_or_reject(resolved: Resolved | Rejected) -> Record | Rejected:
    return resolved.record if isinstance(resolved, Resolved) else resolved


def _shards(entries: Iterable[Record | Rejected], size: int) -> Iterator[list[Record | Rejected]]:
    """Groups of `size` consecutive entries, or fewer if they hold many bytes."""
    shard: list[Record | Rejected] = []
    held = 0
    for entry in entries:
        shard.append(entry)
        if isinstance(entry, Record):
            held += _held(entry.document)
        if len(shard) == size or held >= MAX_SHARD_BYTES:
            yield shard
            shard, held = [], 0
    if shard:
        yield shard


def _held(document: Document) -> int:
    """About how many bytes of images, text and fields a document holds in memory."""
    images = sum(len(image) for image in document.images if isinstance(image, bytes))
    fields = sum(len(value) for value in document.fields.values() if isinstance(value, str | list | dict))
    return images + len(document.text or "") + fields


def _chunked(things: Iterable[Thing], size: int) -> Iterator[list[Thing]]:
    stream = iter(things)
    while chunk := list(islice(stream, size)):
        yield chunk


def _short_hash(identifier: str) -> int:
    return int.from_bytes(hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
