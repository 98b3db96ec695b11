"""From queries to vectors: a batch's texts in one call of the embedder, its pictures in another.

What has to be written is written first, and is a text from then on; what is read jointly is one item. Queries with an
instruction of their own are embedded with it. Sentences with words of pictures are read after their pictures, and
drawings come last, since an answer without them may be enough. What is asked for twice is embedded once. The vector of
a stored document is read, not made; its picture is looked at only where something reads pictures themselves.

What this module does not know: methods, weights, how the vectors are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from indexer.corpus.paths import printable
from indexer.errors import CallError, ItemError, QueryError
from indexer.files.media import recorded_image
from indexer.types import Ids, ImageSource, Item, Modality, Role
from retrieval.methods.base import Composer, Encoded
from retrieval.providers.caption_rewrite import Scribe, Sentence, Wanted
from retrieval.providers.pseudo_target import Reference, Studio
from retrieval.query import (
    Averaged,
    Drawn,
    Joint,
    Leaf,
    Part,
    Query,
    Stored,
    Worded,
    Written,
    leaves,
    needs_drawing,
)
from retrieval.scoring import Vector, unit

if TYPE_CHECKING:
    from indexer.embed.base import Embedder
    from indexer.snapshot import Snapshot

Sentences: TypeAlias = Mapping[str, Sentence]
"""Of one query, by branch name."""
Embedded: TypeAlias = Leaf | Averaged
"""What is left of a query's parts when sentences are written and joint parts are items."""


def require_pictures(queries: Sequence[Query]) -> None:
    """See that the files of pictures are there, which costs less than a model.

    Raises:
        QueryError: One is not; it names the query.
    """
    for place, query in enumerate(queries):
        for name, part in query.parts().items():
            if isinstance(part, Item) and isinstance(part.image, Path) and _missing(part.image):
                raise _unusable(name, place, len(queries), f"{printable(part.image)} does not exist.")


def _missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False  # decoding will say what is wrong
    return False


def write_sentences(
    queries: Sequence[Query], composer: Composer, snapshot: Snapshot, scribe: Scribe
) -> list[Sentences]:
    """What a composer wants written for each query.

    Args:
        queries: Any number, of any mixture of parts.
        composer: Says what.
        snapshot: Holds the pictures of stored references.
        scribe: Writes.

    Raises:
        QueryError: A picture cannot be used, or a stored reference has none; it names the query.
        CallError: A model is needed and was not given, or a document does not exist.
        ModelError: A model cannot be loaded.
    """
    wanted = {
        (place, name): part
        for place, query in enumerate(queries)
        for name, part in composer.parts(query).items()
        if isinstance(part, Written)
    }
    if not wanted:
        return [{}] * len(queries)
    stored = _stored_pictures(list(wanted.values()), snapshot)
    asked = []
    for part in wanted.values():
        picture = part.picture.image if isinstance(part.picture, Item) else stored.get(part.picture.document)
        asked.append(Wanted(part.text, None if part.caption is not None else picture, part.caption))
    answer: list[dict[str, Sentence]] = [{} for _ in queries]
    for (place, name), sentence in zip(wanted, scribe.write(asked), strict=True):
        if isinstance(sentence, ItemError):
            raise _unusable("image", place, len(queries), sentence.detail)
        answer[place][name] = sentence
    return list(answer)


def _stored_pictures(parts: Sequence[Written], snapshot: Snapshot) -> dict[str, ImageSource]:
    """The pictures of stored references that are to be put into words."""
    likes = {part.picture.document for part in parts if isinstance(part.picture, Stored) and part.caption is None}
    names = sorted(likes)
    documents = snapshot.documents(snapshot.vector_ids(names)) if names else []
    pictures: dict[str, ImageSource] = {}
    for name, document in zip(names, documents, strict=True):
        if document.image is None:
            raise QueryError(
                f"The stored document {name!r} has no picture that could be put into words.",
                "Say what it shows with `caption`, or give a picture with `image` in place of `like`.",
            )
        # A caption is shown, and may be sent to an endpoint. A missing file is told by whoever opens it.
        if document.image.exists() and recorded_image(document.image, document.image_sha256) is None:
            raise QueryError(
                f"The image of the stored document {name!r}, {printable(document.image)}, is no longer the one that "
                "was indexed.",
                "Index its source again, say what it shows with `caption`, or give an image with `image`.",
            )
        pictures[name] = document.image
    return pictures


