"""Search over the segments of one generation: a built index over most of them, exact search over the rest (the delta).

An index file is named by what it was built from (the segments' checksums and the settings), so that a stale one can
never be mistaken for a good one. Index files are derived: a missing or damaged one is built again.

What this module does not know: SQL, documents, generations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import StoreError, UnderdrawingError
from indexer.files import atomic_path, atomic_write, file_digest, require_digest
from indexer.index.choose import Choice, choose_kind
from indexer.index.exact import ExactIndex
from indexer.index.protocol import Device, IndexKind, IndexSettings, Neighbours
from indexer.store.segments import SegmentFile, open_segment
from indexer.types import Ids, Vectors

if TYPE_CHECKING:
    from indexer.index.faiss_index import FaissIndex

REBUILD_ABOVE = 0.2
"""Share of rows outside the built index above which it is built anew."""


@dataclass(frozen=True)
class _Part:
    file: SegmentFile
    vectors: Vectors
    ids: Ids


def _exact(parts: Sequence[_Part]) -> ExactIndex:
    return ExactIndex([(part.vectors, part.ids) for part in parts])


class Searcher:
    """All vectors of one space in one generation.

    Attributes:
        exact: Exact access to every row.
        choice: The kind of index in use, and why.
    """

    def __init__(
        self,
        folder: Path,
        indexes: Path,
        segments: Sequence[SegmentFile],
        digest: str,
        dim: int,
        settings: IndexSettings,
    ) -> None:
        self._indexes, self._settings, self._digest = indexes, settings, digest
        self._parts = [_Part(each, *open_segment(folder, each, digest, dim)) for each in segments]
        self.exact = _exact(self._parts)
        self.choice: Choice = choose_kind(self.exact.size, dim, settings, available_memory())
        self._main: FaissIndex | None = None
        self._delta = self.exact
        if self.exact.size and (self.choice.kind is not IndexKind.EXACT or settings.device is not Device.CPU):
            self._open_index()

    @property
    def size(self) -> int:
        """Rows, the dead included."""
        return self.exact.size

    def search(self, queries: Vectors, k: int, allowed: Ids | None) -> Neighbours:
        """The k best of the allowed rows; see `VectorIndex.search`."""
        if self._main is None:
            return self.exact.search(queries, k, allowed)
        found = [self._main.search(queries, k, allowed)]
        if self._delta.size:
            found.append(self._delta.search(queries, k, allowed))
        return merge(found, k)

    def _open_index(self) -> None:
        best = max(self._candidates(), key=lambda names: sum(p.file.rows for p in self._covered(names)), default=[])
        covered = sum(part.file.rows for part in self._covered(best))
        main = self._load(best) if covered >= (1 - REBUILD_ABOVE) * self.exact.size else None
        if main is None:
            best = [part.file.sha256 for part in self._parts]
            main = self._build(best)
        self._main = main
        rest = [part for part in self._parts if part.file.sha256 not in best]
        self._delta = _exact(rest)

    def _candidates(self) -> list[list[str]]:
        """The segment lists of the index files that fit the settings and hold no segment that is gone."""
        living = {part.file.sha256 for part in self._parts}
        found = []
        for sidecar in sorted(self._indexes.glob("*.json")):
            try:
                told = json.loads(sidecar.read_text(encoding="utf-8"))
                names = list(told["segments"])
                fits = told["settings"] == self._key_settings() and told["space"] == self._digest
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if fits and living.issuperset(names):
                found.append(names)
        return found

    def _covered(self, names: Sequence[str]) -> list[_Part]:
        return [part for part in self._parts if part.file.sha256 in names]

    def _key_settings(self) -> dict[str, str | float]:
        return {
            "kind": self.choice.kind.value,
            "codes": self.choice.codes.value,
            "recall": self._settings.recall,
        }

    def _file(self, names: Sequence[str]) -> Path:
        key = json.dumps([self._digest, sorted(names), self._key_settings()], sort_keys=True)
        return self._indexes / f"{self.choice.kind.value}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.faiss"

    def _load(self, names: Sequence[str]) -> FaissIndex | None:
        from indexer.index.faiss_index import FaissIndex

        file = self._file(names)
        try:
            told = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
            require_digest(file, told["sha256"])
            return FaissIndex.load(file, _exact(self._covered(names)), told["metadata"], self._settings.device)
        except (OSError, ValueError, KeyError, TypeError, UnderdrawingError):
            return None

    def _build(self, names: Sequence[str]) -> FaissIndex:
        from indexer.index.faiss_index import FaissIndex

        parts = [(part.vectors, part.ids) for part in self._covered(names)]
        index = FaissIndex.build(self.choice.kind, parts, self._settings, codes=self.choice.codes)
        try:
            self._save(index, names)
        except (OSError, StoreError):  # OSError: from reading it back
            # A full or read-only disk, or a writer that swept the file away half written: the next opening builds.
            return index
        return index

    def _save(self, index: FaissIndex, names: Sequence[str]) -> None:
        file = self._file(names)
        with atomic_path(file) as temporary:
            index.save(temporary)
            digest = file_digest(temporary)
        # The sidecar comes last: an index file without one does not exist.
        told = {
            "space": self._digest,
            "segments": list(names),
            "settings": self._key_settings(),
            "sha256": digest,
            "metadata": index.metadata,
        }
        atomic_write(file.with_suffix(".json"), json.dumps(told, indent=2).encode() + b"\n")


def merge(found: Sequence[Neighbours], k: int) -> Neighbours:
    """The k best of several answers to the same queries, ties by ascending id."""
    ids = np.concatenate([each.ids for each in found], axis=1)
    scores = np.concatenate([each.scores for each in found], axis=1)
    # Padding has score -inf and id -1: it must come after every id.
    keys = np.where(ids < 0, np.iinfo(np.int64).max, ids)
    order = np.lexsort((keys, -scores), axis=1)[:, :k]
    return Neighbours(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))


def available_memory() -> int:
    """Bytes of memory a new index may count on."""
    import psutil

    return int(psutil.virtual_memory().available)


def remove_stale(indexes: Path, living: Sequence[SegmentFile]) -> None:
    """Delete index files that name a segment which is gone; call it while holding the writer's lock."""
    names = {each.sha256 for each in living}
    for sidecar in indexes.glob("[!.]*.json"):  # a reader may be writing one aside at this moment
        try:
            stale = not names.issuperset(json.loads(sidecar.read_text(encoding="utf-8"))["segments"])
        except (ValueError, KeyError, TypeError):
            stale = True
        if stale:
            sidecar.unlink(missing_ok=True)
            sidecar.with_suffix(".faiss").unlink(missing_ok=True)
    for file in indexes.glob("[!.]*.faiss"):
        if not file.with_suffix(".json").exists():
            file.unlink(missing_ok=True)
