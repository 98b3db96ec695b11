"""Which columns of a table, or keys of a JSON object, hold a document's id, text and images.

The same rule holds for every table: JSON lines, JSON arrays, CSV, Parquet, and the JSON beside an image. Names are
compared without regard to case, spaces and hyphens.

* **id**: `id`.
* **text**: `text`, or else `caption`, `captions` or `txt`, which also stay fields. A list of texts is joined with
  line breaks.
* **images**: the first of `IMAGE_NAMES` that has a value; then a column whose values are images; then one of
  `FILE_NAMES` whose value has the suffix of an image. A document without a text takes whatever file such a column
  names. Last, any column of a table that holds the path of an image, except the id, the text and a title.
* **URLs**: nothing is fetched. A column such as `image_url`, or `url` where it can only mean the image, is refused,
  and the error says what to do.

Every other column is a field, and so is a path or URL that is not the image. The caller may name the columns instead.

This module does not know how a table is read, or whether an image is valid.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from indexer.corpus.image_values import (
    has_image_suffix,
    is_absent,
    is_encoded,
    is_image_path,
    looks_like_image,
    may_be_image_file,
    read_images,
)
from indexer.reasons import Reason, refusal

TEXT_NAMES = ("text", "caption", "captions", "txt")
IMAGE_NAMES = (
    *("image", "img", "images", "imgs", "picture", "pictures", "photo", "photos"),
    *("image_bytes", "img_bytes", "image_base64", "img_base64", "image_b64", "img_b64", "image_data"),
    *("image_path", "img_path", "image_paths", "image_file", "img_file", "image_files"),
    *("image_file_name", "image_filename"),
    *("jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "heic"),
)
"""Names that mean an image whatever the value is. The first takes precedence."""
FILE_NAMES = ("file_name", "filename", "file_path", "filepath", "path", "file", "image_name", "img_name", "uri")
"""Names of an image or any other file. Names that end in `_file_name` count too, after these."""
_FILE_ENDINGS = ("_file_name", "_file_names")
URL_NAMES = ("image_url", "img_url", "image_urls", "img_urls", "image_uri", "image_link", "picture_url", "photo_url")
_BASE64_NAMES = frozenset({"image_base64", "img_base64", "image_b64", "img_b64"})
_LOOSE = frozenset(
    {"picture", "pictures", "photo", "photos", "jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp"}
)
"""Names with other meanings, too, such as the number of photos: the value must look like an image."""

_NO_IMAGES = frozenset({"title", "description", "fields"})
_RANKS = {name: rank for rank, name in enumerate(IMAGE_NAMES)}
_FEW_COLUMNS = 256


@dataclass(frozen=True)
class Columns:
    """Columns that the caller names; None leaves the choice to the rule of this module.

    Attributes:
        id: The column of ids. A row without a value gets an id made from its position.
        text: The column of texts.
        image: The column of images. Rows without a value have no image; an empty name means no row has one.
    """

    id: str | None = None
    text: str | None = None
    image: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """The names that were given, by their purpose."""
        return {part: name for part, name in vars(self).items() if name is not None}


@dataclass(frozen=True)
class Parts:
    """The parts of a row.

    Attributes:
        id: The value as written; None without one.
        text: The value as written, or joined; None without one.
        text_column: The column that the text came from.
        images: Paths, and encoded bytes.
        fields: All other columns, overridden by an object `fields`.
        other_images: Columns that could also have been the image, and the one that is.
    """

    id: object
    text: object
    text_column: str | None
    images: list[Path | bytes]
    fields: dict[str, Any]
    other_images: dict[str, str]


def find_id(row: Mapping[str, Any], columns: Columns) -> tuple[str | None, object]:
    """The id column and the id in it; both None without one."""
    name = columns.id if columns.id is not None else next(iter(_names_of(row).ids), None)
    return name, None if name is None else row.get(name)


def own_id(details: Mapping[str, Any]) -> object:
    """The id in the JSON beside an image or a text; None without one. An empty text is no id; 0 is one."""
    _, value = find_id(details, Columns())
    return None if isinstance(value, str) and not value else value


def is_image_column(name: str) -> bool:
    """Whether the name of a column of bytes says that it holds images."""
    return _plain(name) in _RANKS


def require_columns(names: Collection[str], columns: Columns) -> None:
    """Check that a table has the columns that the caller named.

    Raises:
        ItemError: `no-column`, with the columns that the table has.
    """
    for name in columns.named.values():
        if name and name not in names:
            there = ", ".join(repr(each[:40]) for each in list(names)[:20]) or "none"
            raise refusal(Reason.NO_COLUMN, f"The table has no column {name!r}; it has {there}.")


def find_parts(
    row: Mapping[str, Any],
    columns: Columns,
    folder: Path | None,
    *,
    image_columns: tuple[str, ...] = (),
    has_text: bool = False,
    only_objects: bool = False,
) -> Parts:
    """Split a row into its parts.

    Args:
        row: Values by the names of their columns.
        columns: What the caller named.
        folder: What paths are relative to; None if paths lead nowhere, as in an archive.
        image_columns: Columns whose values are known to be images, by their type and content.
        has_text: Whether the document has a text that is not in the row.
        only_objects: Treat a `fields` value that is not an object as a field of that name, for tables that have such
            a column; otherwise it is refused.

    Raises:
        ItemError: `bad-image`, `remote-uri` or `bad-fields`.
    """
    names = _names_of(row)
    id_column, id = find_id(row, columns)
    text_column, text = _find_text(row, columns, names)
    candidates = _image_candidates(
        row, columns, names, image_columns, has_text=has_text or text is not None, guess=folder is not None
    )
    images: list[Path | bytes] = []
    chosen: str | None = None
    for name in candidates:
        chosen = name
        images = read_images(row[name], folder, name, base64_column=_plain(name) in _BASE64_NAMES)
        if images:
            break
    strong: list[str] = []
    dropped = {id_column, chosen, *(name for name in names.blank if _is_blank(row[name]))}
    if image_columns:
        dropped |= {name for name in image_columns if is_absent(row.get(name))}
    if len(candidates) > 1:
        strong = [name for name in candidates if name != chosen and (_plain(name) in _RANKS or name in image_columns)]
        dropped |= {name for name in strong if is_encoded(row[name], base64_column=_plain(name) in _BASE64_NAMES)}
    if text_column is not None and (columns.text is not None or _plain(text_column) == "text"):
        dropped.add(text_column)
    if isinstance(text, list) and _is_texts(text):
        text = "\n".join(each for each in text if each)
    explicit = row.get("fields") or {}
    if not isinstance(explicit, dict):
        if not only_objects:
            raise refusal(Reason.BAD_FIELDS, f"`fields` must be an object, not {type(explicit).__name__}.")
        explicit = {"fields": explicit}
    fields = {key: value for key, value in row.items() if key not in dropped and key != "fields"}
    others = {name: chosen for name in strong if chosen is not None}
    return Parts(id, text, text_column, images, fields | explicit, others)


@dataclass(frozen=True, slots=True)
class _Names:
    """The columns of a table by their possible roles; of equal names, the exact spelling comes first.

    Attributes:
        ids, texts, images, files, links: In order of precedence.
        url: The columns called `url`.
        captions: The caption columns.
        blank: Columns that stand for the text or the image, and are not fields if they are blank.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    images: tuple[str, ...]
    files: tuple[str, ...]
    links: tuple[str, ...]
    url: tuple[str, ...]
    captions: tuple[str, ...]
    blank: tuple[str, ...]


