"""The kind of a file by its first bytes, for files whose names do not tell."""

from __future__ import annotations

import os
import re
from pathlib import Path

from indexer.corpus.image_formats import HEAD, TAIL, image_format
from indexer.corpus.paths import open_file
from indexer.errors import ItemError

_LIST_HEAD = 4_096
_LIST = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")


def looks_like_image(path: Path) -> bool:
    """Whether a file begins (and, for one format, ends) like an image that can be read. Reads some 300 bytes.

    Raises:
        ItemError: `missing`, `not-a-file` or `unreadable`.
    """
    with open_file(path) as file:
        head = file.read(HEAD)
        file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return image_format(head, file.read(TAIL)) is not None


def begins_as_list(path: Path) -> bool:
    """Whether a JSON file begins like a list of objects; False if it cannot be read. Reads 4,096 bytes."""
    try:
        with open_file(path) as file:
            return _LIST.match(file.read(_LIST_HEAD)) is not None
    except ItemError:
        return False
