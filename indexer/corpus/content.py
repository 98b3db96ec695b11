"""What a file is by its first bytes, asked where its name does not tell.

What this module does not know: the formats.
"""

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
    """Whether a file begins (and, of one format, ends) like an image that is read here. Some 300 bytes are read.

    Raises:
        ItemError: `missing`, `not-a-file` or `unreadable`.
    """
    with open_file(path) as file:
        head = file.read(HEAD)
        file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
        return image_format(head, file.read(TAIL)) is not None


def begins_as_list(path: Path) -> bool:
    """Whether a JSON file begins as a list of objects does; no for what cannot be read. 4,096 bytes are read."""
    try:
        with open_file(path) as file:
            return _LIST.match(file.read(_LIST_HEAD)) is not None
    except ItemError:
        return False
