"""From documents to vector ids and back: what a query may not find, and leaders as hits or as a ranking of ids.

Documents are fetched once, ties settled by their ids, branches explained.

What this module does not know: how leaders are found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from indexer.arguments import names, one_each
from indexer.vectors.protocol import Ids
from retrieval.methods import Composed, Encoded
from retrieval.ranking import Found
from retrieval.results import Hit
from retrieval.scoring import order

if TYPE_CHECKING:
    from indexer.snapshot import StoredDocument
    from retrieval.ranking import View


@dataclass(frozen=True)
class Ranking:
    """Document ids and scores of one query, best first; what a benchmark needs of a search."""

    ids: tuple[str, ...]
    scores: tuple[float, ...]


def fetched(snapshot: View, found: Sequence[Found]) -> dict[int, StoredDocument]:
    """The documents of all leaders, each fetched once, by vector id."""
    ids = np.unique(np.concatenate([each.ids for each in found] or [np.empty(0, np.int64)]))
    return dict(zip(ids.tolist(), snapshot.documents(ids), strict=True))


def settled(found: Found, documents: Mapping[int, StoredDocument], k: int | None) -> Found:
    """The k best, ties by document id."""
    names = [documents[number].id for number in found.ids.tolist()]
    places = order(found.scores, names)[:k]
    return Found(found.ids[places], found.scores[places], found.plan)


def hits_of(snapshot: View, composed: Sequence[Composed], found: Sequence[Found], k: int) -> list[tuple[Hit, ...]]:
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


def vector_ids_of(snapshot: View, documents: Sequence[Sequence[str]]) -> list[Ids]:
    """The vector ids of lists of documents, looked up in one go.

    Raises:
        CallError: A document does not exist.
    """
    names = list(dict.fromkeys(name for own in documents for name in own))
    ids = dict(zip(names, snapshot.vector_ids(names), strict=True)) if names else {}
    return [np.array([ids[name] for name in own], np.int64) for own in documents]


def hidden_from(
    snapshot: View,
    encoded: Sequence[Encoded],
    exclude: Sequence[Sequence[str]] | None,
    keep_references: bool,
) -> list[Ids]:
    """For each query, the vectors that it may not find."""
    given = [()] * len(encoded) if exclude is None else one_each(exclude, "exclude", len(encoded))
    others = vector_ids_of(snapshot, [names(each, f"exclude[{place}]") for place, each in enumerate(given)])
    if keep_references:
        return others
    return [np.append(own, more) for own, more in zip(references_of(encoded), others, strict=True)]


def references_of(encoded: Sequence[Encoded]) -> list[Ids]:
    """For each query, the vector of its own stored reference, if it has one: (0,) or (1,) int64."""
    return [np.array([] if each.reference is None else [each.reference], np.int64) for each in encoded]


def rankings_of(snapshot: View, found: Sequence[Found], k: int | None) -> list[Ranking]:
    """The k best of each query, or all of them, as ids with scores."""
    documents = fetched(snapshot, found)
    chosen = [settled(each, documents, k) for each in found]
    return [
        Ranking(tuple(documents[number].id for number in each.ids.tolist()), tuple(each.scores.tolist()))
        for each in chosen
    ]
