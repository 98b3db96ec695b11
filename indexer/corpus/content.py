"""What a file is by its first bytes, asked where its name does not tell.

What this module does not know: the formats.
"""

from __future__ import annotations

from pathlib import Path

from indexer.corpus.paths import open_file

_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")


def looks_like_image(path: Path) -> bool:
    """Whether a file's first bytes are those of an image that is read here.

    Raises:
        ItemError: `missing`, `not-a-file` or `unreadable`.
    """
    with open_file(path) as file:
        head = file.read(256)
    return head.startswith(_STARTS)
