"""What a view of the local store searches through: chosen by size, opened from index files, or copied to GPUs.

Nothing is built here. An index file is named by what it was built from (the segments' checksums and the settings), so
that a stale one can never be mistaken for a good one. Which file is good is settled in `indexer/vectors/cache.py`.

On GPUs a copy of the index takes its place, and is kept for later generations as long as anyone uses it. Where there
are none, or they fail, the search is on the CPU and a note says so.

What this module does not know: SQL, documents, how a view is searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from indexer.errors import CorruptionError, UnderdrawingError
from indexer.vectors.cache import CachedIndex, cached_indexes, fits
from indexer.vectors.exact import ExactIndex
from indexer.vectors.pinned import PinnedSegments
from indexer.vectors.protocol import Device, IndexKind, IndexSettings
from indexer.vectors.rescoring import RescoredIndex
from indexer.vectors.selection import EXACT_ROWS, Choice, Codes, choose_kind

if TYPE_CHECKING:
    from indexer.vectors.faiss_index import FaissIndex
    from indexer.vectors.gpus import Gpus
    from indexer.vectors.quantized import QuantizedIndex

    FileIndex: TypeAlias = FaissIndex | QuantizedIndex

COVERED = 0.8
"""Share of the rows below which what a built index covers is too little: it is worth building anew."""


Index = TypeVar("Index", "FaissIndex", "QuantizedIndex")
Held_co = TypeVar("Held_co", covariant=True)


@dataclass(frozen=True)
class Held(Generic[Held_co]):
    """An opened index, the names of the segments that it covers, and exact search over all others."""

    index: Held_co
    covers: tuple[str, ...]
    rest: ExactIndex


@dataclass(frozen=True)
class Opened:
    """What a view searches through.

    Attributes:
        choice: The kind of index that the settings and sizes ask for, and why.
        settings: How to search, with the CPU where there are no GPUs.
        quantized: For exact search, and for queries that an approximate index would fail.
        main: What is asked first; None where every row is scanned.
        notes: Why it is not done where or how the settings say.
        files: The index files in use, opened.
    """

    choice: Choice
    settings: IndexSettings
    quantized: Held[QuantizedIndex] | None = None
    main: Held[RescoredIndex] | None = None
    notes: tuple[str, ...] = ()
    files: Mapping[Path, FileIndex] = field(default_factory=dict)

    @property
    def wants_codes(self) -> bool:
        """Whether exact search should read codes: on the CPU, also beside an approximate index, where they fit."""
        return self.settings.device is not Device.CUDA and self.choice.wants_codes


def open_indexes(
    folder: Path,
    segments: PinnedSegments,
    settings: IndexSettings,
    gpus: Callable[[], Gpus],
    before: Mapping[Path, FileIndex],
) -> Opened:
    """The indexes that serve a generation best.

    Args:
        folder: Of the index files.
        segments: The generation's.
        settings: How to search.
        gpus: Asked where the settings want them.
        before: Index files that are open already.
    """
    choice, settings, warning = choose(segments.size, segments.dim, settings, gpus)
    files = _Files(folder, segments, settings.recall, dict(before))
    notes = [warning] if warning else []
    if not segments.size:
        return Opened(choice, settings, None, None, tuple(notes))
    if settings.device is Device.CUDA:
        try:
            main = _on_gpus(files, segments, choice, settings, gpus())
            return Opened(choice, settings, None, main, (*notes, *files.problems), files.used)
        except UnderdrawingError as error:
            notes.append(on_the_cpu(error))
            settings = replace(settings, device=Device.CPU)
            choice = choose(segments.size, segments.dim, settings, gpus)[0]
    kinds = _serving(choice, settings)
    if not kinds and not choice.wants_codes:
        return Opened(choice, settings, None, None, tuple(notes))
    try:
        from indexer.vectors.faiss_index import FaissIndex
        from indexer.vectors.quantized import QuantizedIndex
    except UnderdrawingError as error:  # answers are as good without, only later
        notes = notes or [f"Every vector is scanned: {error.message}"]
        return Opened(replace(choice, kind=IndexKind.EXACT, codes=Codes.FLOAT32), settings, None, None, tuple(notes))
    quantized = files.best(QuantizedIndex, [IndexKind.EXACT]) if choice.wants_codes else None
    main = files.best(FaissIndex, kinds) if kinds else None
    return Opened(choice, settings, quantized, main, (*notes, *files.problems), files.used)


def _serving(choice: Choice, settings: IndexSettings) -> list[IndexKind]:
    """The approximate kinds that will do: the one chosen, first; any where the choice was left to the sizes.

    Which one fits the memory changes from one opening to the next, and what is built need not.
    """
    own: list[IndexKind] = [] if choice.kind is IndexKind.EXACT else [choice.kind]
    if settings.kind is IndexKind.AUTO and choice.rows > EXACT_ROWS:
        own += [kind for kind in (IndexKind.HNSW, IndexKind.IVF) if kind not in own]
    return own


def _on_gpus(
    files: _Files, segments: PinnedSegments, choice: Choice, settings: IndexSettings, gpus: Gpus
) -> Held[RescoredIndex] | None:
    from indexer.vectors.faiss_gpu import GpuIndex
    from indexer.vectors.faiss_index import FaissIndex
    from indexer.vectors.gpus import CopyKey

    space = (segments.space, choice.kind.value, choice.codes.value, settings.recall)
    if choice.kind is not IndexKind.EXACT:
        held = files.best(FaissIndex, [choice.kind], choice.codes)
        if held is None:
            return None
        return Held(GpuIndex.inverted(gpus, CopyKey(space, held.covers), held.index), held.covers, held.rest)
    # Nothing is saved, since a file would be a copy of the segments; what a GPU holds already is used.
    names = _most(segments, (key.names for key in gpus.keys() if key.space == space))
    flat = GpuIndex.flat(gpus, CopyKey(space, names), segments.inside(names), choice.codes)
    return Held(flat, names, segments.outside(names))


def _most(segments: PinnedSegments, candidates: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The segments of the candidate that has the most rows, if those are enough; else all."""
    best = max(filter(segments.include, candidates), key=segments.share, default=())
    return tuple(best) if segments.share(best) >= COVERED else tuple(segments.names)


