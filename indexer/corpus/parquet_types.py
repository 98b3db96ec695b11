"""Arrow's types and values, as far as a reader of documents needs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from indexer.corpus.columns import is_image_column
from indexer.corpus.image_formats import HEAD, image_format
from indexer.corpus.paths import MAX_BYTES, printable
from indexer.corpus.suffixes import is_image_name
from indexer.reasons import Reason, refusal
from indexer.validate import MAX_FIELDS_BYTES


class ColumnTypes:
    """The columns of a table by their types.

    Attributes:
        names: All columns, in order.
        of_bytes: Columns that hold bytes, directly or nested.
    """

    def __init__(self, schema: Any) -> None:
        self.names: list[str] = list(dict.fromkeys(schema.names))
        kinds = {column.name: column.type for column in schema}
        self.of_bytes = [name for name in self.names if _holds_bytes(kinds[name])]
        self._may_be_image = {name for name in self.of_bytes if _may_be_image(kinds[name])}
        self._known = frozenset(self.names)
        self._features = _features(schema.metadata or {})

    def is_image(self, name: str) -> bool | None:
        """Whether a column of bytes holds images, by its type, its name and Hugging Face's metadata.

        Returns:
            None if its values must decide.
        """
        if name not in self._may_be_image:
            return False
        if (feature := self._features.get(name)) is not None:
            return feature == "Image"
        return True if is_image_column(name) else None

    def look(self, column: Any) -> bool | None:
        """Whether there are images among the values of a column; None if there are no values."""
        found = None
        for scalar in column:
            for value in _flat(scalar.as_py()):
                if isinstance(value, bytes) and value:
                    found = found or image_format(value[:HEAD]) is not None
                elif isinstance(value, str):
                    found = found or is_image_name(value) is True
        return found

    def column_of(self, path: str) -> str:
        """The column that a leaf belongs to, by its path. Column names may contain dots."""
        while path not in self._known:
            path, dot, _ = path.rpartition(".")
            if not dot:
                return ""
        return path


@contextmanager
def arrow_errors(what: str) -> Iterator[None]:
    """Turn what Arrow raises for a bad file into an `ItemError`.

    Raises:
        ItemError: `damaged` or `too-many-bytes`.
    """
    import pyarrow as pa

    try:
        yield
    except (MemoryError, pa.ArrowMemoryError) as error:
        raise refusal(Reason.TOO_MANY_BYTES, f"{what}: it asks for more memory than there is") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a disk error
        raise refusal(Reason.DAMAGED, f"{what} ({' '.join(str(error).split())[:300]})") from error


def in_microseconds(column: Any) -> Any:
    """Arrow's times with microseconds, the limit of Python; Arrow converts finer ones only if pandas is installed."""
    import pyarrow as pa

    kind = column.type
    if getattr(kind, "unit", None) != "ns":
        return column
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    return column.cast(pa.time64("us") if pa.types.is_time(kind) else pa.duration("us"), safe=False)


def python_value(name: str, scalar: Any) -> Any:
    """A value of a column as a Python object.

    Raises:
        ItemError: `not-utf-8` or `bad-fields`.
    """
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        raise refusal(Reason.NOT_UTF8, f"The column {printable(name)!r} is not UTF-8.") from error
    except (ValueError, OverflowError) as error:  # unknown time zones, dates beyond the year 9999
        raise refusal(Reason.BAD_FIELDS, f"The column {printable(name)!r} cannot be read: {error}.") from error


def is_heavy(column: Any) -> bool:
    """Whether a column is so large that each of its rows must be checked by `require_small`."""
    if not _is_nested(column.type):
        return False
    parts, size = _weight(column)
    return parts > MAX_FIELDS_BYTES or size > MAX_BYTES


def require_small(name: str, column: Any, row: int) -> None:
    """Refuse a value before Python makes objects of its parts.

    Raises:
        ItemError: `too-long` or `too-many-bytes`.
    """
    parts, size = _weight(column.slice(row, 1))
    if parts > MAX_FIELDS_BYTES:
        detail = f"The column {printable(name)!r} has {parts:,} values in one row; the limit is {MAX_FIELDS_BYTES:,}."
        raise refusal(Reason.TOO_LONG, detail)
    if size > MAX_BYTES:
        detail = f"The column {printable(name)!r} has {size:,} bytes in one row; the limit is {MAX_BYTES:,}."
        raise refusal(Reason.TOO_MANY_BYTES, detail)


def _weight(array: Any) -> tuple[int, int]:
    """How many values an array has, nested ones included, and how many bytes they take."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _weight(array.storage)
    if pa.types.is_dictionary(kind):
        values = array.dictionary
        if not (pa.types.is_string(values.type) or pa.types.is_binary(values.type)):
            return len(array), array.indices.nbytes
        return len(array), pc.sum(pc.take(pc.binary_length(values), array.indices)).as_py() or 0
    if pa.types.is_struct(kind):
        inner = array.flatten()
    elif pa.types.is_map(kind):
        start, end = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
        inner = [array.keys.slice(start, end - start), array.items.slice(start, end - start)]
    elif _is_nested(kind):
        inner = [array.flatten()]
    else:
        return len(array), array.nbytes
    weights = [_weight(each) for each in inner]
    return len(array) + sum(parts for parts, _ in weights), sum(size for _, size in weights)


def _is_nested(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_nested(kind))


def _holds_bytes(kind: Any) -> bool:
    """Whether values of an Arrow type are bytes or contain some."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    if pa.types.is_map(kind):
        return _holds_bytes(kind.key_type) or _holds_bytes(kind.item_type)
    if hasattr(kind, "value_type"):  # lists and dictionaries
        return _holds_bytes(kind.value_type)
    return "binary" in str(kind)


def _may_be_image(kind: Any) -> bool:
    """Whether an Arrow type is one of images: bytes, a struct that has `bytes`, or a list of those."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    if pa.types.is_map(kind):
        return False
    if hasattr(kind, "value_type"):
        return _may_be_image(kind.value_type)
    return "binary" in str(kind)


def _features(metadata: dict[bytes, bytes]) -> dict[str, str]:
    """The feature types that Hugging Face's datasets notes in a table: `Image`, `Audio`, and so on, by column."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: kind for name, feature in features.items() if (kind := _feature(feature)) is not None}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _feature(feature: Any) -> str | None:
    """The type of a feature, or of the elements of a list of them."""
    for _ in range(4):
        if isinstance(feature, list) and feature:
            feature = feature[0]
        elif isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
            feature = feature["feature"]
    kind = feature.get("_type") if isinstance(feature, dict) else None
    return kind if kind in ("Image", "Audio", "Video") else None


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    elif isinstance(value, dict):
        yield value.get("bytes") or value.get("path")
    else:
        yield value
