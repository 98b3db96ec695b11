"""Shards of a corpus: consecutive records, what must be done with them, and the result.

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
        reused: How many of them take over a vector.
    """

    space: Space
    reused: int = 0
    _ready: list[tuple[int, Prepared]] = field(default_factory=list)
    _batches: list[tuple[list[int], Future[Vectors]]] = field(default_factory=list)
    _known: list[tuple[int, Vector]] = field(default_factory=list)
    _equal: list[tuple[int, int]] = field(default_factory=list)
    _first: dict[str, int] = field(default_factory=dict)
    """The place of the first document of a content."""
    _modalities: dict[int, Modality] = field(default_factory=dict)

    def take(self, place: int, prepared: Prepared, content: str | None, known: Mapping[str, Vector]) -> None:
        """Take a document, or the vector that there is of its content.

        Args:
            place: In the shard.
            prepared: What the model reads of it.
            content: What its vector is made of; None where that is not known.
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
        """Have what is ready embedded, in batches, as long as there are `least` of it."""
        while len(self._ready) >= least:
            batch, self._ready = self._ready[: model.batch_size], self._ready[model.batch_size :]
            self._batches.append(([place for place, _ in batch], model.embed([ready for _, ready in batch])))

    def vectors(self, documents: Sequence[NewDocument]) -> tuple[SpaceVectors, dict[int, Rejected]]:
        """The vectors, as soon as the model has done them, and by place the documents that it gave none."""
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
        number: Which one, from 0.
        digest: Over its content.
        todo: What must be decoded, at least.
        unchanged: Records that are stored as they are.
        rejects: What cannot be used.
        spaces: What is embedded, by the space's id, the default one first.
        settled_rejects: Of a shard that the ledger says is done and that still is: nothing to commit, and so many
            rejects.
        chunks: Of records, still to come back decoded.
        documents: Decoded.
        replaced_from: Documents of other sources that they replace, by source.
        moved: How many of them were another source's, which is gone.
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
        """How many documents take over their vector of the first space."""
        return next((each.reused for each in self.spaces.values()), 0)

    def take(self, resolved: Resolved, ready: Ready | Rejected, known: Mapping[int, Mapping[str, Vector]]) -> None:
        """Take what came of a record.

        Args:
            resolved: The record.
            ready: What decoding it gave.
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
            # The content is that of the document's modality: a space of other parts has vectors of other content.
            content = document.content if prepared.modality is document.modality else None
            self.spaces[space].take(place, prepared, content, known.get(space, {}))

    def embed(self, models: Mapping[int, Streams]) -> None:
        """Have whole batches embedded, and when all is decoded, the rest."""
        for space, own in self.spaces.items():
            own.embed(models[space], models[space].batch_size if self.chunks else 1)

    def vectors(self) -> list[SpaceVectors]:
        """Of each space; a document that no model gave a vector goes, with the reason of the first."""
        found = [each.vectors(self.documents) for each in self.spaces.values()]
        kept, lacking = with_any_vector(len(self.documents), found)
        if not lacking:
            return [own for own, _ in found]
        self.rejects += lacking
        self.documents = [self.documents[place] for place in kept]
        return [selected(own, kept) for own, _ in found]


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