def stored_references(snapshot: Snapshot, likes: Sequence[str]) -> Ids:
    """The vector ids, (n,) int64, of the documents that queries name by `like`.

    Raises:
        QueryError: A document is not there.
    """
    try:
        return snapshot.vector_ids(likes) if likes else np.empty(0, np.int64)
    except CallError as error:
        raise QueryError(
            error.message, "`like` is the id of a stored document, as results show it; else give an image as `image`."
        ) from error


def encode_queries(
    queries: Sequence[Query],
    composer: Composer,
    embedder: Callable[[], Embedder],
    snapshot: Snapshot,
    studio: Studio,
    sentences: Sequence[Sentences],
) -> list[Encoded]:
    """The vectors that a composer needs of each query, those aside that have to be drawn; see `add_drawings`.

    Args:
        queries: Any number, of any mixture of parts.
        composer: Says which parts.
        embedder: Loads the model; not called where stored vectors suffice.
        snapshot: Holds the stored vectors.
        studio: Makes words.
        sentences: What `write_sentences` gave.

    Raises:
        QueryError: A part that the method needs is missing, a picture cannot be used, or a document does not exist; it
            names which.
        CallError: The model has no encoder for a part.
    """
    likes = list(dict.fromkeys(query.like for query in queries if query.like is not None))
    ids = stored_references(snapshot, likes)
    references = dict(zip(likes, ids.tolist(), strict=True))
    stored: dict[object, Vector | str] = {
        Stored(name): row for name, row in zip(likes, snapshot.vectors(ids), strict=True)
    }
    wanted: list[dict[str, Part]] = [
        {
            name: Item(text=own[name].text) if isinstance(part, Written) else part
            for name, part in composer.parts(query).items()
            if not needs_drawing(part)
        }
        for query, own in zip(queries, sentences, strict=True)
    ]
    settled = _joint_items(wanted, references, embedder, snapshot)
    found: dict[str | None, dict[object, Vector | str]] = {}
    for instruction in dict.fromkeys(query.instruction for query in queries):
        parts = [
            leaf
            for query, each in zip(queries, settled, strict=True)
            if query.instruction == instruction
            for part in each.values()
            for leaf in leaves(part)
        ]
        worded = [part for part in parts if isinstance(part, Worded)]
        vectors = stored | _embedded([*parts, *(part.picture for part in worded)], embedder, instruction)
        readable = [part for part in worded if not isinstance(vectors[_key(part.picture)], str)]
        found[instruction] = vectors | _worded(readable, vectors, embedder, snapshot, studio)
    return [
        Encoded(
            query,
            {name: _vector(found[query.instruction], part, name, place, len(queries)) for name, part in each.items()},
            None if query.like is None else references[query.like],
            notes=tuple(note for sentence in own.values() for note in sentence.notes),
            written=next((sentence.about for sentence in own.values()), None),
        )
        for place, (query, each, own) in enumerate(zip(queries, settled, sentences, strict=True))
    ]


