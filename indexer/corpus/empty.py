"""A table or an archive that holds nothing is told of, as an empty folder is.

A file of no bytes at all may be one that was never written to its end, on a full disk for example. So it hides the
documents that came from it, and they are not pruned. A table of no rows (a header alone, `[]`) says that there are
none.

What this module does not know: how a table is read.
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
    """The entries of a file, or that it has none.

    Args:
        entries: As they are read.
        path: The file.
        prefix: Of the ids that its rows have by their places.
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
    """Whether a file has no bytes, or is there no more."""
    try:
        state = path.stat()
    except OSError:
        return True
    return stat.S_ISREG(state.st_mode) and state.st_size == 0
