"""A reader of JSON lines (`.jsonl`, `.ndjson`, also compressed), one document per line.

* `id` is a string or an integer. A line without one is named `<stem>-<line>`. This name changes when a line is
  inserted before it, so give ids to files that will be edited.
* `columns.py` decides which keys are the text and the image. A path is relative to the folder of the file.
* `fields` is an object, and every other key becomes a field.
* The stamp is a digest of the content; an image in a file counts by its size and modification time.

A line that cannot be used is rejected by its number, and reading goes on after it. Blank lines are skipped. If the id
of a rejected line is not known, it may be any of the file's, so none of its documents may be pruned.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from indexer.corpus.columns import Columns
from indexer.corpus.empty import or_empty
from indexer.corpus.lines import MAX_LINE_BYTES, Line, read_lines
from indexer.corpus.paths import portable_name, printable
from indexer.corpus.records import Entry, parse_object
from indexer.corpus.rows import Rows
from indexer.corpus.streams import open_stream, without_compression
from indexer.errors import ItemError
from indexer.reasons import Reason, refusal
from indexer.types import Rejected


class JsonlCorpus:
    """The documents of a file of JSON lines.

    Args:
        path: The file.
        max_line_bytes: Reject a longer line.
        name: Prefix of the ids of lines without one; by default the file's stem.
        columns: Which keys are the id, the text and the image; by default they are found by name.

    Attributes:
        source: The file's absolute path.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_line_bytes: int = MAX_LINE_BYTES,
        name: str | None = None,
        columns: Columns | None = None,
    ) -> None:
        self._path = path.absolute()  # not resolved: paths are relative to the link
        self._max_line_bytes = max_line_bytes
        self._name = name or portable_name(without_compression(self._path.name).rpartition(".")[0])
        self._columns = columns or Columns()
        self.source = portable_name(str(self._path))

    def __iter__(self) -> Iterator[Entry]:
        return or_empty(self._read(), self._path, f"{self._name}-")

    def _read(self) -> Iterator[Entry]:
        uri = self._path.as_uri()
        rows = Rows(uri, self._columns, self._path.parent)
        try:
            with open_stream(self._path) as stream:
                for line in read_lines(stream, self._max_line_bytes):
                    yield from self._line(line, rows, f"{uri}#line={line.number}")
                yield from rows.unseen()
        except ItemError as error:
            yield Rejected(uri, error.reason, f"{printable(self._path.name)}: {error.detail}", hides="")

    def _line(self, line: Line, rows: Rows, uri: str) -> Iterator[Entry]:
        try:
            if line.content is None:
                detail = (
                    f"The line, which begins at byte {line.offset:,}, has more than {self._max_line_bytes:,} bytes."
                )
                raise refusal(Reason.TOO_LONG, detail)
            entry = parse_object(line.content)
        except ItemError as error:
            yield Rejected(uri, error.reason, error.detail, hides="")
            return
        yield from rows.entries(entry, f"{self._name}-{line.number}", uri)
