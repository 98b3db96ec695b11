"""A hand-made collection in memory: what `indexer.snapshot` promises, in thirty lines of NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from indexer.errors import CallError, SnapshotGoneError
from indexer.snapshot import Space, StoredDocument
from indexer.types import Center, Modality, Parts
from indexer.vectors.protocol import Neighbors


class FakeSnapshot:
    """Rows in order of their vector ids, which start at 100 so that they are never positions."""

    FIRST = 100
    notes = ()
    center = Center.OFF

    def __init__(self, documents, vectors, means=None):
        self._documents, self._vectors = documents, vectors
        dim = vectors.shape[1]
        self.generation = 7
        self.space = Space(
            id=1, digest="d", model=f"fake:{dim}", dim=dim, parts=Parts.AUTO,
            fingerprint={}, means=means or {},
        )  # fmt: skip
        self._place = {document.id: place for place, document in enumerate(documents)}
        self.calls = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __len__(self):
        return len(self._documents)

    def _allowed(self, where, exclude):
        self.calls.append((where, tuple(exclude)))
        return np.array(
            [
                document.id not in exclude and all(document.fields.get(k) == v for k, v in (where or {}).items())
                for document in self._documents
            ],
            bool,
        )

    def centered(self, center):
        return self

    def require_filter(self, where):
        pass

    def with_images(self, digests):
        return {}

    def filter_notes(self, where):
        return ()

    def search(self, vectors, k, where=None, exclude=(), modalities=()):
        allowed = self._allowed(where, exclude)
        ids = np.full((len(vectors), k), -1, np.int64)
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        exact = (vectors.astype(np.float64) @ self._vectors.T.astype(np.float64)).astype(np.float32)
        for row, products in enumerate(exact):
            places = [p for p in np.argsort(-products, kind="stable") if allowed[p]][:k]
            ids[row, : len(places)] = np.array(places, np.int64) + self.FIRST
            scores[row, : len(places)] = products[places]
        return Neighbors(ids, scores)

    def scores(self, vectors, ids):
        return (vectors.astype(np.float64) @ self._vectors[ids - self.FIRST].astype(np.float64).T).astype(np.float32)

    def scan(self, vectors, where=None, exclude=(), modalities=()):
        places = np.flatnonzero(self._allowed(where, exclude))
        return places + self.FIRST, (vectors @ self._vectors[places].T).astype(np.float32)

    def vectors(self, ids):
        return self._vectors[ids - self.FIRST]

    def vector_ids(self, document_ids):
        unknown = [name for name in document_ids if name not in self._place]
        if unknown:
            raise CallError(f"No document {unknown}.")
        return np.array([self._place[name] + self.FIRST for name in document_ids], np.int64)

    def documents(self, ids):
        return [self._documents[number - self.FIRST] for number in ids.tolist()]


@dataclass
class FakeSource:
    """A collection: counts how often the model and a snapshot are asked for."""

    pinned: FakeSnapshot
    model: object
    gone: int = 0
    opened: int = field(default=0, init=False)
    loaded: int = field(default=0, init=False)

    @property
    def embedder(self):
        self.loaded += 1
        return self.model

    def snapshot(self):
        self.opened += 1
        if self.opened <= self.gone:
            raise SnapshotGoneError("compacted away")
        return self.pinned


def stored(name, text=None, **fields):
    """A document without a picture."""
    return StoredDocument(name, text, f"memory:{name}", None, fields, Modality.TEXT)
