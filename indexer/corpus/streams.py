"""Compressed files, read sequentially: gzip, bzip2, xz and zstd, recognized by their content, not their name.

Memory does not grow with the unpacked size: a few bytes that stand for gigabytes are unpacked in small pieces. The
reader decides how many are reasonable.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from indexer.corpus.paths import open_file, printable
from indexer.reasons import Reason, refusal

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst")
"""Suffixes of compressed files, in lower case."""

_READ_BYTES = 2 * 1024  # small, since the content of a damaged piece is lost
_BUFFER_BYTES = 64 * 1024
_XZ_MEMORY = 256 * 1024 * 1024
"""Memory that an xz stream may ask for; its strongest preset takes 65 MiB."""


@contextmanager
def open_stream(path: Path) -> Iterator[BufferedIOBase]:
    """Open a regular file for sequential reading, unpacked if it is compressed. A plain file is seekable.

    Raises:
        ItemError: As `open_file`; while reading also `truncated` or `damaged`.
    """
    with open_file(path) as file:
        head = file.peek(6)[:6]
        if not head and path.name.lower().endswith(SUFFIXES):
            raise refusal(Reason.TRUNCATED, f"{printable(path)} is empty; a compressed file begins with a header.")
        if head.startswith(b"\x28\xb5\x2f\xfd"):
            yield BufferedReader(_Zstd(file, path), _BUFFER_BYTES)
        elif (packing := _packing(head)) is not None:
            yield BufferedReader(_Unpacked(file, path, *packing), _BUFFER_BYTES)
        else:
            yield file


def without_compression(name: str) -> str:
    """A file's name without the suffix of its compression."""
    for suffix in (".gz", ".bz2", ".xz", ".zst"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


class _Decompressor(Protocol):
    """The common interface of the decompressors of `bz2` and `lzma`."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Inflate:
    """One member of a gzip file, with the interface of `bz2.BZ2Decompressor`."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)


def _packing(head: bytes) -> tuple[str, Any] | None:
    """The name of a compression and the maker of its decompressor; None if the data are not compressed."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip", _Inflate
    if head.startswith(b"BZh"):
        return "bzip2", bz2.BZ2Decompressor
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    return None


class _Unpacked(io.RawIOBase):
    """The unpacked content of a compressed file. Consecutive streams in it read as one."""

    def __init__(self, file: BufferedReader, path: Path, name: str, make: Any) -> None:
        self._file, self._path, self._name, self._make = file, path, name, make
        self._stream: _Decompressor = make()
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        """Always true, as for every file that is read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as far as the file goes.

        Raises:
            ItemError: `truncated` or `damaged`.
        """
        view = memoryview(buffer).cast("B")
        try:
            content = self._next(len(view))
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # a disk error
            detail = f"{printable(self._path)} is a damaged {self._name} stream ({error})."
            raise refusal(Reason.DAMAGED, detail) from error
        view[: len(content)] = content
        return len(content)

    def _next(self, length: int) -> bytes:
        while not self._ended:
            if self._stream.eof:
                self._begin_next()
                continue
            data, at_end = b"", False
            if self._stream.needs_input:
                data, self._rest = self._rest or self._file.read(_READ_BYTES), b""
                at_end = not data
            if content := self._stream.decompress(data, length):
                return content
            if at_end and not self._stream.eof:
                raise refusal(Reason.TRUNCATED, f"{printable(self._path)} ends inside its {self._name} stream.")
        return b""

    def _begin_next(self) -> None:
        """Continue with the next stream, if there is one; zeros may separate them."""
        rest = self._stream.unused_data.lstrip(b"\0")
        while len(rest) < 6 and (data := self._file.read(_READ_BYTES)):
            rest = (rest + data).lstrip(b"\0")
        if not rest:
            self._ended = True
            return
        if (packing := _packing(rest[:6])) is None or packing[0] != self._name:
            detail = f"{printable(self._path)} has data after its {self._name} stream: {rest[:8]!r}."
            raise refusal(Reason.DAMAGED, detail)
        self._stream = self._make()
        self._rest = rest


class _Zstd(io.RawIOBase):
    """The unpacked content of a zstd file, by Arrow: Python has no zstd before 3.14."""

    def __init__(self, file: BufferedReader, path: Path) -> None:
        import pyarrow as pa

        self._path = path
        self._stream: Any = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")

    def readable(self) -> bool:
        """Always true, as for every file that is read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as far as the file goes.

        Raises:
            ItemError: `truncated` or `damaged`.
        """
        view = memoryview(buffer).cast("B")
        try:
            content = self._stream.read(len(view))
        except OSError as error:
            if error.errno is not None:
                raise  # a disk error
            if "Truncated" in str(error):
                raise refusal(Reason.TRUNCATED, f"{printable(self._path)} ends inside its zstd stream.") from error
            raise refusal(Reason.DAMAGED, f"{printable(self._path)} is a damaged zstd stream ({error}).") from error
        view[: len(content)] = content
        return len(content)