def _names_of(row: Mapping[str, Any]) -> _Names:
    keys = tuple(row)
    return _sort_names(keys) if len(keys) <= _FEW_COLUMNS else _sort_names.__wrapped__(keys)


@lru_cache(1_024)
def _sort_names(keys: tuple[str, ...]) -> _Names:
    plain = sorted((key != name, key, name) for key in keys for name in [_plain(key)])

    def called(*wanted: str) -> tuple[str, ...]:
        return tuple(key for name in wanted for _, key, other in plain if other == name)

    texts, images = called(*TEXT_NAMES), called(*IMAGE_NAMES)
    endings = (key for key in keys if _plain(key).endswith(_FILE_ENDINGS) and key not in images)
    return _Names(
        ids=called("id"),
        texts=texts,
        images=images,
        files=(*called(*FILE_NAMES), *endings),
        links=called(*URL_NAMES),
        url=called("url"),
        captions=called("caption", "captions"),
        blank=(*called("text"), *(key for key in images if _plain(key) not in _LOOSE)),
    )


@lru_cache(4_096)
def _plain(key: str) -> str:
    return re.sub(r"[\s-]+", "_", key.strip().lower()) if len(key) < 40 else key


def _find_text(row: Mapping[str, Any], columns: Columns, names: _Names) -> tuple[str | None, Any]:
    if columns.text is not None:
        value = row.get(columns.text)
        return columns.text, value if value is None or isinstance(value, str) or _is_texts(value) else str(value)
    wrong: tuple[str | None, Any] = (None, None)
    for key in names.texts:
        value = row[key]
        if isinstance(value, str):
            if value.strip():
                return key, value
        elif _is_texts(value):
            if any(each.strip() for each in value if each is not None):
                return key, value
        elif value not in (None, []) and _plain(key) == "text":
            wrong = (key, value)  # the validator reports it
    return wrong


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(each is None or isinstance(each, str) for each in value)


def _is_blank(value: object) -> bool:
    return not value.strip() if isinstance(value, str) else is_absent(value)


def _image_candidates(
    row: Mapping[str, Any],
    columns: Columns,
    names: _Names,
    image_columns: tuple[str, ...],
    *,
    has_text: bool,
    guess: bool,
) -> list[str]:
    """The columns that may hold the image and have a value, most likely first."""
    if columns.image is not None:
        # An empty name never selects a column, although a JSON key may be empty.
        return [] if not columns.image or is_absent(row.get(columns.image)) else [columns.image]
    found = [key for key in names.images if not is_absent(row[key])]
    found = [key for key in found if _plain(key) not in _LOOSE or looks_like_image(row[key])]
    found.sort(key=lambda key: row[key] == "")  # a blank one is an error if it is the only one
    found += [key for key in image_columns if key not in found and not is_absent(row.get(key))]
    for key in names.files:
        if has_image_suffix(row[key]) or (_plain(key) == "file_name" and may_be_image_file(row[key])):
            found.append(key)
        elif isinstance(row[key], list) and _plain(key).endswith(_FILE_ENDINGS) and looks_like_image(row[key]):
            found.append(key)
        elif not has_text and isinstance(row[key], str) and row[key]:
            found.append(key)
    found += [key for key in names.links if not is_absent(row[key])]
    if not found:
        # In a text document, `url` is the page that it comes from.
        captioned = not has_text or any(key in row and row[key] for key in names.captions)
        is_text = any(_plain(key) == "text" for key in names.texts)
        found += [key for key in names.url if row[key] and ((captioned and not is_text) or has_image_suffix(row[key]))]
    if not found and guess:
        paths = [key for key, value in row.items() if type(value) in (str, list) and is_image_path(value)]
        if paths:
            known = {*names.ids, *names.texts, columns.id, columns.text}
            found = [key for key in paths if key not in known and _plain(key) not in _NO_IMAGES]
    return found
