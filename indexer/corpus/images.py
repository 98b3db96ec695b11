"""Decoding of images: a file, encoded bytes or a PIL image becomes upright 8-bit RGB, a content key, bytes to store.

Every image is treated the same way:

* the first frame, turned upright by its EXIF orientation;
* transparency is laid on white, or on dark gray (`DARK`) if the image would vanish on white: if less than `SEEN` of
  what is visible differs from white by `NOTICEABLE` of 255 in any channel;
* CMYK, YCbCr and palettes are converted, without color management;
* 16-bit gray is divided by 257. Wider gray has no defined white: integers within 0 to 65,535 are read as 16-bit,
  floats within 0 to 1 as fractions of white, and an image outside that range is stretched from its smallest to its
  largest finite value.

The content counts, not the name of the file (`image_formats.py`). `max_pixels` limits what is decoded: a larger JPEG is
decoded at a half or a quarter of its width and height, so that photographs of 108 or 200 megapixels can be read; other
larger images are refused. Files built to take minutes or gigabytes are refused before a decoder sees them
(`image_bounds.py`).

An image that cannot be used raises `ItemError` with one of these codes of `Reason`: `missing`, `not-a-file`,
`unreadable`, `empty`, `too-many-bytes`, `truncated`, `not-an-image`, `svg`, `unsupported-format`, `missing-package`,
`too-many-pixels`, `too-complex`, `decode-failed`.

Pillow's settings are never changed, and no opener is registered with it, so threads do not disturb each other.
Its warnings about damaged metadata stay warnings; in a process that turns warnings into errors they become
`decode-failed`.

This module does not know models, their preprocessing, or where images are stored.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageChops, JpegImagePlugin
from PIL.ImageFile import ImageFile

from indexer.corpus.image_bounds import checked_structure, jpeg_coefficients
from indexer.corpus.image_formats import HEAD, SUFFIXES, TAIL, foreign_format, image_format
from indexer.corpus.paths import MAX_BYTES, open_file, read_file
from indexer.errors import CallError, ItemError
from indexer.reasons import Reason, refusal
from indexer.types import ImageSource

MAX_PIXELS = 1 << 26
"""Pixels of one decoded image, 67,108,864: 256 MiB in Pillow's memory, and up to three times that while decoding."""
REDUCED = 4
"""A larger JPEG may be decoded at this fraction of its width and height."""

DARK = (51, 51, 51)
NOTICEABLE = 32
SEEN = 0.01

_COEFFICIENTS = 12
"""Bytes that a JPEG of several scans may need besides its pixels, for each pixel of `max_pixels`."""

# What Pillow raises on damaged input, found by feeding it more than a hundred thousand mutated files: OSError
# (most decoders), SyntaxError (headers, PNG chunks), ValueError (header fields, palettes, tiles, texts),
# RuntimeError (AVIF), TypeError (TIFF tags of the wrong type), EOFError and struct.error (early ends), and
# Warning, if the process makes warnings errors.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, TypeError, EOFError, struct.error, Warning)

# These decoders check an image against Pillow's own limit again, and warn or refuse.
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

_RAW_TAG, _SUBFILE_TAG, _SUBFOLDERS_TAG = 50706, 254, 330
"""TIFF tags: a DNG's version, whether this is a reduced copy of another image, where more images are."""

_limit: ContextVar[int] = ContextVar("max_pixels", default=MAX_PIXELS)


@contextmanager
def decoding_at_most(max_pixels: int | None) -> Iterator[None]:
    """Within the block, in this thread, decode at most this many pixels per image; None is `MAX_PIXELS`.

    Raises:
        CallError: The number is less than 1.
    """
    if max_pixels is not None and max_pixels < 1:
        raise CallError(f"max_pixels is {max_pixels}; it must be at least 1.")
    token = _limit.set(MAX_PIXELS if max_pixels is None else max_pixels)
    try:
        yield
    finally:
        _limit.reset(token)