class _Files:
    """The index files that can serve a generation.

    Attributes:
        problems: What is wrong with files that are not used.
        used: Those that were opened.
    """

    def __init__(self, folder: Path, segments: PinnedSegments, recall: float, before: Mapping[Path, FileIndex]) -> None:
        self._folder, self._segments, self._recall, self._before = folder, segments, recall, before
        self.problems: tuple[str, ...] = ()
        self.used: dict[Path, FileIndex] = {}

    def best(self, made: type[Index], kinds: Sequence[IndexKind], codes: Codes | None = None) -> Held[Index] | None:
        """The usable file that covers most; of those that cover alike, in the order of kinds.

        Args:
            made: The class that loads these kinds.
            kinds: Which will do.
            codes: What it must store of the vectors; None for anything.
        """
        segments = self._segments
        useful = [
            each for each in self._cached if fits(each, kinds, self._recall) and codes in (None, each.settings["codes"])
        ]
        useful.sort(key=lambda each: (-segments.share(each.segments), kinds.index(each.kind)))
        for each in useful:
            try:
                index = self._load(made, each)
            except UnderdrawingError as error:
                self._warn(error)
                continue
            self.used[each.file] = index
            return Held(index, each.segments, segments.outside(each.segments))
        return None

    @cached_property
    def _cached(self) -> list[CachedIndex]:
        """Those of this space whose segments all live."""
        found = []
        for each in cached_indexes(self._folder):
            if isinstance(each, CorruptionError):
                self._warn(each)
            elif each.space == self._segments.space and self._segments.include(each.segments):
                found.append(each)
        return found

    def _load(self, made: type[Index], cached: CachedIndex) -> Index:
        known = self._before.get(cached.file)
        if isinstance(known, made) and known.metadata == dict(cached.metadata):
            return known
        cached.require_whole()
        try:
            return made.load(cached.file, self._segments.inside(cached.segments), cached.metadata)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptionError(f"The index file {cached.file} cannot be understood: {error!r}.") from error

    def _warn(self, error: UnderdrawingError) -> None:
        self.problems = (
            f"{error.message} It is not used. Run `underdrawing check COLLECTION --repair`, then build it.",
        )


def choose(
    rows: int, dim: int, settings: IndexSettings, gpus: Callable[[], Gpus]
) -> tuple[Choice, IndexSettings, str | None]:
    """The index for a collection, on this machine.

    Returns:
        The choice; the settings, with the CPU where GPUs were wanted but cannot be had; and the warning that says so.
    """
    warning = None
    if settings.device is Device.CUDA:
        try:
            return choose_kind(rows, dim, settings, gpus().available), settings, None
        except UnderdrawingError as error:
            warning, settings = on_the_cpu(error), replace(settings, device=Device.CPU)
    return choose_kind(rows, dim, settings, available_memory()), settings, warning


def on_the_cpu(error: UnderdrawingError) -> str:
    """The warning that GPUs were wanted and are not used."""
    return f"Searched on the CPU: {error.message}"


def available_memory() -> int:
    """Bytes of memory that a new index may count on."""
    import psutil

    return int(psutil.virtual_memory().available)
