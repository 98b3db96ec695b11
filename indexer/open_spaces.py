"""The spaces of an open collection: the model of each, loaded when first needed, and its newest snapshot, cached.

What this module does not know: how models are loaded, how a generation is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from indexer.arguments import names as checked_names
from indexer.embed.base import Dtype, Embedder
from indexer.errors import CorruptionError, SnapshotGoneError, SpaceMismatchError, StoreError, UnknownNameError
from indexer.files.layout import Layout
from indexer.forks import Lock
from indexer.lazy_embedder import LazyEmbedder, require_same_space
from indexer.metadata.catalog import Catalog, Space
from indexer.metadata.space_changes import default_space
from indexer.snapshot import Snapshot
from indexer.stored_document import StoredDocument
from indexer.types import Modality, Parts, Role
from indexer.vectors.protocol import VectorStore

AT_ONCE = 500
"""Documents that iteration reads at once."""


class OpenSpace:
    """One space and its model.

    Attributes:
        space: The space, with its means as of when it was opened.
        has_query_mean: Whether a mean of query texts is stored; it is never removed.
    """

    def __init__(self, space: Space, lazy: LazyEmbedder, folder: Path) -> None:
        self.space, self._lazy, self._folder = space, lazy, folder
        self.has_query_mean = (Role.QUERY, Modality.TEXT) in space.means

    @cached_property
    def embedder(self) -> Embedder:
        """The model, loaded on first use.

        Raises:
            SpaceMismatchError: The loaded model is not the one that made the space.
            UntrustedModelError: Only the collection names it, by a path.
            ModelError: It cannot be loaded.
        """
        embedder = self._lazy.get()
        require_same_space(self._folder, embedder, self.space)
        return embedder

    @property
    def device(self) -> str:
        """Where its model runs or will run."""
        return self._lazy.device


class OpenSpaces:
    """The spaces of an open collection. Its default changes only by a call here, not by other processes.

    Args:
        catalog: The collection's.
        default: The space to use if none is named.
        device: Where named models run.
        load: Opens another space.
    """

    def __init__(
        self, catalog: Catalog, default: OpenSpace, device: str, load: Callable[[Space, Embedder | None], OpenSpace]
    ) -> None:
        self._catalog, self.default, self.device, self._load = catalog, default, device, load
        self._known = {default.space.id: default}
        self._order: list[int] = []

    def every(self) -> list[OpenSpace]:
        """All current spaces, the default first.

        Raises:
            StoreError: Another process dropped the default.
        """
        order = self._catalog.living_spaces()
        if order != self._order:
            for each in self._catalog.spaces(self._catalog.generation().number):
                if each.id not in self._known:
                    self._known[each.id] = self._load(each, None)
            self._order = order
        own = self.default.space.id
        if own not in order:
            raise gone(self.default.space)
        return [self.default, *(self._known[each] for each in order if each != own)]

    def adopt(self, space: int, embedder: Embedder) -> OpenSpace:
        """The space with that id; its model must be loaded."""
        if space != self.default.space.id:
            every = self._catalog.spaces(self._catalog.generation().number)
            self._known[space] = self._load(next(each for each in every if each.id == space), embedder)
        return self._known[space]

    def named(self, name: str | None) -> OpenSpace:
        """The space with a name, or the default.

        Raises:
            UnknownNameError: No space has that name.
        """
        if name is None or name == self.default.space.name:
            return self.default
        every = self.every()
        for each in every:
            if each.space.name == name:
                return each
        raise UnknownNameError("space", name, [each.space.name for each in every])

    def some(self, names: Sequence[str] | None) -> list[OpenSpace]:
        """The spaces with these names, in the order of `every`; all if no names are given.

        Raises:
            UnknownNameError: One of them does not exist.
            CallError: They are not a list of names.
        """
        every = self.every()
        if names is None:
            return every
        wanted = {self.named(each).space.id for each in checked_names(names, "spaces")}
        return [each for each in every if each.space.id in wanted]


class Snapshots:
    """The newest snapshots of an open collection. Threads may share one; its lock is taken only to open a generation.

    Args:
        catalog: The collection's catalog.
        layout: The collection's layout.
        spaces: The collection's spaces.
        store: Opens its vectors.
    """

    def __init__(self, catalog: Catalog, layout: Layout, spaces: OpenSpaces, store: VectorStore) -> None:
        self._catalog, self._layout, self._spaces, self._store = catalog, layout, spaces, store
        self._newest: dict[int, Snapshot] = {}
        self._opening = Lock()

    def newest(self, name: str | None = None) -> Snapshot:
        """The newest generation of a space, or of the default one. Raises as `Collection.snapshot`."""
        wanted = self._spaces.named(name).space
        while True:
            self._catalog.database.standing()
            number = self._catalog.newest()
            if (held := self._newest.get(wanted.id)) is not None and _serves(held, number):
                return held
            with self._opening:
                held = self._newest.get(wanted.id)
                if held is not None and _serves(held, number):  # another thread opened it meanwhile
                    return held
                generation = self._catalog.generation()
                own = next((each for each in self._catalog.spaces(generation.number) if each.id == wanted.id), None)
                if own is None:
                    raise gone(wanted)
                try:
                    self._newest[own.id] = Snapshot(self._catalog, self._layout, own, generation, self._store, held)
                except SnapshotGoneError:
                    # Compacted between the two reads: the next round sees the new segments.
                    continue
                return self._newest[own.id]

    def use(self, store: VectorStore) -> None:
        """Open vectors with another store from now on."""
        with self._opening:
            self._store, self._newest = store, {}

    def every(self) -> Iterator[Snapshot]:
        """A snapshot of each space, the default first, each opened as needed."""
        yield self.newest()
        for each in self._spaces.every()[1:]:
            yield self.newest(each.space.name)

    def documents(self) -> Iterator[StoredDocument]:
        """Every document once, in the order of storage, those of the default space first."""
        before: list[Snapshot] = []
        for each in self.every():
            if not before:
                yield from each
            else:
                yield from self._beside(each, before)
            before.append(each)

    def _beside(self, snapshot: Snapshot, before: list[Snapshot]) -> Iterator[StoredDocument]:
        """The documents of a space that earlier spaces lack."""
        ids = snapshot.eligible()
        ids = snapshot.view.all_ids() if ids is None else ids
        for start in range(0, len(ids), AT_ONCE):
            documents = snapshot.documents(ids[start : start + AT_ONCE])
            names = [each.id for each in documents]
            known = {name for own in before for name in own.known(names)}
            yield from (each for each in documents if each.id not in known)

    def close(self) -> None:
        """Release the memory maps."""
        self._newest = {}


def _serves(snapshot: Snapshot, generation: int) -> bool:
    """Whether a snapshot has this generation or a later one, and a new one would not be faster."""
    return snapshot.generation >= generation and not snapshot.view.outdated


def default_of(catalog: Catalog) -> tuple[Space, list[Space]]:
    """The default space of a collection, and all spaces in order.

    Raises:
        CorruptionError: There is none.
    """
    spaces = catalog.spaces(catalog.generation().number)
    if not spaces:
        shown = catalog.database.shown
        raise CorruptionError(f"{shown} names no embedding space.", "Delete the folder and index again.")
    default = default_space(catalog.database)
    return next((each for each in spaces if each.id == default), spaces[0]), spaces


def open_spaces(
    catalog: Catalog,
    folder: Path,
    model: str | Embedder | None,
    name: str | None,
    parts: Parts | None,
    dtype: Dtype | str | None,
    device: str,
    trust: bool,
) -> OpenSpaces:
    """Open the spaces of a collection, with one of them as default.

    Args:
        catalog: The collection's catalog.
        folder: The collection's folder.
        model: The model of a space, which becomes the default; or its name; or None.
        name: The name of the space that becomes the default, or None.
        parts: The parts that this space must embed, or None.
        dtype: Arithmetic of its model, or None for that of the space.
        device: Where models run.
        trust: Whether to load models that only the collection names, by a path.

    Raises:
        SpaceMismatchError: No space was made with that model, those parts or that arithmetic.
        UnknownNameError: No space has that name.
        CorruptionError: There is no space.
    """
    default, spaces = default_of(catalog)
    if name is not None:
        default = next((each for each in spaces if each.name == name), None) or _unknown(name, spaces)
        spaces = [default]
    ordered = sorted(spaces, key=lambda each: each.id != default.id)
    if parts is not None:
        ordered = [each for each in ordered if each.parts is parts]
        if not ordered:
            raise SpaceMismatchError(
                f"{folder} embeds the parts {default.parts.value!r} of documents, not {parts.value!r}.",
                "Leave parts out, or index into a new folder.",
            )

    chosen_by = None if trust else folder

    def other(space: Space, embedder: Embedder | None) -> OpenSpace:
        own = LazyEmbedder(embedder or space.model, space.fingerprint["dtype"], device, chosen_by)
        return OpenSpace(space, own, folder)

    chosen = next((each for each in ordered if isinstance(model, str) and each.model == model), ordered[0])
    own_dtype = chosen.fingerprint["dtype"] if dtype is None else dtype
    if model is None:
        lazy = LazyEmbedder(chosen.model, own_dtype, device, chosen_by)
    else:
        lazy = LazyEmbedder(model, own_dtype, device)
        embedder = lazy.comparable(chosen, folder)
        digest = embedder.fingerprint().digest
        chosen = next((each for each in ordered if each.digest == digest), chosen)
        require_same_space(folder, embedder, chosen)
    return OpenSpaces(catalog, OpenSpace(chosen, lazy, folder), device, other)


def gone(space: Space) -> StoreError:
    """The error for a space that was dropped after the collection was opened."""
    return StoreError(f"The space {space.name!r} has been dropped.", "Open the collection again.")


def _unknown(name: str, spaces: Sequence[Space]) -> Space:
    raise UnknownNameError("space", name, [each.name for each in spaces])
