"""Search over the segments of one generation: a built index over most of them, exact search over the rest (the delta).

An index file is named by what it was built from (the segments' checksums and the settings), so that a stale one can
never be mistaken for a good one. Index files are derived: a missing or damaged one is built again. Its checksum is
compared once for each time it is written: the file's identity (place, size, time) is kept beside it.

On graphics cards, a copy of the index takes its place, and is kept for later generations as long as anyone uses it.
Where there are no cards, or they fail, the search is on the CPU and `remarks` says so.

Few rows that must not be found (deleted, left out) are fetched with the others and dropped, so that one deletion does
not make every search a filtered one.

What this module does not know: SQL, documents, generations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.errors import StoreError, UnderdrawingError
from indexer.files import atomic_path, atomic_write, file_digest, file_identity, require_digest
from indexer.index.choose import Choice, Codes, choose_kind
from indexer.index.exact import ExactIndex
from indexer.index.protocol import NO_ID, Device, IndexKind, IndexSettings, Neighbours
from indexer.layout import INDEX_NAME
from indexer.store.segments import SegmentFile, open_segment
from indexer.types import Ids, Vectors

if TYPE_CHECKING:
    from indexer.index.cards import Cards
    from indexer.index.codes import CodedIndex
    from indexer.index.faiss_index import FaissIndex
    from indexer.index.gpu_index import GpuIndex

REBUILD_ABOVE = 0.2
"""Share of rows outside the built index above which it is built anew."""
SPARE = 64
"""Neighbours fetched beyond k, at most, to make up for those that must not be found."""


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

    Args:
        folder: Of the segments.
        indexes: Of the index files.
        segments: The generation's.
        digest: The space's.
        dim: Length of a vector.
        settings: How to search.
        cards: Gives the collection's graphics cards; asked where the settings want them.
    """

    def __init__(
        self,
        folder: Path,
        indexes: Path,
        segments: Sequence[SegmentFile],
        digest: str,
        dim: int,
        settings: IndexSettings,
        cards: Callable[[], Cards],
    ) -> None:
        self._indexes, self._digest = indexes, digest
        self._parts = [_Part(each, *open_segment(folder, each, digest, dim)) for each in segments]
        self.exact = _exact(self._parts)
        self._main: FaissIndex | CodedIndex | GpuIndex | None = None
        self._delta = self.exact
        self.choice, self._settings, self._remark = choose(self.exact.size, dim, settings, cards)
        if self._settings.device is Device.CUDA and self.exact.size:
            try:
                self._open_on_cards(cards())
            except UnderdrawingError as error:
                self._main, self._delta = None, self.exact
                cpu = replace(settings, device=Device.CPU)
                self.choice, self._settings, _ = choose(self.exact.size, dim, cpu, cards)
                self._remark = on_the_cpu(error)
        if self._settings.device is Device.CPU and self.exact.size and self._wants_index():
            self._main, names = self._opened()
            self._delta = self._rest(names)

    @property
    def scans(self) -> bool:
        """Whether a search looks at every row, in this process's memory."""
        return self.choice.kind is IndexKind.EXACT and self._settings.device is Device.CPU

    @property
    def remarks(self) -> tuple[str, ...]:
        """What who searches should know: that it is not done where the settings say."""
        failed = getattr(self._main, "remark", None)
        return tuple(each for each in (self._remark, failed) if each)

    @property
    def size(self) -> int:
        """Rows, the dead included."""
        return self.exact.size

    @property
    def metadata(self) -> Mapping[str, Any]:
        """How the built index was made, its measured recall among it; empty where there is none."""
        return {} if self._main is None else self._main.metadata

    def search(self, queries: Vectors, k: int, allowed: Ids | None, hidden: Ids) -> Neighbours:
        """The k best of the allowed rows that are not hidden; see `VectorIndex.search`.

        Args:
            queries: (n, dim) float32.
            k: At least 1.
            allowed: Ascending ids, or None for all.
            hidden: Ascending ids, of which none is found.
        """
        if len(hidden) == 0:
            return self._nearest(queries, k, allowed)
        if allowed is None:
            found = self._nearest(queries, k + min(len(hidden), SPARE), None)
            kept, complete = _without(found, hidden, k)
            if complete:
                return kept
            allowed = self.exact.all_ids()
        return self._nearest(queries, k, np.setdiff1d(allowed, hidden, assume_unique=True))

    def _nearest(self, queries: Vectors, k: int, allowed: Ids | None) -> Neighbours:
        if self._main is None:
            return self.exact.search(queries, k, allowed)
        found = self._main.search(queries, k, allowed)
        if self._delta.size == 0:
            return found
        return merge([found, self._delta.search(queries, k, allowed)], k)

    def _wants_index(self) -> bool:
        if self.choice.kind is not IndexKind.EXACT:
            return True
        if self.choice.codes is Codes.FLOAT32:
            return False
        try:
            import indexer.index.codes  # noqa: F401
        except UnderdrawingError as error:
            # The one index that answers as well without FAISS, only later.
            self.choice = replace(self.choice, codes=Codes.FLOAT32, reason=f"{self.choice.reason} {error.message}")
            return False
        return True

    def _opened(self) -> tuple[FaissIndex | CodedIndex, list[str]]:
        """The index over most of the rows, from its file or built, and the segments it has."""
        names = self._best(self._candidates())
        main = self._load(names) if names else None
        if main is None:
            names = self._every
            main = self._build(names)
        return main, names

    def _open_on_cards(self, cards: Cards) -> None:
        from indexer.index.cards import CopyKey
        from indexer.index.faiss_index import FaissIndex
        from indexer.index.gpu_index import GpuIndex

        space = (self._digest, *self._key_settings().values())
        if self.choice.kind is IndexKind.EXACT:
            # Nothing is saved, since a file would be a copy of the segments; what a card holds already is used.
            names = self._best(self._living(held.names for held in cards.keys() if held.space == space)) or self._every
            key = CopyKey(space, tuple(names))
            self._main = GpuIndex.flat(cards, key, _exact(self._covered(names)), self.choice.codes)
        else:
            main, names = self._opened()
            assert isinstance(main, FaissIndex)
            self._main = GpuIndex.inverted(cards, CopyKey(space, tuple(names)), main)
        self._delta = self._rest(names)

    @property
    def _every(self) -> list[str]:
        return [part.file.sha256 for part in self._parts]

    def _best(self, candidates: Iterable[Sequence[str]]) -> list[str]:
        """The segments of the candidate that has the most rows, if those are enough."""
        best = max(candidates, key=lambda names: sum(p.file.rows for p in self._covered(names)), default=[])
        covered = sum(part.file.rows for part in self._covered(best))
        return list(best) if covered >= (1 - REBUILD_ABOVE) * self.exact.size else []

    def _rest(self, names: Sequence[str]) -> ExactIndex:
        return _exact([part for part in self._parts if part.file.sha256 not in names])

    def _candidates(self) -> list[Sequence[str]]:
        """The segment lists of the index files that fit the settings and hold no segment that is gone."""
        found = []
        for sidecar in sorted(self._indexes.glob("*.json")):
            try:
                told = json.loads(sidecar.read_text(encoding="utf-8"))
                names = list(told["segments"])
                fits = told["settings"] == self._key_settings() and told["space"] == self._digest
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if fits:
                found.append(names)
        return self._living(found)

    def _living(self, candidates: Iterable[Sequence[str]]) -> list[Sequence[str]]:
        """Those that hold no segment that is gone."""
        living = set(self._every)
        return [names for names in candidates if living.issuperset(names)]

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

    def _load(self, names: Sequence[str]) -> FaissIndex | CodedIndex | None:
        file = self._file(names)
        try:
            told = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
            if told.get("checked") != file_identity(file):
                require_digest(file, told["sha256"])
                with suppress(StoreError):  # where nothing can be written, it is compared every time
                    self._note(file, told)
            return self._loaded(file, _exact(self._covered(names)), told["metadata"])
        except (OSError, ValueError, KeyError, TypeError, UnderdrawingError):
            return None

    def _loaded(self, file: Path, exact: ExactIndex, metadata: Mapping[str, Any]) -> FaissIndex | CodedIndex:
        from indexer.index.codes import CodedIndex
        from indexer.index.faiss_index import FaissIndex

        if self._coded:
            return CodedIndex.load(file, exact, metadata)
        return FaissIndex.load(file, exact, metadata)

    def _build(self, names: Sequence[str]) -> FaissIndex | CodedIndex:
        from indexer.index.codes import CodedIndex
        from indexer.index.faiss_index import FaissIndex

        parts = [(part.vectors, part.ids) for part in self._covered(names)]
        index: FaissIndex | CodedIndex
        if self._coded:
            index = CodedIndex.build(parts)
        else:
            index = FaissIndex.build(self.choice.kind, parts, self._settings, codes=self.choice.codes)
        try:
            file = self._save(index, names)
            if self._coded:  # mapped, it takes no memory that the system cannot take back
                return self._loaded(file, _exact(self._covered(names)), index.metadata)
        except (OSError, StoreError):  # OSError: from reading it back
            # A full or read-only disk, or a writer that swept the file away half written: the next opening builds.
            return index
        return index

    @property
    def _coded(self) -> bool:
        return self.choice.kind is IndexKind.EXACT and self._settings.device is Device.CPU

    def _save(self, index: FaissIndex | CodedIndex, names: Sequence[str]) -> Path:
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
        self._note(file, told)
        return file

    @staticmethod
    def _note(file: Path, told: Mapping[str, Any]) -> None:
        """Write the sidecar of an index file whose content has just been compared with its checksum."""
        content = {**told, "checked": file_identity(file)}
        atomic_write(file.with_suffix(".json"), json.dumps(content, indent=2).encode() + b"\n")