def add_drawings(
    encoded: Sequence[Encoded],
    composer: Composer,
    embedder: Callable[[], Embedder],
    snapshot: Snapshot,
    studio: Studio,
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
    asked = [_drawn(part) for _, _, part in wanted]
    references = [
        _reference(part.picture, encoded[place].vectors["image"], snapshot)
        for (place, _, _), part in zip(wanted, asked, strict=True)
    ]
    made = studio.draw(embedder(), [part.text for part in asked], references)
    pictures = {n: each.drawn for n, each in enumerate(made) if each.drawn is not None}
    vectors = {n: picture.vector for n, picture in pictures.items()}
    again = [(n, leaf.text) for n in pictures for leaf in leaves(wanted[n][2]) if isinstance(leaf, Worded)]
    if again:
        read = studio.read(embedder(), [text for _, text in again], [pictures[n] for n, _ in again])
        owners = np.array([n for n, _ in again])
        vectors |= {n: _mean(list(read[owners == n])) for n in dict(again)}
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


def _drawn(part: Part) -> Drawn:
    """What has to be drawn of a part that needs a drawing."""
    first = leaves(part)[0]
    drawn = first.picture if isinstance(first, Worded) else first
    assert isinstance(drawn, Drawn)
    return drawn


def _mean(vectors: Sequence[Vector]) -> Vector:
    """The only vector as it is, or the mean of several at unit length."""
    return vectors[0] if len(vectors) == 1 else unit(np.mean(vectors, axis=0, dtype=np.float64))


def _joint_items(
    wanted: Sequence[Mapping[str, Part]],
    references: Mapping[str, int],
    embedder: Callable[[], Embedder],
    snapshot: Snapshot,
) -> list[dict[str, Embedded]]:
    """The same parts, with a fused item in the place of each that is read jointly.

    Raises:
        CallError: The model sums what it should read at once.
        QueryError: A stored reference has no picture.
    """
    joint = [part for parts in wanted for part in parts.values() if isinstance(part, Joint)]
    if joint and not embedder().fuses_natively:
        raise CallError(
            f"{embedder().name} does not read a picture and a text at once, so the method joint cannot be used.",
            "Use the method sum, or a model that does: underdrawing index SOURCE NEW_FOLDER --model mllm:NAME.",
        )
    likes = list(dict.fromkeys(part.picture.document for part in joint if isinstance(part.picture, Stored)))
    documents = snapshot.documents(np.array([references[name] for name in likes], np.int64)) if likes else []
    pictures = {document.id: document.images for document in documents}

    def item(part: Joint) -> Item:
        if isinstance(part.picture, Item):
            return Item(part.text, images=part.picture.images)
        images = pictures[part.picture.document]
        if not images:
            raise QueryError(
                f"The document {part.picture.document!r} has no picture, and the method joint reads the reference's.",
                "Give a picture with `image`, or use the method sum, which takes the document's vector.",
            )
        return Item(part.text, images=images)

    settled: list[dict[str, Embedded]] = []
    for parts in wanted:
        own: dict[str, Embedded] = {}
        for name, part in parts.items():
            assert not isinstance(part, Written)
            own[name] = item(part) if isinstance(part, Joint) else part
        settled.append(own)
    return settled


def _worded(
    parts: Sequence[Worded],
    vectors: Mapping[object, Vector | str],
    embedder: Callable[[], Embedder],
    snapshot: Snapshot,
    studio: Studio,
) -> dict[object, Vector | str]:
    distinct = {_key(part): part for part in parts}
    if not distinct:
        return {}
    references = []
    for part in distinct.values():
        vector = vectors[_key(part.picture)]
        assert not isinstance(vector, str)
        assert not isinstance(part.picture, Drawn)
        references.append(_reference(part.picture, vector, snapshot))
    return dict(
        zip(distinct, studio.read(embedder(), [part.text for part in distinct.values()], references), strict=True)
    )


def _reference(picture: Item | Stored, vector: Vector, snapshot: Snapshot) -> Reference:
    if isinstance(picture, Stored):
        return Reference((), vector, lambda: snapshot.documents(snapshot.vector_ids([picture.document]))[0].images)
    return Reference(tuple(picture.images), vector)


def _embedded(
    parts: Sequence[Leaf], embedder: Callable[[], Embedder], instruction: str | None
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
            for row, vector in zip(outcome.rows, outcome.vectors, strict=True):
                found[keys[row]] = vector if _points(vector) else _NOWHERE
            found |= {keys[row]: error.detail for row, error in outcome.errors.items()}
    return found


_NOWHERE = "the model's vector of it is zero, or holds a value that is not a finite number; try dtype float32"


def _points(vector: Vector) -> bool:
    return bool(np.isfinite(vector).all() and np.abs(vector).max(initial=0) > 1e-6)


def _key(part: Leaf) -> object:
    """Equal for parts that surely have the same vector. Decoded pictures are told apart by identity."""
    if isinstance(part, Stored):
        return part
    if isinstance(part, Worded | Drawn):
        return type(part), part.text, _key(part.picture)
    return part.text, *(image if isinstance(image, Path | bytes) else id(image) for image in part.images)


def _vector(vectors: Mapping[object, Vector | str], part: Embedded, name: str, place: int, total: int) -> Vector:
    own = []
    for leaf in leaves(part):
        # A sentence cannot be read with the word of a picture that cannot be used: the picture's reason is told.
        vector = vectors.get(_key(leaf), vectors.get(_key(leaf.picture) if isinstance(leaf, Worded) else None, ""))
        if isinstance(vector, str):
            raise _unusable(name, place, total, vector)
        own.append(vector)
    return _mean(own)


def _unusable(name: str, place: int, total: int, reason: str) -> QueryError:
    which = f"The query's {name}" if total == 1 else f"The {name} of query {place}"
    return QueryError(f"{which} cannot be used: {reason}", None if "text" in name else "Give another picture.")
