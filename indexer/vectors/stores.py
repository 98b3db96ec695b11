"""The vector stores by name, and the settings that a collection keeps about its own.

What this module does not know: how a store works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from indexer.errors import CallError, CorruptionError
from indexer.files.layout import Layout
from indexer.registry import Builtin, Registry
from indexer.vectors.protocol import VectorStore
from indexer.vectors.settings import IndexSettings

StoreFactory: TypeAlias = Callable[[Layout, IndexSettings], VectorStore]

STORES: Registry[StoreFactory] = Registry(
    "vector store",
    "underdrawing.vector_stores",
    {"local": Builtin("indexer.vectors.local:LocalStore", "segments and FAISS indexes in the collection's folder")},
)


def kept_settings(layout: Layout) -> IndexSettings:
    """The settings that a collection keeps; the defaults where it keeps none.

    Raises:
        CorruptionError: They make no sense to this release.
    """
    if layout.index is None:
        return IndexSettings()
    try:
        return IndexSettings().changed(layout.index)
    except CallError as error:
        raise CorruptionError(
            f"{layout.description} keeps index settings that cannot be used: {error.message}",
            "Give others when it is opened (index=...), and Collection.build_index() keeps those.",
        ) from error


def keep(layout: Layout, store: str, settings: IndexSettings) -> Layout:
    """Keep the name of a store and its settings with a collection, unless it has the very same.

    Returns:
        The layout as it is now.

    Raises:
        StoreError: The disk refuses.
    """
    newest = Layout.read(layout.folder)
    changed = replace(newest, vector_store=store, index=settings.to_json())
    if changed != newest and (newest.index is not None or newest.vector_store != store or settings != IndexSettings()):
        changed.publish()
        return changed
    return newest
