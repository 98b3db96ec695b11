"""Limits on image files that are built to be expensive, checked before a decoder reads them.

A header gives the number of pixels. It does not show that a JPEG of 300 kB has 30,000 scans, each of which passes over
all pixels, or that half of a file is one comment, which a decoder reads byte by byte. Each check here is one pass over
the structure of a file. It stops at the first limit exceeded and raises `too-complex`.

This module does not know Pillow, or how many pixels are too many.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping

import numpy as np

from indexer.errors import ItemError
from indexer.reasons import Reason, refusal

MAX_SCANS = 100
"""Scans of a JPEG; progressive photographs have 10 to 20."""
MAX_SCANNED = 3_000_000_000
"""Scans times pixels of a JPEG: the cost of decoding it."""
MAX_HEADER = 32 * 1024 * 1024
"""Bytes of metadata before the pixels of a JPEG or a GIF."""
MAX_PARTS = 10_000
"""Segments, chunks, boxes or blocks before or beside the pixels."""
MAX_CHUNKS = 1_000_000
"""Chunks of a PNG, pixel chunks included."""
MAX_SLOW = 16 * 1024 * 1024
"""Bytes of a file whose pixels are decoded one at a time: plain PPM, run lengths in a BMP."""
MAX_GAP = MAX_PPM_HEADER = 65_536

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_PPM_GAP = rb"(?:[\x20\t-\r]++|#[^\r\n]*+[\r\n])++"
_PPM_HEADER = {
    tokens: re.compile(rb"(P\w{1,5})" + (_PPM_GAP + rb"([^\x20\t-\r#]{1,24})") * tokens + rb"[\x20\t-\r]")
    for tokens in (2, 3)
}
_PPM_COMMENT = re.compile(rb"#[^\r\n]*+[\r\n]?")
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TILE_WIDTH, _TILE_LENGTH = 322, 323


def checked_structure(name: str, data: bytes, max_pixels: int) -> bytes:
    """The data to give to a decoder: unchanged, except that a PPM loses its comments.

    Args:
        name: The format, as `image_format` names it.
        data: The whole file.
        max_pixels: Limit of pixels in one tile of a TIFF.

    Raises:
        ItemError: `too-complex`, with the number and the limit; `truncated`, if a header ends too early.
    """
    if name == "PPM":
        return _checked_ppm(data)
    check = _CHECKS.get(name)
    if check is not None:
        check(data, max_pixels)
    return data


def jpeg_coefficients(data: bytes) -> int:
    """Bytes that a decoder needs for a JPEG besides its pixels: none for one scan, two per sample for several."""
    frame, scans = _jpeg_scans(data)
    if scans < 2 or frame is None:
        return 0
    height, width = struct.unpack(">HH", frame[1:5])
    factors = [(each >> 4, each & 15) for each in frame[7::3][: frame[5]]]
    most: int = max((h * v for h, v in factors), default=0) or 1
    samples: int = height * width * sum(h * v for h, v in factors) // most
    return 2 * samples


def _too_complex(what: str) -> ItemError:
    return refusal(Reason.TOO_COMPLEX, f"The image is too expensive to decode for its pixels: {what}.")


def _check_jpeg(data: bytes, max_pixels: int) -> None:
    frame, scans = _jpeg_scans(data)
    height, width = struct.unpack(">HH", frame[1:5]) if frame is not None and len(frame) >= 5 else (0, 0)
    if scans > MAX_SCANS or (scans > 1 and scans * height * width > MAX_SCANNED):
        raise _too_complex(
            f"{'more than ' if scans > MAX_SCANS else ''}{min(scans, MAX_SCANS):,} scans of {width:,} × {height:,} "
            f"pixels; the limits are {MAX_SCANS:,} scans, and {MAX_SCANNED:,} pixels in all of them"
        )


def _jpeg_scans(data: bytes) -> tuple[bytes | None, int]:
    """The body of the frame header, if there is one, and the number of scans; counting ends above `MAX_SCANS`."""
    at, parts, scans, frame, progressive = 2, 0, 0, None, False
    while scans <= MAX_SCANS:
        found = _MARKER.search(data, at)
        if found is None:
            break
        if not scans and (found.start() > MAX_HEADER or parts > MAX_PARTS or found.start() - at > MAX_GAP):
            raise _too_complex(
                f"{parts:,} segments and {found.start():,} bytes before the pixels, {found.start() - at:,} bytes in no "
                f"segment; the limits are {MAX_PARTS:,}, {MAX_HEADER:,} and {MAX_GAP:,}"
            )
        marker, at, parts = data[found.start() + 1], found.end(), parts + 1
        if marker == 0xD9:
            break
        if marker in _ALONE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if marker in _FRAMES and frame is None:
            frame, progressive = data[at + 2 : at + length], marker in _PROGRESSIVE
        scans += marker == 0xDA
        if scans and frame is not None and not progressive and data[at + 2 : at + 3] == frame[5:6]:
            break  # all components in one scan: decoders stop after it
        if parts > MAX_PARTS:
            raise _too_complex(f"more than {MAX_PARTS:,} segments")
        at += max(length, 2)
    return frame if frame is not None and len(frame) >= 6 else None, scans


def _check_png(data: bytes, max_pixels: int) -> None:
    at, others, chunks = 8, 0, 0
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        chunks += 1
        others += kind not in (b"IDAT", b"fdAT")
        if others > MAX_PARTS or chunks > MAX_CHUNKS:
            raise _too_complex(f"more than {others - 1:,} chunks beside its pixels, or {MAX_CHUNKS:,} of them")
        if kind == b"IEND":
            return
        at += 12 + length


def _check_gif(data: bytes, max_pixels: int) -> None:
    if len(data) < 13:
        return
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    start, parts = at, 0
    while at < len(data) and data[at] == 0x21:
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
            parts += 1
            if parts > MAX_PARTS:
                raise _too_complex(f"{at - start:,} bytes of comments before its first frame")
        at += 1


def _check_boxes(data: bytes, max_pixels: int) -> None:
    """JPEG 2000: consecutive boxes of a length and a name, with the pixels in `jp2c`."""
    at, parts = 0, 0
    if data[:4] == b"\xff\x4f\xff\x51":
        return
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"jp2c":
        length, head = int.from_bytes(data[at : at + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        parts += 1
        inner = data[at + 4 : at + 8] == b"jp2h"
        if parts > MAX_PARTS or (inner and length > 1 << 20):
            raise _too_complex(f"{parts:,} boxes in {at:,} bytes before the pixels")
        if length < head:
            return
        at += length


def _check_tiff(data: bytes, max_pixels: int) -> None:
    """The first directory: the sizes that its entries claim, and the size of a tile."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    try:
        at = struct.unpack_from(order + ("Q" if big else "L"), data, 8 if big else 4)[0]
        count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        at += 8 if big else 2
        if count > MAX_PARTS:
            raise _too_complex(f"{count:,} entries in its directory; the limit is {MAX_PARTS:,}")
        entry = struct.Struct(order + ("HHQQ" if big else "HHLL"))
        entries = list(entry.iter_unpack(data[at : at + count * entry.size]))
    except (struct.error, OverflowError):
        return  # the decoder reports it
    lengths = [_TIFF_SIZES.get(kind, 0) * number for _, kind, number, _ in entries]
    if sum(lengths) > 2 * len(data) + MAX_GAP:
        raise _too_complex(f"its directory lists {sum(lengths):,} bytes, and the file has {len(data):,}")
    tile = {
        tag: _tiff_value(value, kind, order, big)
        for tag, kind, _, value in entries
        if tag in (_TILE_WIDTH, _TILE_LENGTH)
    }
    if tile.get(_TILE_WIDTH, 0) * tile.get(_TILE_LENGTH, 0) > max_pixels:
        raise _too_complex(
            f"tiles of {tile[_TILE_WIDTH]:,} × {tile[_TILE_LENGTH]:,} pixels; the limit is {max_pixels:,}"
        )


