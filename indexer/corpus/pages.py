"""A reader of pages: a JSON file in a folder that names its images, `{"text": ..., "images": ["a.jpg", "b.jpg"]}`.

A page is one document of a text and several images, which are not documents themselves. Its id is its `id`, or else the
path of the file; every other key is a field. A page of one image is a description of that image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from indexer.corpus.columns import Columns, find_parts, own_id
from indexer.corpus.image_values import has_image_suffix
from indexer.corpus.paths import portable_name, read_file
from indexer.corpus.records import Entry, Record, make_record, of_document, parse_object, record_or_rejected
from indexer.corpus.suffixes import DETAILS, split_name
from indexer.errors import ItemError

MAX_PAGE_BYTES = 1 << 20
"""Bytes of a page; a larger JSON file is not a page."""
_KEY = "images"


def is_page(path: Path) -> bool:
    """Whether a file is a page: a JSON object with a list of names of image files under `images`."""
    if split_name(path.name)[1] != DETAILS:
        return False
    try:
        content = read_file(path, MAX_PAGE_BYTES)
        if b'"images"' not in content:
            return False
        named = parse_object(content).get(_KEY)
    except ItemError:
        return False
    return isinstance(named, list) and any(has_image_suffix(each) for each in named)


class PageCorpus:
    """The one document of a page.

    Args:
        path: The file's absolute path.
        id: The id if the page has none.

    Attributes:
        source: The file's path.
    """

    def __init__(self, path: Path, id: str) -> None:
        self._path, self._id = path, id
        self.source = portable_name(str(path))

    def __iter__(self) -> Iterator[Entry]:
        yield record_or_rejected(self._path.as_uri(), self._record, hides="")

    def _record(self) -> Record:
        details: dict[str, Any] = parse_object(read_file(self._path, MAX_PAGE_BYTES))
        own = own_id(details)
        with of_document(self._id if own is None else own) as id:
            parts = find_parts(details, Columns(image=_KEY), self._path.parent)
            return make_record(
                id=id,
                text=parts.text,
                images=parts.images,
                fields=parts.fields,
                uri=self._path.as_uri(),
                derived=own is None,
            )
