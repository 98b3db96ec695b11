"""Synthetic collections for measuring speed: of any size, built once, deterministic.

Vectors are a mixture of 64 directions with noise, so that neighbors exist, as in a real embedding; a field `bucket` of
0 to 999 lets filters choose any share. They are committed like any document.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.collection import Collection
from indexer.embed.fake import FakeEmbedder
from indexer.metadata.publish import NewDocument
from indexer.types import Modality, Vectors
from indexer.vectors.protocol import IndexSettings
from indexer.vectors.unit import unit_rows

if TYPE_CHECKING:
    from indexer.vectors.gpus import Gpus

DIRECTIONS = 64
NOISE = 2.0
COMMIT = 1 << 15
BUCKETS = 1000
TUNED_BY = 200
"""Queries for tuning an index, with another seed than those that are measured."""


class Maker:
    """Vectors and queries of one distribution.

    Args:
        dim: Length of a vector.
    """

    def __init__(self, dim: int) -> None:
        self._basis = np.random.default_rng(0).standard_normal((DIRECTIONS, dim), np.float32)

    def vectors(self, count: int, seed: int) -> Vectors:
        """(count, dim) float32, of unit length."""
        rng = np.random.default_rng(seed)
        mixture = rng.standard_normal((count, DIRECTIONS), np.float32) @ self._basis
        return unit_rows(mixture + NOISE * rng.standard_normal(mixture.shape, np.float32))

    def queries(self, count: int) -> Vectors:
        """Like `vectors`, with a seed that no collection uses, so none of them is stored."""
        return self.vectors(count, 1 << 40)


def synthetic(
    folder: Path, rows: int, dim: int, settings: IndexSettings | None = None, gpus: Gpus | None = None
) -> Collection:
    """Open a synthetic collection, building it first if it does not exist or is incomplete.

    If settings are given, its index is built, too; `gpus`, if given, hold its copies.
    """
    name = folder / f"speed-{rows}x{dim}"
    collection = Collection.open(name, FakeEmbedder(dim), index=settings)
    if gpus is not None:
        collection.store.__dict__["gpus"] = gpus  # before the first snapshot, which uses them
    maker, start = Maker(dim), collection.catalog.generation().documents
    buckets = np.random.default_rng(1).integers(0, BUCKETS, rows).tolist()
    while start < rows:
        count = min(COMMIT, rows - start)
        documents = [_document(number, buckets[number]) for number in range(start, start + count)]
        with collection.writer() as writer:
            writer.commit(documents, maker.vectors(count, start))
        start += count
    if settings is not None:
        collection.build_index({"queries": maker.vectors(TUNED_BY, 1 << 41)})
    return collection


def _document(number: int, bucket: int) -> NewDocument:
    return NewDocument(
        id=f"document-{number}",
        text=f"the text of document {number}",
        uri=f"file:///pictures/{number}.jpg",
        image=None,
        image_sha256=None,
        modality=Modality.TEXT,
        fields={"bucket": bucket, "name": f"number {number}"},
    )
