"""Vectors that the collection has already: of equal content, nothing is embedded twice.

What this module does not know: what content is made of (`indexer/store/holdings.py`), commits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.errors import CorruptionError
from indexer.store.catalog import Space
from indexer.store.database import Database
from indexer.store.holdings import Place, places
from indexer.store.segments import SegmentFile, open_segment
from indexer.types import Vectors

Vector = npt.NDArray[np.float32]
"""(dim,) float32, of unit length."""

REMEMBERED = 1_024
"""Vectors that were found lately: a placeholder image may come ten thousand times."""
OPEN_SEGMENTS = 4


class StoredVectors:
    """Vectors by the content they were made of."""

    def __init__(self, database: Database, folder: Path, space: Space) -> None:
        self._database, self._folder, self._space = database, folder, space
        self._found: OrderedDict[str, Vector] = OrderedDict()
        self._segments: OrderedDict[str, Vectors] = OrderedDict()

    def find(self, contents: Iterable[str | None]) -> dict[str, Vector]:
        """The vectors of those contents that living documents have; a damaged one is not found."""
        wanted = {each for each in contents if each is not None}
        known = {each: self._found[each] for each in wanted if each in self._found}
        for content, place in places(self._database, self._space, sorted(wanted - known.keys())).items():
            vector = self._read(place)
            if vector is not None:
                known[content] = vector
        for content, vector in known.items():
            self._found[content] = vector
            self._found.move_to_end(content)
        while len(self._found) > REMEMBERED:
            self._found.popitem(last=False)
        return known

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
