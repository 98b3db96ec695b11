"""The lines of a stream, one at a time, whatever their length."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase
from typing import NamedTuple

from indexer.reasons import Reason, refusal

MAX_LINE_BYTES = 128 * 1024 * 1024
MAX_SILENT_BYTES = 256 * 1024 * 1024
"""Bytes without a line break, or of blank lines, after which reading stops."""
_CHUNK_BYTES = 256 * 1024
_WHITE = b" \t\r\n\v\f"


class Line(NamedTuple):
    """A line that is not blank.

    Attributes:
        number: From 1.
        offset: Where it begins, in bytes of the unpacked stream.
        content: Without its line break; None if it is longer than allowed.
    """

    number: int
    offset: int
    content: bytes | None


def read_lines(stream: BufferedIOBase, max_bytes: int = MAX_LINE_BYTES, *, keep_blank: bool = False) -> Iterator[Line]:
    """The lines of a stream.

    Args:
        stream: Read to its end.
        max_bytes: Limit of one line.
        keep_blank: Yield blank lines, too, up to a limit of consecutive ones.

    Raises:
        ItemError: `not-utf-8` for UTF-16; `too-long` or `too-many-bytes` if nothing useful can follow.
    """
    number, offset, silent = 1, 0, 0
    pieces: list[bytes] = []  # of the unfinished line
    length = 0
    while chunk := stream.read1(_CHUNK_BYTES):
        if offset == 0 and not length and chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise refusal(Reason.NOT_UTF8, "The file is UTF-16; save it as UTF-8.")
        if not length and not chunk.strip(_WHITE) and chunk.endswith(b"\n"):
            number, offset, silent = number + chunk.count(b"\n"), offset + len(chunk), silent + len(chunk)
            _refuse_silence(silent, f"byte {offset - silent:,} on", "blank lines")
            continue
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            piece = chunk[start : end + 1]
            size = length + len(piece)
            if size > max_bytes:
                yield Line(number, offset, None)
                silent = 0
            elif (line := b"".join((*pieces, piece)) if pieces else piece).strip(_WHITE):
                yield Line(number, offset, line.removesuffix(b"\n"))
                silent = 0
            else:
                silent += size
                if keep_blank:
                    yield Line(number, offset, b"")
            number, offset, start = number + 1, offset + size, end + 1
            pieces, length = [], 0
        rest = chunk[start:]
        length += len(rest)
        if length > max_bytes:
            pieces = []
            _refuse_silence(length, f"byte {offset:,} on", f"line {number:,} without an end")
        elif rest:
            pieces.append(rest)
    if length > max_bytes:
        yield Line(number, offset, None)
    elif (line := b"".join(pieces)).strip(_WHITE):
        yield Line(number, offset, line)


def _refuse_silence(silent: int, place: str, what: str) -> None:
    if silent > MAX_SILENT_BYTES:
        detail = (
            f"From {place} there are {silent:,} bytes of {what}; the limit is {MAX_SILENT_BYTES:,}. Reading ends there."
        )
        raise refusal(Reason.TOO_MANY_BYTES, detail)
