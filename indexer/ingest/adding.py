"""Add and delete documents in one call: check the arguments, embed, commit, report.

What this module does not know: corpora, jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from indexer.arguments import described
from indexer.bundled import generic_texts
from indexer.corpus.image_rules import ImageRules
from indexer.corpus.paths import printable
from indexer.errors import CallError, ItemError, RejectedError
from indexer.ingest.prepare import Ingest, Preparer, Ready, embed, without_vector
from indexer.ingest.target import Target
from indexer.ingest.writer import SpaceVectors, selected, with_any_vector
from indexer.metadata.catalog import Catalog
from indexer.metadata.publish import NewDocument, Sums
from indexer.open_spaces import OpenSpace
from indexer.reasons import Reason
from indexer.types import Document, Item, Modality, Rejected, Role
from indexer.validate import checked_id, shown
from indexer.vectors.protocol import IndexKind


@dataclass(frozen=True, repr=False)
class Added:
    """The outcome of `Collection.add`.

    Attributes:
        added: New documents.
        replaced: Documents that replaced one with the same id.
        rejected: Documents that could not be used, and why, in the order given.
        generation: The generation that searches see now.
    """

    added: int
    replaced: int
    rejected: list[Rejected] = field(default_factory=list)
    generation: int = 0

    def __repr__(self) -> str:
        counted = f"{self.added:,} added, {self.replaced:,} replaced, {len(self.rejected):,} rejected"
        if self.rejected:
            counts = Counter(each.reason for each in self.rejected).most_common()
            counted += f" ({', '.join(f'{reason} {number:,}' for reason, number in counts)})"
            counted += f", the first {self.rejected[0].uri}: {self.rejected[0].detail}"
        return f"Added({counted}; generation {self.generation})"


def prepared(documents: object, ingest: Ingest) -> tuple[list[Ready], list[Rejected]]:
    """Split the documents of a call into valid ones and rejects. The first document with an id counts.

    Raises:
        CallError: It is neither a document nor an iterable of documents.
    """
    ready: dict[str, Ready] = {}
    rejected: list[Rejected] = []
    for document in _documents(documents):
        outcome = ingest(document)
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
        elif outcome.document.id in ready:
            name = outcome.document.id[:200]
            detail = f"The id {name!r} was used before in this call; the first document counts."
            rejected.append(Rejected(printable(name), Reason.DUPLICATE_ID.value, detail))
        else:
            ready[outcome.document.id] = outcome
    return list(ready.values()), rejected


def add(
    target: Target, documents: object, images: ImageRules, skip_rejected: bool, names: Sequence[str] | None
) -> Added:
    """What `Collection.add` does."""
    with target.writer() as writer:
        spaces = target.open_spaces.some(names)
        ready, rejected = prepared(documents, way_in(target, spaces, images))
        stored, vectors, lacking = embedded(spaces, ready, target.catalog)
        rejected += lacking
        if not stored:
            if not skip_rejected:
                require_some(rejected)
            return Added(0, 0, rejected, target.catalog.generation().number)
        published = writer.commit_spaces(stored, vectors, note="added")
    target.keep_index(only=IndexKind.EXACT, spaces=names)
    return Added(published.added, published.replaced, rejected, published.generation)


def way_in(target: Target, spaces: Sequence[OpenSpace], images: ImageRules) -> Ingest:
    """The function that prepares documents for these spaces; picklable, holds no model."""
    preparers = [Preparer(each.space.id, each.embedder.preparer(), each.space.parts) for each in spaces]
    return Ingest(preparers, target.layout.media, images)


def embedded(
    spaces: Sequence[OpenSpace], ready: Sequence[Ready], catalog: Catalog
) -> tuple[list[NewDocument], list[SpaceVectors], list[Rejected]]:
    """The documents with a vector in any space, the vectors of each space, and why other documents have none."""
    documents = [each.document for each in ready]
    if not documents:
        return [], [], []
    found = [_in_space(own, ready, catalog) for own in spaces]
    kept, lacking = with_any_vector(len(documents), found)
    if not lacking:
        return documents, [own for own, _ in found], []
    return [documents[place] for place in kept], [selected(own, kept) for own, _ in found], lacking


def _in_space(own: OpenSpace, ready: Sequence[Ready], catalog: Catalog) -> tuple[SpaceVectors, dict[int, Rejected]]:
    """The vectors of documents in one space, and by position the rejects that got none."""
    items = {place: each.prepared[own.space.id] for place, each in enumerate(ready) if own.space.id in each.prepared}
    places, vectors = list(items), embed(own.embedder, list(items.values()))
    lacking = without_vector(vectors, lambda row: ready[places[row]].document.name)
    bad = {places[row]: why for row, why in lacking.items()}
    if bad:
        rows = [row for row, place in enumerate(places) if place not in bad]
        places, vectors = [places[row] for row in rows], vectors[rows]
    modalities = [items[place].modality for place in places]
    return SpaceVectors(own.space, places, vectors, modalities, missing_query_mean(own, catalog)), bad


def ids_to_delete(ids: object) -> list[str]:
    """The ids of a call. Values that no document can have as id are left out.

    Raises:
        CallError: They are not an iterable of texts and whole numbers.
    """
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        remedy = f"Write delete([{shown(ids)}])." if _is_id(ids) else "Write delete(['a', 'b'])."
        raise CallError(f"delete takes a list of ids, not {_what(ids)}.", remedy)
    wanted = []
    for place, each in enumerate(ids):
        if not _is_id(each):
            of_document = "Write its id: delete([document.id])." if isinstance(each, Document) else None
            raise CallError(f"ids[{place}] is {_what(each)}; an id is a text or a whole number.", of_document)
        try:
            wanted.append(checked_id(each))
        except ItemError:
            continue
    return wanted


def _documents(documents: object) -> Iterator[Document]:
    if isinstance(documents, Document):
        yield documents
        return
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        remedy = f"Write add([{_example(documents)}])."
        raise CallError(f"add takes documents, not {_what(documents)}.", remedy)
    for place, each in enumerate(documents):
        if not isinstance(each, Document):
            raise CallError(
                f"documents[{place}] is {_what(each)}, not a Document; nothing was stored.", f"Write {_example(each)}."
            )
        yield each


def _example(value: object) -> str:
    if isinstance(value, Mapping):
        names = [name for name in ("id", "text", "image", "fields") if name in value] or ["id", "text"]
        return f"Document({', '.join(f'{name}=...' for name in names)})"
    return "Document('an-id', text='...')"


def _is_id(value: Any) -> bool:
    """Whether it has a type that ids can have."""
    try:
        checked_id(value)
    except ItemError as error:
        return isinstance(value, str) or error.reason != Reason.BAD_ID
    return True


def _what(value: object) -> str:
    """A value for a message: short ones in full, others by their type."""
    if value is None or isinstance(value, str | int | float):
        return f"{type(value).__name__} {shown(value)}" if value is not None else "None"
    article = "an" if type(value).__name__[:1] in "aeiouAEIOU" else "a"
    return f"{article} {type(value).__name__}"


def require_some(rejected: Sequence[Rejected]) -> None:
    """Raise an error if nothing of a call can be stored.

    Raises:
        RejectedError: All documents were rejected.
    """
    if not rejected:
        return
    first = ": ".join(filter(None, (rejected[0].uri, rejected[0].detail)))
    raise RejectedError(
        f"The document cannot be stored. {first}"
        if len(rejected) == 1
        else f"None of the {len(rejected):,} documents can be stored. The first is {first}",
        rejected,
    )


def require_opening(model: object) -> None:
    """Refuse what is not a model, before anything is done.

    Raises:
        CallError: It is neither an embedder nor a name.
    """
    if model is None or isinstance(model, str) or (hasattr(model, "fingerprint") and not isinstance(model, type)):
        return
    raise CallError(
        f"model is {described(model)}; it is an embedder or the name of one.", "Write model='bundled:emoji-clip'."
    )


def missing_query_mean(own: OpenSpace, catalog: Catalog) -> Sums:
    """The sum of the vectors of generic query texts, if the space has none yet, without those that are not finite."""
    if not own.has_query_mean:
        now = next(each for each in catalog.spaces(catalog.generation().number) if each.id == own.space.id)
        own.has_query_mean = (Role.QUERY, Modality.TEXT) in now.means
    if own.has_query_mean or Modality.TEXT not in own.embedder.modalities:
        return {}
    vectors = own.embedder.encode_query([Item(text=each) for each in generic_texts()])
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    return {(Role.QUERY, Modality.TEXT): (len(vectors), vectors.sum(axis=0, dtype=np.float64))} if len(vectors) else {}