def _tiff_value(value: int, kind: int, order: str, big: bool) -> int:
    """A number stored in the entry itself; a short one is at its beginning."""
    return value >> (48 if big else 16) if kind == 3 and order == ">" else value & 0xFFFF if kind == 3 else value


def _check_bitmap(data: bytes, max_pixels: int) -> None:
    at = 14 if data[:2] == b"BM" else 0
    length = int.from_bytes(data[at : at + 4], "little")
    runs = int.from_bytes(data[at + 16 : at + 20], "little") in (1, 2) and length > 12
    if runs and len(data) > MAX_SLOW:
        raise _too_complex(f"{len(data):,} bytes of run lengths; the limit is {MAX_SLOW:,}")


def _checked_ppm(data: bytes) -> bytes:
    magic = data[:2]
    plain, bilevel = magic in (b"P1", b"P2", b"P3"), magic in (b"P1", b"P4")
    header = _PPM_HEADER[2 if bilevel else 3].match(data[:MAX_PPM_HEADER])
    if header is None:
        if len(data) > MAX_PPM_HEADER:
            raise _too_complex(f"its header does not end within {MAX_PPM_HEADER:,} bytes")
        raise refusal(Reason.TRUNCATED, "The image ends inside its header.")
    if plain and len(data) > MAX_SLOW:
        raise _too_complex(f"{len(data):,} bytes of numbers read one by one; the limit is {MAX_SLOW:,}")
    tokens, body = list(header.groups()), data[header.end() :]
    if plain:
        body = _PPM_COMMENT.sub(b" ", body)
    elif magic in (b"P5", b"P6") and tokens[3].isdigit() and 0 < int(tokens[3]) < 65_535 and tokens[3] != b"255":
        tokens[3], body = _scaled(body, int(tokens[3]), 65_535 if magic == b"P5" else 255)
    return b"\n".join([*tokens, body])


def _scaled(body: bytes, most: int, white: int) -> tuple[bytes, bytes]:
    """Numbers up to `most`, in one byte or two, scaled to `white`: Pillow does this one by one."""
    white = 255 if most < 256 else white
    table = np.minimum(np.round(np.arange(256 if most < 256 else 65_536) / most * white), white)
    found = np.frombuffer(body[: len(body) - len(body) % 2] if most > 255 else body, np.uint8 if most < 256 else ">u2")
    return str(white).encode(), table.astype(np.uint8 if white == 255 else ">u2")[found].tobytes()


_CHECKS: Mapping[str, Callable[[bytes, int], None]] = {
    "JPEG": _check_jpeg,
    "PNG": _check_png,
    "GIF": _check_gif,
    "JPEG2000": _check_boxes,
    "TIFF": _check_tiff,
    "BMP": _check_bitmap,
    "DIB": _check_bitmap,
}
