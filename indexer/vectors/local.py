"""The local store: searches segments exactly, or through a built index over most of them.

Vectors that no index covers are scanned in addition, so every answer is complete, and `notes` say what is missing and
how to build it. Exact search reads SQ8 codes if there are any; they also answer the queries that an approximate index
is known to miss. If only a few rows must not be found (deleted or excluded), they are fetched with the others and
dropped, so that one deletion does not turn every search into a filtered one.

What this module does not know: SQL, documents, generations, which index suits a collection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.errors import CallError
from indexer.files.layout import Layout
from indexer.types import Ids, Scores, Vectors
from indexer.vectors.building import build
from indexer.vectors.cache import CachedIndex, cached_indexes, index_lock, newest_change, remove_index
from indexer.vectors.opening import COVERED, Opened, available_memory, choose, open_indexes
from indexer.vectors.pinned import PinnedSegments
from indexer.vectors.protocol import (
    NOTHING,
    BuiltIndex,
    Device,
    IndexKind,
    IndexSettings,
    Neighbors,
    OnProgress,
    Pinned,
    Tuning,
    VectorView,
)
from indexer.vectors.selection import Codes, allowed_bytes, alternatives

if TYPE_CHECKING:
    from indexer.vectors.gpus import Gpus

SPARE = 64
"""The most neighbors fetched beyond k to make up for hidden ones."""
BUILD = "Collection.build_index() builds it, and so does `underdrawing index`; until then answers are exact."


class LocalView:
    """A `VectorView` of local segments and index files. Use `LocalStore.open`.

    Attributes:
        segments: The generation's segments.
        opened: The indexes that are searched.
        size: Rows, dead ones included.
        scans: Whether a search reads every row in this process.

    Args:
        segments: See above.
        opened: See above.
        folder: The folder of index files.
        seen: `newest_change` of the folder, taken before it was read.
    """

    def __init__(self, segments: PinnedSegments, opened: Opened, folder: Path, seen: int) -> None:
        self.segments, self.opened = segments, opened
        self.size, self.scans = segments.size, opened.main is None
        self._exact, self._main, self._quantized = segments.exact, opened.main, opened.quantized
        self._folder, self._seen = folder, seen
        self._lacking, self._incomplete = self._lack(), bool(self.wants(1.0))

    @property
    def reason(self) -> str:
        """The kind of index in use and the reason."""
        choice = self.opened.choice
        used = self._main.index.metadata["kind"] if self._main else choice.kind.value
        return choice.reason + ("" if used == choice.kind.value else f" The existing {used} index is used.")

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings: what differs from the settings, and what is not built."""
        failed = self._main.index.warning if self._main else ""
        return (*self.opened.notes, *filter(None, (failed, self._lacking)))

    @property
    def facts(self) -> Mapping[str, Any]:
        """How the built index was made, with its measured recall; empty if there is none."""
        held = self._main or self._quantized
        return held.index.metadata if held else {}

    @property
    def outdated(self) -> bool:
        """Whether index files have changed since this was opened, so that a new view might cover more."""
        return self._incomplete and newest_change(self._folder) != self._seen

    def all_ids(self) -> Ids:
        """Every id, ascending: (size,) int64."""
        return self._exact.all_ids()

    def held(self, ids: Ids) -> Ids:
        """The given ids that are held, in the given order."""
        return self._exact.held(ids)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None, hidden: Ids = NOTHING) -> Neighbors:
        """The k best of the allowed rows that are not hidden; see `VectorView.search`."""
        if len(hidden):
            if allowed is None:
                found = self._nearest(queries, k + min(len(hidden), SPARE), None)
                visible, complete = found.without(hidden, k)
                if complete:
                    return visible
                allowed = self._exact.all_ids()
            allowed = np.setdiff1d(allowed, hidden, assume_unique=True)
        return self._nearest(queries, k, allowed)

    def score(self, queries: Vectors, ids: Ids) -> Scores:
        """The scores of ids, as `search` gives them: (n, len(ids)) float32."""
        return self._exact.scores(queries, ids)

    def scan(self, queries: Vectors, allowed: Ids | None = None) -> tuple[Ids, Scores]:
        """Every allowed id, ascending, and its scores, (n, ids) float32, summed in float32."""
        ids, scores = self._exact.scan(queries)
        if allowed is None:
            return ids, scores
        chosen = np.isin(ids, allowed, assume_unique=True)
        return ids[chosen], scores[:, chosen]

    def fetch(self, ids: Ids) -> Vectors:
        """The vectors of ids, in their order: (len(ids), dim) float32."""
        return self._exact.vectors(ids)

    def wants(self, coverage: float) -> list[tuple[IndexKind, Codes]]:
        """The index files that this generation should have, but that are missing or cover less than a share of it."""
        if not self.size:
            return []
        choice, share = self.opened.choice, self.segments.share
        kinds: list[tuple[IndexKind, Codes]] = []
        if self.opened.wants_codes and share(self._quantized.covers if self._quantized else ()) < coverage:
            kinds.append((IndexKind.EXACT, Codes.SQ8))
        if choice.kind is not IndexKind.EXACT and share(self._main.covers if self._main else ()) < coverage:
            kinds.append((choice.kind, choice.codes))
        return kinds

    def _nearest(self, queries: Vectors, k: int, allowed: Ids | None) -> Neighbors:
        if self._main is None:
            return self._exactly(queries, k, allowed)
        found = self._main.index.nearest(queries, k, allowed)
        doubtful = self._main.index.doubtful(queries, found)
        if doubtful.all() and len(doubtful):
            return self._exactly(queries, k, allowed)
        if self._main.rest.size:
            found = Neighbors.merged([found, self._main.rest.nearest(queries, k, allowed)], k)
        if doubtful.any():
            sure = self._exactly(np.ascontiguousarray(queries[doubtful]), k, allowed)
            found.ids[doubtful], found.scores[doubtful] = sure.ids, sure.scores
            if found.unseen is not None:
                found.unseen[doubtful] = -np.inf
            found = replace(found, plans=tuple(dict.fromkeys((*found.plans, *sure.plans))))
        return found

    def _exactly(self, queries: Vectors, k: int, allowed: Ids | None) -> Neighbors:
        if self._quantized is None:
            return self._exact.nearest(queries, k, allowed)
        found = self._quantized.index.nearest(queries, k, allowed)
        if self._quantized.rest.size == 0:
            return found
        return Neighbors.merged([found, self._quantized.rest.nearest(queries, k, allowed)], k)

    def _lack(self) -> str:
        """A sentence for each index that is not built and would make searches faster."""
        kind = self.opened.choice.kind
        approximate = kind is not IndexKind.EXACT
        held = self._main if approximate else self._quantized
        covers = held.covers if held else ()
        share = self.segments.share(covers)
        if not self.size or share >= COVERED or not (approximate or self.opened.wants_codes):
            return ""
        name = f"The {kind.value} index" if approximate else "The file of SQ8 codes"
        if not covers:
            return f"{name} is not built yet, so all {self.size:,} vectors are scanned. {BUILD}"
        beside = self.size - round(share * self.size)
        return f"{name} lacks {beside:,} of {self.size:,} vectors, which are scanned beside it. {BUILD}"