def decode_image(
    source: ImageSource,
    *,
    max_pixels: int | None = None,
    max_bytes: int = MAX_BYTES,
    hint: int | None = None,
    as_stored: bool = False,
) -> Image.Image:
    """Decode an image to upright 8-bit RGB, loaded and independent of its file.

    Args:
        source: A path, encoded bytes, or a PIL image, which is read at its current frame.
        max_pixels: Limit of decoded pixels, checked in the header before decoding; a larger JPEG is decoded smaller,
            other formats are refused. None is the limit of `decoding_at_most`, or else `MAX_PIXELS`.
        max_bytes: Refuse a longer file.
        hint: The short side the caller needs. A JPEG may then be decoded smaller by a power of two, with a short side
            of at least `hint`, at a fraction of the cost.
        as_stored: Ignore the EXIF orientation, and let Pillow convert everything to RGB. This drops transparency except
        in RGBA, which is laid on white. The scripts of published models do this.

    Raises:
        ItemError: The image cannot be used; the module's docstring lists the codes.
    """
    most = _limit.get() if max_pixels is None else max_pixels
    if isinstance(source, Image.Image):
        _check_pixels(source, most)
        with pillow_errors():
            return _stored_pixels(source) if as_stored else _pixels(source, keep_alpha=False)
    data = encoded_bytes(source, max_bytes)
    with pillow_errors(data):
        image, _ = open_image(data, most)
        if image.format == "JPEG":
            _draft(image, data, most, hint)
        _check_pixels(image, most)
        return _stored_pixels(image) if as_stored else _pixels(image, keep_alpha=False)


def image_digest(source: ImageSource) -> str:
    """The content key of an image: sha256, in hex, of the bytes that `encode_for_storage` gives for it.

    A file is read in pieces and not parsed, so the key of any file can be computed.

    Raises:
        ItemError: The file cannot be read, or the PIL image cannot be loaded.
    """
    if isinstance(source, Path):
        with open_file(source) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    content = source if isinstance(source, bytes) else _png(source)
    return hashlib.sha256(content).hexdigest()


def encode_for_storage(source: ImageSource, *, max_bytes: int = MAX_BYTES) -> tuple[bytes, str]:
    """The bytes to store for an image, and their file suffix.

    Encoded bytes are stored unchanged, with the suffix of their actual format.
    A PIL image becomes a PNG of its upright 8-bit pixels, with its transparency and without metadata.

    Raises:
        ItemError: The image cannot be read, or its format is not one of those read here.
    """
    if isinstance(source, Image.Image):
        return _png(source), ".png"
    data = encoded_bytes(source, max_bytes)
    with pillow_errors(data):
        _, suffix = open_image(data)
    return data, suffix


