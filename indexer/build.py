"""The batch job: a corpus into a collection, resumable after a kill at any moment.

    records ─ shards ─► decode (processes, or a thread) ─► model, batches side by side ─► commit, a shard at a time

While the model works on its batches the next ones are decoded; what waits are a few chunks of pixels, a batch for the
model, and a shard's vectors, however large the corpus is.

The corpus is cut into shards of consecutive records. A shard's documents, its rejects and its row in the ledger are
published by one transaction, so a shard is done or is not. A re-run reads the corpus again, passes over shards whose
content is the same and whose documents are all there, embeds in the others only what changed, and so ends where an
undisturbed run would have ended.

What this module does not know: any corpus format, any model, how commits work.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TypeVar

import numpy as np

from indexer.collection import Collection
from indexer.corpus.paths import printable
from indexer.corpus.readers import open_corpus
from indexer.corpus.records import Corpus, Entry, Record
from indexer.embed.protocol import Embedder
from indexer.errors import CallError, UnderdrawingError
from indexer.image_rules import ImageRules
from indexer.index.building import OnProgress
from indexer.ingest import Ingest, Ready, embed
from indexer.store.ledger import Ledger
from indexer.store.publish import FinishedShard, NewDocument
from indexer.types import PassedOver, Rejected, Vectors
from indexer.writer import Writer

DUPLICATE = "duplicate-id"
CHUNK = 16
"""Records that travel to a worker together: fewer cost more messages, more make the pipeline lumpy."""

STREAM_BATCH = 16
"""Of each of several batches side by side: large enough for one core, and soon done at the end of a shard."""

Thing = TypeVar("Thing")


@dataclass
class Progress:
    """Where a job stands; handed to the caller after each chunk, the same object each time.

    Attributes:
        prepared: Records decoded so far.
        added: Documents committed.
        unchanged: Passed over, since they are stored as they are.
        rejected: Could not be used.
    """

    prepared: int = 0
    added: int = 0
    unchanged: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class Summary:
    """What a job did.

    Attributes:
        source: The corpus.
        documents: Documents in the collection now.
        added: New documents, and new versions of changed ones.
        unchanged: Passed over, since they are stored as they are.
        pruned: Removed, since the corpus no longer has them.
        rejected: Items that could not be used, with their reasons in `reasons` and, some of them, in `rejects`.
        seconds: Wall time.
        waited: Seconds of it in which the model had nothing to do, since records were read and decoded, or a shard was
            committed; of several batches side by side, the mean.
        generation: What a search sees now.
    """

    source: str
    documents: int
    added: int
    unchanged: int
    pruned: int
    rejected: int
    seconds: float
    generation: int
    waited: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    rejects: list[Rejected] = field(default_factory=list)


def index_corpus(
    source: str | Path | Corpus,
    collection: Collection,
    *,
    workers: int = 0,
    shard_size: int = 2048,
    prune: bool = False,
    max_pixels: int | None = None,
    exif: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    on_index: OnProgress | None = None,
) -> Summary:
    """Index a corpus, or go on indexing it.

    Args:
        source: A folder, `.jsonl`, `.parquet`, `.tar`, or a `Corpus`.
        collection: Where to.
        workers: Processes that decode ahead of the model; 0 decodes in threads of this process. With processes, a
            script must guard its start with `if __name__ == "__main__":`, as multiprocessing asks.
        shard_size: Documents of a commit. A kill loses at most the work on one shard and what was decoded ahead.
        prune: Remove documents that an earlier run took from this source and that it no longer has.
        max_pixels: Of one image when it is decoded; see `ImageRules`.
        exif: Whether a photograph's date, camera, lens, position and size become fields; see `indexer/corpus/exif.py`.
        on_progress: Called after each chunk.
        on_index: Called while the index is built, last of all, where the one there is covers too little.

    Raises:
        CallError: The source is nothing that can be read, a number makes no sense, or all would be pruned.
        LockedError: Another writer holds the collection.
        StoreError: The disk or the database refuses; what was committed stays.
    """
    if shard_size < 1 or workers < 0:
        raise CallError(f"shard_size is {shard_size} and workers {workers}; they are at least 1 and 0.")
    rules = ImageRules(max_pixels, exif)
    corpus = open_corpus(source) if isinstance(source, str | Path) else source
    started = time.monotonic()
    with collection.writer() as writer, _executor(workers) as executor, collection.embedder.threads() as threads:
        model = _Model(collection.embedder, threads)
        job = _Job(corpus, collection, writer, model, shard_size, rules, on_progress or (lambda _: None))
        job.run(executor, max(1, workers))
        pruned = job.prune() if prune else 0
    generation = collection.catalog.generation()
    seconds = time.monotonic() - started
    collection.keep_index(on_index)
    return Summary(
        source=corpus.source,
        documents=generation.documents,
        added=job.progress.added,
        unchanged=job.progress.unchanged,
        pruned=pruned,
        rejected=job.progress.rejected,
        seconds=seconds,
        generation=generation.number,
        waited=max(0.0, seconds - model.busy / collection.embedder.streams),
        reasons=job.ledger.reject_counts(),
        rejects=job.ledger.rejects(limit=1000),
    )


@dataclass
class _Shard:
    """Consecutive records of the corpus on their way through."""

    number: int
    digest: str
    todo: list[Record]
    unchanged: int
    rejects: list[Rejected]
    settled_rejects: int | None = None
    """Of a shard that the ledger says is done and that still is: nothing to commit, and so many rejects."""
    ready: list[Ready] = field(default_factory=list)
    """Decoded, and not yet embedded."""
    documents: list[NewDocument] = field(default_factory=list)
    vectors: list[Future[Vectors]] = field(default_factory=list)
    """Of the documents, a batch each."""
    chunks: int = 0

    def embed(self, model: _Model, least: int) -> None:
        """Have what is ready embedded, in batches, as long as there are `least` of it."""
        while len(self.ready) >= least:
            batch, self.ready = self.ready[: model.batch_size], self.ready[model.batch_size :]
            self.vectors.append(model.embed(batch))
            self.documents += [each.document for each in batch]


class _Model:
    """An embedder that takes batches ahead, as many as it has streams, and one to begin with when the first is done.

    Attributes:
        busy: Seconds that it spent on batches, of all streams together.
    """

    def __init__(self, embedder: Embedder, threads: Executor) -> None:
        self._embedder, self._threads = embedder, threads
        self._taken: deque[Future[Vectors]] = deque()
        self._lock = threading.Lock()
        self.busy = 0.0

    @property
    def batch_size(self) -> int:
        """Items of a batch."""
        most = self._embedder.batch_size
        return most if self._embedder.streams == 1 else min(most, STREAM_BATCH)

    @property
    def ahead(self) -> int:
        """How many items it holds at most."""
        return self.batch_size * (self._embedder.streams + 1)

    def embed(self, batch: Sequence[Ready]) -> Future[Vectors]:
        """Take a batch, as soon as there is room for it."""
        while len(self._taken) > self._embedder.streams:
            self._taken.popleft().result()
        future = self._threads.submit(self._work, batch)
        self._taken.append(future)
        return future

    def _work(self, batch: Sequence[Ready]) -> Vectors:
        start = time.monotonic()
        vectors = embed(self._embedder, batch)
        with self._lock:
            self.busy += time.monotonic() - start
        return vectors


class _Job:
    def __init__(
        self,
        corpus: Corpus,
        collection: Collection,
        writer: Writer,
        model: _Model,
        shard_size: int,
        images: ImageRules,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._corpus, self._collection, self._writer, self._model = corpus, collection, writer, model
        self._shard_size, self._images, self._on_progress = shard_size, images, on_progress
        self.progress = Progress()
        self.ledger = Ledger(collection.database, corpus.source, {"shard_size": shard_size})
        self._finished = self.ledger.digests()
        # 64 bits an id, not the id: this is all that grows with the corpus.
        self._seen: set[int] = set()

    def run(self, executor: Executor, workers: int) -> None:
        """Take every shard through, decoding ahead by a few chunks a worker."""
        ingest, shards = self._collection.ingest(self._images), 0
        depth = max(4 * workers, self._model.ahead // CHUNK)
        for shard, outcome in _ahead(self._work(), executor, ingest, self._corpus.source, depth):
            shards = max(shards, shard.number + 1)
            for each in outcome:
                if isinstance(each, Rejected):
                    shard.rejects.append(each)
                else:
                    shard.ready.append(each)
            shard.chunks -= 1
            self.progress.prepared += len(outcome)
            shard.embed(self._model, self._model.batch_size if shard.chunks else 1)
            if shard.chunks == 0:
                self._commit(shard)
            self._on_progress(self.progress)
        self.ledger.finish(shards)

    def prune(self) -> int:
        """Delete the documents of this source that this run did not meet."""
        known = self._collection.catalog.ids_of_source(self._corpus.source)
        gone = sorted(each for each in known if _short_hash(each) not in self._seen)
        if not gone:
            return 0
        if not self._seen:
            # An unmounted disk looks like this; that is no reason to forget all that came from it.
            raise CallError(
                f"{self._corpus.source} is empty now, and {len(gone)} documents came from it: none was pruned.",
                "If it is meant to be empty, delete them by id: underdrawing delete COLLECTION ID...",
            )
        return self._writer.commit(deleted=gone, note=f"pruned {self._corpus.source}").deleted

    def _work(self) -> Iterator[tuple[_Shard, list[Record]]]:
        """Shards in order, in chunks; a shard with nothing to do has one empty chunk."""
        for number, records in enumerate(_chunked(self._corpus, self._shard_size)):
            shard = self._plan(number, records)
            chunks = list(_chunked(shard.todo, CHUNK)) or [[]]
            shard.chunks = len(chunks)
            for chunk in chunks:
                yield shard, chunk

    def _plan(self, number: int, records: list[Entry]) -> _Shard:
        """What of a shard must be done."""
        rejects = [each for each in records if isinstance(each, Rejected)]
        fresh: list[Record] = []
        for record in (each for each in records if isinstance(each, Record)):
            key = _short_hash(record.document.id)
            if key in self._seen:
                detail = f"the id {record.document.id[:200]!r} came before in this source; the first one counts"
                rejects.append(Rejected(printable(record.document.uri or record.document.id[:200]), DUPLICATE, detail))
            else:
                self._seen.add(key)
                fresh.append(record)
        digest = _digest(records, self._images.key)
        stored = self._collection.catalog.stamps([each.document.id for each in fresh], self._corpus.source)
        todo = [each for each in fresh if stored.get(each.document.id) != each.stamp]
        unchanged = len(fresh) - len(todo)
        # Same content as when the shard was finished: what is not stored now was rejected then.
        settled = self.ledger.rejected(number) if self._finished.get(number) == digest else None
        if settled is not None and len(todo) + len(rejects) == settled:
            return _Shard(number, digest, [], unchanged, [], settled_rejects=settled)
        return _Shard(number, digest, todo, unchanged, rejects)

    def _commit(self, shard: _Shard) -> None:
        self.progress.unchanged += shard.unchanged
        if shard.settled_rejects is not None:
            self.progress.rejected += shard.settled_rejects
            return
        finished = FinishedShard(
            self.ledger.job, shard.number, shard.digest, len(shard.documents), shard.unchanged, shard.rejects
        )
        if shard.documents:
            self._writer.commit(
                shard.documents,
                np.concatenate([each.result() for each in shard.vectors]),
                shard=finished,
                extra_sums=self._collection.missing_query_mean(),
                note=f"indexed {self._corpus.source}, shard {shard.number}",
            )
        else:
            self.ledger.record(finished)
        self.progress.added += len(shard.documents)
        self.progress.rejected += len(shard.rejects)


def _ahead(
    work: Iterable[tuple[_Shard, list[Record]]], executor: Executor, ingest: Ingest, source: str, depth: int
) -> Iterator[tuple[_Shard, list[Ready | Rejected]]]:
    """Run the chunks in the executor, `depth` of them ahead, and yield their outcomes in order."""
    waiting: deque[tuple[_Shard, Future[list[Ready | Rejected]]]] = deque()
    stream = iter(work)
    try:
        while True:
            for shard, chunk in islice(stream, depth - len(waiting)):
                waiting.append((shard, executor.submit(_ingest_chunk, ingest, chunk, source)))
            if not waiting:
                return
            shard, future = waiting.popleft()
            yield shard, future.result()
    except BrokenProcessPool as error:
        raise UnderdrawingError(
            "A decoding process ended abruptly.",
            "If this is a script, guard its start with `if __name__ == '__main__':`, or use workers=0. "
            "If memory ran out, use fewer workers. Run it again: it continues where it stopped.",
        ) from error
    finally:
        for _, future in waiting:
            future.cancel()


def _ingest_chunk(ingest: Ingest, chunk: list[Record], source: str) -> list[Ready | Rejected]:
    return [ingest(record.document, source, record.stamp) for record in chunk]


@contextmanager
def _executor(workers: int) -> Iterator[Executor]:
    # Spawned, not forked: the parent holds a model, threads and database connections.
    pool: Executor = (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_follow_the_job)
        if workers
        else ThreadPoolExecutor(1, thread_name_prefix="decode")
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_the_job() -> None:
    """Let a decoding process end when the job is killed, and leave Ctrl-C, which all processes get, to the job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _chunked(things: Iterable[Thing], size: int) -> Iterator[list[Thing]]:
    stream = iter(things)
    while chunk := list(islice(stream, size)):
        yield chunk


def _short_hash(identifier: str) -> int:
    return int.from_bytes(hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _digest(records: list[Entry], rules: str) -> str:
    digest = hashlib.sha256(rules.encode())
    for each in records:
        if isinstance(each, PassedOver):
            continue
        told = [each.document.id, each.stamp] if isinstance(each, Record) else [each.uri, each.reason, each.detail]
        digest.update("\0".join(told).encode("utf-8", "surrogatepass") + b"\1")
    return digest.hexdigest()
