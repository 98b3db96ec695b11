"""Which columns of a table, or keys of a JSON object, are a document's id, its text and its images.

The same rule for every table: JSON lines, JSON arrays, CSV, Parquet, and the JSON beside an image. Names count without
regard to case, spaces and hyphens.

* **id**: `id`.
* **text**: `text`, or else `caption`, `captions`, `txt`, which stay fields, too. A list of texts is joined by line ends.
* **images**: the first of `IMAGE_NAMES` that has a value; then a column whose values are images; then one of `FILE_NAMES`
  whose value is an image by its suffix. A document that has no text takes whatever file such a column names.
* **URLs**: nothing here fetches. A column called `image_url` and the like, or `url` where that can only mean the image,
  is refused with what to do.

Every other column is a field, and so is a path or URL that is not the image. Who calls may name the columns instead.

What this module does not know: how a table is read, and whether an image is one.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from indexer.corpus.image_formats import HEAD, KNOWN_SUFFIXES, image_format
from indexer.corpus.paths import printable
from indexer.corpus.suffixes import DRAWING, UNREAD_IMAGES
from indexer.errors import ItemError
from indexer.reasons import Reason, refusal
from indexer.validate import shown

TEXT_NAMES = ("text", "caption", "captions", "txt")
IMAGE_NAMES = (
    *("image", "img", "images", "imgs", "picture", "pictures", "photo", "photos"),
    *("image_bytes", "img_bytes", "image_base64", "img_base64", "image_b64", "img_b64", "image_data"),
    *("image_path", "img_path", "image_paths", "image_file", "img_file", "image_files"),
    *("image_file_name", "image_filename"),
    *("jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "heic"),
)
"""What names an image whatever its value is. The first goes before the others."""
FILE_NAMES = ("file_name", "filename", "file_path", "filepath", "path", "file", "image_name", "img_name", "uri")
"""What may name an image, or any other file."""
URL_NAMES = ("image_url", "img_url", "image_urls", "img_urls", "image_uri", "image_link", "picture_url", "photo_url")
_URL = "url"
_BASE64_NAMES = frozenset({"image_base64", "img_base64", "image_b64", "img_b64"})
_LOOSE = frozenset({"picture", "pictures", "photo", "photos", "jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp"})
"""Names that also stand for other things, such as how many photos there are: the value must look like an image."""

_FETCH_REMEDY = "Nothing is fetched. Download the images, and give their paths relative to the table"
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_DATA_URI = re.compile(r"data:[^,]{0,200}?(;base64)?,", re.IGNORECASE)
_BARE_BASE64 = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk[0-9A-Za-z+/]{4}|SUkqA|TU0AK)[A-Za-z0-9+/\s]{90}")
_IMAGE_SUFFIXES = KNOWN_SUFFIXES | UNREAD_IMAGES | {DRAWING}


@dataclass(frozen=True)
class Columns:
    """Columns that the caller names; None leaves each to the rule of this module.

    Attributes:
        id: The column of ids. A row without a value gets the id of its place.
        text: The column of texts.
        image: The column of images. Rows without a value have no image; an empty name means that none has one.
    """

    id: str | None = None
    text: str | None = None
    image: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """The names that were given, by what they are for."""
        return {part: name for part, name in vars(self).items() if name is not None}


@dataclass(frozen=True)
class Parts:
    """What of a row is what.

    Attributes:
        id: As it stands there; None without one.
        text: As it stands there, or joined; None without one.
        text_column: Where it came from.
        images: Paths, and encoded bytes.
        fields: All other columns, and an object `fields` laid over them.
        other_images: Columns that could have been the image, too, and the one that is.
    """

    id: object
    text: object
    text_column: str | None
    images: list[Path | bytes]
    fields: dict[str, Any]
    other_images: dict[str, str]


def find_id(row: Mapping[str, Any], columns: Columns) -> tuple[str | None, object]:
    """The column of the id and the id in it, both None without one."""
    if columns.id is not None:
        return columns.id, row.get(columns.id)
    return next(((key, row[key]) for key in _called(row, "id")), (None, None))


def find_parts(
    row: Mapping[str, Any],
    columns: Columns,
    folder: Path | None,
    *,
    image_columns: tuple[str, ...] = (),
    has_text: bool = False,
    only_objects: bool = False,
) -> Parts:
    """Tell the parts of a row apart.

    Args:
        row: Values by the names of their columns.
        columns: What the caller named.
        folder: What paths are relative to; None if a path leads nowhere, as one in an archive does.
        image_columns: Columns whose values are known to be images, by their type and content.
        has_text: Whether the document has a text that is not in the row.
        only_objects: Take a value of `fields` that is no object for a field of that name, as in a table that has such a
            column; else it is refused.

    Raises:
        ItemError: `bad-image`, `remote-uri` or `bad-fields`.
    """
    id_column, id = find_id(row, columns)
    text_column, text = _find_text(row, columns)
    candidates = list(_image_candidates(row, columns, image_columns, has_text=has_text or text is not None))
    images: list[Path | bytes] = []
    chosen: str | None = None
    for name in candidates:
        chosen = name
        images = read_images(row[name], folder, column=name)
        if images:
            break
    strong = [name for name in candidates if name != chosen and (_rank(name) is not None or name in image_columns)]
    dropped = {id_column, chosen, *(name for name in row if _is_blank_part(name, row[name]))}
    dropped |= {name for name in strong if _is_encoded(row[name], name)}
    if text_column is not None and (columns.text is not None or _plain(text_column) == "text"):
        dropped.add(text_column)
    if isinstance(text, list) and _is_texts(text):
        text = "\n".join(each for each in text if each)
    explicit = row.get("fields") or {}
    if not isinstance(explicit, Mapping):
        if not only_objects:
            raise refusal(Reason.BAD_FIELDS, f"`fields` must be an object, not {type(explicit).__name__}.")
        explicit = {"fields": explicit}
    fields = {key: value for key, value in row.items() if key not in dropped and key != "fields"}
    others = {name: chosen for name in strong if chosen is not None}
    return Parts(id, text, text_column, images, fields | dict(explicit), others)


def _is_blank_part(name: str, value: object) -> bool:
    """Whether a column stands for the text or the image, and the row has none in it."""
    if _plain(name) == "text":
        return value is None or (isinstance(value, str) and not value.strip())
    return _rank(name) is not None and _plain(name) not in _LOOSE and _is_absent(value)


def _called(row: Mapping[str, Any], name: str) -> Iterator[str]:
    """The columns of that name, the one that is spelt so before others."""
    if name in row:
        yield name
    yield from (key for key in row if key != name and _plain(key) == name)


def _find_text(row: Mapping[str, Any], columns: Columns) -> tuple[str | None, Any]:
    if columns.text is not None:
        value = row.get(columns.text)
        return columns.text, value if value is None or isinstance(value, str) or _is_texts(value) else str(value)
    wrong: tuple[str | None, Any] = (None, None)
    for name in TEXT_NAMES:
        for key in _called(row, name):
            value = row[key]
            if _is_texts(value) and any(map(str.strip, filter(None, value))):
                return key, value
            if isinstance(value, str) and value.strip():
                return key, value
            if name == "text" and value not in (None, "", []) and not isinstance(value, str):
                wrong = (key, value)  # for the validator to say so
    return wrong


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(each is None or isinstance(each, str) for each in value)


def _image_candidates(
    row: Mapping[str, Any], columns: Columns, image_columns: tuple[str, ...], *, has_text: bool
) -> Iterator[str]:
    """The columns that may hold the image and have a value, likeliest first."""
    if columns.image is not None:
        if not _is_absent(row.get(columns.image)):
            yield columns.image
        return
    present = [key for key in row if not _is_absent(row[key])]
    ranked = sorted((row[key] == "", rank, key) for key in present if (rank := _rank(key)) is not None)
    found = [key for _, _, key in ranked if _plain(key) not in _LOOSE or _looks_like_image(row[key], key)]
    found += [key for key in image_columns if key in present and key not in found]
    for name in FILE_NAMES:
        found += [key for key in _called(row, name) if key in present and _names_image(row[key], name, has_text)]
    for name in URL_NAMES:
        found += [key for key in _called(row, name) if key in present]
    if not found:
        names = {_plain(key) for key in present}
        captioned = "text" not in names and not names.isdisjoint(("caption", "captions"))
        urls = (key for key in _called(row, _URL) if key in present)
        found += [key for key in urls if captioned or _names_image(row[key], _URL, has_text)]
    yield from found


def _looks_like_image(value: object, name: str) -> bool:
    if isinstance(value, list):
        return any(_looks_like_image(each, name) for each in value)
    return isinstance(value, bytes | Mapping) or _is_encoded(value, name) or _names_image(value, name, has_text=True)


def _names_image(value: object, name: str, has_text: bool) -> bool:
    """Whether a value of a column of files is an image."""
    if not isinstance(value, str):
        return False
    suffix = PurePosixPath(urlsplit(value).path if _URI.match(value) else value).suffix.lower()
    if suffix in _IMAGE_SUFFIXES or not has_text:
        return True
    # Image folders of the hub call their images `file_name`, whatever is in them; those of sounds and films do, too.
    return name == "file_name" and suffix != "" and mimetypes.guess_type(f"x{suffix}")[0] is None


def _is_absent(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(each is None for each in value.values())
    return value is None or (isinstance(value, list) and all(map(_is_absent, value)))


def _is_encoded(value: object, name: str) -> bool:
    """Whether a value holds an image itself, which no field can."""
    if isinstance(value, list):
        return any(_is_encoded(each, name) for each in value)
    if isinstance(value, Mapping):
        return any(_is_encoded(each, name) for each in value.values())
    if isinstance(value, str):
        return _plain(name) in _BASE64_NAMES or bool(_DATA_URI.match(value)) or bool(_BARE_BASE64.match(value))
    return isinstance(value, bytes)


def _rank(key: str) -> int | None:
    return _RANKS.get(_plain(key))


_RANKS = {name: rank for rank, name in enumerate(IMAGE_NAMES)}


@lru_cache(4_096)
def _plain(key: str) -> str:
    return re.sub(r"[\s-]+", "_", key.strip().lower()) if len(key) < 40 else key


def read_images(value: object, folder: Path | None, column: str = "image") -> list[Path | bytes]:
    """The images that a value stands for: bytes, a path, a data URI, base64, `{bytes, path}`, or a list of those.

    Args:
        value: The value.
        folder: What paths are relative to; None if they lead nowhere.
        column: Where the value stands; after some names it must be base64.

    Raises:
        ItemError: `bad-image` or `remote-uri`.
    """
    match value:
        case None:
            return []
        case bytes() | bytearray() | memoryview():
            return [bytes(value)]
        case str():
            return [_image_of_text(value, folder, column)]
        case list():
            return [image for each in value for image in read_images(each, folder, column)]
        case Mapping():
            return _image_of_object(value, folder, column)
        case _:
            kind = type(value).__name__
            raise refusal(Reason.BAD_IMAGE, f"The image in {column!r} must be bytes or a path, not {kind}.")


def _image_of_object(value: Mapping[str, Any], folder: Path | None, column: str) -> list[Path | bytes]:
    encoded = value.get("bytes")
    if isinstance(encoded, str):
        return [_decoded(encoded)]
    if encoded:
        return read_images(encoded, folder, column)
    for key in ("path", "file_name", "image", "url"):
        if value.get(key):
            return read_images(value[key], folder, column)
    if _is_absent(value):
        return []
    detail = f"The image in {column!r} is an object without `bytes` or `path`; it has {shown(sorted(map(str, value)))}."
    raise refusal(Reason.BAD_IMAGE, detail)


def _image_of_text(value: str, folder: Path | None, column: str) -> Path | bytes:
    if match := _DATA_URI.match(value):
        if match[1] is None:
            raise refusal(Reason.BAD_IMAGE, f"The image is the data URI {printable(value[:80])!r}, which is not base64.")
        return _decoded(value[match.end() :])
    if _plain(column) in _BASE64_NAMES:
        return _decoded(value)
    if _BARE_BASE64.match(value):
        try:
            content = _decoded(value)
        except ItemError:
            pass  # then it is a path, and will not be found
        else:
            if image_format(content[:HEAD]) is not None:
                return content
    if folder is None:
        detail = f"The image is {printable(value[:80])!r}; in an archive an image must be a member of the same name."
        raise refusal(Reason.BAD_IMAGE, detail)
    return image_path(value, folder)


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
        raise refusal(Reason.BAD_IMAGE, f"The image is not base64: {error}.") from error


def image_path(value: str, folder: Path) -> Path:
    """The file that an entry means by its image, relative to the folder that the entry's own file is in.

    Raises:
        ItemError: `remote-uri` or `bad-image`.
    """
    if match := _URI.match(value):
        parts = urlsplit(value) if match[1].lower() == "file" else None
        if parts is None or parts.netloc not in ("", "localhost"):
            raise refusal(Reason.REMOTE_URI, f"The image is {printable(value[:80])}. {_FETCH_REMEDY}.")
        value = unquote(parts.path)
    if not value or value.startswith("data:") or "\0" in value or not _is_unicode(value):
        raise refusal(Reason.BAD_IMAGE, f"The image is {printable(value[:80])!r}, which is no path.")
    return folder / value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
