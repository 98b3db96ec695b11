"""Reuse stored vectors: equal content is embedded only once.

What this module does not know: how content keys are made (`indexer/metadata/holdings.py`), commits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.errors import CorruptionError
from indexer.metadata.catalog import Space
from indexer.metadata.database import Database
from indexer.metadata.holdings import Place, contents, places
from indexer.types import Vectors
from indexer.vectors.segments import SegmentFile, open_segment

Vector = npt.NDArray[np.float32]
"""(dim,) float32, of unit length."""

REMEMBERED = 1_024
"""Recently found vectors to cache: a placeholder image may occur ten thousand times."""
OPEN_SEGMENTS = 4
QUESTIONS = 64
"""Lookups before all hashes are read: a small job on a large collection must not read them."""
MERGED = 65_536
"""New hashes before they are merged: an array takes eight bytes each, a set eight times as much."""


class StoredVectors:
    """Vectors by the content key from which they were computed.

    Lookups in the database come with every few documents and rarely find anything. So a longer job first reads the
    hashes of all contents, and then looks up only those that may exist.
    """

    def __init__(self, database: Database, folder: Path, space: Space) -> None:
        self._database, self._folder, self._space = database, folder, space
        self._found: OrderedDict[str, Vector] = OrderedDict()
        self._segments: OrderedDict[str, Vectors] = OrderedDict()
        self._questions = 0
        self._hashes: npt.NDArray[np.int64] | None = None
        self._fresh: set[int] = set()

    def find(self, wanted: Iterable[str | None]) -> dict[str, Vector]:
        """The vectors of the contents that living documents have; damaged ones are left out."""
        asked = {each for each in wanted if each is not None}
        known = {each: self._found[each] for each in asked if each in self._found}
        unknown = self._possible(asked - known.keys())
        for content, place in places(self._database, self._space, unknown).items() if unknown else ():
            vector = self._read(place)
            if vector is not None:
                known[content] = vector
        for content, vector in known.items():
            self._found[content] = vector
            self._found.move_to_end(content)
        while len(self._found) > REMEMBERED:
            self._found.popitem(last=False)
        return known

    def committed(self, stored: Iterable[str | None]) -> None:
        """Add contents that have just been stored."""
        if self._hashes is None:
            return
        self._fresh.update(hash(each) for each in stored if each is not None)
        if len(self._fresh) > MERGED:
            fresh = np.fromiter(self._fresh, np.int64, len(self._fresh))
            self._hashes, self._fresh = np.sort(np.concatenate([self._hashes, fresh])), set()

    def _possible(self, wanted: set[str]) -> list[str]:
        self._questions += 1
        if self._hashes is None and self._questions > QUESTIONS:
            self._hashes = contents(self._database)
        if self._hashes is None or not wanted:
            return sorted(wanted)
        some = sorted(wanted)
        hashes = np.array([hash(each) for each in some], np.int64)
        found = np.searchsorted(self._hashes, hashes)
        there = self._hashes[np.minimum(found, len(self._hashes) - 1)] == hashes if len(self._hashes) else found < 0
        return [each for each, is_there in zip(some, there, strict=True) if is_there or hash(each) in self._fresh]

    def _read(self, place: Place) -> Vector | None:
        try:
            vectors = self._segment(place.segment)
        except (CorruptionError, FileNotFoundError):
            return None  # `check` reports the damage; the document is embedded like a new one
        vector = np.array(vectors[place.row], np.float32)
        return vector if abs(float(np.linalg.norm(vector)) - 1) < 1e-3 else None

    def _segment(self, segment: SegmentFile) -> Vectors:
        if segment.file not in self._segments:
            self._segments[segment.file], _ = open_segment(self._folder, segment, self._space.digest, self._space.dim)
        self._segments.move_to_end(segment.file)
        while len(self._segments) > OPEN_SEGMENTS:
            self._segments.popitem(last=False)
        return self._segments[segment.file]
