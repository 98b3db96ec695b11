"""The record that every reader yields, and the checks that it has passed.

A `Record` holds nothing that a store must refuse: its parts passed `indexer/validate.py`. What fails there becomes a
`Rejected` with a code of `Reason`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from indexer.corpus.columns import Columns, find_parts, own_id
from indexer.corpus.image_formats import KNOWN_SUFFIXES
from indexer.corpus.paths import stat_file
from indexer.errors import ItemError
from indexer.reasons import Reason, refusal
from indexer.types import Document, PassedOver, Rejected
from indexer.validate import canonical_json, checked_fields, checked_id, checked_text

IMAGE_SUFFIXES = KNOWN_SUFFIXES
"""What counts as an image by its name; `image_formats.image_format` examines the content."""


@dataclass(frozen=True)
class Record:
    """One entry of a source, not decoded yet.

    Attributes:
        document: What to store. Its image, if any, may still turn out to be invalid.
        stamp: Changes when the content changes. A known id with a known stamp need not be embedded again.
        derived: Whether the id was made from the record's place in its source (a path, an archive's key, a line), so
            that it may name another document in another source. An id that the user wrote is not derived.
    """

    document: Document
    stamp: str
    derived: bool = False


Entry: TypeAlias = Record | Rejected | PassedOver
"""What a reader yields: each thing that it sees is one of the three."""


class Corpus(Protocol):
    """A source of documents that can be read repeatedly, in the same order, one record at a time.

    Attributes:
        source: The canonical name of the source: its absolute path, the same in every run.
    """

    source: str

    def __iter__(self) -> Iterator[Entry]:
        """The entries in order, including everything that is passed over."""
        ...


def record_or_rejected(uri: str, build: Callable[[], Record], hides: str | None = None) -> Record | Rejected:
    """The record that `build` makes, or the reason why it cannot.

    Args:
        uri: Where the record is.
        build: Makes the record; may name the record's id through `of_document`.
        hides: What a reject of unknown id hides; a reject of known id hides that id.
    """
    try:
        return build()
    except _DocumentError as error:
        return Rejected(uri, error.reason, error.detail, hides=error.id)
    except ItemError as error:
        return Rejected(uri, error.reason, error.detail, hides=hides)


@contextmanager
def of_document(id: object) -> Iterator[str]:
    """Check an id, and remember it with every `ItemError` of the block; see `record_or_rejected`.

    Raises:
        ItemError: `bad-id` or `nul`, of the id itself.
    """
    checked = checked_id(id)
    try:
        yield checked
    except ItemError as error:
        raise _DocumentError(error.reason, error.detail, checked) from error


class _DocumentError(ItemError):
    """An `ItemError` of a document whose id is known."""

    def __init__(self, reason: str, detail: str, id: str) -> None:
        super().__init__(reason, detail)
        self.id = id

    def __reduce__(self) -> tuple[type[ItemError], tuple[str, str]]:
        return (ItemError, (self.reason, self.detail))


def make_record(
    *,
    id: object,
    text: object,
    image: Path | bytes | None = None,
    images: Sequence[Path | bytes] = (),
    fields: Mapping[str, Any],
    uri: str,
    stamp: str | None = None,
    derived: bool = False,
) -> Record:
    """Check the parts of a document and put them together.

    Args:
        id: As `checked_id` takes it.
        text: As `checked_text` takes it; a blank one counts as none.
        image: The image, not examined.
        images: All images in order, instead of `image`, if there may be several.
        fields: As `checked_fields` takes them.
        uri: Where the document came from.
        stamp: By default a digest of the content, for an image in a file of its size and modification time.
        derived: Whether the id was made from the record's place.

    Raises:
        ItemError: `bad-id`, `bad-text`, `bad-fields`, `not-unicode`, `nul`, `too-long` or `empty`.
    """
    with of_document(id) as known_id:
        document = Document(
            known_id,
            checked_text(text),
            fields=checked_fields(fields),
            uri=checked_text(uri, "uri"),
            images=images or ([] if image is None else [image]),
        )
        if document.text is None and document.image is None:
            raise refusal(Reason.EMPTY, "The document has neither text nor image.")
        return Record(document, stamp or _content_stamp(document), derived)


def make_sample(
    *,
    id: str,
    text: str | None,
    image: Path | bytes | None = None,
    images: Sequence[Path | bytes] = (),
    details: Mapping[str, Any],
    uri: str,
    stamp: str | None = None,
) -> Record:
    """Like `make_record`, for an image or a text with a JSON file beside it, whose content is `details`.

    An `id` or `text` in the details takes precedence over those given; a `caption` is the text if there is no other. An
    id that is not in the details is derived. `columns.py` has the other rules. An image in the details is that of a
    sample without one; if it cannot be read, that is an error, lest a description become a text document.
    """
    own = own_id(details)
    with of_document(id if own is None else own) as known_id:
        images = images or ([] if image is None else [image])
        named = Columns(image="") if images else Columns()
        parts = find_parts(details, named, None, has_text=bool(text))
        return make_record(
            id=known_id,
            text=parts.text if not text or parts.text_column == "text" else text,
            images=images or parts.images,
            fields=parts.fields,
            uri=uri,
            stamp=stamp,
            derived=own is None,
        )


MAX_JSON_COMMAS = 4_000_000
"""Commas in one object; a list of as many empty lists takes 300 MB of memory."""


def parse_object(content: bytes) -> dict[str, Any]:
    """Read one JSON object. NaN, which Python writes for missing values, becomes null; no field may be infinite.

    Raises:
        ItemError: `not-utf-8`, `bad-json` or `too-long`.
    """
    if (commas := content.count(b",")) > MAX_JSON_COMMAS:
        detail = f"The object has {commas:,} commas in {len(content):,} bytes; the limit is {MAX_JSON_COMMAS:,}."
        raise refusal(Reason.TOO_LONG, detail)
    try:
        value = json.loads(decode_text(content), parse_constant=json_constant)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise refusal(Reason.BAD_JSON, f"Not JSON: {error.msg} at {line}column {error.colno}.") from error
    except (ValueError, RecursionError) as error:
        # ValueError: an integer of more digits than Python converts.
        raise refusal(Reason.BAD_JSON, f"Not usable as JSON: {error}.") from error
    if not isinstance(value, dict):
        raise refusal(Reason.BAD_JSON, f"A JSON object is needed; this is a {type(value).__name__}.")
    return value


def decode_text(content: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Raises:
        ItemError: `not-utf-8`, naming the byte.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refusal(Reason.NOT_UTF8, f"Not UTF-8 at byte {error.start:,}.") from error


def _content_stamp(document: Document) -> str:
    digest = hashlib.sha256()
    text, fields = document.text, canonical_json(document.fields)
    states = [_image_state(image) for image in document.images] or [b""]
    for part in (b"" if text is None else text.encode(), states[0], fields, *states[1:]):
        digest.update(len(part).to_bytes(8, "little"))  # so that parts cannot run into each other
        digest.update(part)
    return digest.hexdigest()[:32]


def _image_state(image: object) -> bytes:
    if not isinstance(image, Path):
        return image if isinstance(image, bytes) else b""
    try:
        state = stat_file(image)
    except ItemError as error:
        return error.reason.encode()  # the decoder reports it, and the stamp changes once the file exists
    return f"{state.st_size}-{state.st_mtime_ns}".encode()


def json_constant(name: str) -> float | None:
    """The values of Python's `NaN` and `Infinity` in JSON."""
    return None if name == "NaN" else float(name)
