"""The image format of a file by its first bytes: formats that are read, and known formats that are refused.

`image_format` looks at a few bytes and opens and decodes nothing, so a reader can ask it about every file, whatever its
name. Suffixes mislead: cameras write two JPEGs into one `.mpo`, phones name HEIF photographs `.jpg`, and web pages name
WebP images `.png`.

The formats are a closed set. Pillow knows forty more; among them are one that runs another program (EPS), some with
decoders so slow that a small file takes minutes, and some without a signature.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

DECODING = "2: transparency on white, or on dark where white hides it; JPEGs above max_pixels reduced"
"""How files become pixels in this release, stored beside the fingerprint of a collection's space. Old and new vectors
stay compatible: they differ only where the earlier rules gave a blank image or refused it."""
HEAD = 256
"""How many of a file's first bytes `image_format` looks at; more do no harm."""
TAIL = 26
"""How many of a file's last bytes identify a Targa file."""

SUFFIXES: Mapping[str, str] = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "AVIF": ".avif",
    "HEIF": ".heic",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "DIB": ".dib",
    "JPEG2000": ".jp2",
    "PPM": ".ppm",
    "TGA": ".tga",
}
"""The formats that are read, by Pillow's names, and the suffix under which each is stored."""

KNOWN_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .jif .mpo .png .apng .gif .webp .avif .avifs .bmp .dib .tif .tiff"
    " .jp2 .j2k .j2c .jpc .jpf .jpx .ppm .pgm .pbm .pnm .pfm .tga .heic .heics .heif .heifs .hif".split()
)
"""Suffixes of these formats, in lower case: a file with one of them is an image, or is rejected with a reason."""

_HEVC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AV1 = frozenset({b"avif", b"avis"})
_HEIF = frozenset({b"mif1", b"msf1", b"mif2", b"miaf"})

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"MM\0*", "TIFF"),
    (b"II*\0", "TIFF"),
    (b"MM\0+\0\x08\0\0", "TIFF"),
    (b"II+\0\x08\0\0\0", "TIFF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
)
_PPM = re.compile(rb"P(?:[1-6f]|0CMYK|yP|yRGBA|yCMYK)[\x20\t-\r](?:[\x20\t-\r]|[0-9#])")
_BITMAP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_TARGA_FOOTER = b"TRUEVISION-XFILE.\0"

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"icns", "macOS icon"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"PF\n", "color PFM"),
    (b"P7\n", "PAM"),
    (b"qoif", "QOI"),
    (b"DDS ", "DirectDraw"),
    (b"gimp xcf", "GIMP"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIU\0", "camera raw"),
    (b"IIRO", "camera raw"),
    (b"IIRS", "camera raw"),
    (b"MMOR", "camera raw"),
    (b"FOVb", "camera raw"),
    (b"\0MRM", "camera raw"),
    (b"\x01\xda\x01", "SGI"),
    (b"\x01\xda\0", "SGI"),
    (b"\xd7\xcd\xc6\x9a", "Windows metafile"),
)


def image_format(head: bytes, tail: bytes = b"") -> str | None:
    """The image format of a file, or None for anything that is not read as an image.

    Args:
        head: The file's first bytes, `HEAD` of them if there are so many.
        tail: Its last bytes, `TAIL` of them. Without them a Targa file is not recognized: its start has no signature.

    Returns:
        A key of `SUFFIXES`. Decoding `HEIF` needs the package pillow-heif.
    """
    if head[8:11] == b"CR\x02" and head[:4] == b"II*\0":
        return None  # a Canon raw photograph, which begins as a TIFF does
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _by_brand(head)
    if _PPM.match(head):
        return "PPM"
    if head[:2] == b"BM" and len(head) >= 18 and _number(head[14:18]) in _BITMAP_HEADERS:
        return "BMP"
    if _is_bitmap(head):
        return "DIB"
    return "TGA" if tail[-18:] == _TARGA_FOOTER else None


def foreign_format(head: bytes) -> str | None:
    """The name of a known image format that is not read, or None."""
    if head[8:11] == b"CR\x02" or head[4:12] == b"ftypcrx ":
        return "camera raw"
    if head[:4] == b"\0\0\1\0" and 0 < _number(head[4:6]) < 256:
        return "Windows icon"
    known = next((name for start, name in _OTHERS if head.startswith(start)), None)
    return "Targa without a signature" if known is None and _may_be_targa(head) else known


def _may_be_targa(head: bytes) -> bool:
    """Whether it looks like a Targa file of before 1989: enough to say so, too little to decode it."""
    return len(head) > 18 and head[1] in (0, 1) and head[2] in (1, 2, 3, 9, 10, 11) and head[16] in (8, 15, 16, 24, 32)


def _by_brand(head: bytes) -> str | None:
    """AVIF or HEIF, or None for a video: the first brand decides, then the compatible brands."""
    length = min(max(_number(head[:4], "big"), 16), HEAD)
    major = head[8:12]
    brands = {major} | {head[place : place + 4] for place in range(16, length - 3, 4)}
    if major in _AV1:
        return "AVIF"
    if brands & _HEVC:
        return "HEIF"
    if brands & _AV1:
        return "AVIF"
    return "HEIF" if major in _HEIF else None


def _is_bitmap(head: bytes) -> bool:
    """Whether it is a BMP without its file header: a header length, one plane, and a valid depth, but no signature."""
    length = _number(head[:4])
    if len(head) < 16 or length not in _BITMAP_HEADERS:
        return False
    at = 8 if length == 12 else 12
    return _number(head[at : at + 2]) == 1 and _number(head[at + 2 : at + 4]) in {1, 2, 4, 8, 16, 24, 32}


def _number(content: bytes, order: str = "little") -> int:
    return int.from_bytes(content, "big" if order == "big" else "little")