def _without(found: Neighbours, hidden: Ids, k: int) -> tuple[Neighbours, bool]:
    """The k best that are not hidden, and whether each query has all that it can have."""
    places = np.minimum(np.searchsorted(hidden, found.ids), len(hidden) - 1)
    kept = (hidden[places] != found.ids) & (found.ids != NO_ID)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    first = np.take_along_axis(kept, order, 1)
    ids = np.where(first, np.take_along_axis(found.ids, order, 1), NO_ID)
    scores = np.where(first, np.take_along_axis(found.scores, order, 1), np.float32(-np.inf))
    exhausted = found.ids[:, -1] == NO_ID
    return Neighbours(ids, scores, found.plan), bool((first.all(axis=1) | exhausted).all())


def merge(found: Sequence[Neighbours], k: int) -> Neighbours:
    """The k best of several answers to the same queries, ties by ascending id."""
    ids = np.concatenate([each.ids for each in found], axis=1)
    scores = np.concatenate([each.scores for each in found], axis=1)
    # Padding has score -inf and id -1: it must come after every id.
    keys = np.where(ids < 0, np.iinfo(np.int64).max, ids)
    order = np.lexsort((keys, -scores), axis=1)[:, :k]
    plan = " and ".join(dict.fromkeys(each.plan for each in found))
    return Neighbours(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1), plan)


