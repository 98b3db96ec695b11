"""The unpacked sizes that the pages of a Parquet column claim, read before Arrow relies on them.

Arrow allocates the memory that a page header asks for, and a file of a few hundred kilobytes can ask for gigabytes. The
footer's totals cannot be trusted, so the headers are read: a struct in Thrift's compact protocol before each page
(parquet.thrift, `PageHeader`), of which three numbers count.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BufferedReader
from typing import TypeAlias

from indexer.reasons import Reason, refusal

MAX_HEADER_BYTES = 16 * 1024 * 1024
"""Bytes that Arrow reads for a header; statistics in it may be long."""
_FIRST_BYTES = 4 * 1024

_UNCOMPRESSED, _COMPRESSED = 2, 3
_DATA, _DATA_V2 = 5, 8
_NUM_VALUES = 1

_Struct: TypeAlias = "dict[int, int | _Struct]"


@dataclass
class Pages:
    """The sizes that the pages of one column chunk claim.

    Attributes:
        largest: Uncompressed bytes of the largest page, dictionaries included: no value is longer.
        values: Values of all data pages.
    """

    largest: int = 0
    values: int = 0


def survey(file: BufferedReader, start: int, length: int) -> Pages:
    """Read the page headers of a column chunk.

    Args:
        file: The Parquet file.
        start: Where its first page begins.
        length: Bytes of all pages with their headers, from the footer.

    Raises:
        ItemError: `damaged`.
    """
    pages, place = Pages(), start
    while place < start + length:
        header, size = _header(file, place)
        unpacked, packed = _count(header, _UNCOMPRESSED), _count(header, _COMPRESSED)
        pages.largest = max(pages.largest, unpacked, packed)
        for kind in (_DATA, _DATA_V2):
            if isinstance(details := header.get(kind), dict):
                pages.values += _count(details, _NUM_VALUES)
        place += size + packed
    return pages


def _count(struct: _Struct, field: int) -> int:
    value = struct.get(field)
    if not isinstance(value, int) or value < 0:
        raise refusal(Reason.DAMAGED, f"a page header claims {value!r} where a size belongs")
    return value


def _header(file: BufferedReader, place: int) -> tuple[_Struct, int]:
    """The header at an offset in the file, and its length."""
    wanted = _FIRST_BYTES
    while True:
        file.seek(place)
        content = file.read(wanted)
        reader = _Compact(content)
        try:
            return reader.struct(0), reader.place
        except IndexError as error:
            if len(content) < wanted or wanted >= MAX_HEADER_BYTES:
                raise refusal(Reason.DAMAGED, f"a page header at byte {place:,} has no end") from error
            wanted *= 16


class _Compact:
    """Thrift's compact protocol, as far as headers need it. Reading past the content raises IndexError."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.place = 0

    def struct(self, depth: int) -> _Struct:
        """The numbers and structs of a struct, by field; everything else is skipped."""
        if depth > 16:
            raise refusal(Reason.DAMAGED, "a page header is nested too deep")
        fields: _Struct = {}
        field = 0
        while (byte := self._byte()) != 0:
            delta, kind = byte >> 4, byte & 15
            field = field + delta if delta else self._zigzag()
            if kind in (4, 5, 6):
                fields[field] = self._zigzag()
            elif kind == 12:
                fields[field] = self.struct(depth + 1)
            else:
                self._skip(kind, depth)
        return fields

    def _skip(self, kind: int, depth: int) -> None:
        if kind in (1, 2):
            return  # a boolean is encoded in the kind
        if kind == 3:
            self._advance(1)
        elif kind == 7:
            self._advance(8)
        elif kind == 8:
            self._advance(self._varint())
        elif kind in (9, 10):
            byte = self._byte()
            count = byte >> 4 if byte >> 4 != 15 else self._varint()
            for _ in range(count):
                self._skip_element(byte & 15, depth + 1)
        else:
            raise refusal(Reason.DAMAGED, f"a page header has a value of the unknown kind {kind}")

    def _skip_element(self, kind: int, depth: int) -> None:
        if kind in (1, 2):
            self._advance(1)
        elif kind in (4, 5, 6):
            self._varint()
        elif kind == 12:
            self.struct(depth)
        elif depth > 16:
            raise refusal(Reason.DAMAGED, "a page header is nested too deep")
        else:
            self._skip(kind, depth)

    def _advance(self, count: int) -> None:
        self.place += count
        if self.place > len(self._content):
            raise IndexError

    def _byte(self) -> int:
        byte = self._content[self.place]
        self.place += 1
        return byte

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise refusal(Reason.DAMAGED, "a page header has a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
