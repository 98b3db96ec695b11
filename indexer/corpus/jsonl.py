"""A file of JSON lines (`.jsonl`, `.ndjson`, also gzipped): a document on each.

* `id` is a string or an integer. A line without one is named `<stem>-<line>`, which holds only as long as no
  line is put before it: give ids to what will be edited.
* `text` is a string; `image` a path, relative to the folder of the file; `image_base64` an encoded image.
* `fields` is an object, and every other key is one more field.
* The stamp is a digest of the content; an image in a file counts by its size and time of change.

A line that cannot be used is rejected by its number, and reading goes on behind it. Blank lines are skipped. Where the
id of a rejected line is not known, it may be any of the file's: no document of it may then be taken for gone.

What this module does not know: whether an image is there, and is one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from indexer.corpus.paths import portable_name
from indexer.corpus.reasons import Reason, refusal
from indexer.corpus.records import (
    Record,
    fields_of,
    image_path,
    make_record,
    of_document,
    parse_object,
    record_or_rejected,
)
from indexer.corpus.streams import open_stream, without_compression
from indexer.errors import ItemError
from indexer.types import Rejected

MAX_LINE_BYTES = 128 * 1024 * 1024

_KEYS = frozenset({"id", "text", "image", "image_base64"})


class JsonlCorpus:
    """The documents of a file of JSON lines.

    Args:
        path: The file.
        max_line_bytes: Reject a longer line.
        name: What the ids of lines without one begin with; by default the file's stem.

    Attributes:
        source: The file's absolute path.
    """

    def __init__(self, path: Path, *, max_line_bytes: int = MAX_LINE_BYTES, name: str | None = None) -> None:
        self._path = path.absolute()  # a link's own place: what it names lies beside it
        self._max_line_bytes = max_line_bytes
        self._name = name or portable_name(without_compression(self._path.name).rpartition(".")[0])
        self.source = portable_name(str(self._path))

    def __iter__(self) -> Iterator[Record | Rejected]:
        try:
            with open_stream(self._path) as stream:
                for number, line in enumerate(_lines(stream, self._max_line_bytes), start=1):
                    if line is None or line.strip():
                        uri = f"{self._path.as_uri()}#line={number}"
                        yield record_or_rejected(uri, partial(self._record, line, number, uri), hides="")
        except ItemError as error:
            yield Rejected(self._path.as_uri(), error.reason, error.detail, hides="")

    def _record(self, line: bytes | None, number: int, uri: str) -> Record:
        if line is None:
            raise refusal(Reason.TOO_LONG, f"The line has more than {self._max_line_bytes:,} bytes.")
        entry = parse_object(line)
        own = entry.get("id")
        with of_document(f"{self._name}-{number}" if own is None else own) as id:
            return make_record(
                id=id,
                text=entry.get("text"),
                image=self._image(entry),
                fields=fields_of(entry, taken=_KEYS),
                uri=uri,
                derived=own is None,
            )

    def _image(self, entry: dict[str, Any]) -> Path | bytes | None:
        match entry.get("image"), entry.get("image_base64"):
            case None, None:
                return None
            case str(path), None:
                return image_path(path, self._path.parent)
            case None, str(encoded):
                try:
                    return base64.b64decode(encoded, validate=True)
                except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
                    raise refusal(Reason.BAD_IMAGE, f"The image is not base64: {error}.") from error
            case path, encoded:
                kinds = f"{type(path).__name__} and {type(encoded).__name__}"
                detail = f"`image` or `image_base64` must be a string and the other absent; they are {kinds}."
                raise refusal(Reason.BAD_IMAGE, detail)


def _lines(stream: BufferedIOBase, limit: int) -> Iterator[bytes | None]:
    """The lines of a stream; None in place of one that is longer than `limit`, which is never held whole."""
    while line := stream.readline(limit + 1):
        if len(line) <= limit:
            yield line.removesuffix(b"\n")
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(limit)
        yield None
