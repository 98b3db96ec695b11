"""From queries to vectors: a batch's texts in one call of the embedder, its pictures in another.

Queries with an instruction of their own are embedded with it. Sentences with words of pictures are read after their
pictures, and drawings come last, since an answer without them may be enough. What is asked for twice is embedded once.
The vector of a stored document is read, not made.

What this module does not know: methods, weights, how the vectors are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.errors import CallError, QueryError
from indexer.types import Item, Modality, Role
from retrieval.compose.protocol import Composer, Encoded
from retrieval.fusion import Vector
from retrieval.query import Drawn, Joint, Part, Query, Stored, Worded, needs_drawing
from retrieval.studio import Reference, Studio

if TYPE_CHECKING:
    from indexer.embed.protocol import Embedder
    from indexer.snapshot import Snapshot


def encode_queries(
    queries: Sequence[Query],
    composer: Composer,
    embedder: Callable[[], Embedder],
    snapshot: Snapshot,
    studio: Studio,
) -> list[Encoded]:
    """The vectors that a composer needs of each query, those aside that have to be drawn; see `add_drawings`.

    Args:
        queries: Any number, of any mixture of parts.
        composer: Says which parts.
        embedder: Loads the model; not called where stored vectors suffice.
        snapshot: Holds the stored vectors.
        studio: Makes words.

    Raises:
        QueryError: A part that the method needs is missing, or a picture cannot be used; it names the query.
        CallError: The model has no encoder for a part, or a document does not exist.
    """
    likes = list(dict.fromkeys(query.like for query in queries if query.like is not None))
    ids = snapshot.vector_ids(likes) if likes else np.empty(0, np.int64)
    references = dict(zip(likes, ids.tolist(), strict=True))
    stored: dict[object, Vector | str] = {
        Stored(name): row for name, row in zip(likes, snapshot.vectors(ids), strict=True)
    }
    wanted: list[dict[str, Part]] = [
        {name: part for name, part in composer.parts(query).items() if not needs_drawing(part)} for query in queries
    ]
    _settle_joint(wanted, references, embedder, snapshot)
    found = {}
    for instruction in dict.fromkeys(query.instruction for query in queries):
        parts = [
            part
            for query, each in zip(queries, wanted, strict=True)
            if query.instruction == instruction
            for part in each.values()
        ]
        worded = [part for part in parts if isinstance(part, Worded)]
        vectors = stored | _embedded([*parts, *(part.picture for part in worded)], embedder, instruction)
        vectors |= _worded(
            [part for part in worded if not isinstance(vectors[_key(part.picture)], str)], vectors, embedder, studio
        )
        found[instruction] = vectors
    return [
        Encoded(
            query,
            {name: _vector(found[query.instruction], part, name, place, len(queries)) for name, part in each.items()},
            None if query.like is None else references[query.like],
        )
        for place, (query, each) in enumerate(zip(queries, wanted, strict=True))
    ]


def add_drawings(
    encoded: Sequence[Encoded], composer: Composer, embedder: Callable[[], Embedder], studio: Studio
) -> list[Encoded]:
    """The same with the vectors of what has to be drawn, where it can be, and notes where it cannot."""
    wanted = [
        (place, name, part)
        for place, each in enumerate(encoded)
        for name, part in composer.parts(each.query).items()
        if needs_drawing(part) and name not in each.vectors
    ]
    if not wanted:
        return list(encoded)
    drawn = [part.picture if isinstance(part, Worded) else part for _, _, part in wanted]
    asked = [part for part in drawn if isinstance(part, Drawn)]
    references = [
        _reference(part.picture, encoded[place].vectors["image"])
        for (place, _, _), part in zip(wanted, asked, strict=True)
    ]
    made = studio.draw(embedder(), [part.text for part in asked], references)
    vectors = {n: each.drawn.vector for n, each in enumerate(made) if each.drawn is not None}
    again = [n for n in vectors if isinstance(wanted[n][2], Worded)]
    if again:
        pictures = [each.drawn for n in again if (each := made[n]).drawn is not None]
        vectors |= dict(zip(again, studio.read(embedder(), [asked[n].text for n in again], pictures), strict=True))
    answer = list(encoded)
    for n, (place, name, _) in enumerate(wanted):
        own, vector = answer[place], vectors.get(n)
        answer[place] = replace(
            own,
            vectors=own.vectors if vector is None else {**own.vectors, name: vector},
            notes=own.notes + (() if made[n].note is None else (str(made[n].note),)),
            pseudo_target=made[n].about,
        )
    return answer


def _settle_joint(
    wanted: Sequence[dict[str, Part]],
    references: Mapping[str, int],
    embedder: Callable[[], Embedder],
    snapshot: Snapshot,
) -> None:
    """Put a fused item in the place of each part that is read jointly, with the picture of a stored reference.

    Raises:
        CallError: The model sums what it should read at once.
        QueryError: A stored reference has no picture.
    """
    joint = [(parts, name, part) for parts in wanted for name, part in list(parts.items()) if isinstance(part, Joint)]
    if not joint:
        return
    model = embedder()
    if not model.fuses_natively:
        raise CallError(
            f"{model.name} does not read a picture and a text at once, so the method joint cannot be used.",
            "Use the method sum, or a model that does: underdrawing index SOURCE NEW_FOLDER --model mllm:NAME.",
        )
    likes = list(dict.fromkeys(part.picture.document for _, _, part in joint if isinstance(part.picture, Stored)))
    documents = snapshot.documents(np.array([references[name] for name in likes], np.int64)) if likes else []
    pictures = {document.id: document.image for document in documents}
    for parts, name, part in joint:
        picture = part.picture
        image = pictures[picture.document] if isinstance(picture, Stored) else picture.image
        if image is None:
            assert isinstance(picture, Stored)
            raise QueryError(
                f"The document {picture.document!r} has no picture, and the method joint reads the reference's.",
                "Give a picture with `image`, or use the method sum, which takes the document's vector.",
            )
        parts[name] = Item(part.text, image)


def _worded(
    parts: Sequence[Worded], vectors: Mapping[object, Vector | str], embedder: Callable[[], Embedder], studio: Studio
) -> dict[object, Vector | str]:
    distinct = {_key(part): part for part in parts}
    if not distinct:
        return {}
    references = []
    for part in distinct.values():
        vector = vectors[_key(part.picture)]
        assert not isinstance(vector, str)
        assert not isinstance(part.picture, Drawn)
        references.append(_reference(part.picture, vector))
    return dict(
        zip(distinct, studio.read(embedder(), [part.text for part in distinct.values()], references), strict=True)
    )


def _reference(picture: Item | Stored, vector: Vector) -> Reference:
    image = picture.image if isinstance(picture, Item) else None
    return Reference(() if image is None else (image,), vector)


def _embedded(
    parts: Sequence[Part], embedder: Callable[[], Embedder], instruction: str | None
) -> dict[object, Vector | str]:
    """By the item's key, its vector or the reason why there is none."""
    items = {_key(part): part for part in parts if isinstance(part, Item)}
    if not items:
        return {}
    model = embedder()
    model.require({item.modality for item in items.values()})
    if instruction is not None and not model.reads_instructions:
        raise CallError(
            f"{model.name} reads no instructions; this query has one: {instruction[:80]!r}.",
            "Leave it out, or use a model that does, such as mllm:NAME.",
        )
    found: dict[object, Vector | str] = {}
    for modality in Modality:
        batch = {key: item for key, item in items.items() if item.modality is modality}
        if batch:
            keys = list(batch)
            outcome = model.try_encode(list(batch.values()), Role.QUERY, instruction)
            found |= {keys[row]: vector for row, vector in zip(outcome.rows, outcome.vectors, strict=True)}
            found |= {keys[row]: error.detail for row, error in outcome.errors.items()}
    return found


def _key(part: Part) -> object:
    """Equal for parts that surely have the same vector. Decoded pictures are told apart by identity."""
    if isinstance(part, Stored):
        return part
    if isinstance(part, Worded | Drawn | Joint):
        return type(part), part.text, _key(part.picture)
    image = part.image
    return part.text, image if image is None or isinstance(image, Path | bytes) else id(image)


def _vector(vectors: Mapping[object, Vector | str], part: Part, name: str, place: int, total: int) -> Vector:
    # A sentence cannot be read with the word of a picture that cannot be used: the picture's reason is told.
    vector = vectors.get(_key(part), vectors.get(_key(part.picture) if isinstance(part, Worded) else None, ""))
    if isinstance(vector, str):
        which = f"The query's {name}" if total == 1 else f"The {name} of query {place}"
        raise QueryError(f"{which} cannot be used: {vector}")
    return vector
