"""A document on its way in: checked, its image stored, its parts made ready for the model.

There is one way in: `Collection.add` and the batch job both come through here, so that one document and a million get
the same vectors. It runs in worker processes and holds no model.

What this module does not know: SQL, models, where documents come from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.corpus.paths import printable
from indexer.embed.protocol import Embedder, Prepared
from indexer.errors import ItemError
from indexer.media import store_image
from indexer.store.publish import NewDocument
from indexer.types import Document, Item, Parts, Rejected, Role, Vectors

MAX_ID, MAX_ID_BYTES = 1024, 2048
"""Characters of a document's id, and bytes of it in UTF-8: PostgreSQL's indexes hold no more than 2,704."""
MAX_DEPTH = 100
"""Of lists and objects inside each other in a document's fields; SQLite gives up at 1,000."""


@dataclass(frozen=True)
class Ready:
    """A document ready to be embedded and stored."""

    document: NewDocument
    prepared: Prepared


@dataclass(frozen=True)
class Ingest:
    """Document to `Ready`; picklable.

    Attributes:
        prepare: The embedder's.
        parts: Which parts are embedded.
        media: Where images given as bytes are kept.
    """

    prepare: Callable[[Item], Prepared]
    parts: Parts
    media: Path

    def __call__(self, document: Document, source: str | None = None, stamp: str | None = None) -> Ready | Rejected:
        """Check, store and prepare one document; a bad one comes back as a reject, with the reason."""
        try:
            identifier = checked_id(document.id)
            text = None if document.text is None else checked_text(document.text, "text")
            fields = checked_fields(document.fields)
            item = embedded_item(document, self.parts)
            uri = checked_text(document.uri, "uri") if document.uri else None
            prepared = self.prepare(item)
            # Last: what is refused leaves nothing behind.
            image = None if document.image is None else store_image(self.media, document.image)
        except ItemError as error:
            return Rejected(printable(document.uri or str(document.id)[:200]), error.reason, error.detail)
        return Ready(
            NewDocument(
                id=identifier,
                text=text,
                uri=uri or (image.uri if image else None),
                image=image.uri if image else None,
                image_sha256=image.sha256 if image else None,
                modality=item.modality,
                fields=fields,
                source=source,
                stamp=stamp,
            ),
            prepared,
        )


def embedded_item(document: Document, parts: Parts) -> Item:
    """The parts of a document that are embedded.

    Raises:
        ItemError: It has none of them.
    """
    text = document.text if document.text and document.text.strip() else None
    if parts is Parts.IMAGE:
        text = None
    image = None if parts is Parts.TEXT else document.image
    if text is None and image is None:
        wanted = "text or image" if parts is Parts.AUTO else parts.value
        raise ItemError("empty", f"the document has no {wanted} to embed")
    return Item(text, image)


def embed(embedder: Embedder, ready: Sequence[Ready]) -> Vectors:
    """Document vectors, (len(ready), dim) float32, in batches the model takes."""
    vectors = np.empty((len(ready), embedder.dim), np.float32)
    for start in range(0, len(ready), embedder.batch_size):
        batch = [each.prepared for each in ready[start : start + embedder.batch_size]]
        vectors[start : start + len(batch)] = embedder.forward(batch, Role.DOCUMENT)
    return vectors


def checked_id(identifier: object) -> str:
    """A document id that every database can hold.

    Raises:
        ItemError: Not a text, empty, too long, or with a NUL.
    """
    if not isinstance(identifier, str) or not identifier:
        raise ItemError("bad-id", f"a document's id is a non-empty text, not {identifier!r:.80}")
    if len(identifier) > MAX_ID:
        raise ItemError("bad-id", f"the id has {len(identifier)} characters; at most {MAX_ID} are allowed")
    length = len(checked_text(identifier, "id").encode())
    if length > MAX_ID_BYTES:
        raise ItemError("bad-id", f"the id has {length} bytes; at most {MAX_ID_BYTES} are allowed")
    return identifier


def checked_text(text: object, what: str) -> str:
    """Text that every database can hold.

    Raises:
        ItemError: It is no text, or has a NUL, or half a surrogate pair.
    """
    if not isinstance(text, str):
        raise ItemError("bad-text", f"its {what} is no text but {type(text).__name__}")
    if "\0" in text:
        raise ItemError("nul", f"its {what} holds a NUL character at position {text.index(chr(0))}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ItemError("not-unicode", f"its {what} is not valid Unicode at position {error.start}") from None
    return text


def checked_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as plain JSON.

    Raises:
        ItemError: Not an object, nested too deep, a value JSON has no form for, a number that is not finite, or a NUL.
    """
    if not isinstance(fields, Mapping) or not all(isinstance(key, str) for key in fields):
        raise ItemError("bad-fields", "its fields are not an object with text keys")
    try:
        decoded: dict[str, Any] = json.loads(json.dumps(dict(fields), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ItemError("bad-fields", f"its fields are no JSON: {error}") from None
    for text in _texts(decoded):
        checked_text(text, "fields")
    return decoded


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise ItemError("bad-fields", f"its fields are nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, depth + 1)
