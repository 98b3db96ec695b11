"""The record that every reader yields, and the checks that it has passed.

A `Record` holds nothing that a store must refuse: its parts passed `indexer/validate.py`. What fails there becomes a
`Rejected` with a code of `Reason`.

What this module does not know: where records come from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from indexer.corpus.image_formats import KNOWN_SUFFIXES
from indexer.corpus.paths import printable, stat_file
from indexer.corpus.reasons import Reason, refusal
from indexer.errors import ItemError
from indexer.types import Document, PassedOver, Rejected
from indexer.validate import canonical_json, checked_fields, checked_id, checked_text

IMAGE_SUFFIXES = KNOWN_SUFFIXES
"""What is taken for an image by its name; what is in it, `image_formats.image_format` tells."""


@dataclass(frozen=True)
class Record:
    """One entry of a source, not decoded yet.

    Attributes:
        document: What to store. Its image, if any, may still turn out to be none.
        stamp: Changes when the content changes. A known id with a known stamp need not be embedded again.
        derived: Whether the id was made from the record's place in its source (a path, an archive's key, a line) and
            so may name another document in another source. An id that the user wrote is not derived.
    """

    document: Document
    stamp: str
    derived: bool = False


Entry: TypeAlias = Record | Rejected | PassedOver
"""What a reader yields: everything that it sees is one of the three."""


class Corpus(Protocol):
    """A source of documents that can be read again and again, in the same order, one record at a time.

    Attributes:
        source: The canonical name of the source: its absolute path, the same in every run.
    """

    source: str

    def __iter__(self) -> Iterator[Entry]:
        """The entries in order, everything seen among them."""
        ...


def record_or_rejected(uri: str, build: Callable[[], Record], hides: str | None = None) -> Record | Rejected:
    """The record that `build` makes, or the reason why it cannot.

    Args:
        uri: Where the record is.
        build: May say in `of_document` whose record it is making.
        hides: What a reject hides whose id is not known; one whose id is known hides that.
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
    image: Path | bytes | None,
    fields: Mapping[str, Any],
    uri: str,
    stamp: str | None = None,
    derived: bool = False,
) -> Record:
    """Check the parts of a document and put them together.

    Args:
        id: As `checked_id` takes it.
        text: As `checked_text` takes it; a blank one counts as none.
        image: The picture, not looked at.
        fields: As `checked_fields` takes them.
        uri: Where the document came from.
        stamp: By default a digest of the content, and for an image in a file of its size and time.
        derived: Whether the id was made from the record's place.

    Raises:
        ItemError: `bad-id`, `bad-text`, `bad-fields`, `not-unicode`, `nul`, `too-long` or `empty`.
    """
    with of_document(id) as known_id:
        document = Document(known_id, checked_text(text), image, checked_fields(fields), checked_text(uri, "uri"))
        if document.text is None and image is None:
            raise refusal(Reason.EMPTY, "The document has neither text nor image.")
        return Record(document, stamp or _content_stamp(document.text, image, canonical_json(document.fields)), derived)


def make_sample(
    *,
    id: str,
    text: str | None,
    image: Path | bytes | None,
    details: Mapping[str, Any],
    uri: str,
    stamp: str | None = None,
) -> Record:
    """Like `make_record`, for an image or a text with a JSON file beside it, whose content is `details`.

    An `id` or `text` in the details goes before those given; a `caption` is the text where there is no other. An id
    that is not in the details is derived.
    """
    own = _first(details.get("id"))
    with of_document(id if own is None else own) as known_id:
        return make_record(
            id=known_id,
            text=_first(details.get("text"), text, details.get("caption")),
            image=image,
            fields=fields_of(details, taken=frozenset({"id", "text"})),
            uri=uri,
            stamp=stamp,
            derived=own is None,
        )


def parse_object(content: bytes) -> dict[str, Any]:
    """Read one JSON object. NaN, which Python writes for what is missing, is null; no field may be infinite.

    Raises:
        ItemError: `not-utf-8` or `bad-json`.
    """
    try:
        value = json.loads(decode_text(content), parse_constant=_constant)
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


def fields_of(entry: Mapping[str, Any], *, taken: frozenset[str]) -> dict[str, Any]:
    """The fields of a JSON object: every key that is not `taken`, overlaid with the object under `fields`.

    Raises:
        ItemError: `bad-fields`, when `fields` is there and no object.
    """
    explicit = entry.get("fields") or {}
    if not isinstance(explicit, dict):
        raise refusal(Reason.BAD_FIELDS, f"`fields` must be an object, not {type(explicit).__name__}.")
    others = {key: value for key, value in entry.items() if key not in taken and key != "fields"}
    return others | explicit


def image_path(value: str, folder: Path) -> Path:
    """The file that an entry means by its `image`, relative to the folder that the entry's own file is in.

    Raises:
        ItemError: `remote-uri` or `bad-image`.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        raise refusal(Reason.REMOTE_URI, f"The image is {printable(value[:80])}; only paths are read, no URIs.")
    if not value or value.startswith("data:") or "\0" in value or not _is_unicode(value):
        raise refusal(Reason.BAD_IMAGE, f"The image is {printable(value[:80])!r}, which is no path.")
    return folder / value


def _first(*values: object) -> object:
    return next((value for value in values if value not in (None, "")), None)


def _content_stamp(text: str | None, image: Path | bytes | None, fields: bytes) -> str:
    digest = hashlib.sha256()
    for part in (b"" if text is None else text.encode(), _image_state(image), fields):
        digest.update(len(part).to_bytes(8, "little"))  # so that no part can run into the next
        digest.update(part)
    return digest.hexdigest()[:32]


def _image_state(image: Path | bytes | None) -> bytes:
    if not isinstance(image, Path):
        return image or b""
    try:
        state = stat_file(image)
    except ItemError as error:
        return error.reason.encode()  # The decoder will say it aloud, and the stamp changes once the file is there.
    return f"{state.st_size}-{state.st_mtime_ns}".encode()


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)
