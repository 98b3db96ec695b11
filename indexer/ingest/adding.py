"""What a call of `Collection.open`, `add` or `delete` may be given, and what `add` answers.

What this module does not know: the collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from indexer.arguments import told
from indexer.bundled import generic_texts
from indexer.corpus.paths import printable
from indexer.embed.base import Embedder
from indexer.errors import CallError, ItemError, RejectedError
from indexer.ingest.prepare import Ingest, Ready, embed, without_vector
from indexer.metadata.publish import NewDocument
from indexer.reasons import Reason
from indexer.types import Document, Item, Modality, Rejected, Role, Vectors
from indexer.validate import checked_id, shown

Sums: TypeAlias = dict[tuple[Role, Modality], tuple[int, npt.NDArray[np.float64]]]
"""By role and modality, how many vectors there were and their sum, (dim,) float64."""


@dataclass(frozen=True, repr=False)
class Added:
    """What `Collection.add` did.

    Attributes:
        added: New documents.
        replaced: Documents in whose place one of the same id was.
        rejected: Those that could not be used, and why, in the order given.
        generation: What a search sees now.
    """

    added: int
    replaced: int
    rejected: list[Rejected] = field(default_factory=list)
    generation: int = 0

    def __repr__(self) -> str:
        told = f"{self.added:,} added, {self.replaced:,} replaced, {len(self.rejected):,} rejected"
        if self.rejected:
            counts = Counter(each.reason for each in self.rejected).most_common()
            told += f" ({', '.join(f'{reason} {number:,}' for reason, number in counts)})"
            told += f", the first {self.rejected[0].uri}: {self.rejected[0].detail}"
        return f"Added({told}; generation {self.generation})"


def prepared(documents: object, ingest: Ingest) -> tuple[list[Ready], list[Rejected]]:
    """What can be stored of the documents of a call, and what cannot. Of one id twice, the first counts.

    Raises:
        CallError: It is no document, and no iterable of documents.
    """
    ready: dict[str, Ready] = {}
    rejected: list[Rejected] = []
    for document in _documents(documents):
        outcome = ingest(document)
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
        elif outcome.document.id in ready:
            name = outcome.document.id[:200]
            detail = f"The id {name!r} came before in this call; the first one counts."
            rejected.append(Rejected(printable(name), Reason.DUPLICATE_ID.value, detail))
        else:
            ready[outcome.document.id] = outcome
    return list(ready.values()), rejected


def embedded(embedder: Embedder, ready: Sequence[Ready]) -> tuple[list[NewDocument], Vectors, list[Rejected]]:
    """The documents with their vectors, (n, dim) float32, and those for which the model gave none."""
    documents, vectors = [each.document for each in ready], embed(embedder, ready)
    bad = without_vector(documents, vectors)
    kept = [place for place in range(len(documents)) if place not in bad]
    return [documents[place] for place in kept], vectors[kept], list(bad.values())


def ids_to_delete(ids: object) -> list[str]:
    """The ids of a call. What no document can be called is left out: nothing has such an id.

    Raises:
        CallError: They are no iterable of texts and whole numbers.
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
                f"documents[{place}] is {_what(each)}, no Document; nothing was stored.", f"Write {_example(each)}."
            )
        yield each


def _example(value: object) -> str:
    if isinstance(value, Mapping):
        names = [name for name in ("id", "text", "image", "fields") if name in value] or ["id", "text"]
        return f"Document({', '.join(f'{name}=...' for name in names)})"
    return "Document('an-id', text='...')"


def _is_id(value: Any) -> bool:
    """Whether it is of a type that ids have."""
    try:
        checked_id(value)
    except ItemError as error:
        return isinstance(value, str) or error.reason != Reason.BAD_ID
    return True


def _what(value: object) -> str:
    """A value in a message: short ones as they are, others by their type."""
    if value is None or isinstance(value, str | int | float):
        return f"{type(value).__name__} {shown(value)}" if value is not None else "None"
    article = "an" if type(value).__name__[:1] in "aeiouAEIOU" else "a"
    return f"{article} {type(value).__name__}"


def require_some(rejected: Sequence[Rejected]) -> None:
    """Refuse a call of which nothing can be stored.

    Raises:
        RejectedError: There are rejects.
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
    """Refuse what is no model, before anything is done.

    Raises:
        CallError: It is neither an embedder nor a name.
    """
    if model is None or isinstance(model, str) or (hasattr(model, "fingerprint") and not isinstance(model, type)):
        return
    raise CallError(
        f"model is {told(model)}; it is an embedder or the name of one.", "Write model='bundled:emoji-clip'."
    )


def generic_sums(embedder: Embedder) -> Sums:
    """The sum of generic query texts' vectors; nothing where the model gives no finite one."""
    vectors = embedder.encode_query([Item(text=each) for each in generic_texts()])
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    return {(Role.QUERY, Modality.TEXT): (len(vectors), vectors.sum(axis=0, dtype=np.float64))} if len(vectors) else {}
