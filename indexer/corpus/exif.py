"""EXIF metadata of a photograph as fields of its document: when, where and with which camera it was taken.

    taken                  ISO 8601, `2024-05-01T18:30:00`, with the offset from UTC if the camera wrote one
    year                   that of `taken`, a number
    camera, lens           maker and model, as one text
    latitude, longitude    degrees, north and east positive
    width, height          pixels of the upright photograph

An image without any of the first six gets no fields: the size alone is not worth a field. If metadata are damaged,
readable parts are used, and no image is refused because of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from indexer.corpus.images import MAX_PIXELS, PILLOW_ERRORS, encoded_bytes, open_image, orientation
from indexer.corpus.paths import open_file
from indexer.errors import ItemError
from indexer.types import ImageSource

FIELDS = ("taken", "year", "camera", "lens", "latitude", "longitude", "width", "height")
"""The names of all fields that a photograph may get."""

_JPEG_HEAD = 1 << 20
"""Bytes read from a JPEG for its metadata, which come first; the whole file is never read for them."""
_MAX_EXIF = 1 << 21
_MAX_TEXT = 200
_DATE = re.compile(r"(\d{4})[:/.-](\d\d?)[:/.-](\d\d?)(?!\d)")
_TIME = re.compile(r"[ T]+(\d\d?):(\d\d)(?::(\d\d))?(?:[.,]\d+)? *(?:([AP])M)? *(Z|[+-]\d\d:\d\d)?", re.IGNORECASE)
_OFFSET = re.compile(r"[+-]\d\d:\d\d|Z")
_MOMENTS = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
)
_SIDEWAYS = (5, 6, 7, 8)
_DAMAGE = (
    *PILLOW_ERRORS,
    Image.DecompressionBombError,
    ItemError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
)
"""What reading damaged metadata raises, besides decoding errors: fractions of zero, missing tables."""


def photo_fields(source: ImageSource) -> dict[str, str | int | float]:
    """The fields of a photograph, a subset of `FIELDS`; empty for an image without such metadata.

    Args:
        source: A path, encoded bytes, or a PIL image.
    """
    try:
        image = _header(source)
        exif = image.getexif()
    except _DAMAGE:
        return {}
    found = {**_moment(exif), **_devices(exif), **_position(exif)}
    if not found:
        return {}
    width, height = image.size
    if orientation(image) in _SIDEWAYS:
        width, height = height, width
    return found | {"width": width, "height": height}


def _header(source: ImageSource) -> Image.Image:
    """The image, opened but not decoded.

    Raises:
        ItemError: It has no metadata, or too much.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, Path):
        with open_file(source) as file:
            head = file.read(_JPEG_HEAD)
        data = head if head.startswith(b"\xff\xd8\xff") or len(head) < _JPEG_HEAD else encoded_bytes(source)
    else:
        data = source[:_JPEG_HEAD] if source.startswith(b"\xff\xd8\xff") else encoded_bytes(source)
    if not data.startswith((b"II", b"MM")) and not any(name in data for name in (b"Exif", b"eXIf", b"EXIF")):
        raise ItemError("no-exif", "The image has no EXIF.")  # checked before Pillow opens it
    image, _ = open_image(data, MAX_PIXELS)
    if data.startswith(b"\x89PNG") and "exif" not in image.info:
        _late_exif(image, data)
    if len(image.info.get("exif", b"")) > _MAX_EXIF:
        raise ItemError("no-exif", "The EXIF is too large to be one.")
    return image


def _late_exif(image: Image.Image, data: bytes) -> None:
    """Whether a PNG may have its metadata after its pixels."""
    at = data.rfind(b"eXIf")
    length = int.from_bytes(data[at - 4 : at], "big") if at > 4 else 0
    if 0 < length <= _MAX_EXIF:
        image.info["exif"] = b"Exif\0\0" + data[at + 4 : at + 4 + length]


