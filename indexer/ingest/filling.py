"""Fill a space: embed documents that are already stored with another model.

    documents without a vector there ─► decode (processes, or a thread) ─► model ─► commit, a shard at a time

The job may be killed at any moment and run again: documents with a vector are done, and the others are embedded in the
order in which they were stored. It takes the writer's lock only for its commits, so documents can be added and deleted
meanwhile. Added ones get their vector from whoever adds them, or at the end of this job.

Images are read again from their files, and only if their content is unchanged: a vector of another image would
contradict those in other spaces.

What this module does not know: any model, how a commit works.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from indexer.corpus.image_rules import ImageRules
from indexer.corpus.paths import printable
from indexer.embed.base import Prepared
from indexer.errors import CorruptionError, ItemError, StoreError
from indexer.files.layout import image_path
from indexer.files.media import recorded_image
from indexer.ingest.adding import missing_query_mean
from indexer.ingest.prepare import Preparer, without_vector
from indexer.ingest.streams import Streams
from indexer.ingest.summary import Progress, in_brackets
from indexer.ingest.target import Target
from indexer.ingest.writer import SpaceVectors
from indexer.metadata.jobs import Ledger
from indexer.metadata.lacking import Lacking, lacking, still_lacking
from indexer.metadata.publish import FinishedShard
from indexer.open_spaces import OpenSpace, gone
from indexer.reasons import Reason, refusal
from indexer.types import Modality, Rejected, Vectors

CHUNK = 16
"""Documents that are sent to a worker together."""
PATIENCE = 60.0
"""Seconds that a commit waits for another writer."""


@dataclass(frozen=True, repr=False)
class Filled:
    """The outcome of `Collection.add_space` and `fill_space`.

    Attributes:
        space: The space's name.
        embedded: Documents that got a vector.
        rejected: Documents that got none, and why: the first 1,000.
        reasons: The number of rejects for each reason.
        seconds: Wall time.
        generation: The generation that searches see now.
    """

    space: str
    embedded: int
    rejected: list[Rejected]
    reasons: Counter[str]
    seconds: float
    generation: int

    def __repr__(self) -> str:
        counted = f"{self.embedded:,} embedded, {self.reasons.total():,} rejected{in_brackets(self.reasons)}"
        return f"Filled({self.space}: {counted}; generation {self.generation}; {self.seconds:.1f} s)"


def fill(
    target: Target,
    own: OpenSpace,
    *,
    workers: int = 0,
    shard_size: int = 2048,
    max_pixels: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Filled:
    """Embed every document that has no vector in a space.

    Args:
        target: The collection.
        own: The space.
        workers: Processes that decode ahead of the model; 0 decodes in a thread.
        shard_size: Documents per commit, and the most work that a kill can lose.
        max_pixels: The most pixels of one decoded image; see `ImageRules`.
        on_progress: Called after each chunk.

    Raises:
        LockedError: Another writer holds the collection for longer than a minute.
        StoreError: The disk or the database fails, or the space was dropped; what was committed stays.
    """
    from indexer.ingest.decoding import decoded_ahead, decoders  # process pools, which opening need not load

    started = time.monotonic()
    job = _Filling(target, own, shard_size, on_progress or (lambda _: None))
    prepare = partial(
        prepare_stored,
        Preparer(own.space.id, own.embedder.preparer(), own.space.parts),
        target.layout.media,
        ImageRules(max_pixels),
    )
    with decoders(workers) as executor, own.embedder.threads() as threads:
        model = Streams(own.embedder, threads)
        depth = max(4 * max(1, workers), model.ahead // CHUNK)
        while job.has_more():  # documents may be added while the last ones are embedded
            for shard, outcome in decoded_ahead(job.work(), executor, prepare, depth):
                job.take(shard, outcome, model)
    job.ledger.finish(job.shards, {"embedded": job.progress.added})
    target.keep_index(spaces=[own.space.name])
    return Filled(
        space=own.space.name,
        embedded=job.progress.added,
        rejected=job.ledger.rejects(limit=1000),
        reasons=job.ledger.reject_counts(),
        seconds=time.monotonic() - started,
        generation=target.catalog.generation().number,
    )


def prepare_stored(
    preparer: Preparer, media: Path, images: ImageRules, chunk: Sequence[Lacking]
) -> list[Prepared | Rejected]:
    """Stored documents prepared for a model, or why they cannot be."""
    return [_prepared(preparer, media, images, each) for each in chunk]


def _prepared(preparer: Preparer, media: Path, rules: ImageRules, document: Lacking) -> Prepared | Rejected:
    try:
        images = [_as_it_was(media, uri, digest) for uri, digest in document.images] if preparer.reads_images else []
        with rules.decoding():
            return preparer(document.text, images)[1]
    except ItemError as error:
        return Rejected(printable(_named(document)), error.reason, error.detail)


def _as_it_was(media: Path, uri: str, digest: str | None) -> bytes:
    try:
        path = image_path(media, uri)
    except (CorruptionError, StoreError) as error:
        raise refusal(Reason.DAMAGED, error.message) from None
    content = recorded_image(path, digest)
    if content is None:
        detail = f"{printable(str(path)[:200])} is gone, or differs from the image that was stored."
        raise refusal(Reason.CHANGED, detail)
    return content


def _named(document: Lacking) -> str:
    return (document.uri or document.id)[:200]


@dataclass
class _Shard:
    """Documents that are committed together."""

    number: int
    chunks: int
    documents: list[Lacking] = field(default_factory=list)
    kinds: list[Modality] = field(default_factory=list)
    rejects: list[Rejected] = field(default_factory=list)
    batches: list[Future[Vectors]] = field(default_factory=list)
    ready: list[Prepared] = field(default_factory=list)


class _Filling:
    def __init__(
        self, target: Target, own: OpenSpace, shard_size: int, on_progress: Callable[[Progress], None]
    ) -> None:
        self._target, self._own, self._shard_size, self._on_progress = target, own, shard_size, on_progress
        self._database = target.catalog.database
        self.ledger = Ledger(self._database, f"space {own.space.name}", {}, own.space.id)
        self.progress, self.shards, self._after = Progress(), 0, -1

    def has_more(self) -> bool:
        """Whether there are documents to embed that the job has not seen."""
        return bool(self._next(1))

    def _next(self, most: int) -> list[Lacking]:
        return lacking(self._database, self._own.space.id, self._after, most)

    def work(self) -> Iterator[tuple[tuple[_Shard, Sequence[Lacking]], Sequence[Lacking]]]:
        """The documents that lack a vector, in shards and chunks, read ahead of the model."""
        while rows := self._next(self._shard_size):
            self._after = rows[-1].key
            chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
            shard = _Shard(self.shards, len(chunks))
            self.shards += 1
            for chunk in chunks:
                yield (shard, chunk), chunk

    def take(
        self, source: tuple[_Shard, Sequence[Lacking]], outcome: Sequence[Prepared | Rejected], model: Streams
    ) -> None:
        """Take the results of a chunk, and commit the shard after its last one."""
        shard, chunk = source
        for document, each in zip(chunk, outcome, strict=True):
            if isinstance(each, Rejected):
                shard.rejects.append(each)
                continue
            shard.documents.append(document)
            shard.kinds.append(each.modality)
            shard.ready.append(each)
        shard.chunks -= 1
        least = model.batch_size if shard.chunks else 1
        while len(shard.ready) >= least:
            batch, shard.ready = shard.ready[: model.batch_size], shard.ready[model.batch_size :]
            shard.batches.append(model.embed(batch))
        self.progress.read += len(chunk)
        self.progress.prepared += len(chunk)
        if not shard.chunks:
            self._commit(shard)
        self._on_progress(self.progress)

    def _commit(self, shard: _Shard) -> None:
        vectors = np.concatenate([each.result() for each in shard.batches]) if shard.batches else None
        rows = list(range(len(shard.documents)))
        if vectors is not None:
            bad = without_vector(vectors, lambda row: _named(shard.documents[row]))
            shard.rejects += bad.values()
            rows = [row for row in rows if row not in bad]
        with self._target.writer(PATIENCE) as writer:
            if self._own.space.id not in self._target.catalog.living_spaces():
                raise gone(self._own.space)
            keys = [shard.documents[row].key for row in rows]
            # Meanwhile others may have deleted, replaced or embedded some.
            wanted = still_lacking(self._database, self._own.space.id, keys)
            rows = [row for row in rows if shard.documents[row].key in wanted]
            finished = FinishedShard(self.ledger.job, shard.number, "", len(rows), 0, shard.rejects)
            if vectors is None or not rows:
                self.ledger.record(finished)
            else:
                new = SpaceVectors(
                    self._own.space, range(len(rows)), vectors[rows], [shard.kinds[row] for row in rows],
                    missing_query_mean(self._own, self._target.catalog),
                )  # fmt: skip
                stored = {shard.documents[row].key: shard.documents[row].modality for row in rows}
                note = f"embedded for the space {self._own.space.name}, shard {shard.number}"
                writer.commit_spaces([], [new], stored=stored, shard=finished, note=note)
        self.progress.added += len(rows)
        self.progress.rejected += len(shard.rejects)
