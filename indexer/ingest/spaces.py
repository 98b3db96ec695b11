"""List, add and drop a collection's spaces, and choose its default.

What this module does not know: how documents are embedded (`filling.py`), SQL.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from indexer.embed.base import Embedder
from indexer.errors import CallError
from indexer.ingest.target import Target
from indexer.metadata.space_changes import create_space, default_space, drop_space, set_default, vectors_of
from indexer.open_spaces import OpenSpace
from indexer.types import Modality, Parts


@dataclass(frozen=True)
class SpaceStatus:
    """One space of a collection, as of a generation.

    Attributes:
        name: Its name in the collection.
        model: The name by which its model was loaded.
        dim: Length of a vector.
        parts: Which parts of a document are embedded.
        default: Whether it is the default space.
        documents: The number of documents with a vector in it.
        missing: The number of documents without: they are still to be embedded, or the model cannot read them.
    """

    name: str
    model: str
    dim: int
    parts: Parts
    default: bool
    documents: int
    missing: int


def statuses(target: Target) -> list[SpaceStatus]:
    """What `Collection.spaces` returns: the default space first."""
    generation = target.catalog.generation()
    having = vectors_of(target.catalog.database, generation.number)
    default = target.open_spaces.default.space.id
    return [
        SpaceStatus(
            own.name, own.model, own.dim, own.parts, own.id == default, having.get(own.id, 0),
            generation.documents - having.get(own.id, 0),
        )
        for own in (each.space for each in target.open_spaces.every())
    ]  # fmt: skip


def register(target: Target, embedder: Embedder, name: str | None, parts: Parts | None) -> OpenSpace:
    """The space of a model in a collection; created if there is none.

    Raises:
        CallError: Another space has the name, or the space is there under another one.
        LockedError: Another writer holds the collection.
    """
    digest = embedder.fingerprint().digest
    with target.writer():
        spaces = [each.space for each in target.open_spaces.every()]
        for own in spaces:
            if own.digest == digest and parts in (None, own.parts) and name in (None, own.name):
                return target.open_spaces.adopt(own.id, embedder)
        wanted, own_parts = name or embedder.name, _readable(embedder, parts, target.open_spaces.default.space.parts)
        for own in spaces:
            if own.name == wanted:
                raise CallError(
                    f"The space {wanted!r} of {target.layout.folder} was made with another model ({own.model}), other "
                    "weights or other parts.",
                    "Give the new one another name: name='...'.",
                )
            if own.digest == digest and own.parts is own_parts:
                raise CallError(
                    f"{target.layout.folder} has this space by the name {own.name!r}.", "Leave the name out."
                )
        created = create_space(
            target.catalog.database, wanted, digest, embedder.name, embedder.dim, own_parts,
            asdict(embedder.fingerprint()), f"added the space {wanted}",
        )  # fmt: skip
        return target.open_spaces.adopt(created, embedder)


def make_default(target: Target, name: str) -> None:
    """What `Collection.set_default_space` does."""
    with target.writer():
        own = target.open_spaces.named(name)
        set_default(target.catalog.database, own.space)
        target.open_spaces.default = own


def drop(target: Target, name: str) -> int:
    """What `Collection.drop_space` does."""
    with target.writer():
        every = target.open_spaces.every()
        own, default = target.open_spaces.named(name), target.open_spaces.default
        recorded = default_space(target.catalog.database) or min(each.space.id for each in every)
        if own is default or own.space.id == recorded:
            others = [each.space.name for each in every if each is not own]
            raise CallError(
                f"{name!r} is the default space of {target.layout.folder} and cannot be dropped.",
                f"Make another one the default first: set_default_space({others[0]!r})."
                if others
                else "A collection needs one space; add another first.",
            )
        dropped = vectors_of(target.catalog.database, target.catalog.newest()).get(own.space.id, 0)
        drop_space(target.catalog.database, own.space)
    with target.writer():  # on entering, it removes files that no row names
        pass
    return dropped


def _readable(embedder: Embedder, parts: Parts | None, default: Parts) -> Parts:
    """The parts that a model embeds: the given ones, or the default space's, or the only ones that it reads."""
    if parts is not None:
        return parts
    if Modality.IMAGE not in embedder.modalities:
        return Parts.TEXT
    return default if Modality.TEXT in embedder.modalities else Parts.IMAGE
