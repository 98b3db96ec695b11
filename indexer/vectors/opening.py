"""Choose and open the indexes that a view of the local store searches: by size, from index files, or copied to GPUs.

Nothing is built here. An index file is named by what it was built from (the segments' checksums and the settings), so
that a stale file is never taken for a current one. `indexer/vectors/cache.py` decides which files are valid.

On GPUs a copy of the index takes its place and serves later generations as long as anyone uses it. If there are no
GPUs, or they fail, the CPU is searched and a note says so.

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
"""An index that covers less than this share of the rows is worth rebuilding."""


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
    """The indexes that a view searches.

    Attributes:
        choice: The kind of index that the settings and sizes ask for, and why.
        settings: How to search; the device is the CPU if there are no GPUs.
        quantized: For exact search, and for queries that an approximate index is known to miss.
        main: The index asked first; None if every row is scanned.
        notes: Why the search differs from the settings.
        files: The opened index files.
    """

    choice: Choice
    settings: IndexSettings
    quantized: Held[QuantizedIndex] | None = None
    main: Held[RescoredIndex] | None = None
    notes: tuple[str, ...] = ()
    files: Mapping[Path, FileIndex] = field(default_factory=dict)

    @property
    def wants_codes(self) -> bool:
        """Whether exact search should read SQ8 codes: on the CPU, even beside an approximate index, if they fit."""
        return self.settings.device is not Device.CUDA and self.choice.wants_codes


def open_indexes(
    folder: Path,
    segments: PinnedSegments,
    settings: IndexSettings,
    gpus: Callable[[], Gpus],
    before: Mapping[Path, FileIndex],
) -> Opened:
    """Open the best indexes for a generation.

    Args:
        folder: The folder of index files.
        segments: The generation's segments.
        settings: How to search.
        gpus: Called if the settings ask for GPUs.
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
    except UnderdrawingError as error:  # answers are the same without it, only slower
        notes = notes or [f"Every vector is scanned: {error.message}"]
        return Opened(replace(choice, kind=IndexKind.EXACT, codes=Codes.FLOAT32), settings, None, None, tuple(notes))
    quantized = files.best(QuantizedIndex, [IndexKind.EXACT]) if choice.wants_codes else None
    main = files.best(FaissIndex, kinds) if kinds else None
    return Opened(choice, settings, quantized, main, (*notes, *files.problems), files.used)


def _serving(choice: Choice, settings: IndexSettings) -> list[IndexKind]:
    """The approximate kinds that are acceptable: the chosen one first, and any other if the settings say `auto`.

    The kind that fits in memory changes between openings; an index that is already built stays usable.
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
    # Nothing is saved, since a file would only copy the segments. A copy already on a GPU is reused.
    names = _most(segments, (key.names for key in gpus.keys() if key.space == space))
    flat = GpuIndex.flat(gpus, CopyKey(space, names), segments.inside(names), choice.codes)
    return Held(flat, names, segments.outside(names))


def _most(segments: PinnedSegments, candidates: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The segments of the candidate with the most rows, if it covers enough; otherwise all."""
    best = max(filter(segments.include, candidates), key=segments.share, default=())
    return tuple(best) if segments.share(best) >= COVERED else tuple(segments.names)


class _Files:
    """The index files that can serve a generation.

    Attributes:
        problems: Why some files are not used.
        used: The files that were opened.
    """

    def __init__(self, folder: Path, segments: PinnedSegments, recall: float, before: Mapping[Path, FileIndex]) -> None:
        self._folder, self._segments, self._recall, self._before = folder, segments, recall, before
        self.problems: tuple[str, ...] = ()
        self.used: dict[Path, FileIndex] = {}

    def best(self, made: type[Index], kinds: Sequence[IndexKind], codes: Codes | None = None) -> Held[Index] | None:
        """The usable file that covers most rows; ties go by the order of kinds.

        Args:
            made: The class that loads these kinds.
            kinds: The acceptable kinds.
            codes: The encoding that it must have; None for any.
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
        """The files of this space whose segments are all in use."""
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
            f"{error.message} It is not used. Run `underdrawing check COLLECTION --repair`, then rebuild the index.",
        )


def choose(
    rows: int, dim: int, settings: IndexSettings, gpus: Callable[[], Gpus]
) -> tuple[Choice, IndexSettings, str | None]:
    """Choose the index for a collection on this machine.

    Returns:
        The choice; the settings, with the CPU if GPUs were asked for but are missing; and the warning about that.
    """
    warning = None
    if settings.device is Device.CUDA:
        try:
            return choose_kind(rows, dim, settings, gpus().available), settings, None
        except UnderdrawingError as error:
            warning, settings = on_the_cpu(error), replace(settings, device=Device.CPU)
    return choose_kind(rows, dim, settings, available_memory()), settings, warning


def on_the_cpu(error: UnderdrawingError) -> str:
    """The warning that GPUs were asked for and are not used."""
    return f"The CPU is searched: {error.message}"


def available_memory() -> int:
    """Bytes of memory available to a new index."""
    import psutil

    return int(psutil.virtual_memory().available)
