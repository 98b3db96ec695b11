"""A reader of one or more Parquet files, one document per row.

* `id` is a column of strings or integers. Without the column, or if it is null, a row is named
  `<file stem>-<row>`, counted from 0 in its file.
* `columns.py` decides which columns are the text and the images: encoded bytes, paths relative to the folder of the
  file, structs of both (`bytes`, `path`), as Hugging Face's datasets writes them, or lists of those. A column of bytes
  under any other name counts, too, if its first values are images.
* Every other column is a field; `indexer/validate.py` defines how its values are converted. Columns of other bytes
  are passed over, since JSON cannot hold them.
* The stamp is a digest of the content; an image in a file counts by its size and modification time.

Rows are read in small batches, so memory does not grow with the file or its row groups; the sizes that pages claim are
checked before they are unpacked. A row group that cannot be read costs its own rows only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import quote

from indexer.corpus.columns import Columns, find_id, require_columns
from indexer.corpus.empty import or_empty
from indexer.corpus.parquet_pages import Pages, survey
from indexer.corpus.parquet_types import (
    ColumnTypes,
    arrow_errors,
    in_microseconds,
    is_heavy,
    python_value,
    require_small,
)
from indexer.corpus.paths import open_file, portable_name, printable
from indexer.corpus.records import Entry
from indexer.corpus.rows import Rows
from indexer.errors import ItemError
from indexer.reasons import Reason, refusal
from indexer.types import PassedOver, Rejected

_BATCH_ROWS = 32
_BATCH_BYTES = 128 * 1024 * 1024
_BATCH_VALUES = 4 * 1024 * 1024
_READ_BYTES = 1024 * 1024
MAX_PAGE_BYTES = 1024 * 1024 * 1024
MAX_CHUNK_VALUES = 256 * 1024 * 1024
"""Values of lists in one column of a row group: all may be in a single row."""


class ParquetCorpus:
    """The documents of Parquet files, file after file.

    Args:
        files: The files, by their absolute paths.
        source: The absolute path of the file, or of the folder that holds the files.
        name: Prefix of the ids of rows without one; by default the stem of each row's file.
        columns: Which columns are the id, the text and the image; by default they are found by name.

    Attributes:
        source: As given.
    """

    def __init__(
        self, files: Sequence[Path], source: str, name: str | None = None, columns: Columns | None = None
    ) -> None:
        self._files = files
        self._name = name
        self._columns = columns or Columns()
        self.source = source

    def __iter__(self) -> Iterator[Entry]:
        for file in self._files:
            name = self._name or portable_name(file.stem)
            yield from or_empty(self._read(file, name), file, f"{name}-")

    def _read(self, file: Path, name: str) -> Iterator[Entry]:
        try:
            with open_file(file) as opened:
                yield from _Table(opened, file, name, self._columns).entries()
        except ItemError as error:
            # Nothing is known about the rows, which may have ids of their own.
            yield Rejected(file.as_uri(), error.reason, error.detail, hides="")


class _Table:
    """One file.

    Raises:
        ItemError: It cannot be read at all.
    """

    def __init__(self, file: BufferedReader, path: Path, name: str, columns: Columns) -> None:
        self._file, self._path, self._name = file, path, name
        self._uri = path.as_uri()
        with arrow_errors(f"{printable(path)} cannot be read"):
            self._table, self._types = self._open()
        require_columns(self._types.names, columns)
        self._columns = columns
        id_column, _ = find_id(dict.fromkeys(self._types.names), columns)
        self._hides = f"{name}-" if id_column is None else ""

    def entries(self) -> Iterator[Entry]:
        """The entries of the file's rows, and notes on the columns that are passed over."""
        images, passed_over = self._image_columns()
        for name in passed_over:
            yield PassedOver(f"{self._uri}#column={quote(name, errors='replace')}", "column of bytes")
        wanted = [name for name in self._types.names if name not in passed_over]
        rows = Rows(self._uri, self._columns, self._path.parent, image_columns=images, only_objects=True)
        first = 0
        for group in range(self._table.num_row_groups):
            count = self._table.metadata.row_group(group).num_rows
            read = 0
            try:
                for batch in self._batches(group, wanted):
                    columns = {n: in_microseconds(c) for n, c in zip(batch.schema.names, batch.columns, strict=True)}
                    heavy = {name for name, column in columns.items() if is_heavy(column)}
                    for row in range(batch.num_rows):
                        yield from self._row(columns, heavy, row, first + read, rows)
                        read += 1
            except ItemError as error:
                rows_lost = f"beyond row {first + read:,}, up to row {first + count - 1:,}"
                detail = f"{printable(self._path)} cannot be read {rows_lost} ({error.detail})."
                yield Rejected(self._uri, error.reason, detail, hides=self._hides)
            first += count

    def _row(self, columns: dict[str, Any], heavy: set[str], row: int, number: int, rows: Rows) -> Iterator[Entry]:
        uri = f"{self._uri}#row={number}"
        values: dict[str, Any] = {}
        fault: ItemError | None = None
        for name, column in columns.items():
            try:
                if name in heavy:
                    require_small(name, column, row)
                values[name] = python_value(name, column[row])
            except ItemError as error:
                fault = fault or error
        if fault is None:
            yield from rows.entries(values, f"{self._name}-{number}", uri)
            return
        id_column, id = find_id({name: values.get(name) for name in columns}, self._columns)
        hides = str(id) if isinstance(id, str | int) else f"{self._name}-{number}" if id_column is None else ""
        yield Rejected(uri, fault.reason, fault.detail, hides=hides)

    def _open(self) -> tuple[Any, ColumnTypes]:
        import pyarrow.parquet as pq

        # With a buffer, pages are read one by one; without one, the whole column of a row group at once.
        table = pq.ParquetFile(self._file, buffer_size=_READ_BYTES)
        schema = table.metadata.schema
        leaves = [schema.column(number) for number in range(len(schema))]
        # A dictionary of long values, repeated by one list, may unpack to a thousand times the file.
        kept = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.max_repetition_level > 0]
        if kept:
            table = pq.ParquetFile(self._file, buffer_size=_READ_BYTES, read_dictionary=kept)
        return table, ColumnTypes(table.schema_arrow)

    def _image_columns(self) -> tuple[tuple[str, ...], list[str]]:
        """The columns that hold images, and the columns of other bytes, which are passed over."""
        images: list[str] = []
        passed_over: list[str] = []
        for name in self._types.of_bytes:
            if self._columns.image is not None:
                is_image = name == self._columns.image
            else:
                is_image = self._types.is_image(name) is not False and self._holds_images(name)
            (images if is_image else passed_over).append(name)
        return tuple(images), passed_over

    def _holds_images(self, name: str) -> bool:
        """Whether a column of bytes holds images, by its first value."""
        if self._types.is_image(name):
            return True
        for group in range(self._table.num_row_groups):
            try:
                for batch in self._batches(group, [name]):
                    if (found := self._types.look(batch.column(0))) is not None:
                        return found
            except ItemError:
                return True  # reading the rows reports it
        return False

    def _batches(self, group: int, columns: Sequence[str]) -> Iterator[Any]:
        """The rows of a row group, a few at a time.

        Raises:
            ItemError: `damaged` or `too-many-bytes`.
        """
        total = self._table.metadata.row_group(group).num_rows
        rows = _batch_rows(self._survey(group, frozenset(columns)), total)
        batches = self._table.iter_batches(rows, [group], columns=list(columns), use_threads=False)
        while True:
            with arrow_errors("it is damaged"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _survey(self, group: int, columns: frozenset[str]) -> dict[str, Pages]:
        """The sizes that the pages of a row group claim, by leaf column."""
        found = {}
        metadata = self._table.metadata.row_group(group)
        for number in range(metadata.num_columns):
            with arrow_errors("it is damaged"):
                chunk = metadata.column(number)
                name = chunk.path_in_schema
                starts = [start for start in (chunk.dictionary_page_offset, chunk.data_page_offset) if start]
                length = chunk.total_compressed_size
            if self._types.column_of(name) in columns and starts:
                found[name] = survey(self._file, min(starts), length)
        return found


def _batch_rows(claims: dict[str, Pages], rows: int) -> int:
    """How many of a row group's rows to read at once.

    Raises:
        ItemError: `too-many-bytes`: one row may be too much.
    """
    for name, pages in claims.items():
        if pages.largest > MAX_PAGE_BYTES:
            raise _too_much(name, f"a page of {pages.largest:,} bytes; the limit is {MAX_PAGE_BYTES:,}")
        if pages.values > MAX_CHUNK_VALUES:
            raise _too_much(name, f"{pages.values:,} values in one row group; the limit is {MAX_CHUNK_VALUES:,}")
    heaviest = max((pages.largest for pages in claims.values()), default=0)
    longest = max((pages.values for pages in claims.values()), default=0) // max(rows, 1)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(heaviest, 1), _BATCH_VALUES // max(longest, 1)))


def _too_much(name: str, what: str) -> Exception:
    remedy = "Write the file with smaller row groups, or without the column"
    return refusal(Reason.TOO_MANY_BYTES, f"the column {printable(name)!r} has {what}. {remedy}")
