"""A reader of comma- or tab-separated values (`.csv`, `.tsv`, also compressed), one document per row.

* The first line has the names of the columns. `columns.py` decides which are the id, the text and the image. A row
  without an id is named `<file stem>-<line>`, by the line that it begins on.
* UTF-8, with or without a byte order mark. Values may be quoted, with line breaks and doubled quotes inside. A `.tsv`
  is separated by tabs; the header of a `.csv` shows whether it uses commas, semicolons, tabs or vertical bars.
* A value is a number if it is written as in JSON, and a boolean if it is `true` or `false`; an empty value is
  missing. Numbers with leading zeros, or of more than 64 bits, stay texts: `007` stays `007`. Ids and texts are never
  converted.
* A row with wrong quotes or a wrong number of values is rejected on its own.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from indexer.corpus.columns import TEXT_NAMES, Columns, find_id, require_columns
from indexer.corpus.empty import or_empty
from indexer.corpus.lines import Line, read_lines
from indexer.corpus.paths import portable_name, printable
from indexer.corpus.records import Entry, decode_text
from indexer.corpus.rows import Rows
from indexer.corpus.streams import open_stream, without_compression
from indexer.errors import ItemError
from indexer.reasons import Reason, refusal
from indexer.types import PassedOver, Rejected
from indexer.validate import WHOLE

MAX_ROW_BYTES = 32 * 1024 * 1024
"""Bytes of a row, and so of a quoted value. Beyond it, a quote counts as never closed."""
_SEPARATORS = (",", ";", "\t", "|")
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")


class CsvCorpus:
    """The documents of a table of separated values.

    Args:
        path: The file.
        name: Prefix of the ids of rows without one; by default the file's stem.
        columns: Which columns are the id, the text and the image; by default they are found by name.

    Attributes:
        source: The file's absolute path.
    """

    def __init__(self, path: Path, *, name: str | None = None, columns: Columns | None = None) -> None:
        self._path = path.absolute()  # not resolved: paths are relative to the link
        stem, _, suffix = without_compression(self._path.name).rpartition(".")
        self._separators = ("\t",) if suffix.lower() == "tsv" else _SEPARATORS
        self._name = name or portable_name(stem)
        self._columns = columns or Columns()
        self.source = portable_name(str(self._path))

    def __iter__(self) -> Iterator[Entry]:
        return or_empty(self._read(), self._path, f"{self._name}-")

    def _read(self) -> Iterator[Entry]:
        uri = self._path.as_uri()
        try:
            with open_stream(self._path) as stream:
                yield from self._entries(_Reader(read_lines(stream, MAX_ROW_BYTES, keep_blank=True)), uri)
        except ItemError as error:
            yield Rejected(uri, error.reason, f"{printable(self._path.name)}: {error.detail}", hides="")

    def _entries(self, reader: _Reader, uri: str) -> Iterator[Entry]:
        header = reader.header(self._separators)
        if header is None:
            return
        names: dict[int, str] = {}
        for column, name in enumerate(header):
            if not name or name in names.values():
                kind = "repeated column" if name else "column without a name"
                yield PassedOver(f"{uri}#column={quote(name or str(column + 1), errors='replace')}", kind)
            else:
                names[column] = name
        require_columns(list(names.values()), self._columns)
        own_ids = find_id(dict.fromkeys(names.values()), self._columns)[0] is not None
        as_text = {
            self._columns.id,
            self._columns.text,
            *(n for n in names.values() if _plain(n) in ("id", *TEXT_NAMES)),
        }
        rows = Rows(uri, self._columns, self._path.parent, only_objects=True)
        for number, values in reader.rows(len(header)):
            place = f"{uri}#line={number}"
            if isinstance(values, ItemError):
                hides = "" if own_ids else f"{self._name}-{number}"
                yield Rejected(place, values.reason, values.detail, hides=hides)
                continue
            row = {name: _value(values[n], as_text=name in as_text) for n, name in names.items()}
            yield from rows.entries(row, f"{self._name}-{number}", place)


class _Reader:
    """Joins lines into rows. A bad row costs its first line only, not the lines that its open quote swallowed."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._ahead: deque[Line] = deque()  # lines read ahead
        self._separator = ","

    def header(self, separators: tuple[str, ...]) -> list[str] | None:
        """The names of the columns; None for an empty file.

        Raises:
            ItemError: The header cannot be read, so the file cannot.
        """
        line = self._next()
        while line is not None and line.content is not None and not line.content.strip():
            line = self._next()
        if line is None:
            return None
        self._ahead.append(line)
        head = decode_text(line.content or b"")
        unquoted = re.sub('"[^"]*"', "", head)
        self._separator = max(separators, key=lambda each: (unquoted.count(each), -separators.index(each)))
        _, values = self._row()
        if isinstance(values, ItemError):
            raise ItemError(values.reason, f"The header cannot be read: {values.detail}")
        return [name.strip() for name in values]

    def rows(self, columns: int) -> Iterator[tuple[int, list[str] | ItemError]]:
        """The rows with the numbers of their first lines, or errors in place of rows."""
        while (line := self._next()) is not None:
            if line.content is not None and not line.content.strip():
                continue
            self._ahead.appendleft(line)
            number, values = self._row()
            if not isinstance(values, ItemError) and len(values) != columns:
                detail = f"The row has {len(values):,} values; the header names {columns:,}."
                values = refusal(Reason.BAD_ROW, detail)
            if isinstance(values, ItemError) and self._separator == "\t":
                values = self._unquoted(line, columns) or values
            yield number, values

    def _row(self) -> tuple[int, list[str] | ItemError]:
        """The next row, with the number of its first line."""
        used: list[Line] = []
        size = 0

        def texts() -> Iterator[str]:
            nonlocal size
            while (line := self._next()) is not None:
                used.append(line)
                if line.content is None or (size := size + len(line.content) + 1) > MAX_ROW_BYTES:
                    raise refusal(Reason.TOO_LONG, f"The row has more than {MAX_ROW_BYTES:,} bytes.")
                yield decode_text(line.content).removesuffix("\r") + "\n"

        csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))  # the default is 128 KiB, and global
        try:
            values = next(csv.reader(texts(), delimiter=self._separator, strict=True))
        except (csv.Error, ItemError) as error:
            self._ahead.extendleft(reversed(used[1:]))
            if isinstance(error, ItemError):
                return used[0].number, error
            detail = f"The row cannot be read: {error}. Double a quote that is part of a value."
            return used[0].number, refusal(Reason.BAD_ROW, detail)
        return used[0].number, values

    def _unquoted(self, line: Line, columns: int) -> list[str] | None:
        """A line whose quotes are taken literally, as in many tab-separated tables."""
        if line.content is None:
            return None
        try:
            values = decode_text(line.content).removesuffix("\r").split("\t")
        except ItemError:
            return None
        return values if len(values) == columns else None

    def _next(self) -> Line | None:
        return self._ahead.popleft() if self._ahead else next(self._lines, None)


def _value(text: str, *, as_text: bool) -> Any:
    """The typed value of a cell."""
    if not text.strip():
        return None
    if as_text:
        return text
    if text in ("true", "false", "True", "False", "TRUE", "FALSE"):
        return text.lower() == "true"
    if _WHOLE.fullmatch(text):
        return int(text) if len(text) <= 20 and int(text) in WHOLE else text
    if len(text) < 400 and _NUMBER.fullmatch(text):
        number = float(text)
        return text if number in (float("inf"), float("-inf")) else number
    return text


def _plain(name: str) -> str:
    return name.strip().lower()
