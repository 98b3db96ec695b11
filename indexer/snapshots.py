"""The cache of the newest snapshot of each space of an open collection.

What this module does not know: models, how a generation is made.
"""

from __future__ import annotations

from collections.abc import Iterator

from indexer.errors import SnapshotGoneError
from indexer.files.layout import Layout
from indexer.forks import Lock
from indexer.metadata.catalog import Catalog
from indexer.open_spaces import OpenSpaces, gone
from indexer.snapshot import Snapshot
from indexer.stored_document import StoredDocument
from indexer.vectors.protocol import VectorStore

AT_ONCE = 500
"""Documents that iteration reads at once."""


class Snapshots:
    """The newest snapshots of an open collection. Threads may share one.

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
    """Whether a snapshot has all of a generation, and none opened now would be faster."""
    return snapshot.generation >= generation and not snapshot.view.outdated
