"""The registry of vector stores, and the index settings that a collection stores.

What this module does not know: how a store works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from indexer.errors import CallError, CorruptionError
from indexer.files.layout import Layout
from indexer.registry import Builtin, Registry
from indexer.vectors.protocol import VectorStore
from indexer.vectors.settings import IndexKind, IndexSettings

StoreFactory: TypeAlias = Callable[[Layout, IndexSettings], VectorStore]

STORES: Registry[StoreFactory] = Registry(
    "vector store",
    "underdrawing.vector_stores",
    {"local": Builtin("indexer.vectors.local:LocalStore", "segments and FAISS indexes in the collection's folder")},
)


IndexChange: TypeAlias = IndexSettings | IndexKind | str | Mapping[str, Any] | None
"""The forms in which a caller gives index settings; see `IndexSettings.changed`."""


def require_known(index: IndexChange, vector_store: str | None) -> None:
    """Check a call's settings before any collection is open.

    Raises:
        UnknownNameError: There is no such kind, device, setting or vector store.
        CallError: A value is invalid.
    """
    IndexSettings().changed(index)
    if vector_store is not None:
        STORES.get(vector_store)


def open_store(layout: Layout, settings: IndexSettings) -> VectorStore:
    """The store that a layout names, with these settings. Raises the errors of `Registry.get`."""
    return STORES.get(layout.vector_store)(layout, settings)


def opened_with(
    layout: Layout, index: IndexChange, vector_store: str | None, *, keeping: bool
) -> tuple[Layout, IndexSettings]:
    """How an opened collection is searched: the layout, which names the store, and the settings.

    Args:
        layout: The collection's layout.
        index: The caller's settings.
        vector_store: The caller's store; None for the collection's own.
        keeping: Whether to store both with the collection, as for a new one.

    Raises:
        CorruptionError: As `settings_for`, whose other errors are raised, too.
    """
    layout = replace(layout, vector_store=vector_store or layout.vector_store)
    settings = settings_for(layout, index)
    return (keep(layout, settings) if keeping else layout), settings


def settings_for(layout: Layout, given: IndexChange) -> IndexSettings:
    """The collection's stored settings with the caller's changes.

    Args:
        layout: The collection's layout.
        given: See `IndexSettings.changed`.

    Raises:
        UnknownNameError: `given` names no kind, device or setting.
        CallError: A given value is invalid.
        CorruptionError: The stored settings are invalid for this release, and the caller does not replace them.
    """
    defaults = IndexSettings()
    wanted = defaults.changed(given)  # first: a caller's mistake must not be reported as the collection's
    if layout.index is None or isinstance(given, IndexSettings):
        return wanted
    try:
        kept = defaults.changed(layout.index)
    except CallError as error:
        raise CorruptionError(
            f"{layout.description} has index settings that cannot be used: {error.message}",
            "Open it with index=IndexSettings(...), and Collection.build_index() stores those.",
        ) from error
    return kept.changed(given)


def keep(layout: Layout, settings: IndexSettings) -> Layout:
    """Store settings and the name of a layout's store with the collection. Defaults are written only over other values.

    Returns:
        The updated layout.

    Raises:
        StoreError: The file cannot be written.
    """
    newest = Layout.read(layout.folder)
    wanted = settings.to_json()
    index = None if newest.index is None and wanted == IndexSettings().to_json() else wanted
    changed = replace(newest, vector_store=layout.vector_store, index=index)
    if changed != newest:
        changed.publish()
    return changed
