"""Segments: immutable, memory-mapped safetensors files of vectors and their ids.

A file holds `vectors` (rows, dim) float32 and `ids` (rows,) int64, ascending, and in its metadata the format, the
space's digest and the number of rows. Its sha256 is in SQL. Nothing here is ever changed in place.

What this module does not know: SQL, documents, which segments are in use.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from indexer.errors import CorruptionError, FormatError, StoreError
from indexer.files.atomic import atomic_path
from indexer.files.layout import NOT_OURS, SEGMENT_NAME, own_path
from indexer.types import Ids, Vectors

SEGMENT_FORMAT = 1
READ_BELOW = 1 << 20
"""Segments of fewer bytes are read instead of mapped: a mapping costs more than a copy."""
_LARGEST_HEADER = 1 << 20
_NO_DESCRIPTOR: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_UNREADABLE = "Check its permissions, or restore it from a backup."


@dataclass(frozen=True)
class SegmentFile:
    """A segment as SQL records it."""

    file: str
    sha256: str
    size: int
    rows: int


def segment_name(first: int) -> str:
    """A new file name; names sort in the order of first ids."""
    return f"{first:012d}-{uuid.uuid4().hex[:12]}.safetensors"


def first_id(name: str) -> int:
    """The first vector id in a segment, from its name; -1 if it is not a segment's name."""
    return int(name.partition("-")[0]) if SEGMENT_NAME.fullmatch(name) else -1


def segment_path(folder: Path, name: str) -> Path:
    """The file of a segment that SQL names.

    Args:
        folder: The collection's `segments` folder.
        name: The name in SQL.

    Raises:
        CorruptionError: The name is not of the form that `segment_name` gives.
        StoreError: The file or its folder is a link.
    """
    if not SEGMENT_NAME.fullmatch(name):
        raise CorruptionError(
            f"The collection {folder.parent} names the segment {name[:200]!r}, which is not a segment's name.",
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
        digest: The space's digest.

    Raises:
        StoreError: The file cannot be written.
    """
    return write_parts(folder, name, [(vectors, ids)], digest)


def write_parts(folder: Path, name: str, parts: Sequence[tuple[Vectors, Ids]], digest: str) -> SegmentFile:
    """`write_segment` for several arrays of one dimension, concatenated without a copy in memory.

    Raises:
        StoreError: The file cannot be written.
    """
    rows, dim = sum(len(ids) for _, ids in parts), parts[0][0].shape[1]
    # The layout of safetensors: the widest type first, the header padded to eight bytes.
    header = json.dumps(
        {
            "__metadata__": {"format": str(SEGMENT_FORMAT), "space": digest, "rows": str(rows)},
            "ids": {"dtype": "I64", "shape": [rows], "data_offsets": [0, 8 * rows]},
            "vectors": {"dtype": "F32", "shape": [rows, dim], "data_offsets": [8 * rows, (8 + 4 * dim) * rows]},
        },
        separators=(",", ":"),
    ).encode()
    header += b" " * (-len(header) % 8)
    size = 0
    with atomic_path(folder / name) as temporary, temporary.open("wb") as file:
        hashed = hashlib.sha256()
        columns = [np.ascontiguousarray(ids, "<i8").view(np.uint8) for _, ids in parts]
        columns += [np.ascontiguousarray(vectors, "<f4").reshape(-1).view(np.uint8) for vectors, _ in parts]
        pieces: list[bytes | memoryview] = [len(header).to_bytes(8, "little"), header, *(each.data for each in columns)]
        for piece in pieces:
            hashed.update(piece)
            size += file.write(piece)
    return SegmentFile(name, hashed.hexdigest(), size, rows)


def open_segment(folder: Path, segment: SegmentFile, digest: str, dim: int) -> tuple[Vectors, Ids]:
    """A segment's vectors (rows, dim) and ids (rows,): read if it is small, else memory-mapped.

    The size and the header are checked here at almost no cost; `underdrawing check` compares the sha256. Before
        Python 3.13, a mapping holds a file descriptor.

    Raises:
        FileNotFoundError: The file is gone (compacted away, if another process writes).
        CorruptionError: Its name, size, header or shape differs from the record.
        StoreError: It is a link, or cannot be read.
        FormatError: A newer release wrote it.
    """
    path = segment_path(folder, segment.file)
    try:
        with path.open("rb") as file:
            start = _checked_header(path, file, segment, digest, dim)
            if segment.size < READ_BELOW:
                file.seek(0)
                content: bytes | mmap.mmap = file.read()
            else:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **_NO_DESCRIPTOR)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.", _UNREADABLE) from error
    if len(content) != segment.size:
        raise damaged(path, f"it has {len(content)} bytes, recorded were {segment.size}")
    ids = np.frombuffer(content, "<i8", segment.rows, start)
    vectors = np.frombuffer(content, "<f4", segment.rows * dim, start + 8 * segment.rows).reshape(segment.rows, dim)
    return vectors, ids


def _checked_header(path: Path, file: BinaryIO, segment: SegmentFile, digest: str, dim: int) -> int:
    """The byte at which the tensors begin, after checking the header against the record."""
    size = os.fstat(file.fileno()).st_size
    if size != segment.size:
        raise damaged(path, f"it has {size} bytes, recorded were {segment.size}")
    header, start = _read_header(path, file)
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
        raise damaged(path, f"its header ends at byte {start}, and {segment.rows} rows do not fit after it")
    # safetensors puts the widest type first; a header that says otherwise is damaged.
    first = 8 * segment.rows
    for name, kind, shape, span in (
        ("ids", "I64", [segment.rows], [0, first]),
        ("vectors", "F32", [segment.rows, dim], [first, first + 4 * dim * segment.rows]),
    ):
        if header.get(name) != {"dtype": kind, "shape": shape, "data_offsets": span}:
            raise damaged(path, f"`{name}` is not {kind} of shape {tuple(shape)}")
    return start


def damaged(path: Path, how: str) -> CorruptionError:
    """The error for a damaged segment."""
    return CorruptionError(
        f"The segment {path} is damaged: {how}.",
        "Restore it from a backup, or run `underdrawing check --repair`, which drops its documents so that "
        "indexing again brings them back.",
    )


def _read_header(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    # safetensors: 8 bytes of header length, little-endian, then JSON, then the tensors' bytes.
    length = int.from_bytes(file.read(8), "little")
    if length > _LARGEST_HEADER:
        raise damaged(path, f"its header claims {length} bytes")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise damaged(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise damaged(path, "its header is not an object")
    return header, 8 + length
