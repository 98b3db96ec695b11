"""Images in the values of a table: bytes, a path, a data URI, base64, a struct, or a list of those."""

from __future__ import annotations

import ast
import base64
import binascii
import json
import os
import re
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import unquote

from indexer.corpus.image_formats import HEAD, KNOWN_SUFFIXES, image_format
from indexer.corpus.paths import printable
from indexer.corpus.suffixes import DRAWING, NO_IMAGES, UNREAD_IMAGES
from indexer.errors import ItemError
from indexer.reasons import Reason, refusal
from indexer.validate import shown

_LONGEST_LIST = 65_536
"""Characters of a list of paths in one cell."""
_MAX_DEPTH = 3
"""Levels of lists and objects around an image."""
_FETCH_REMEDY = (
    "Nothing is fetched. Download the images and give their paths relative to the table; or index the texts alone: "
    "`image_column=''`"
)
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_DATA_URI = re.compile(r"data:[^,]{0,200}?(;base64)?,", re.IGNORECASE)
_BARE_BASE64 = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk[0-9A-Za-z+/]{4}|SUkqA|TU0AK)[A-Za-z0-9+/\s]{90}")
_IMAGE_SUFFIXES = KNOWN_SUFFIXES | UNREAD_IMAGES | {DRAWING}


def is_absent(value: object) -> bool:
    """Whether a value holds no image and nothing that claims to be one."""
    if isinstance(value, dict):
        return all(each is None for each in value.values())
    if isinstance(value, list):
        return all(each is None or (isinstance(each, dict) and is_absent(each)) for each in value)
    return value is None


def is_encoded(value: object, *, base64_column: bool, depth: int = 0) -> bool:
    """Whether a value contains the image data itself, which no field can."""
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return depth < _MAX_DEPTH and any(
            is_encoded(each, base64_column=base64_column, depth=depth + 1) for each in inner
        )
    if isinstance(value, str):
        return base64_column or bool(_DATA_URI.match(value)) or bool(_BARE_BASE64.match(value))
    return isinstance(value, bytes)


def looks_like_image(value: object, *, depth: int = 0) -> bool:
    """Whether a value can only be an image."""
    if isinstance(value, list):
        return depth < _MAX_DEPTH and any(looks_like_image(each, depth=depth + 1) for each in value)
    return isinstance(value, dict) or is_encoded(value, base64_column=False) or has_image_suffix(value)


def has_image_suffix(value: object) -> TypeGuard[str]:
    """Whether a value is the path or URL of an image, by its suffix."""
    return isinstance(value, str) and suffix_of(value) in _IMAGE_SUFFIXES


def is_image_path(value: object) -> bool:
    """Whether a value can only be the path of an image, or a list of such paths, whatever its column is called."""
    if isinstance(value, list):
        return 0 < len(value) <= 1_000 and all(isinstance(each, str) and is_image_path(each) for each in value)
    if not isinstance(value, str) or "." not in value[-6:]:
        return False
    return has_image_suffix(value) and len(value) <= 300 and value.count(" ") <= 3 and _URI.match(value) is None


def may_be_image_file(value: object) -> bool:
    """Whether a value is the name of a file that may be an image: its suffix is not known to be anything else."""
    if not isinstance(value, str) or not (suffix := suffix_of(value)):
        return False
    return suffix in _IMAGE_SUFFIXES or suffix not in NO_IMAGES


def suffix_of(value: str) -> str:
    """The suffix of a path or URL, in lower case."""
    if _URI.match(value):
        value = re.split("[?#]", value, maxsplit=1)[0]
    stem, dot, suffix = value[-12:].rpartition(".")
    return f".{suffix.lower()}" if dot and stem and "/" not in suffix else ""


