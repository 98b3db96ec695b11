"""From queries to vectors: a batch's texts in one call of the embedder, its pictures in another.

What is asked for twice is embedded once. The vector of a stored document is read, not made.

What this module does not know: methods, weights, how the vectors are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import QueryError
from indexer.types import Item, Modality, Role
from retrieval.compose.protocol import Composer, Encoded
from retrieval.fusion import Vector
from retrieval.query import Query, Stored

if TYPE_CHECKING:
    from indexer.embed.protocol import Embedder
    from indexer.snapshot import Snapshot


def encode_queries(
    queries: Sequence[Query], composer: Composer, embedder: Callable[[], Embedder], snapshot: Snapshot
) -> list[Encoded]:
    """The vectors that a composer needs of each query.

    Args:
        queries: Any number, of any mixture of parts.
        composer: Says which parts.
        embedder: Loads the model; not called where stored vectors suffice.
        snapshot: Holds the stored vectors.

    Raises:
        QueryError: A part that the method needs is missing, or a picture cannot be used; it names the query.
        CallError: The model has no encoder for a part, or a document does not exist.
    """
    wanted = [composer.parts(query) for query in queries]
    parts = [part for each in wanted for part in each.values()]
    likes = list(dict.fromkeys(query.like for query in queries if query.like is not None))
    ids = snapshot.vector_ids(likes) if likes else np.empty(0, np.int64)
    references = dict(zip(likes, ids.tolist(), strict=True))
    stored = {Stored(name): row for name, row in zip(likes, snapshot.vectors(ids), strict=True)}
    vectors = stored | _embedded(parts, embedder)
    return [
        Encoded(
            query,
            {name: _vector(vectors, part, name, place, len(queries)) for name, part in each.items()},
            None if query.like is None else references[query.like],
        )
        for place, (query, each) in enumerate(zip(queries, wanted, strict=True))
    ]


def _embedded(parts: Sequence[Item | Stored], embedder: Callable[[], Embedder]) -> dict[object, Vector | str]:
    """By the item's key, its vector or the reason why there is none."""
    items = {_key(part): part for part in parts if isinstance(part, Item)}
    if not items:
        return {}
    model = embedder()
    model.require({item.modality for item in items.values()})
    found: dict[object, Vector | str] = {}
    for modality in Modality:
        batch = {key: item for key, item in items.items() if item.modality is modality}
        if batch:
            keys = list(batch)
            outcome = model.try_encode(list(batch.values()), Role.QUERY)
            found |= {keys[row]: vector for row, vector in zip(outcome.rows, outcome.vectors, strict=True)}
            found |= {keys[row]: error.detail for row, error in outcome.errors.items()}
    return found


def _key(part: Item | Stored) -> object:
    """Equal for parts that surely have the same vector. Decoded pictures are told apart by identity."""
    if isinstance(part, Stored):
        return part
    image = part.image
    return part.text, image if image is None or isinstance(image, Path | bytes) else id(image)


def _vector(vectors: Mapping[object, Vector | str], part: Item | Stored, name: str, place: int, total: int) -> Vector:
    vector = vectors[_key(part)]
    if isinstance(vector, str):
        which = f"The query's {name}" if total == 1 else f"The {name} of query {place}"
        raise QueryError(f"{which} cannot be used: {vector}")
    return vector