def encoded_bytes(source: Path | bytes, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file, or the bytes given.

    Raises:
        ItemError: The file cannot be read, is empty, or has more than `max_bytes`.
        CallError: The source is neither a path nor bytes.
    """
    match source:
        case Path():
            data = read_file(source, max_bytes)
        case bytes():
            data = source
        case _:
            raise CallError(f"An image is a Path, bytes or a PIL image, not {type(source).__name__}.")
    if len(data) > max_bytes:
        raise refusal(Reason.TOO_MANY_BYTES, f"The image has {len(data):,} bytes; the limit is {max_bytes:,}.")
    if not data:
        raise refusal(Reason.EMPTY, "The image has no bytes.")
    return data


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[ImageFile, str]:
    """Read the header, and return the suffix of its format.

    Image.open does the same, but warns above a global limit and lets every plugin try.
    """
    name = image_format(data[:HEAD], data[-TAIL:])
    if name is None:
        raise _not_read(data)
    checked = checked_structure(name, data, max_pixels)
    image: ImageFile = _opener(name)(BytesIO(checked), "")
    if name == "TIFF":
        _refuse_raw(image)
    return image, SUFFIXES[name]


def _opener(name: str) -> Callable[..., ImageFile]:
    """The opener of a format.

    Raises:
        ItemError: The package for it is missing, or Pillow was built without it.
    """
    if name == "JPEG":
        # The registered factory also looks for a second image after this one, and warns of damage.
        return JpegImagePlugin.JpegImageFile
    if name == "HEIF":
        try:
            from pillow_heif import HeifImageFile
        except ImportError:
            raise refusal(
                Reason.MISSING_PACKAGE,
                "A HEIF image needs the package pillow-heif; run: pip install 'underdrawing[heif]'",
            ) from None
        opener: Callable[..., ImageFile] = HeifImageFile
        return opener
    Image.init()
    if name not in Image.OPEN:
        raise refusal(Reason.MISSING_PACKAGE, f"This build of Pillow has no decoder for {name}; update it.")
    return Image.OPEN[name][0]


def _refuse_raw(image: Any) -> None:
    """Whether it is a camera raw photograph: a TIFF file whose first image is a thumbnail."""
    tags = image.tag_v2
    if _RAW_TAG in tags or (tags.get(_SUBFILE_TAG) == 1 and _SUBFOLDERS_TAG in tags):
        raise refusal(Reason.UNSUPPORTED_FORMAT, "A camera raw photograph; develop it to JPEG first.")


def _not_read(data: bytes) -> ItemError:
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"<") and b"<svg" in head:
        return refusal(Reason.SVG, "The image is an SVG; convert it to pixels first.")
    known = ", ".join(SUFFIXES)
    foreign = foreign_format(data[:HEAD])
    if foreign is not None:
        return refusal(Reason.UNSUPPORTED_FORMAT, f"The format {foreign} is not read; convert it to one of {known}.")
    return refusal(Reason.NOT_AN_IMAGE, f"The content is none of {known}; it begins with {data[:8]!r}.")


def _draft(image: ImageFile, data: bytes, max_pixels: int, hint: int | None) -> None:
    """Let a JPEG be decoded no larger than needed and allowed."""
    width, height = image.size
    if width * height > max_pixels * REDUCED**2:
        raise _too_many_pixels(
            width, height, f"of a JPEG, which is decoded at a quarter of its size, {max_pixels * REDUCED**2:,}"
        )
    if (beside := jpeg_coefficients(data)) > max_pixels * _COEFFICIENTS:
        raise _too_many_pixels(
            width, height,
            f"and its scans need {beside:,} bytes beside them, of which {max_pixels * _COEFFICIENTS:,}",
        )  # fmt: skip
    part = next(
        part for part in (1, 2, REDUCED) if -(-width // part) * -(-height // part) <= max_pixels or part == REDUCED
    )
    if hint is not None and min(width, height) // hint >= part:
        image.draft(None, (hint, hint))
    elif part > 1:
        image.draft(None, (max(1, width // part), max(1, height // part)))


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many_pixels(width, height, f"{max_pixels:,}")
    own = Image.MAX_IMAGE_PIXELS
    if image.format in _MEASURED_BY_PILLOW and own is not None and width * height > own:
        raise refusal(
            Reason.TOO_MANY_PIXELS,
            f"The image has {width:,} × {height:,} pixels; Pillow reads no {image.format} of more than {own:,}.",
        )


def _too_many_pixels(width: int, height: int, allowed: str) -> ItemError:
    return refusal(
        Reason.TOO_MANY_PIXELS,
        f"The image has {width:,} × {height:,} pixels; the limit is {allowed}. Raise the limit with `max_pixels`.",
    )


def _pixels(image: Image.Image, *, keep_alpha: bool) -> Image.Image:
    """The upright image as a new one, in RGB, or in RGBA if it has transparency to be preserved."""
    image.load()
    turn = _TURNS.get(orientation(image))
    grey = _eight_bit_grey(image)
    transparent = grey.has_transparency_data
    pixels = grey.convert("RGBA" if transparent else "RGB")
    pixels.info = {}  # its EXIF orientation would turn the result again when that is decoded or saved
    if transparent and not keep_alpha:
        ground = Image.new("RGB", pixels.size, _ground(pixels))
        ground.paste(pixels, mask=pixels)
        pixels = ground
    return pixels.transpose(turn) if turn is not None else pixels


def _stored_pixels(image: Image.Image) -> Image.Image:
    """Pillow's own RGB, with RGBA on white, as in qwen_vl_utils."""
    image.load()
    if image.mode == "RGBA":
        ground = Image.new("RGB", image.size, (255, 255, 255))
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    pixels = image.convert("RGB")
    pixels.info = {}
    return pixels


def _ground(pixels: Image.Image) -> tuple[int, int, int]:
    """The background for an RGBA image: white, or `DARK` if white hides nearly all that is visible."""
    red, green, blue, alpha = pixels.split()
    noticed = ImageChops.darker(ImageChops.darker(red, green), blue).point(
        [255] * (256 - NOTICEABLE) + [0] * NOTICEABLE
    )
    weights = [
        sum(value * count for value, count in enumerate(each)) for each in (alpha.histogram(), alpha.histogram(noticed))
    ]
    visible, seen = weights
    return DARK if seen < SEEN * visible else (255, 255, 255)


def orientation(image: Image.Image) -> object:
    """The EXIF orientation, 1 to 8 in an intact image, or None."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except PILLOW_ERRORS:
        return None  # viewers show images with damaged metadata, too


def _eight_bit_grey(image: Image.Image) -> Image.Image:
    """Convert 16-bit, 32-bit and float gray to 8 bits by the rule in the module's docstring; leave the rest."""
    if image.mode[0] not in "IF":
        return image
    values = np.asarray(image)
    low, high = 0.0, 1.0 if image.mode == "F" else 65535.0
    rows = max(1, (1 << 20) // max(1, values.shape[1]))  # in strips: single precision takes four times the result
    strips = [values[start : start + rows] for start in range(0, len(values), rows)]
    if not image.mode.startswith("I;16"):
        ends = [(own.min(), own.max()) for each in strips if (own := each[np.isfinite(each)]).size]
        if ends and (min(least for least, _ in ends) < low or max(most for _, most in ends) > high):
            low, high = float(min(least for least, _ in ends)), float(max(most for _, most in ends))
    grey = np.empty(values.shape, np.uint8)
    with np.errstate(all="ignore"):
        for start, strip in zip(range(0, len(values), rows), strips, strict=True):
            scaled = (strip.astype(np.float32) - low) * (255 / ((high - low) or 1))
            grey[start : start + rows] = np.nan_to_num(scaled, nan=0).clip(0, 255).round()
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return Image.fromarray(grey)
    # PNG: one gray value that means transparent
    return Image.merge(
        "LA", [Image.fromarray(grey), Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))]
    )


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    with pillow_errors():
        _pixels(image, keep_alpha=True).save(file, "PNG")
    return file.getvalue()


@contextmanager
def pillow_errors(data: bytes = b"") -> Iterator[None]:
    """Turn what Pillow raises while it reads `data` into ItemErrors."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise refusal(Reason.TOO_MANY_PIXELS, f"{error}.") from error
    except PILLOW_ERRORS as error:
        cause = str(error)[:200]
        if "truncated" in cause.lower() or _ends_early(data):
            raise refusal(Reason.TRUNCATED, f"The image ends too early ({cause}).") from error
        raise refusal(Reason.DECODE_FAILED, f"The image cannot be decoded ({cause}).") from error


def _ends_early(data: bytes) -> bool:
    """Whether the end that the format prescribes is missing. Asked only after a failure, to name the cause."""
    tail = data[-32:]
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in tail
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    if data.startswith(b"GIF8"):
        return b";" not in tail
    return data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") + 8 > len(data)
