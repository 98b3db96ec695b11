"""Build a collection's index: gather the queries and the documents that it is tuned by.

What this module does not know: which indexes there are, how one is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.arguments import callback, described, finite
from indexer.bundled import change_texts, generic_texts
from indexer.errors import (
    CallError,
    LockedError,
    MissingExtraError,
    SnapshotGoneError,
    SpaceMismatchError,
    StoreError,
)
from indexer.ingest.compaction import compact
from indexer.ingest.target import Target
from indexer.open_spaces import OpenSpace
from indexer.snapshot import Snapshot
from indexer.types import Center, Item, Modality, Role, Vectors
from indexer.vectors.cache import CachedIndex, cached_indexes
from indexer.vectors.modality_gap import query_mean, settled
from indexer.vectors.opening import COVERED
from indexer.vectors.protocol import BuiltIndex, IndexKind, OnProgress, Tuning, VectorStore
from indexer.vectors.selection import CODED_ROWS
from indexer.vectors.stores import IndexChange, keep, open_store, settings_for
from indexer.vectors.unit import unit_rows

if TYPE_CHECKING:
    from indexer.embed.base import Embedder

NAMES = 200
"""The most texts of stored documents that serve as queries, and the characters of each."""
NAME_LENGTH = 200


def build_indexes(
    store: VectorStore,
    snapshot: Snapshot,
    samples: Mapping[str, Vectors] | None,
    embedder: Callable[[], Embedder],
    coverage: float,
    only: IndexKind | None = None,
    on_progress: OnProgress | None = None,
) -> list[BuiltIndex]:
    """Build the indexes that searches of a generation would use, if existing ones cover less than a share of its rows.

    Args:
        store: The collection's vector store.
        snapshot: The generation.
        samples: Query vectors to tune an approximate index by; None for those that the model makes.
        embedder: Returns the model; called only if it is needed.
        coverage: The share, above 0 and at most 1.
        only: Build no other kind.
        on_progress: Called with the step, the amount done, and the total.

    Raises:
        LockedError: Another process or thread is building.
        StoreError: The disk is full or fails, or a folder of the collection is a link.
        MissingExtraError: FAISS is not installed.
    """

    def tuning() -> Tuning:
        return Tuning(sample_queries(snapshot, embedder()) if samples is None else samples, _groups(snapshot))

    return store.build(snapshot.view, tuning, coverage, only, on_progress)


def build_index(
    target: Target,
    own: OpenSpace,
    queries: Mapping[str, Vectors] | None,
    settings: IndexChange,
    coverage: float,
    on_progress: OnProgress | None,
) -> list[BuiltIndex]:
    """What `Collection.build_index` does."""
    callback(on_progress, "on_progress")
    if not 0 < finite(coverage, "coverage") <= 1:
        raise CallError(f"coverage is {coverage}; it is a share of the vectors, above 0 and at most 1.")
    given = None if queries is None else checked_samples(queries, own.space.dim)
    if settings is not None:
        target.settings = settings_for(target.layout, settings)
        target.store = open_store(target.layout, target.settings)
        target.snapshots.use(target.store)
    built = _build(target, own, given, coverage, None, on_progress)
    target.layout = keep(target.layout, target.settings)
    return built


def _build(
    target: Target,
    own: OpenSpace,
    samples: Mapping[str, Vectors] | None,
    coverage: float,
    only: IndexKind | None = None,
    on_progress: OnProgress | None = None,
) -> list[BuiltIndex]:
    snapshot = target.snapshot(own.space.name)
    return build_indexes(target.store, snapshot, samples, lambda: own.embedder, coverage, only, on_progress)


def keep_index(
    target: Target, names: Sequence[str] | None, on_progress: OnProgress | None, only: IndexKind | None
) -> list[BuiltIndex]:
    """What `Collection.keep_index` does."""
    if only is None:
        with suppress(StoreError):  # if nothing can be written, this object still uses them
            target.layout = keep(target.layout, target.settings)
    few = target.catalog.generation().documents < CODED_ROWS
    if few and target.settings.kind in (IndexKind.AUTO, IndexKind.EXACT):
        return []
    built: list[BuiltIndex] = []
    for own in target.open_spaces.some(names):
        with suppress(LockedError, StoreError, MissingExtraError):
            built += _build(target, own, None, COVERED, only, on_progress)
    return built


def compact_and_build(target: Target) -> tuple[int, int]:
    """What `Collection.compact` does."""
    had = {each.space for each in cached_indexes(target.layout.indexes) if isinstance(each, CachedIndex)}
    done = compact(target.catalog, target.layout)
    for own in target.open_spaces.every():
        if own.space.digest in had:  # it was built from segments that no longer exist
            _build(target, own, None, COVERED)
    return done


def sample_queries(snapshot: Snapshot, embedder: Embedder) -> dict[str, Vectors]:
    """Sample queries of the kinds that a collection may get, embedded by its model.

    Args:
        snapshot: The generation whose documents' texts serve as queries.
        embedder: The collection's model.

    Returns:
        Arrays (n, dim) float32 of unit length, by kind: generic texts, texts of documents, change sentences, and, if
            searches correct the modality gap, all of them less the mean of query texts. Empty for a model that reads no
            texts.
    """
    if Modality.TEXT not in embedder.modalities:
        return {}
    texts = {"texts": generic_texts(), "changes": change_texts(), "names of documents": _names(snapshot)}
    rows = {
        kind: embedder.try_encode([Item(text=each) for each in own], Role.QUERY).vectors
        for kind, own in texts.items()
        if own
    }
    with suppress(SnapshotGoneError):  # compacted away meanwhile: the other kinds are enough
        if settled(Center.AUTO, snapshot.space, lambda: snapshot.living) is Center.ON:
            mean = query_mean(snapshot.space, Modality.TEXT)
            rows["centered texts"] = unit_rows(np.concatenate(list(rows.values())).astype(np.float64) - mean)
    return rows


def checked_samples(queries: Mapping[str, Vectors], dim: int) -> dict[str, Vectors]:
    """A caller's samples, scaled to unit length.

    Raises:
        SpaceMismatchError: They have another dimension.
        CallError: They are not vectors, or one is zero or not finite.
    """
    checked = {}
    if not isinstance(queries, Mapping):
        raise CallError(f"queries is {described(queries)}; it takes vectors by name: {{'texts': (n, dim) array}}.")
    for name, given in queries.items():
        try:
            rows = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            shown = f"The queries {str(name)[:80]!r} are {described(given)}"
            raise CallError(f"{shown}; they must be an array (n, dim).") from None
        if rows.ndim != 2 or rows.shape[1] != dim:
            raise SpaceMismatchError(f"The queries {name!r} have shape {rows.shape}; this space has dimension {dim}.")
        lengths = np.linalg.norm(rows, axis=1)
        if not np.isfinite(rows).all() or not lengths.all():
            raise CallError(f"The queries {name!r} hold a vector that is zero or not finite.")
        checked[name] = np.asarray(rows / lengths[:, None], np.float32)
    return checked


def _names(snapshot: Snapshot) -> list[str]:
    """Texts of living documents, spread evenly over their ids, each once."""
    try:
        ids = snapshot.eligible()
        ids = snapshot.view.all_ids() if ids is None else ids
        chosen = ids[np.linspace(0, len(ids) - 1, min(len(ids), 4 * NAMES)).astype(np.int64)]
        texts = [each.text for each in snapshot.documents(chosen)]
    except SnapshotGoneError:  # compacted away meanwhile: the other kinds are enough
        return []
    return list(dict.fromkeys(text[:NAME_LENGTH] for text in texts if text and text.strip()))[:NAMES]


def _groups(snapshot: Snapshot) -> dict[str, Any]:
    try:
        living = snapshot.living
    except SnapshotGoneError:
        return {}
    groups = (
        {modality.value: snapshot.eligible(modalities=[modality]) for modality in living} if len(living) > 1 else {}
    )
    return {name: ids for name, ids in groups.items() if ids is not None}
