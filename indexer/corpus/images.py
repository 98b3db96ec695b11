"""Pictures in: a file, encoded bytes or a PIL image becomes upright 8-bit RGB, a content key, bytes to keep.

Every picture comes out the same way:

* the first frame, turned upright by its EXIF orientation;
* transparency laid on white;
* CMYK, YCbCr and palettes converted, without colour management;
* 16-bit grey divided by 257. Wider grey has no white of its own: integers within 0 to 65,535 are read as
  16-bit, floats within 0 to 1 as fractions of white, and a picture outside that range is stretched from its
  smallest to its largest finite value.

A picture that cannot be used raises `ItemError` with one of these codes of `Reason`: `missing`, `not-a-file`,
`unreadable`, `empty`, `too-many-bytes`, `truncated`, `not-an-image`, `svg`, `unsupported-format`,
`too-many-pixels`, `decode-failed`.

Pillow's settings are never changed, so that threads do not disturb each other. Its warnings about damaged
metadata stay warnings; in a process that turns warnings into errors they are a `decode-failed`.

What this module does not know: models and their preprocessing, and where pictures are kept.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin
from PIL.ImageFile import ImageFile

from indexer.corpus.paths import MAX_BYTES, open_file, read_file
from indexer.corpus.reasons import Reason, refusal
from indexer.errors import CallError, ItemError
from indexer.types import ImageSource

MAX_PIXELS = 100_000_000

# The formats that are read, by Pillow's names, and the suffix each is stored with. A closed set: Pillow knows
# forty more, among them one that runs another program (EPS) and some that have no signature to know them by.
_SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "AVIF": ".avif",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "JPEG2000": ".jp2",
    "PPM": ".ppm",
}

# What Pillow raises on damaged input, found by feeding it more than a hundred thousand mutated files: OSError
# (most decoders), SyntaxError (headers, PNG chunks), ValueError (header fields, palettes, tiles, texts),
# RuntimeError (AVIF), TypeError (TIFF tags of the wrong type), EOFError and struct.error (early ends), and
# Warning, where the process makes warnings errors.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, TypeError, EOFError, struct.error, Warning)

# These decoders measure a picture once more against Pillow's own limit, and warn or refuse by it.
_MEASURED_BY_PILLOW = frozenset({"TIFF", "GIF"})

_TURNS: Mapping[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"})


def decode_image(
    source: ImageSource,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    hint: int | None = None,
) -> Image.Image:
    """Decode a picture to upright 8-bit RGB, loaded and independent of its file.

    Args:
        source: A path, encoded bytes, or a PIL image, which is taken at the frame where it stands.
        max_pixels: Refuse more, judged by the header, before any pixel is decoded.
        max_bytes: Refuse a longer file.
        hint: The short side the caller needs. A JPEG may then come out smaller than it is, by a power of two
            and with a short side of at least `hint`, at a fraction of the cost.

    Raises:
        ItemError: The picture cannot be used; the module's docstring lists the codes.
    """
    if isinstance(source, Image.Image):
        _check_pixels(source, max_pixels)
        with _pillow_errors():
            return _pixels(source, keep_alpha=False)
    data = _encoded(source, max_bytes)
    with _pillow_errors(data):
        image, _ = _open(data)
        _check_pixels(image, max_pixels)
        if hint is not None:
            image.draft(None, (hint, hint))
        return _pixels(image, keep_alpha=False)


def image_digest(source: ImageSource) -> str:
    """The content key of a picture: sha256, in hex, of the bytes that `encode_for_storage` gives for it.

    A file is read in pieces and not looked into, so that the key of any file can be taken.

    Raises:
        ItemError: The file cannot be read, or the PIL image cannot be loaded.
    """
    if isinstance(source, Path):
        with open_file(source) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    content = source if isinstance(source, bytes) else _png(source)
    return hashlib.sha256(content).hexdigest()


def encode_for_storage(source: ImageSource, *, max_bytes: int = MAX_BYTES) -> tuple[bytes, str]:
    """The bytes to keep for a picture, and their file suffix.

    Encoded bytes are kept as they are, with the suffix of what they are and not of what they were called.
    A PIL image becomes a PNG of its upright 8-bit pixels, with its transparency and without metadata.

    Raises:
        ItemError: The picture cannot be read, or its header says that it is none of the formats read here.
    """
    if isinstance(source, Image.Image):
        return _png(source), ".png"
    data = _encoded(source, max_bytes)
    with _pillow_errors(data):
        _, suffix = _open(data)
    return data, suffix


def _encoded(source: Path | bytes, max_bytes: int) -> bytes:
    match source:
        case Path():
            data = read_file(source, max_bytes)
        case bytes():
            data = source
        case _:
            raise CallError(f"An image is a Path, bytes or a PIL image, not {type(source).__name__}.")
    if len(data) > max_bytes:
        raise refusal(Reason.TOO_MANY_BYTES, f"The picture has {len(data):,} bytes; allowed are {max_bytes:,}.")
    if not data:
        raise refusal(Reason.EMPTY, "The picture has no bytes.")
    return data


def _open(data: bytes) -> tuple[ImageFile, str]:
    """Read the header. Image.open does the same, but warns above a global limit and lets every plugin try."""
    Image.init()
    for name, suffix in _SUFFIXES.items():
        factory, accepts = Image.OPEN.get(name, (None, None))
        if factory is None or accepts is None or accepts(data[:16]) is not True:
            continue  # Pillow was built without it, or the signature is another's
        if name == "JPEG":
            # The registered factory also looks for a second picture behind this one, and warns of damage.
            factory = JpegImagePlugin.JpegImageFile
        return factory(BytesIO(data), ""), suffix
    raise _not_read(data)


def _not_read(data: bytes) -> ItemError:
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"<") and b"<svg" in head:
        return refusal(Reason.SVG, "The picture is an SVG drawing; draw it to pixels first.")
    known = ", ".join(_SUFFIXES)
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return refusal(Reason.UNSUPPORTED_FORMAT, f"A HEIF picture; convert it to one of {known}.")
    return refusal(Reason.NOT_AN_IMAGE, f"The content is none of {known}; it begins with {data[:8]!r}.")


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    if image.format in _MEASURED_BY_PILLOW and Image.MAX_IMAGE_PIXELS is not None:
        max_pixels = min(max_pixels, Image.MAX_IMAGE_PIXELS)
    width, height = image.size
    if width * height > max_pixels:
        raise refusal(
            Reason.TOO_MANY_PIXELS,
            f"The picture has {width:,} × {height:,} pixels; allowed are {max_pixels:,}.",
        )


def _pixels(image: Image.Image, *, keep_alpha: bool) -> Image.Image:
    """The upright picture as a new image, in RGB, or in RGBA where it has transparency that is to be kept."""
    image.load()
    turn = _TURNS.get(_orientation(image))
    grey = _eight_bit_grey(image)
    transparent = grey.has_transparency_data
    pixels = grey.convert("RGBA" if transparent else "RGB")
    pixels.info = {}  # The EXIF orientation in it would turn the result again, if that is decoded or saved.
    if transparent and not keep_alpha:
        on_white = Image.new("RGB", pixels.size, "white")
        on_white.paste(pixels, mask=pixels)
        pixels = on_white
    return pixels.transpose(turn) if turn is not None else pixels


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except _PILLOW_ERRORS:
        return None  # Viewers show a picture whose metadata are damaged, and so do we.


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """Bring 16-bit, 32-bit and float grey to 8 bits by the rule in the module's docstring; leave all else."""
    if image.mode[0] not in "IF":
        return image
    values = np.asarray(image)
    low, high = 0.0, 1.0 if image.mode == "F" else 65535.0
    if not image.mode.startswith("I;16"):
        finite = values[np.isfinite(values)]
        if finite.size and (finite.min() < low or finite.max() > high):
            low, high = float(finite.min()), float(finite.max())
    with np.errstate(all="ignore"):
        scaled = (values.astype(np.float32) - low) * (255 / ((high - low) or 1))
        grey = np.nan_to_num(scaled, nan=0).clip(0, 255).round().astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):  # PNG: one grey value that means see-through
        grey[values == clear] = 255
    return Image.fromarray(grey)


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    with _pillow_errors():
        _pixels(image, keep_alpha=True).save(file, "PNG")
    return file.getvalue()


@contextmanager
def _pillow_errors(data: bytes = b"") -> Iterator[None]:
    """Turn what Pillow raises while it works on `data` into ItemErrors."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise refusal(Reason.TOO_MANY_PIXELS, f"{error}.") from error
    except _PILLOW_ERRORS as error:
        cause = str(error)[:200]
        if "truncated" in cause.lower() or _ends_early(data):
            raise refusal(Reason.TRUNCATED, f"The picture ends too early ({cause}).") from error
        raise refusal(Reason.DECODE_FAILED, f"The picture cannot be decoded ({cause}).") from error


def _ends_early(data: bytes) -> bool:
    """Whether the end that the format prescribes is missing. Asked after a failure only, to name it well."""
    tail = data[-32:]
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    if data.startswith(b"GIF8"):
        return b";" not in tail
    return data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") + 8 > len(data)