def _moment(exif: Image.Exif) -> dict[str, str | int]:
    details = _folder(exif, ExifTags.IFD.Exif)
    told = [(details.get(moment), details.get(offset)) for moment, offset in _MOMENTS]
    if _text(exif.get(ExifTags.Base.Make)) or _text(exif.get(ExifTags.Base.Model)):
        told.append(
            (exif.get(ExifTags.Base.DateTime), details.get(ExifTags.Base.OffsetTime))
        )  # written by cameras, not by scanners
    for value, offset in told:
        if (taken := _taken(_text(value), _text(offset))) is not None:
            return {"taken": taken, "year": int(taken[:4])}
    return {}


def _taken(text: str, offset: str) -> str | None:
    """A date and time in ISO 8601; the date alone if the time is invalid; None without a date."""
    written = _DATE.match(text)
    if written is None:
        return None
    try:
        day = date(*map(int, written.groups()))
    except ValueError:
        return None  # `0000:00:00 00:00:00`, written by cameras without a set clock
    time = _TIME.match(text, written.end())
    hour, minute, second = (int(part or 0) for part in time.group(1, 2, 3)) if time else (99, 0, 0)
    if time and time[4]:
        hour = hour % 12 + 12 * (time[4] in "pP")
    if time is None or hour > 24 or minute > 59 or second > 60 or (hour == 24 and minute + second):
        return day.isoformat()
    try:  # 24:00:00 is the beginning of the next day
        moment = datetime.combine(day, clock()) + timedelta(hours=hour, minutes=minute, seconds=second)
    except OverflowError:
        return day.isoformat()
    zone = _OFFSET.fullmatch(offset) or _OFFSET.fullmatch((time[5] or "").upper())
    return moment.isoformat() + (zone[0] if zone else "")


def _devices(exif: Image.Exif) -> dict[str, str]:
    details = _folder(exif, ExifTags.IFD.Exif)
    names = {
        "camera": _device(exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model)),
        "lens": _device(details.get(ExifTags.Base.LensMake), details.get(ExifTags.Base.LensModel)),
    }
    return {field: name for field, name in names.items() if name}


def _device(make: object, model: object) -> str:
    """Maker and model as one name: NIKON D850 if the model repeats the maker, else such as Panasonic DMC-GX80."""
    maker, name = _text(make), _text(model)
    if maker and name.lower().startswith(maker.split()[0].lower()):
        return name
    return f"{maker} {name}".strip()[:_MAX_TEXT]


def _position(exif: Image.Exif) -> dict[str, float]:
    place = _folder(exif, ExifTags.IFD.GPSInfo)
    latitude = _degrees(place.get(ExifTags.GPS.GPSLatitude), place.get(ExifTags.GPS.GPSLatitudeRef), "NS", 90)
    longitude = _degrees(place.get(ExifTags.GPS.GPSLongitude), place.get(ExifTags.GPS.GPSLongitudeRef), "EW", 180)
    if latitude is None or longitude is None:
        return {}
    return {"latitude": latitude, "longitude": longitude}


def _degrees(value: object, reference: object, sides: str, most: int) -> float | None:
    """Degrees, minutes and seconds as a number; None unless all are present and valid."""
    side = _text(reference).upper()
    if side not in tuple(sides) or not isinstance(value, Iterable):
        return None
    try:
        parts = [float(part) for part in value]
    except _DAMAGE:
        return None
    total: float = sum(part / 60**power for power, part in enumerate(parts))
    if not 1 <= len(parts) <= 3 or not all(part >= 0 for part in parts) or not math.isfinite(total) or total > most:
        return None
    return round(-total if side == sides[1] else total, 6)


def _folder(exif: Image.Exif, name: int) -> Mapping[int, Any]:
    try:
        return exif.get_ifd(name)
    except _DAMAGE:
        return {}


def _text(value: object) -> str:
    """A text without padding and control characters, at most 200 characters; empty for anything else."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    own = value.split("\0")[0].encode("utf-8", "replace").decode()
    return "".join(each for each in own if each.isprintable()).strip()[:_MAX_TEXT]