def choose(
    rows: int, dim: int, settings: IndexSettings, cards: Callable[[], Cards]
) -> tuple[Choice, IndexSettings, str | None]:
    """The index for a collection, on this machine.

    Returns:
        The choice; the settings, with the CPU where cards were wanted but cannot be had; and the remark that says so.
    """
    remark = None
    if settings.device is Device.CUDA:
        try:
            return choose_kind(rows, dim, settings, cards().available), settings, None
        except UnderdrawingError as error:
            remark, settings = on_the_cpu(error), replace(settings, device=Device.CPU)
    return choose_kind(rows, dim, settings, available_memory()), settings, remark


def on_the_cpu(error: UnderdrawingError) -> str:
    """The remark that cards were wanted and not used."""
    return f"Searched on the CPU: {error.message}"


def available_memory() -> int:
    """Bytes of memory a new index may count on."""
    import psutil

    return int(psutil.virtual_memory().available)


def remove_stale(indexes: Path, living: Sequence[SegmentFile]) -> None:
    """Delete index files that name a segment which is gone; call it while holding the writer's lock.

    Nothing else in the folder is touched, nor what a reader is writing aside at this moment.
    """
    names = {each.sha256 for each in living}
    ours = [path for path in indexes.glob("*") if INDEX_NAME.fullmatch(path.name)]
    for sidecar in (path for path in ours if path.suffix == ".json"):
        try:
            stale = not names.issuperset(json.loads(sidecar.read_text(encoding="utf-8"))["segments"])
        except (ValueError, KeyError, TypeError, RecursionError):
            stale = True
        if stale:
            sidecar.unlink(missing_ok=True)
    for file in (path for path in ours if path.suffix == ".faiss"):
        if not file.with_suffix(".json").exists():
            file.unlink(missing_ok=True)
