"""One or more Parquet files: a document in each row.

* `id` is a column of strings or integers. Without the column, or where it is null, a row is named
  `<file stem>-<row>`, counted from 0 in its file.
* `text` is a column of strings.
* `image` is a column of encoded bytes, of paths relative to the folder of the file, or of structs of both
  (`bytes`, `path`), as Hugging Face's datasets writes them.
* Every other column is a field: times as ISO 8601 strings, durations as seconds, decimals and NaN as JSON has
  them (a float, null). Columns with binary values inside are not even read, for JSON cannot hold them.
* The stamp is a digest of the content; an image in a file counts by its size and time of change.

Rows are read in small batches, so memory does not grow with the file or its row groups.

What this module does not know: whether an image is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from indexer.corpus.paths import open_file, portable_name, printable
from indexer.corpus.reasons import Reason, refusal
from indexer.corpus.columns import image_path
from indexer.corpus.records import Record, make_record, of_document, record_or_rejected
from indexer.errors import ItemError
from indexer.types import Rejected

_BATCH_ROWS = 32
_READ_BYTES = 1024 * 1024


class ParquetCorpus:
    """The documents of Parquet files, file after file.

    Args:
        files: The files, by their absolute paths.
        source: The absolute path of the file, or of the folder that holds the files.
        name: What the ids of rows without one begin with; by default the stem of each row's file.

    Attributes:
        source: As given.
    """

    def __init__(self, files: Sequence[Path], source: str, name: str | None = None) -> None:
        self._files = files
        self._name = name
        self.source = source

    def __iter__(self) -> Iterator[Record | Rejected]:
        for file in self._files:
            name = self._name or portable_name(file.stem)
            try:
                for number, row in enumerate(_rows(file)):
                    uri = f"{file.as_uri()}#row={number}"
                    yield record_or_rejected(uri, partial(_record, row, f"{name}-{number}", file, uri), hides="")
            except ItemError as error:
                # The rows that are not seen may have ids of their own: which column there is stands behind the damage.
                yield Rejected(file.as_uri(), error.reason, error.detail, hides="")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, as Arrow scalars by column name; read as they are asked for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    read = 0
    with open_file(path) as file:
        try:
            # With a buffer, pages are read one by one; without, the whole column of a row group at once.
            table = pq.ParquetFile(file, buffer_size=_READ_BYTES)
            kinds = {column.name: column.type for column in table.schema_arrow}
            wanted = [name for name, kind in kinds.items() if name == "image" or not _holds_bytes(kind)]
            for group in range(table.num_row_groups):  # else damage in one takes rows of the one before with it
                for batch in table.iter_batches(_BATCH_ROWS, [group], columns=wanted, use_threads=False):
                    columns = [_in_microseconds(column) for column in batch.columns]
                    for row in range(batch.num_rows):
                        yield {name: column[row] for name, column in zip(batch.schema.names, columns, strict=True)}
                    read += batch.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last from damaged column names
            detail = f"{printable(path)} cannot be read beyond row {read:,} ({error})."
            raise refusal(Reason.DAMAGED, detail) from error


def _holds_bytes(kind: Any) -> bool:
    """Whether values of an Arrow type are bytes, or contain some."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    if pa.types.is_map(kind):
        return _holds_bytes(kind.key_type) or _holds_bytes(kind.item_type)
    if hasattr(kind, "value_type"):  # lists and dictionaries
        return _holds_bytes(kind.value_type)
    return "binary" in str(kind)


def _in_microseconds(column: Any) -> Any:
    """Python's times go down to microseconds; Arrow converts finer ones only where pandas is installed."""
    import pyarrow as pa

    kind = column.type
    if getattr(kind, "unit", None) != "ns":
        return column
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    return column.cast(pa.time64("us") if pa.types.is_time(kind) else pa.duration("us"), safe=False)


def _record(row: dict[str, Any], id_of_place: str, file: Path, uri: str) -> Record:
    own = _python_value("id", row["id"]) if "id" in row else None
    with of_document(id_of_place if own is None else own) as id:
        values = {name: _python_value(name, scalar) for name, scalar in row.items() if name != "id"}
        text, image = (values.pop(name, None) for name in ("text", "image"))
        return make_record(
            id=id,
            text=text,
            image=_image(image, file.parent),
            fields={name: _json_value(value) for name, value in values.items()},
            uri=uri,
            derived=own is None,
        )


def _python_value(name: str, scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        raise refusal(Reason.NOT_UTF8, f"The column {printable(name)!r} is not UTF-8.") from error
    except (ValueError, OverflowError) as error:  # unknown time zones, dates beyond the year 9999
        raise refusal(Reason.BAD_FIELDS, f"The column {printable(name)!r} cannot be read: {error}.") from error


def _image(value: object, folder: Path) -> Path | bytes | None:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return image_path(value, folder)
    raise refusal(Reason.BAD_IMAGE, f"The image must be bytes or a path, not {type(value).__name__}.")


def _json_value(value: Any) -> Any:
    match value:
        case dict():
            return {key: _json_value(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_json_value(inner) for inner in value]
        case float() | Decimal():
            return None if math.isnan(value) else float(value)
        case date() | time():  # a datetime is a date
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case UUID():
            return str(value)
        case _:
            return value
