"""Segments: immutable safetensors files of vectors and their ids, memory-mapped to read.

A file holds `vectors` (rows, dim) float32 and `ids` (rows,) int64, ascending, and in its metadata the format, the
space's digest and the number of rows. Its sha256 is in SQL. Nothing here is ever changed in place.

What this module does not know: SQL, documents, which segments are alive.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.errors import CorruptionError, FormatError, StoreError
from indexer.files import NOT_OURS, atomic_path, file_digest, own_path
from indexer.layout import SEGMENT_NAME
from indexer.types import Ids, Vectors

SEGMENT_FORMAT = 1
_LARGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class SegmentFile:
    """A segment as SQL records it."""

    file: str
    sha256: str
    size: int
    rows: int


def segment_name(first: int) -> str:
    """A new file name; sorted by name, segments are sorted by their first id."""
    return f"{first:012d}-{uuid.uuid4().hex[:12]}.safetensors"


def segment_path(folder: Path, name: str) -> Path:
    """The file of a segment that SQL names.

    Args:
        folder: The collection's `segments` folder.
        name: From SQL.

    Raises:
        CorruptionError: The name is none that `segment_name` gives.
        StoreError: The file or its folder is a link.
    """
    if not SEGMENT_NAME.fullmatch(name):
        raise CorruptionError(
            f"The collection {folder.parent} names the segment {name[:200]!r}, which is no name of a segment.",
            f"Restore it from a backup, or index again into a new folder. {NOT_OURS}",
        )
    return own_path(folder.parent, folder.name, name)


def write_segment(folder: Path, name: str, vectors: Vectors, ids: Ids, digest: str) -> SegmentFile:
    """Write vectors durably to `folder/name`.

    Args:
        folder: The collection's `segments` folder.
        name: File name; never one that was used before.
        vectors: (rows, dim) float32, rows of unit length.
        ids: (rows,) int64, ascending.
        digest: Of the space.

    Raises:
        StoreError: The disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    metadata = {"format": str(SEGMENT_FORMAT), "space": digest, "rows": str(len(ids))}
    path = folder / name
    with atomic_path(path) as temporary:
        content = {"vectors": np.ascontiguousarray(vectors, np.float32), "ids": np.ascontiguousarray(ids, np.int64)}
        try:
            save_file(content, temporary, metadata=metadata)
        except SafetensorError as error:
            raise StoreError(f"{path} cannot be written: {error}.", "Is the disk full?") from error
    return SegmentFile(name, file_digest(path), path.stat().st_size, len(ids))


def open_segment(folder: Path, segment: SegmentFile, digest: str, dim: int) -> tuple[Vectors, Ids]:
    """Memory-map a segment's vectors (rows, dim) and ids (rows,).

    The size and the header are checked here, which costs nothing; the sha256 is checked by `underdrawing check`.

    Raises:
        FileNotFoundError: The file is gone (compacted away, if another process writes).
        CorruptionError: Its name, size, header or shape is not what was recorded.
        StoreError: It is a link.
        FormatError: A newer release wrote it.
    """
    path = segment_path(folder, segment.file)
    size = path.stat().st_size
    if size != segment.size:
        raise damaged(path, f"it has {size} bytes, recorded were {segment.size}")
    header, start = _read_header(path)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not str(metadata.get("format", "")).isdecimal():
        raise damaged(path, "its header names no format")
    if int(metadata["format"]) > SEGMENT_FORMAT:
        raise FormatError(
            f"{path} has segment format {metadata['format']}; this release reads up to {SEGMENT_FORMAT}.",
            "Upgrade: pip install -U underdrawing",
        )
    if metadata.get("space") != digest:
        raise damaged(path, f"it belongs to space {metadata.get('space')}, not {digest}")
    if start + segment.rows * (4 * dim + 8) != size:
        raise damaged(path, f"its header ends at byte {start}, and {segment.rows} rows do not fit behind it")
    # safetensors puts the widest type first; a header that says otherwise is damaged.
    ids = _map(path, header, start, 0, "ids", "I64", (segment.rows,))
    vectors = _map(path, header, start, 8 * segment.rows, "vectors", "F32", (segment.rows, dim))
    return vectors, ids


def damaged(path: Path, how: str) -> CorruptionError:
    """The error for a segment that is not what was written."""
    return CorruptionError(
        f"The segment {path} is damaged: {how}.",
        "Restore it from a backup, or run `underdrawing check --repair`, which drops its documents so that "
        "indexing again brings them back.",
    )


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    # safetensors: 8 bytes of header length, little-endian, then JSON, then the tensors' bytes.
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LARGEST_HEADER:
            raise damaged(path, f"its header claims {length} bytes")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise damaged(path, "its header is not an object")
    return header, 8 + length


def _map(
    path: Path, header: dict[str, Any], start: int, first: int, name: str, dtype: str, shape: tuple[int, ...]
) -> Any:
    kind = np.dtype({"F32": "<f4", "I64": "<i8"}[dtype])
    length = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if header.get(name) != {"dtype": dtype, "shape": list(shape), "data_offsets": [first, first + length]}:
        raise damaged(path, f"`{name}` is not {dtype} of shape {shape}")
    if length == 0:
        return np.empty(shape, kind)
    # A plain ndarray over the map: np.memmap's subclass costs a Python call on every slice.
    return np.asarray(np.memmap(path, kind, mode="r", offset=start + first, shape=shape))
