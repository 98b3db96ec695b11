"""Reports of tables and archives that hold nothing, as for empty folders.

A file of zero bytes may never have been written completely, for example on a full disk. So it hides the documents
that came from it, and they are not pruned. A table without rows (a header alone, `[]`) states that there are
none.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from indexer.corpus.records import Entry
from indexer.types import PassedOver

EMPTY_FILE = "empty file"
EMPTY_TABLE = "empty table"


def or_empty(entries: Iterable[Entry], path: Path, prefix: str) -> Iterator[Entry]:
    """The entries of a file, or a note that it has none.

    Args:
        entries: The entries as they are read.
        path: The file.
        prefix: Prefix of the ids that its rows get from their positions.
    """
    found = False
    for entry in entries:
        found = True
        yield entry
    if found:
        return
    if is_empty(path):
        yield PassedOver(path.as_uri(), EMPTY_FILE, hides=prefix)
    else:
        yield PassedOver(path.as_uri(), EMPTY_TABLE)


def is_empty(path: Path) -> bool:
    """Whether a file has zero bytes or no longer exists."""
    try:
        state = path.stat()
    except OSError:
        return True
    return stat.S_ISREG(state.st_mode) and state.st_size == 0
