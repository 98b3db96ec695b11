"""Reuse stored vectors: equal content is embedded only once.

What this module does not know: what content is made of (`indexer/metadata/holdings.py`), commits.
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
"""Vectors that were found lately: a placeholder image may come ten thousand times."""
OPEN_SEGMENTS = 4
QUESTIONS = 64
"""Before all hashes are read: a small job beside a large collection must not read them."""
MERGED = 65_536
"""New hashes are kept apart up to so many: eight bytes each in an array, eight times as much in a set."""


class StoredVectors:
    """Vectors by the content they were made of.

    The database is asked for each few documents, nearly always in vain: a longer job first reads the hashes of all
    contents, and then asks for those that there may be.
    """

    def __init__(self, database: Database, folder: Path, space: Space) -> None:
        self._database, self._folder, self._space = database, folder, space
        self._found: OrderedDict[str, Vector] = OrderedDict()
        self._segments: OrderedDict[str, Vectors] = OrderedDict()
        self._questions = 0
        self._hashes: npt.NDArray[np.int64] | None = None
        self._fresh: set[int] = set()

    def find(self, wanted: Iterable[str | None]) -> dict[str, Vector]:
        """The vectors of those contents that living documents have; a damaged one is not found."""
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
        """Take note of contents that are stored now."""
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
            return None  # `check` tells of it; here the document is embedded, as if it were the first
        vector = np.array(vectors[place.row], np.float32)
        return vector if abs(float(np.linalg.norm(vector)) - 1) < 1e-3 else None

    def _segment(self, segment: SegmentFile) -> Vectors:
        if segment.file not in self._segments:
            self._segments[segment.file], _ = open_segment(self._folder, segment, self._space.digest, self._space.dim)
        self._segments.move_to_end(segment.file)
        while len(self._segments) > OPEN_SEGMENTS:
            self._segments.popitem(last=False)
        return self._segments[segment.file]
