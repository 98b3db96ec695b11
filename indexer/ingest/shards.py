"""Shards of a corpus: consecutive records, the work that they need, and the result.

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
from indexer.embed.base import Prepared
from indexer.ingest.ids import Resolved
from indexer.ingest.prepare import Ready, without_vector
from indexer.ingest.reuse import Vector
from indexer.ingest.streams import Streams
from indexer.ingest.writer import SpaceVectors, selected, with_any_vector
from indexer.metadata.catalog import Space
from indexer.metadata.publish import NewDocument
from indexer.types import Modality, Rejected, Vectors
from indexer.validate import shown


@dataclass
class Batches:
    """The documents of a shard on their way through the model of one space.

    Attributes:
        space: The space.
        reused: The number of documents that reuse a vector.
    """

    space: Space
    reused: int = 0
    _ready: list[tuple[int, Prepared]] = field(default_factory=list)
    _batches: list[tuple[list[int], Future[Vectors]]] = field(default_factory=list)
    _known: list[tuple[int, Vector]] = field(default_factory=list)
    _equal: list[tuple[int, int]] = field(default_factory=list)
    _first: dict[str, int] = field(default_factory=dict)
    """The position of the first document with a content."""
    _modalities: dict[int, Modality] = field(default_factory=dict)

    def take(self, place: int, prepared: Prepared, content: str | None, known: Mapping[str, Vector]) -> None:
        """Add a document, with the stored vector of its content if there is one.

        Args:
            place: The document's position in the shard.
            prepared: Its prepared input for the model.
            content: Its content key; None if that is not known.
            known: Vectors by content.
        """
        self._modalities[place] = prepared.modality
        if content is not None and content in known:
            self._known.append((place, known[content]))
            self.reused += 1
        elif content is not None and content in self._first:
            self._equal.append((place, self._first[content]))
            self.reused += 1
        else:
            if content is not None:
                self._first[content] = place
            self._ready.append((place, prepared))

    def embed(self, model: Streams, least: int) -> None:
        """Embed waiting documents in batches while there are at least `least`."""
        while len(self._ready) >= least:
            batch, self._ready = self._ready[: model.batch_size], self._ready[model.batch_size :]
            self._batches.append(([place for place, _ in batch], model.embed([ready for _, ready in batch])))

    def vectors(self, documents: Sequence[NewDocument]) -> tuple[SpaceVectors, dict[int, Rejected]]:
        """Wait for the model; return the vectors, and by position the rejects of documents that got none."""
        places = sorted(self._modalities)
        rows = {place: row for row, place in enumerate(places)}
        vectors = np.empty((len(places), self.space.dim), np.float32)
        for batch, future in self._batches:
            vectors[[rows[place] for place in batch]] = future.result()
        for place, vector in self._known:
            vectors[rows[place]] = vector
        for place, first in self._equal:
            vectors[rows[place]] = vectors[rows[first]]
        lacking = without_vector(vectors, lambda row: documents[places[row]].name)
        bad = {places[row]: why for row, why in lacking.items()}
        if bad:
            self.reused -= sum(place in bad for place, _ in [*self._known, *self._equal])
            vectors = vectors[[rows[place] for place in places if place not in bad]]
            places = [place for place in places if place not in bad]
        return SpaceVectors(self.space, places, vectors, [self._modalities[place] for place in places]), bad


@dataclass
class Shard:
    """A part of the corpus.

    Attributes:
        number: Its number, from 0.
        digest: The digest of its content.
        todo: The records that must be decoded.
        unchanged: The number of records that are stored unchanged.
        rejects: Its rejects.
        spaces: The documents on their way through each model, by the space's id, the default first.
        settled_rejects: The number of rejects of a shard that is already done, so that nothing is committed; else None.
        chunks: The number of chunks that are still being decoded.
        documents: The decoded documents.
        replaced_from: Documents of other sources that they replace, by source.
        moved: The number of documents taken over from a source that no longer exists.
    """

    number: int
    digest: str
    todo: list[Resolved]
    unchanged: int
    rejects: list[Rejected]
    spaces: Mapping[int, Batches] = field(default_factory=dict)
    settled_rejects: int | None = None
    chunks: int = 0
    documents: list[NewDocument] = field(default_factory=list)
    replaced_from: Counter[str] = field(default_factory=Counter)
    moved: int = 0

    @property
    def reused(self) -> int:
        """The number of documents that reuse their vector in the first space."""
        return next((each.reused for each in self.spaces.values()), 0)

    def take(self, resolved: Resolved, ready: Ready | Rejected, known: Mapping[int, Mapping[str, Vector]]) -> None:
        """Add the result of decoding a record.

        Args:
            resolved: The record.
            ready: The decoded document, or the reject.
            known: Vectors by space and content.
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
        place, document = len(self.documents), ready.document
        self.documents.append(document)
        for space, prepared in ready.prepared.items():
            # The content key is for the document's modality: a space that embeds other parts has other content.
            content = document.content if prepared.modality is document.modality else None
            self.spaces[space].take(place, prepared, content, known.get(space, {}))

    def embed(self, models: Mapping[int, Streams]) -> None:
        """Embed full batches, and the rest once all is decoded."""
        for space, own in self.spaces.items():
            own.embed(models[space], models[space].batch_size if self.chunks else 1)

    def vectors(self) -> list[SpaceVectors]:
        """The vectors of each space. A document without a vector becomes a reject; the first space gives the reason."""
        found = [each.vectors(self.documents) for each in self.spaces.values()]
        kept, lacking = with_any_vector(len(self.documents), found)
        if not lacking:
            return [own for own, _ in found]
        self.rejects += lacking
        self.documents = [self.documents[place] for place in kept]
        return [selected(own, kept) for own, _ in found]


def digest_of(entries: Sequence[Record | Rejected], rules: str) -> str:
    """A digest that changes with a shard's content and with the rules by which it is read."""
    digest = hashlib.sha256(rules.encode())
    for each in entries:
        if isinstance(each, Record):
            identifier: object = each.document.id
            parts = [identifier if isinstance(identifier, str) else shown(identifier), each.stamp]
        else:
            parts = [each.uri, each.reason, each.detail]
        digest.update("\0".join(parts).encode("utf-8", "surrogatepass") + b"\1")
    return digest.hexdigest()
