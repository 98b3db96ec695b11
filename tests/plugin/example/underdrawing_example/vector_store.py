"""The vector store `matrix`: all vectors of a generation in one array, searched by brute force."""

from __future__ import annotations

import numpy as np

from indexer.errors import CorruptionError
from indexer.files.layout import Layout
from indexer.vectors.protocol import NO_ID, NOTHING, IndexSettings, Neighbors, Pinned
from indexer.vectors.segments import open_segment


class MatrixView:
    """A view of a generation."""

    scans, reason, notes, facts, outdated = True, "One matrix; there is nothing to build.", (), {}, False

    def __init__(self, vectors, ids):
        order = np.argsort(ids)
        self._vectors, self._ids, self.size = vectors[order], ids[order], len(ids)

    def all_ids(self):
        return self._ids

    def held(self, ids):
        return ids[np.isin(ids, self._ids)]

    def search(self, queries, k, allowed=None, hidden=NOTHING):
        ids, _ = self.scan(queries[:0], allowed)
        ids = np.setdiff1d(ids, hidden)
        scores = self.score(queries, ids)
        found = np.full((len(queries), k), NO_ID), np.full((len(queries), k), -np.inf, np.float32)
        for row, each in enumerate(scores):
            first = np.lexsort((ids, -each))[:k]
            found[0][row, : len(first)], found[1][row, : len(first)] = ids[first], each[first]
        return Neighbors(*found)

    def score(self, queries, ids):
        # Not a matrix product: each row is summed in the same order wherever it lies, so that equal rows tie.
        rows = self.fetch(ids).astype(np.float64)
        each = [np.einsum("ij,j->i", rows, query) for query in queries.astype(np.float64)]
        return np.array(each, np.float32).reshape(len(queries), len(ids))

    def scan(self, queries, allowed=None):
        ids = self._ids if allowed is None else self._ids[np.isin(self._ids, allowed)]
        return ids, self.score(queries, ids)

    def fetch(self, ids):
        places = np.minimum(np.searchsorted(self._ids, ids), max(self.size - 1, 0))
        if len(ids) and not (self.size and (self._ids[places] == ids).all()):
            raise CorruptionError("Some of these vectors are not held.")
        return self._vectors[places] if len(ids) else np.empty((0, self._vectors.shape[1]), np.float32)


class MatrixStore:
    """What the collection asks for views."""

    def __init__(self, layout: Layout, settings: IndexSettings) -> None:
        self._folder = layout.segments

    def open(self, pinned: Pinned, before=None):
        parts = [open_segment(self._folder, each, pinned.space, pinned.dim) for each in pinned.segments]
        vectors = np.concatenate([np.empty((0, pinned.dim), np.float32), *(part[0] for part in parts)])
        return MatrixView(vectors, np.concatenate([NOTHING, *(part[1] for part in parts)]))

    def lacks(self, view, coverage):
        return False

    def build(self, view, tuning, coverage, only=None, on_progress=None):
        return []

    def explain(self, pinned):
        size = 4 * pinned.rows * pinned.dim
        return {
            "device": "cpu", "allowed_bytes": size, "kind": "exact", "codes": "float32", "bytes": size,
            "reason": MatrixView.reason, "alternatives": [],
        }  # fmt: skip
