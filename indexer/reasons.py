"""The closed set of codes that say why an item is rejected.

The codes are stored with the rejects and counted in summaries, so their meaning never changes. The sentence that goes
with a code, with the numbers, is free text.

What this module does not know: what becomes of a reject.
"""

from __future__ import annotations

from indexer.errors import ItemError
from indexer.types import HelpfulEnum


class Reason(HelpfulEnum):
    """The code of a reject, grouped by the part of the item that is at fault."""

    # The file
    MISSING = "missing"  # nothing at that path, or a dangling link
    NOT_A_FILE = "not-a-file"  # a directory, fifo, socket or device
    UNREADABLE = "unreadable"  # permissions, or the disk
    TOO_MANY_BYTES = "too-many-bytes"
    EMPTY = "empty"  # zero bytes; for a document: neither text nor image
    TRUNCATED = "truncated"  # ends before its format says so
    DAMAGED = "damaged"  # an archive or a table that cannot be read further
    MEMBERS_APART = "members-apart"  # the files of one document are not adjacent in their archive

    CHANGED = "changed"  # differs from what was stored: indexing its source again updates it

    # The image
    NOT_AN_IMAGE = "not-an-image"
    SVG = "svg"  # a drawing program, not pixels
    UNSUPPORTED_FORMAT = "unsupported-format"  # an image in a format that is not read here
    TOO_MANY_PIXELS = "too-many-pixels"
    TOO_COMPLEX = "too-complex"  # scans, comments, directories that cost more than the pixels
    TOO_MANY_IMAGES = "too-many-images"  # more images than one document may have
    MISSING_PACKAGE = "missing-package"  # a format that an optional package decodes
    DECODE_FAILED = "decode-failed"
    ASPECT = "aspect"  # too long and narrow for the model
    NO_VECTOR = "no-vector"  # the model's vector has no direction

    # The record
    BAD_JSON = "bad-json"  # not JSON, or not an object
    NO_COLUMN = "no-column"  # the caller named it
    BAD_ROW = "bad-row"  # in a CSV file: quotes or number of values
    NOT_UTF8 = "not-utf-8"
    NUL = "nul"  # SQL databases cannot store U+0000
    TOO_LONG = "too-long"
    BAD_ID = "bad-id"
    BAD_TEXT = "bad-text"
    BAD_IMAGE = "bad-image"  # neither a path nor encoded bytes
    BAD_FIELDS = "bad-fields"  # JSON cannot represent them
    NOT_UNICODE = "not-unicode"  # half a surrogate pair
    REMOTE_URI = "remote-uri"  # nothing here fetches URLs

    # The id and other ids
    DUPLICATE_ID = "duplicate-id"  # used before in this source or call; the first document counts
    OTHER_SOURCE = "other-source"  # belongs to a document of another source


def refusal(reason: Reason, detail: str) -> ItemError:
    """The error to raise for an item that cannot be used."""
    return ItemError(reason.value, detail)
