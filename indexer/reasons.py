"""Why an item is refused: the closed set of codes that a reject of this package carries.

The codes are kept with the rejects and counted in summaries, so they never change their meaning. The sentence
beside a code, with the numbers, is free text.

What this module does not know: what is done about a reject.
"""

from __future__ import annotations

from indexer.errors import ItemError
from indexer.types import HelpfulEnum


class Reason(HelpfulEnum):
    """The code of a reject, said by the part of an item that is at fault."""

    # The file
    MISSING = "missing"  # nothing there, or a dangling link
    NOT_A_FILE = "not-a-file"  # a directory, fifo, socket or device
    UNREADABLE = "unreadable"  # permissions, or the disk
    TOO_MANY_BYTES = "too-many-bytes"
    EMPTY = "empty"  # zero bytes; of a document: neither text nor image
    TRUNCATED = "truncated"  # ends before its format says so
    DAMAGED = "damaged"  # an archive or a table that cannot be read on
    MEMBERS_APART = "members-apart"  # the files of one document do not lie together in their archive

    CHANGED = "changed"  # no longer what was stored: indexing its source again brings it up to date

    # The picture
    NOT_AN_IMAGE = "not-an-image"
    SVG = "svg"  # a drawing program, not pixels
    UNSUPPORTED_FORMAT = "unsupported-format"  # a picture, of a format that is not read here
    TOO_MANY_PIXELS = "too-many-pixels"
    TOO_COMPLEX = "too-complex"  # scans, comments, directories that cost more than the pixels
    TOO_MANY_IMAGES = "too-many-images"  # of one document
    MISSING_PACKAGE = "missing-package"  # a format that an optional package decodes
    DECODE_FAILED = "decode-failed"
    ASPECT = "aspect"  # too long and narrow for the model
    NO_VECTOR = "no-vector"  # what the model gave points nowhere

    # The record
    BAD_JSON = "bad-json"  # no JSON, or no object
    NO_COLUMN = "no-column"  # one that the caller named
    BAD_ROW = "bad-row"  # of a CSV file: its quotes or the number of its values
    NOT_UTF8 = "not-utf-8"
    NUL = "nul"  # SQL stores cannot hold U+0000
    TOO_LONG = "too-long"
    BAD_ID = "bad-id"
    BAD_TEXT = "bad-text"
    BAD_IMAGE = "bad-image"  # neither a path nor encoded bytes
    BAD_FIELDS = "bad-fields"  # JSON cannot hold them
    NOT_UNICODE = "not-unicode"  # half a surrogate pair
    REMOTE_URI = "remote-uri"  # nothing here fetches

    # The id among the others
    DUPLICATE_ID = "duplicate-id"  # came before in this source or call; the first one counts
    OTHER_SOURCE = "other-source"  # belongs to a document of another source


def refusal(reason: Reason, detail: str) -> ItemError:
    """The error to raise for an item that cannot be used."""
    return ItemError(reason.value, detail)
