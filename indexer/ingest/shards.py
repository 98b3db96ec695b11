"""Consecutive records of a corpus on their way through: what is to be done of them, and what came of it.

What this module does not know: decoding, commits.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np

from indexer.corpus.records import Record
from indexer.ingest.ids import Resolved
from indexer.ingest.prepare import Ready, without_vector
from indexer.ingest.reuse import Vector
from indexer.ingest.streams import Streams
from indexer.metadata.publish import NewDocument
from indexer.types import Rejected, Vectors
from indexer.validate import shown


@dataclass
class Shard:
    """A part of the corpus.

    Attributes:
        number: Which one, from 0.
        digest: Over its content.
        todo: What must be decoded, at least.
        unchanged: Records that are stored as they are.
        rejects: What cannot be used.
        settled_rejects: Of a shard that the ledger says is done and that still is: nothing to commit, and so many
            rejects.
        chunks: Of records, still to come back decoded.
        documents: Decoded.
        replaced_from: Documents of other sources that they replace, by source.
        moved: How many of them were another source's, which is gone.
        reused: How many of them take over a vector.
    """

    number: int
    digest: str
    todo: list[Resolved]
    unchanged: int
    rejects: list[Rejected]
    settled_rejects: int | None = None
    chunks: int = 0
    documents: list[NewDocument] = field(default_factory=list)
    replaced_from: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    reused: int = 0
    _ready: list[tuple[int, Ready]] = field(default_factory=list)
    _batches: list[tuple[list[int], Future[Vectors]]] = field(default_factory=list)
    _known: list[tuple[int, Vector]] = field(default_factory=list)
    _equal: list[tuple[int, int]] = field(default_factory=list)
    _first: dict[str, int] = field(default_factory=dict)
    """The place of the first document of a content."""

    def take(self, resolved: Resolved, ready: Ready | Rejected, known: Mapping[str, Vector]) -> None:
        """Take what came of a record.

        Args:
            resolved: The record.
            ready: What decoding it gave.
            known: Vectors by content.
        """
        while isinstance(ready, Ready) and resolved.moved_from is not None:
            if ready.document.content == resolved.moved_from.content:
                self.moved += 1
                break
            if isinstance(resolved.otherwise, Resolved):
                resolved = resolved.otherwise
                ready = replace(ready, document=replace(ready.document, id=resolved.id))
            elif resolved.otherwise is not None:
                ready = resolved.otherwise
            else:
                break
        if isinstance(ready, Rejected):
            self.rejects.append(ready)
            return
        if resolved.replaces is not None:
            self.replaced_from[resolved.replaces] += 1
        self._place(ready, known)

    def _place(self, ready: Ready, known: Mapping[str, Vector]) -> None:
        place, content = len(self.documents), ready.document.content
        self.documents.append(ready.document)
        if content is not None and content in known:
            self._known.append((place, known[content]))
            self.reused += 1
        elif content is not None and content in self._first:
            self._equal.append((place, self._first[content]))
            self.reused += 1
        else:
            if content is not None:
                self._first[content] = place
            self._ready.append((place, ready))

    def embed(self, model: Streams, least: int) -> None:
        """Have what is ready embedded, in batches, as long as there are `least` of it."""
        while len(self._ready) >= least:
            batch, self._ready = self._ready[: model.batch_size], self._ready[model.batch_size :]
            self._batches.append(([place for place, _ in batch], model.embed([ready for _, ready in batch])))

    def vectors(self, dim: int) -> Vectors:
        """(len(documents), dim) float32, as soon as the model has done them; where it gave none, the document goes."""
        vectors = np.empty((len(self.documents), dim), np.float32)
        for places, batch in self._batches:
            vectors[places] = batch.result()
        for place, vector in self._known:
            vectors[place] = vector
        for place, first in self._equal:
            vectors[place] = vectors[first]
        bad = without_vector(self.documents, vectors)
        if not bad:
            return vectors
        self.rejects += bad.values()
        self.reused -= sum(place in bad for place, _ in [*self._known, *self._equal])
        kept = [place for place in range(len(self.documents)) if place not in bad]
        self.documents = [self.documents[place] for place in kept]
        return vectors[kept]


def digest_of(entries: Sequence[Record | Rejected], rules: str) -> str:
    """Changes with the content of a shard, and with the rules it is read by."""
    digest = hashlib.sha256(rules.encode())
    for each in entries:
        if isinstance(each, Record):
            identifier: object = each.document.id
            told = [identifier if isinstance(identifier, str) else shown(identifier), each.stamp]
        else:
            told = [each.uri, each.reason, each.detail]
        digest.update("\0".join(told).encode("utf-8", "surrogatepass") + b"\1")
    return digest.hexdigest()