def read_images(
    value: object, folder: Path | None, column: str = "image", *, base64_column: bool = False, depth: int = 0
) -> list[Path | bytes]:
    """The images that a value stands for: bytes, a path, a data URI, base64, `{bytes, path}`, or a list of those.

    Args:
        value: The value.
        folder: What paths are relative to; None if they lead nowhere.
        column: The column of the value.
        base64_column: Whether the column's name says that texts in it are base64.
        depth: Levels of lists and objects around the value.

    Raises:
        ItemError: `bad-image` or `remote-uri`.
    """
    if depth > _MAX_DEPTH:
        raise refusal(Reason.BAD_IMAGE, f"The image in {column!r} is nested more than {_MAX_DEPTH} deep.")
    match value:
        case None:
            return []
        case bytes() | bytearray() | memoryview():
            return [bytes(value)]
        case str() if base64_column:
            return [_decoded(value)]
        case str():
            several = _written_list(value)
            return [_image_of_text(each, folder) for each in ([value] if several is None else several)]
        case list():
            inner = (read_images(each, folder, column, base64_column=base64_column, depth=depth + 1) for each in value)
            return [image for images in inner for image in images]
        case dict():
            return _image_of_object(value, folder, column, depth)
        case _:
            kind = type(value).__name__
            raise refusal(Reason.BAD_IMAGE, f"The image in {column!r} must be bytes or a path, not {kind}.")


def _image_of_object(value: dict[str, Any], folder: Path | None, column: str, depth: int) -> list[Path | bytes]:
    encoded = value.get("bytes")
    if isinstance(encoded, str):
        return [_decoded(encoded)]
    if encoded:
        return read_images(encoded, folder, column, depth=depth + 1)
    for key in ("path", "file_name", "image", "url"):
        if value.get(key):
            return read_images(value[key], folder, column, depth=depth + 1)
    if is_absent(value):
        return []
    detail = f"The image in {column!r} is an object without `bytes` or `path`; it has {shown(sorted(map(str, value)))}."
    raise refusal(Reason.BAD_IMAGE, detail)


def _written_list(value: str) -> list[str] | None:
    """The texts of a list written as JSON or Python in one cell, since CSV has no form for lists."""
    if not (value.startswith("[") and value.endswith("]") and len(value) <= _LONGEST_LIST):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return found if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


def _image_of_text(value: str, folder: Path | None) -> Path | bytes:
    if match := _DATA_URI.match(value):
        if match[1] is None:
            raise refusal(
                Reason.BAD_IMAGE, f"The image is the data URI {printable(value[:80])!r}, which is not base64."
            )
        return _decoded(value[match.end() :])
    if _BARE_BASE64.match(value):
        try:
            content = _decoded(value)
        except ItemError:
            pass  # it is a path then, and will not be found
        else:
            if image_format(content[:HEAD]) is not None:
                return content
    if folder is None and not _URI.match(value):
        detail = f"The image is {printable(value[:80])!r}; in an archive, the image must be a member of the same name."
        raise refusal(Reason.BAD_IMAGE, detail)
    return image_path(value, Path() if folder is None else folder)


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        raise refusal(Reason.BAD_IMAGE, f"The image is not base64: {error}.") from error


def image_path(value: str, folder: Path) -> Path:
    """The file that an entry names as its image, relative to the folder of the entry's own file.

    Raises:
        ItemError: `remote-uri` or `bad-image`.
    """
    if _URI.match(value):
        path = re.match("file://(?:localhost)?(/.*)", value, re.IGNORECASE | re.DOTALL)
        if path is None:
            raise refusal(Reason.REMOTE_URI, f"The image is {printable(value[:80])}. {_FETCH_REMEDY}.")
        value = unquote(path[1])
    if not value or value.startswith("data:") or "\0" in value or not _is_unicode(value):
        raise refusal(Reason.BAD_IMAGE, f"The image is {printable(value[:80])!r}, which is not a path.")
    if "\\" in value and not os.path.lexists(folder / value):
        value = value.replace("\\", "/")  # a table from Windows
    return folder / value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
