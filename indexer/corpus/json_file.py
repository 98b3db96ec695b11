"""A reader of JSON files (`.json`, also compressed) that hold a list of objects, such as annotations: a document each.

Consecutive objects without a list count, too, so JSON lines under the name `.json` are read, whatever their line
breaks. `jsonl.py` describes the objects; one without an id is named `<file stem>-<number>`, counted from 1.

The file is read object by object and never held whole. Reading ends at an object that is not JSON, since the next one
cannot be found.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from indexer.corpus.columns import Columns
from indexer.corpus.empty import or_empty
from indexer.corpus.lines import MAX_LINE_BYTES, MAX_SILENT_BYTES
from indexer.corpus.paths import portable_name, printable
from indexer.corpus.records import MAX_JSON_COMMAS, Entry, json_constant
from indexer.corpus.rows import Rows
from indexer.corpus.streams import open_stream, without_compression
from indexer.errors import ItemError
from indexer.reasons import Reason, refusal
from indexer.types import Rejected

_CHUNK_BYTES = 256 * 1024
_MARK = re.compile(r"[^ \t\r\n]")


class JsonCorpus:
    """The documents of a JSON file.

    Args:
        path: The file.
        name: Prefix of the ids of objects without one; by default the file's stem.
        columns: Which keys are the id, the text and the image; by default they are found by name.
        max_object_bytes: Stop at a longer object.

    Attributes:
        source: The file's absolute path.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        columns: Columns | None = None,
        max_object_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self._path = path.absolute()  # not resolved: paths are relative to the link
        self._name = name or portable_name(without_compression(self._path.name).rpartition(".")[0])
        self._columns = columns or Columns()
        self._max_object_bytes = max_object_bytes
        self.source = portable_name(str(self._path))

    def __iter__(self) -> Iterator[Entry]:
        return or_empty(self._read(), self._path, f"{self._name}-")

    def _read(self) -> Iterator[Entry]:
        uri = self._path.as_uri()
        rows = Rows(uri, self._columns, self._path.parent)
        number = 0
        try:
            with open_stream(self._path) as stream:
                for entry in _Objects(stream, self._max_object_bytes):
                    number += 1
                    place = f"{uri}#item={number}"
                    if isinstance(entry, dict):
                        _refuse_coco(entry)
                        yield from rows.entries(entry, f"{self._name}-{number}", place)
                    else:
                        detail = f"A JSON object is needed; this is a {type(entry).__name__}."
                        yield Rejected(place, Reason.BAD_JSON.value, detail, hides="")
                yield from rows.unseen()
        except ItemError as error:
            detail = f"{printable(self._path.name)} cannot be read beyond object {number:,}: {error.detail}"
            yield Rejected(uri, error.reason, detail, hides="")


class _Objects:
    """The values of a JSON list, or of consecutive values, one at a time."""

    def __init__(self, stream: BufferedIOBase, limit: int) -> None:
        self._stream, self._limit = stream, limit
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoder = json.JSONDecoder(parse_constant=json_constant)
        self._text = ""
        self._place = 0  # in the text
        self._before = 0  # characters before the text
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        is_list = self._next_mark() == "["
        self._place += is_list
        while mark := self._next_mark():
            if mark == "]" and is_list:
                self._place += 1
                if mark := self._next_mark():
                    raise refusal(Reason.BAD_JSON, f"the list is followed by {mark!r} at {self._where()}.")
                return
            yield self._value()
            if self._next_mark() == ",":
                self._place += 1
        if is_list:
            raise refusal(Reason.TRUNCATED, f"the list has no end at {self._where()}.")

    def _where(self) -> str:
        return f"character {self._before + self._place:,}"

    def _next_mark(self) -> str:
        """The next character that is not blank; none at the end."""
        white = 0
        while True:
            begin = self._place
            if match := _MARK.search(self._text, begin):
                self._place = match.start()
                return match[0]
            self._place = len(self._text)
            white += self._place - begin
            if white > MAX_SILENT_BYTES:
                raise refusal(Reason.TOO_MANY_BYTES, f"{white:,} blank characters lead to {self._where()}.")
            if not self._more(_CHUNK_BYTES):
                return ""

    def _more(self, count: int) -> bool:
        """Read more; False at the end."""
        self._before, self._text, self._place = self._before + self._place, self._text[self._place :], 0
        pieces = []
        while count > 0 and not self._ended:
            chunk = self._stream.read1(count)
            self._ended = not chunk
            count -= len(chunk)
            try:
                pieces.append(self._decode.decode(chunk, final=self._ended))
            except UnicodeDecodeError as error:
                raise refusal(Reason.NOT_UTF8, f"after {self._where()} it is not UTF-8 ({error.reason}).") from error
        self._text += "".join(pieces)
        return any(pieces)

    def _value(self) -> Any:
        while True:
            try:
                value, self._place = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                self._read_on(error)
            except (ValueError, RecursionError) as error:  # a number of 4,300 digits; lists in lists
                raise refusal(Reason.BAD_JSON, f"not usable as JSON at {self._where()}: {error}.") from error
            else:
                return value

    def _read_on(self, error: json.JSONDecodeError) -> None:
        """Read more of a value that is cut off, doubling the text, so that it is not parsed often."""
        length = len(self._text) - self._place
        cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - 10
        if length > self._limit:
            detail = f"the object at {self._where()} has more than {self._limit:,} characters."
            raise refusal(Reason.TOO_LONG, detail) from error
        if (commas := self._text.count(",", self._place)) > MAX_JSON_COMMAS:
            detail = f"the object at {self._where()} has more than {commas:,} commas; the limit is {MAX_JSON_COMMAS:,}."
            raise refusal(Reason.TOO_LONG, detail) from error
        if not cut or not self._more(max(_CHUNK_BYTES, length)):
            reason = Reason.TRUNCATED if cut else Reason.BAD_JSON
            raise refusal(reason, f"not JSON at {self._where()}: {error.msg}.") from error


def _refuse_coco(entry: dict[str, Any]) -> None:
    if isinstance(entry.get("images"), list) and isinstance(entry.get("annotations"), list):
        raise refusal(
            Reason.BAD_JSON,
            "it is one object with `images` and `annotations`, as COCO has it; a list of objects is needed. Write an "
            'object for each image: {"id": ..., "file_name": ..., "captions": [...]}.',
        )
