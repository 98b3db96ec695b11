"""Search over the segments of one generation: a built index over most of them, exact search over the rest (the delta).

Nothing is built here. An index file is named by what it was built from (the segments' checksums and the settings), so
that a stale one can never be mistaken for a good one; what no file covers is scanned, so that every answer is whole,
and `remarks` says what is missing and how to build it. Which file is good is settled in `indexer/vectors/cache.py`.

Exact search reads 8-bit codes where there are some. They also answer the queries that an approximate index would fail.

On graphics cards, a copy of the index takes its place, and is kept for later generations as long as anyone uses it.
Where there are no cards, or they fail, the search is on the CPU and `remarks` says so.

Few rows that must not be found (deleted, left out) are fetched with the others and dropped, so that one deletion does
not make every search a filtered one.

What this module does not know: SQL, documents, generations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from indexer.errors import CorruptionError, UnderdrawingError
from indexer.types import Ids, Vectors
from indexer.vectors.building import Source
from indexer.vectors.cache import Stored, fits, newest_change, stored_indexes
from indexer.vectors.exact import ExactIndex
from indexer.vectors.merging import merge, plans_of, without
from indexer.vectors.pinned_segments import Part, exact_over, open_parts, require_ids
from indexer.vectors.protocol import Device, IndexKind, IndexSettings, Neighbours
from indexer.vectors.segments import SegmentFile
from indexer.vectors.selection import CODED_ROWS, EXACT_ROWS, Choice, Codes, choose_kind

if TYPE_CHECKING:
    from indexer.vectors.faiss_gpu import GpuIndex
    from indexer.vectors.faiss_index import FaissIndex
    from indexer.vectors.gpus import Cards
    from indexer.vectors.quantized import CodedIndex

    Opened: TypeAlias = FaissIndex | CodedIndex

COVERED = 0.8
"""Share of the rows below which what a built index covers is too little: it is worth building anew."""
SPARE = 64
"""Neighbours fetched beyond k, at most, to make up for those that must not be found."""
BUILD = "Collection.build_index() builds it, and so does `underdrawing index`; until then answers are exact."


@dataclass(frozen=True)
class _Held:
    """An opened index, the names of the segments that it covers, and exact search over all others."""

    index: Opened
    stored: Stored
    rest: ExactIndex


class Searcher:
    """All vectors of one space in one generation.

    Attributes:
        exact: Exact access to every row.
        choice: The kind of index that the settings and sizes ask for, and why.
        settings: How to search, with the CPU where there are no cards.
        space: The space's digest.

    Args:
        folder: Of the segments.
        indexes: Of the index files.
        segments: The generation's.
        digest: The space's.
        dim: Length of a vector.
        settings: How to search.
        cards: Gives the collection's graphics cards; asked where the settings want them.
        before: The searcher of an earlier generation, whose opened segments and index files are taken over where they
            still serve.
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
        before: Searcher | None = None,
    ) -> None:
        self._indexes, self.space = indexes, digest
        held = () if before is None else before._parts
        self._parts: Sequence[Part] = open_parts(folder, segments, digest, dim, held)
        self.exact = exact_over(self._parts)
        self._opened: dict[Path, Opened] = {} if before is None else dict(before._opened)
        self._seen, self._problems = newest_change(indexes), ""
        self._coded: _Held | None = None
        self._main: FaissIndex | GpuIndex | None = None
        self._covers: Sequence[str] = ()
        self._used: list[Path] = []
        self._rest = self.exact
        self._lacking, self._incomplete = "", False
        self.choice, self.settings, self._remark = choose(self.exact.size, dim, settings, cards)
        if not self.exact.size:
            return
        if self.settings.device is Device.CUDA:
            try:
                self._open_on_cards(cards())
            except UnderdrawingError as error:
                self._main, self._rest, self._covers = None, self.exact, ()
                cpu = replace(settings, device=Device.CPU)
                self.choice, self.settings, _ = choose(self.exact.size, dim, cpu, cards)
                self._remark = on_the_cpu(error)
        self._open_stored()
        if self._coded is not None:
            self._used.append(self._coded.stored.file)
        self._opened = {file: self._opened[file] for file in self._used}
        self._lacking = self._lack()
        self._incomplete = bool(self.wants(1.0))

    def require_ids(self, below: int) -> None:
        """See that all vector ids are ones that were given out; raises `CorruptionError`."""
        require_ids(self._parts, below)

    @property
    def scans(self) -> bool:
        """Whether a search looks at every row, in this process's memory."""
        return self._main is None

    @property
    def reason(self) -> str:
        """The kind of index in use, and why."""
        used = self._main.metadata["kind"] if self._main else self.choice.kind.value
        return self.choice.reason + (
            "" if used == self.choice.kind.value else f" The {used} index that is built serves."
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What who searches should know: that it is not done where or how the settings say."""
        failed = getattr(self._main, "remark", None)
        return tuple(each for each in (self._remark, failed, self._problems, self._lacking) if each)

    @property
    def size(self) -> int:
        """Rows, the dead included."""
        return self.exact.size

    @property
    def metadata(self) -> Mapping[str, Any]:
        """How the built index was made, its measured recall among it; empty where there is none."""
        if self._main is not None:
            return self._main.metadata
        return self._coded.index.metadata if self._coded else {}

    @property
    def outdated(self) -> bool:
        """Whether something was built, or went, since this was opened, and could cover more."""
        return self._incomplete and newest_change(self._indexes) != self._seen

    def wants(self, coverage: float) -> list[tuple[IndexKind, Codes]]:
        """The index files that this generation should have, and that do not exist or cover less than a share of it."""
        if not self.size:
            return []
        kinds: list[tuple[IndexKind, Codes]] = []
        if self._wants_codes and self._share(self._coded.stored.segments if self._coded else ()) < coverage:
            kinds.append((IndexKind.EXACT, Codes.SQ8))
        if self.choice.kind is not IndexKind.EXACT and self._share(self._covers) < coverage:
            kinds.append((self.choice.kind, self.choice.codes))
        return kinds

    def source(self) -> Source:
        """What an index of this generation is built from."""
        return Source(self.space, self._every, [(part.vectors, part.ids) for part in self._parts])

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
            kept, complete = without(found, hidden, k)
            if complete:
                return kept
            allowed = self.exact.all_ids()
        return self._nearest(queries, k, np.setdiff1d(allowed, hidden, assume_unique=True))

    def _nearest(self, queries: Vectors, k: int, allowed: Ids | None) -> Neighbours:
        if self._main is None:
            return self._exactly(queries, k, allowed)
        proposed = self._main.search(queries, k, allowed)
        doubtful = self._main.doubtful(queries, proposed)
        if doubtful.all() and len(doubtful):
            return self._exactly(queries, k, allowed)
        found = proposed
        if self._rest.size:
            found = merge([found, self._rest.search(queries, k, allowed)], k)
        if doubtful.any():
            sure = self._exactly(np.ascontiguousarray(queries[doubtful]), k, allowed)
            found.ids[doubtful], found.scores[doubtful] = sure.ids, sure.scores
            found = replace(found, plan=plans_of([found, sure]))
        return found

    def _exactly(self, queries: Vectors, k: int, allowed: Ids | None) -> Neighbours:
        if self._coded is None:
            return self.exact.search(queries, k, allowed)
        found = self._coded.index.search(queries, k, allowed)
        if self._coded.rest.size == 0:
            return found
        return merge([found, self._coded.rest.search(queries, k, allowed)], k)

    @property
    def _wants_codes(self) -> bool:
        """Whether exact search should read codes: on the CPU, also beside an approximate index, where they fit."""
        if self.settings.device is Device.CUDA:
            return False
        if self.choice.kind is IndexKind.EXACT:
            return self.choice.codes is Codes.SQ8
        return self.size >= CODED_ROWS

    def _lack(self) -> str:
        """What is not built and would make searches faster, in words; nothing where all is."""
        approximate = self.choice.kind is not IndexKind.EXACT
        covers = self._covers if approximate else (self._coded.stored.segments if self._coded else ())
        share = self._share(covers)
        if share >= COVERED or not (approximate or self._wants_codes):
            return ""
        name = f"The {self.choice.kind.value} index" if approximate else "The file of 8-bit codes"
        if not covers:
            return f"{name} is not built yet, so all {self.size:,} vectors are scanned. {BUILD}"
        beside = self.size - round(share * self.size)
        return f"{name} lacks {beside:,} of {self.size:,} vectors, which are scanned beside it. {BUILD}"

    def _open_stored(self) -> None:
        """Open the codes, and the approximate index, that cover most of the rows."""
        if self.settings.device is Device.CUDA or not self._needs_faiss or not self._has_faiss():
            return
        told: list[Stored] = []
        for each in stored_indexes(self._indexes):
            if isinstance(each, CorruptionError):
                self._note(each)
            elif each.space == self.space:
                told.append(each)
        if self._wants_codes:
            self._coded = self._open_best(told, [IndexKind.EXACT])
        if self._kinds:
            self._open_approximate(told, self._kinds)

    @property
    def _kinds(self) -> list[IndexKind]:
        """The approximate kinds that will do: the one chosen, first; any where the choice was left to the sizes.

        Which one fits the memory changes from one opening to the next, and what is built need not.
        """
        own: list[IndexKind] = [] if self.choice.kind is IndexKind.EXACT else [self.choice.kind]
        if self.settings.kind is IndexKind.AUTO and self.size > EXACT_ROWS:
            own += [kind for kind in (IndexKind.HNSW, IndexKind.IVF) if kind not in own]
        return own

    @property
    def _needs_faiss(self) -> bool:
        return self._wants_codes or bool(self._kinds)

    def _has_faiss(self) -> bool:
        try:
            import indexer.vectors.quantized  # noqa: F401
        except UnderdrawingError as error:
            # Answers are as good without, only later.
            self.choice = replace(self.choice, kind=IndexKind.EXACT, codes=Codes.FLOAT32)
            self._remark = self._remark or f"Every vector is scanned: {error.message}"
            return False
        return True

    def _open_approximate(self, told: Sequence[Stored], kinds: Sequence[IndexKind]) -> FaissIndex | None:
        from indexer.vectors.faiss_index import FaissIndex

        held = self._open_best(told, kinds)
        if held is None:
            return None
        assert isinstance(held.index, FaissIndex)
        self._main, self._rest, self._covers = held.index, held.rest, held.stored.segments
        self._used.append(held.stored.file)
        return held.index

    def _open_best(self, told: Sequence[Stored], kinds: Sequence[IndexKind]) -> _Held | None:
        """The first usable one of the index files that cover most; of those that cover alike, in the order of kinds."""
        useful = [each for each in told if fits(each, kinds, self.settings.recall) and self._is_living(each.segments)]
        useful.sort(key=lambda each: (-self._share(each.segments), kinds.index(each.kind)))
        for each in useful:
            try:
                return _Held(self._loaded(each), each, self._outside(each.segments))
            except UnderdrawingError as error:
                self._note(error)
        return None

    def _loaded(self, stored: Stored) -> Opened:
        from indexer.vectors.faiss_index import FaissIndex
        from indexer.vectors.quantized import CodedIndex

        if (known := self._opened.get(stored.file)) is not None and known.metadata == dict(stored.metadata):
            return known
        stored.require_whole()
        kind = CodedIndex if stored.kind is IndexKind.EXACT else FaissIndex
        try:
            index = kind.load(stored.file, exact_over(self._covered(stored.segments)), stored.metadata)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(f"The index file {stored.file} cannot be understood: {error!r}.") from error
        self._opened[stored.file] = index
        return index

    def _note(self, error: UnderdrawingError) -> None:
        self._problems = f"{error.message} It is not used. Run `underdrawing check COLLECTION --repair`, then build it."

    def _open_on_cards(self, cards: Cards) -> None:
        from indexer.vectors.faiss_gpu import GpuIndex
        from indexer.vectors.gpus import CopyKey

        space = (self.space, self.choice.kind.value, self.choice.codes.value, self.settings.recall)
        if self.choice.kind is IndexKind.EXACT:
            # Nothing is saved, since a file would be a copy of the segments; what a card holds already is used.
            names = self._most(held.names for held in cards.keys() if held.space == space) or self._every
            key = CopyKey(space, tuple(names))
            self._main = GpuIndex.flat(cards, key, exact_over(self._covered(names)), self.choice.codes)
            self._rest, self._covers = self._outside(names), names
            return
        told = [each for each in stored_indexes(self._indexes) if isinstance(each, Stored) and each.space == self.space]
        own = [each for each in told if each.settings["codes"] == self.choice.codes.value]
        index = self._open_approximate(own, [self.choice.kind])
        if index is not None:
            self._main = GpuIndex.inverted(cards, CopyKey(space, tuple(self._covers)), index)

    @property
    def _every(self) -> list[str]:
        return [part.file.sha256 for part in self._parts]

    def _most(self, candidates: Iterable[Sequence[str]]) -> list[str]:
        """The segments of the candidate that has the most rows, if those are enough."""
        best = max(filter(self._is_living, candidates), key=self._share, default=[])
        return list(best) if self._share(best) >= COVERED else []

    def _is_living(self, names: Sequence[str]) -> bool:
        return set(self._every).issuperset(names)

    def _share(self, names: Sequence[str]) -> float:
        return sum(part.file.rows for part in self._covered(names)) / max(self.size, 1)

    def _covered(self, names: Sequence[str]) -> list[Part]:
        wanted = set(names)
        return [part for part in self._parts if part.file.sha256 in wanted]

    def _outside(self, names: Sequence[str]) -> ExactIndex:
        inside = set(names)
        return exact_over([part for part in self._parts if part.file.sha256 not in inside])


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
