"""The vector stores by name, and the settings that a collection keeps about its own.

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
"""How a caller says what index settings to use; see `IndexSettings.changed`."""


def require_known(index: IndexChange, vector_store: str | None) -> None:
    """See that a call makes sense, where no collection is at hand yet.

    Raises:
        UnknownNameError: There is no such kind, device, setting or vector store.
        CallError: A value makes no sense.
    """
    IndexSettings().changed(index)
    if vector_store is not None:
        STORES.get(vector_store)


def open_store(layout: Layout, settings: IndexSettings) -> VectorStore:
    """The store that a layout names, with these settings; raises as `Registry.get`."""
    return STORES.get(layout.vector_store)(layout, settings)


def opened_with(
    layout: Layout, index: IndexChange, vector_store: str | None, *, keeping: bool
) -> tuple[Layout, IndexSettings]:
    """How a handle searches: the layout with the name of the store, and the settings.

    Args:
        layout: As the collection has it.
        index: What whoever opens it wants.
        vector_store: The same; None for the one that the collection keeps.
        keeping: Whether both are kept, as of a collection that is started.

    Raises:
        CorruptionError: As `settings_for`, which raises the others, too.
    """
    layout = replace(layout, vector_store=vector_store or layout.vector_store)
    settings = settings_for(layout, index)
    return (keep(layout, settings) if keeping else layout), settings


def settings_for(layout: Layout, given: IndexChange) -> IndexSettings:
    """The settings of a handle: those that the collection keeps, as whoever opens it wants them.

    Args:
        layout: Of the collection.
        given: See `IndexSettings.changed`.

    Raises:
        UnknownNameError: `given` names no kind, device or setting.
        CallError: A given value makes no sense.
        CorruptionError: What the collection keeps makes no sense to this release, and is not replaced.
    """
    defaults = IndexSettings()
    wanted = defaults.changed(given)  # first: what is given wrongly is not the collection's fault
    if layout.index is None or isinstance(given, IndexSettings):
        return wanted
    try:
        kept = defaults.changed(layout.index)
    except CallError as error:
        raise CorruptionError(
            f"{layout.description} keeps index settings that cannot be used: {error.message}",
            "Open it with index=IndexSettings(...), and Collection.build_index() keeps those.",
        ) from error
    return kept.changed(given)


def keep(layout: Layout, settings: IndexSettings) -> Layout:
    """Keep settings, and the name of a layout's store, with the collection. Defaults are not written where none are.

    Returns:
        The layout as it is now.

    Raises:
        StoreError: The disk refuses.
    """
    newest = Layout.read(layout.folder)
    told = settings.to_json()
    index = None if newest.index is None and told == IndexSettings().to_json() else told
    changed = replace(newest, vector_store=layout.vector_store, index=index)
    if changed != newest:
        changed.publish()
    return changed
