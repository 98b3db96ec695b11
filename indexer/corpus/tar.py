"""A reader of tar archives, header by header, that trusts no size that a header claims.

Python's `tarfile` reads a name of three gigabytes into memory if a header claims one, reads a terabyte to skip a member
that claims it, takes a bad header for the end of the archive, and searches extended headers in quadratic time. Here
`tarfile.TarInfo` parses a header, and everything that follows from it is bounded.

In a plain file, members are skipped and read by seeking; a compressed stream is read once, from front to back.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from enum import Enum
from io import BufferedIOBase

from indexer.reasons import Reason, refusal

BLOCK = 512
MAX_NAME_BYTES = 1024 * 1024
"""Bytes of a long name or an extended header; file systems allow a path of 4,096."""
MAX_SKIPPED = 4 * 1024 * 1024 * 1024
"""Bytes of one member of a compressed archive that may be skipped: skipping unpacks it."""
MAX_GAP = 64 * 1024 * 1024
"""Zero bytes between an archive and another one appended to it."""
MAX_END, MAX_EMPTY_END = 64 * 1024, 10 * 1024
"""Zero bytes that end an archive, and one without members. Writers pad to 10 KiB; a file with more was not written
completely."""
_MAX_EXTENSIONS = 16
"""Headers that describe one member, besides its own."""


class Kind(Enum):
    """The kind of a member."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    SPARSE = "sparse file"
    OTHER = "device"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an archive.

    Attributes:
        name: With slashes; bytes that are not UTF-8 as lone surrogates.
        kind: What it is.
        header: Where its first header begins, in bytes of the unpacked archive.
        start: Where its content begins.
        size: Bytes of its content.
    """

    name: str
    kind: Kind
    header: int
    start: int
    size: int


class TarReader:
    """Reads an archive from front to back.

    Args:
        stream: The archive, unpacked.
        size: Bytes of the archive if it is seekable; None for a compressed stream.

    Attributes:
        position: Where the member being read begins; everything before it was readable.
        current: After an error, the member whose content cannot be read.
        ended: Whether an end mark was met, so that everything before it is complete.
    """

    def __init__(self, stream: BufferedIOBase, size: int | None) -> None:
        self._stream, self._size = stream, size
        self._offset = 0  # in the archive
        self._end = 0  # of the previous member's content
        self.position = 0
        self.current: Member | None = None
        self.ended = False

    def next(self) -> Member | None:
        """The next member, or None at the end of the archive. The content of the previous one is skipped.

        Raises:
            ItemError: `truncated`, `damaged` or `too-many-bytes`. Reading cannot continue.
        """
        self._skip_to(self._end)
        self.position, self.current = self._offset, None
        header = self._offset
        name: str | None = None
        size: int | None = None
        sparse = False
        for _ in range(_MAX_EXTENSIONS):
            info = self._header()
            if info is None:
                return None
            if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                content = self._extension(info)
                if info.type == tarfile.GNUTYPE_LONGNAME:
                    name = content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE):
                records = _pax_records(self._extension(info))
                if info.type != tarfile.XGLTYPE:
                    name = records.get("GNU.sparse.name", records.get("path", name))
                    size = _number(records["size"]) if "size" in records else size
                    sparse = sparse or any(key.startswith("GNU.sparse.") for key in records)
            else:
                member = _member(info, name, size, sparse, header, self._offset)
                self._begin(member)
                return member
        raise refusal(Reason.DAMAGED, f"one member has more than {_MAX_EXTENSIONS} headers")

    def read(self, member: Member) -> bytes:
        """The content of a member: of any previous one, in a plain file; otherwise of the last one, once.

        Raises:
            ItemError: `truncated` or `damaged`.
        """
        if self._size is None:
            self.current = member
            content = self._exactly(member.size)
            self._end = member.start + _padded(member.size)
            self.current = None
            return content
        self._stream.seek(member.start)
        self._offset = member.start
        content = self._exactly(member.size)
        return content

    def _begin(self, member: Member) -> None:
        self.current = member
        self._end = member.start + (_padded(member.size) if member.kind in (Kind.FILE, Kind.SPARSE) else 0)
        if self._size is not None and member.kind is Kind.FILE and member.start + member.size > self._size:
            missing = member.start + member.size - self._size
            raise refusal(Reason.TRUNCATED, f"its content claims {member.size:,} bytes; {missing:,} are missing")
        if self._size is None and member.size > MAX_SKIPPED:
            raise refusal(
                Reason.TOO_MANY_BYTES,
                f"its content claims {member.size:,} bytes; in a compressed archive {MAX_SKIPPED:,} are allowed. "
                "Unpack the archive to a plain .tar",
            )
        if self._size is not None:
            self.current = None

    def _header(self) -> tarfile.TarInfo | None:
        """The next header; None at the end. If another archive was appended, reading continues with it."""
        ends, self.ended = 0, False
        while True:
            block = self._block()
            if block is None:
                if ends:
                    self._require_short_end(ends * BLOCK, MAX_END if self._end else MAX_EMPTY_END)
                    return None
                raise refusal(Reason.TRUNCATED, "the end mark is missing")
            if block.count(0) == BLOCK:
                ends, self.ended = ends + 1, True
                self._require_short_end(ends * BLOCK, MAX_GAP)
                continue
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.HeaderError, ValueError) as error:
                what = "no header follows its end mark" if ends else "a header is damaged"
                raise refusal(Reason.DAMAGED, f"{what}: {error}") from error
            if info.type == tarfile.GNUTYPE_SPARSE:
                self._skip_sparse_map(more=block[482] != 0)
            return info

    @staticmethod
    def _require_short_end(zeros: int, limit: int) -> None:
        if zeros > limit:
            detail = f"{zeros:,} bytes of zeros end it, as in a file that was not written to its end"
            raise refusal(Reason.TRUNCATED, detail)

    def _skip_sparse_map(self, more: bool) -> None:
        """Skip the blocks between a sparse file's header and content; each says whether another follows."""
        for _ in range(MAX_NAME_BYTES // BLOCK):
            if not more:
                return
            more = self._exactly(BLOCK)[504] != 0
        raise refusal(Reason.DAMAGED, "the map of a sparse file has no end")

    def _extension(self, info: tarfile.TarInfo) -> bytes:
        if not 0 <= info.size <= MAX_NAME_BYTES:
            detail = f"a name or extended header claims {info.size:,} bytes; the limit is {MAX_NAME_BYTES:,}"
            raise refusal(Reason.TOO_MANY_BYTES, detail)
        content = self._exactly(info.size)
        self._skip_to(self._offset - info.size + _padded(info.size))
        return content

    def _block(self) -> bytes | None:
        """A block; None if the archive ends before it."""
        block = self._some(BLOCK)
        if not block:
            return None
        if len(block) < BLOCK:
            raise refusal(Reason.TRUNCATED, "a header is cut off")
        return block

    def _exactly(self, count: int) -> bytes:
        content = self._some(count)
        if len(content) < count:
            raise refusal(Reason.TRUNCATED, f"{count - len(content):,} bytes are missing")
        return content

    def _some(self, count: int) -> bytes:
        """As much as there is, in small pieces: a claim allocates no memory, and what precedes damage is not lost."""
        pieces: list[bytes] = []
        while count:
            piece = self._stream.read1(min(count, 1 << 20))
            if not piece:
                break
            pieces.append(piece)
            count -= len(piece)
            self._offset += len(piece)
        return b"".join(pieces)

    def _skip_to(self, offset: int) -> None:
        if self._size is not None:
            if offset > self._size and offset - self._size >= BLOCK:
                raise refusal(Reason.TRUNCATED, f"{offset - self._size:,} bytes are missing")
            if offset != self._offset or offset == 0:
                self._stream.seek(offset)
                self._offset = offset
            return
        while self._offset < offset:
            piece = self._stream.read1(min(offset - self._offset, 1 << 20))
            if not piece:
                raise refusal(Reason.TRUNCATED, f"{offset - self._offset:,} bytes are missing")
            self._offset += len(piece)


def _member(info: tarfile.TarInfo, name: str | None, size: int | None, sparse: bool, header: int, start: int) -> Member:
    size = info.size if size is None else size
    if size < 0:
        raise refusal(Reason.DAMAGED, f"a member claims {size:,} bytes")
    if sparse or info.type == tarfile.GNUTYPE_SPARSE:
        kind = Kind.SPARSE
    elif info.isdir():
        kind = Kind.FOLDER
    elif info.issym() or info.islnk():
        kind = Kind.LINK
    elif info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        kind = Kind.OTHER
    else:
        kind = Kind.FILE  # so is every unknown type, as POSIX requires
    return Member(info.name if name is None else name, kind, header, start, size)


def _pax_records(content: bytes) -> dict[str, str]:
    """The `length key=value` records of an extended header."""
    records: dict[str, str] = {}
    place = 0
    while place < len(content) and content[place] != 0:
        digits = content[place : place + 20].partition(b" ")[0]
        length = _number(digits.decode("latin-1"))
        record = content[place + len(digits) + 1 : place + length]
        key, equals, value = record.partition(b"=")
        if length <= len(digits) + 1 or place + length > len(content) or not equals or not value.endswith(b"\n"):
            raise refusal(Reason.DAMAGED, "an extended header is damaged")
        records[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        place += length
    return records


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise refusal(Reason.DAMAGED, f"an extended header has {text[:30]!r} in place of a number")
    return int(text)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