class LocalStore:
    """A `VectorStore` over the segments and index files of a collection's own folder, registered as `local`.

    Args:
        layout: The collection's folder.
        settings: How to search.
    """

    def __init__(self, layout: Layout, settings: IndexSettings) -> None:
        self._layout, self._settings = layout, settings

    @cached_property
    def gpus(self) -> Gpus:
        """The GPUs that hold copies of its indexes, for settings with `cuda`.

        Raises:
            DeviceError: There is none, or FAISS is a CPU build.
            MissingExtraError: FAISS is not installed.
        """
        from indexer.vectors.gpus import Gpus, cuda_gpus

        return Gpus(cuda_gpus())

    def open(self, pinned: Pinned, before: VectorView | None = None) -> LocalView:
        """A view of a generation; see `VectorStore.open`."""
        earlier = before if isinstance(before, LocalView) else None
        segments = PinnedSegments(self._layout.segments, pinned, earlier.segments if earlier else None)
        seen = newest_change(self._layout.indexes)
        files = earlier.opened.files if earlier else {}
        opened = open_indexes(self._layout.indexes, segments, self._settings, lambda: self.gpus, files)
        return LocalView(segments, opened, self._layout.indexes, seen)

    def lacks(self, view: VectorView, coverage: float) -> bool:
        """Whether `build` would build something."""
        return bool(_own(view).wants(coverage))

    def build(
        self,
        view: VectorView,
        tuning: Callable[[], Tuning],
        coverage: float,
        only: IndexKind | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[BuiltIndex]:
        """Build the index files that a view lacks; see `VectorStore.build`.

        Searches and other threads go on meanwhile: only the folder of index files is locked, against other builders and
        against a writer's sweep.
        """
        view, folder, report = _own(view), self._layout.indexes, on_progress or (lambda what, done, total: None)
        wanted = [(kind, codes) for kind, codes in view.wants(coverage) if only in (None, kind)]
        built: list[BuiltIndex] = []
        if not wanted:
            return built
        self._layout.require_own()
        with index_lock(folder):
            for kind, codes in wanted:
                started = time.monotonic()
                queries = Tuning() if kind is IndexKind.EXACT else tuning()
                cached = build(folder, view.segments, kind, codes, view.opened.settings, queries, report)
                _remove_older(folder, cached)
                built.append(BuiltIndex(kind, view.size, time.monotonic() - started, cached.metadata))
        return built

    def explain(self, pinned: Pinned) -> dict[str, Any]:
        """How a view would be searched and why; see `VectorStore.explain`."""
        rows, dim = pinned.rows, pinned.dim
        chosen, settings, warning = choose(rows, dim, self._settings, lambda: self.gpus)
        available = available_memory() if settings.device is Device.CPU else self.gpus.available
        return {
            "device": settings.device.value,
            "allowed_bytes": allowed_bytes(settings, available),
            "kind": chosen.kind.value,
            "codes": chosen.codes.value,
            "bytes": chosen.bytes,
            "reason": chosen.reason if warning is None else f"{warning} {chosen.reason}",
            "alternatives": [asdict(each) for each in alternatives(rows, dim, settings, available)],
        }


def _own(view: VectorView) -> LocalView:
    if not isinstance(view, LocalView):
        raise CallError(f"The local store builds for its own views, not for a {type(view).__name__}.")
    return view


def _remove_older(folder: Path, cached: CachedIndex) -> None:
    """Remove files of the same space and settings that cover only part of what a new one covers."""
    for each in cached_indexes(folder):
        if not isinstance(each, CachedIndex) or not set(each.segments) < set(cached.segments):
            continue
        if each.space == cached.space and dict(each.settings) == dict(cached.settings):
            remove_index(each.file)
