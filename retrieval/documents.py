"""The step between vectors and documents: which documents a query may not find, and vectors turned into hits.

Each document is fetched once, ties are settled by id, and every branch's score is shown. A user who says how the answer
differs from a reference does not want the reference itself. Copies of it are recognized by the bytes of the image file.

What this module does not know: how anything is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.arguments import names, one_each
from indexer.errors import ItemError
from indexer.vectors.protocol import Ids
from retrieval.methods.base import Composed, Resolved
from retrieval.query import Query
from retrieval.ranking import Found
from retrieval.results import Hit
from retrieval.scoring import order

if TYPE_CHECKING:
    from PIL.Image import Image

    from indexer.snapshot import Snapshot, StoredDocument

MOST_PIXELS = 2_000_000
"""PIL images up to this size are compared, by content, with those that were stored as PIL images."""
NAMED = 3
"""How many documents a note names."""


@dataclass(frozen=True)
class Ranking:
    """Document ids and scores of one query, best first: all that a benchmark needs of a search."""

    ids: tuple[str, ...]
    scores: tuple[float, ...]


def fetched(snapshot: Snapshot, found: Sequence[Found]) -> dict[int, StoredDocument]:
    """The documents of all vectors found, by vector id; each is fetched once."""
    ids = np.unique(np.concatenate([each.ids for each in found] or [np.empty(0, np.int64)]))
    return dict(zip(ids.tolist(), snapshot.documents(ids), strict=True))


def settled(found: Found, documents: Mapping[int, StoredDocument], k: int | None) -> Found:
    """The k best, ties by document id."""
    names = [documents[number].id for number in found.ids.tolist()]
    places = order(found.scores, names)[:k]
    return Found(found.ids[places], found.scores[places], found.plans)


def hits_of(snapshot: Snapshot, composed: Sequence[Composed], found: Sequence[Found], k: int) -> list[tuple[Hit, ...]]:
    """The k best of each query as hits, best first."""
    documents = fetched(snapshot, found)
    chosen = [settled(each, documents, k) for each in found]
    ids = np.unique(np.concatenate([each.ids for each in chosen] or [np.empty(0, np.int64)]))
    vectors = snapshot.vectors(ids)
    answers = []
    for each, query in zip(chosen, composed, strict=True):
        rows = vectors[np.searchsorted(ids, each.ids)]
        cosines = {name: (rows @ vector).tolist() for name, vector in query.branches.items()}
        answers.append(
            tuple(
                _hit(place, number, value, documents, cosines)
                for place, (number, value) in enumerate(zip(each.ids.tolist(), each.scores.tolist(), strict=True))
            )
        )
    return answers


def _hit(
    place: int,
    number: int,
    value: float,
    documents: Mapping[int, StoredDocument],
    cosines: Mapping[str, Sequence[float]],
) -> Hit:
    document = documents[number]
    return Hit(
        rank=place + 1,
        score=value,
        id=document.id,
        text=document.text,
        uri=document.uri,
        image=document.image,
        fields=document.fields,
        branches={name: own[place] for name, own in cosines.items()},
        image_sha256=document.image_sha256,
        images=document.images,
        images_sha256=document.images_sha256,
    )


def vector_ids_of(snapshot: Snapshot, documents: Sequence[Sequence[str]]) -> list[Ids]:
    """The vector ids of lists of documents, looked up in one statement.

    Raises:
        CallError: A document does not exist.
    """
    names = list(dict.fromkeys(name for own in documents for name in own))
    ids = dict(zip(names, snapshot.vector_ids(names), strict=True)) if names else {}
    return [np.array([ids[name] for name in own], np.int64) for own in documents]


def hidden_from(
    snapshot: Snapshot,
    resolved: Sequence[Resolved],
    exclude: Sequence[Sequence[str]] | None,
    keep_references: bool,
) -> list[Ids]:
    """For each query, the vectors that it may not find."""
    given = [()] * len(resolved) if exclude is None else one_each(exclude, "exclude", len(resolved))
    others = vector_ids_of(snapshot, [names(each, f"exclude[{place}]") for place, each in enumerate(given)])
    if keep_references:
        return others
    return [np.append(own, more) for own, more in zip(references_of(resolved), others, strict=True)]


def references_of(resolved: Sequence[Resolved]) -> list[Ids]:
    """For each query, the vector of its own stored reference, if it has one: (0,) or (1,) int64."""
    return [np.array([] if each.reference is None else [each.reference], np.int64) for each in resolved]


def rankings_of(snapshot: Snapshot, found: Sequence[Found], k: int | None) -> list[Ranking]:
    """The k best of each query, or all of them, as ids with scores."""
    documents = fetched(snapshot, found)
    chosen = [settled(each, documents, k) for each in found]
    return [
        Ranking(tuple(documents[number].id for number in each.ids.tolist()), tuple(each.scores.tolist()))
        for each in chosen
    ]


@dataclass(frozen=True)
class LeftOut:
    """The documents that one query may not find.

    Attributes:
        ids: (m,) int64 vector ids: of the document that `like` names, and of those with the very same image.
        notes: Which documents were left out although nobody named them.
    """

    ids: Ids
    notes: tuple[str, ...] = ()


def leave_out(snapshot: Snapshot, resolved: Sequence[Resolved], keep_reference: bool) -> list[LeftOut]:
    """The documents that each query may not find because they are its reference.

    A stored reference (`like`) is always left out. Documents with the same image, byte for byte, are left out if the
    query says more than its image. A query with an image alone may be looking for that very image.

    Args:
        snapshot: The snapshot that is searched.
        resolved: The queries.
        keep_reference: True to leave nothing out.
    """
    if keep_reference:
        return [LeftOut(np.empty(0, np.int64))] * len(resolved)
    digests = [_digests(snapshot, each) for each in resolved]
    copies = snapshot.with_images({digest for own in digests for digest in own})
    return [_left_out(each, own, copies) for each, own in zip(resolved, digests, strict=True)]


def _left_out(each: Resolved, digests: Sequence[str], copies: dict[str, list[tuple[int, str]]]) -> LeftOut:
    own = [] if each.reference is None else [each.reference]
    found = sorted({pair for digest in digests for pair in copies.get(digest, ())}, key=lambda pair: pair[1])
    others = [(vector, name) for vector, name in found if vector not in own]
    notes: tuple[str, ...] = ()
    if others:
        named = ", ".join(repr(name) for _, name in others[:NAMED])
        more = f" and {len(others) - NAMED:,} more" if len(others) > NAMED else ""
        notes = (
            f"Left out {named}{more}: the image is the reference itself, byte for byte. `keep_reference=True` keeps "
            "it.",
        )
    return LeftOut(np.array([*own, *(vector for vector, _ in others)], np.int64), notes)


def _digests(snapshot: Snapshot, resolved: Resolved) -> list[str]:
    """The content keys of the reference, if the query says more than its image."""
    query = resolved.query
    if not (query.text or query.not_texts or query.not_images):
        return []
    if resolved.reference is not None:
        [document] = snapshot.documents(np.array([resolved.reference], np.int64))
        # A page of several images is not a copy of its first image, nor the image a copy of the page.
        return [] if document.image_sha256 is None or len(document.images) > 1 else [document.image_sha256]
    return _of_image(query)


def _of_image(query: Query) -> list[str]:
    from indexer.corpus.images import image_digest

    image = Path(query.image) if isinstance(query.image, str) else query.image
    if image is None:
        return []
    sources: list[Path | bytes | Image] = [image]
    if not isinstance(image, Path | bytes):
        opened = getattr(image, "filename", None)
        sources = [Path(opened)] if isinstance(opened, str) and opened else []
        if image.width * image.height <= MOST_PIXELS:
            sources.append(image)
    found = []
    for source in sources:
        try:
            found.append(image_digest(source))
        except ItemError:  # it was read a moment ago, but is gone now
            continue
    return found
