"""Access to files that others named: whatever is not a regular, readable file is an ItemError and never blocks."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TypeAlias

from indexer.errors import ItemError
from indexer.reasons import Reason, refusal

COLLECTION_FILE = "collection.json"
Identity: TypeAlias = "tuple[int, int] | str"

MAX_BYTES = 256 * 1024 * 1024
"""Bytes of the longest image or sidecar that is read into memory."""


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading. Errors of reads inside the block are reported like those of opening.

    Raises:
        ItemError: `missing`, `not-a-file` or `unreadable`.
    """
    with _file_errors(path):
        # Path.open takes no opener; this one keeps a fifo without a writer from blocking forever.
        with open(path, "rb", opener=_open_without_waiting) as file:  # noqa: PTH123
            _check_regular(path, os.fstat(file.fileno()))
            yield file


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a whole regular file.

    Raises:
        ItemError: `missing`, `not-a-file`, `unreadable` or `too-many-bytes`.
    """
    with open_file(path) as file:
        # The size of the directory entry is not used: a file may grow, and some report none.
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise refusal(Reason.TOO_MANY_BYTES, f"{printable(path)} has more than {max_bytes:,} bytes.")
    return content


def stat_file(path: Path) -> os.stat_result:
    """The state of a regular file, links followed.

    Raises:
        ItemError: `missing`, `not-a-file` or `unreadable`.
    """
    with _file_errors(path):
        state = path.stat()
    _check_regular(path, state)
    return state


def scan_folder(path: Path) -> Iterator[str]:
    """The names in a folder, in no order; names of folders end in a slash.

    Raises:
        ItemError: `missing` or `unreadable`.
    """
    with _file_errors(path), os.scandir(path) as entries:
        for entry in entries:
            yield f"{entry.name}/" if _is_folder(entry) else entry.name


def list_folder(path: Path) -> list[str]:
    """The names of `scan_folder` in the order of the paths below: `a.png`, then `a/b.png`, then `a0.png`.

    Raises:
        ItemError: `missing` or `unreadable`.
    """
    return sorted(scan_folder(path), key=os.fsencode)


@dataclass(frozen=True)
class Listing:
    """The contents of a folder, by name; no file was opened.

    Attributes:
        identity: Identifies the folder under whatever names links give it; see `identity_of`.
        names: In the order of `list_folder`; names of folders end in a slash.
        links: The names that are symbolic links.
        broken: The errors of links that lead nowhere, and of entries that cannot be examined.
    """

    identity: Identity
    names: list[str]
    links: frozenset[str]
    broken: Mapping[str, ItemError]


def read_listing(path: Path) -> Listing:
    """List a folder, completely or not at all.

    Raises:
        ItemError: `missing` or `unreadable`, also if the disk fails in the middle of the list.
    """
    names: list[str] = []
    links: set[str] = set()
    broken: dict[str, ItemError] = {}
    with _file_errors(path):
        identity = identity_of(path, path.stat())
        with os.scandir(path) as entries:
            for entry in entries:
                name, is_link = entry.name, entry.is_symlink()
                try:
                    if entry.is_dir():
                        name += "/"
                    elif is_link:
                        entry.stat()  # a broken link is not a folder, either
                except OSError as error:
                    broken[name] = _as_refusal(path / name, error)
                names.append(name)
                if is_link:
                    links.add(name)
    return Listing(identity, sorted(names, key=os.fsencode), frozenset(links), broken)


def identity_of(path: Path, state: os.stat_result) -> Identity:
    """Device and inode, which all links to a file or folder share; the real path on systems without inodes."""
    return (state.st_dev, state.st_ino) if state.st_ino else os.path.realpath(path)


def is_collection(folder: Path) -> bool:
    """Whether a folder is an underdrawing collection: it has a `collection.json` and its store."""
    try:
        with open_file(folder / COLLECTION_FILE) as file:
            content = json.loads(file.read(1 << 16))
    except (ItemError, ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and {"format", "metadata"} <= content.keys():
        return True
    return all(os.path.isfile(folder / name) for name in (COLLECTION_FILE, "metadata.db"))  # noqa: PTH113  # never raises


def portable_name(path: str) -> str:
    """A path as a Unicode string that no other path maps to.

    A byte that is not UTF-8 is written `%FF`, and a percent sign that would read as such an escape `%25`.
    """
    escaped = re.sub("%(?=[0-9A-Fa-f]{2})", "%25", path)
    return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", escaped)


def printable(path: Path | str) -> str:
    r"""A path as text that can be stored and shown: a byte that is not UTF-8 appears as `\udcff`."""
    return str(path).encode("utf-8", "backslashreplace").decode().replace("\0", r"\0")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself is no folder, and no reason to give up its neighbors


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(path: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise refusal(Reason.NOT_A_FILE, f"{printable(path)} is not a regular file.")


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    if "\0" in str(path):  # Python would raise ValueError.
        raise refusal(Reason.MISSING, f"{printable(path)} does not exist.")
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        raise _as_refusal(path, error) from error


def _as_refusal(path: Path, error: OSError | UnicodeEncodeError) -> ItemError:
    """The `ItemError` for an error of a file."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | UnicodeEncodeError):
        return refusal(Reason.MISSING, _what_is_missing(path))
    if isinstance(error, IsADirectoryError) or error.errno == errno.ENXIO:  # ENXIO: a socket
        return refusal(Reason.NOT_A_FILE, f"{printable(path)} is not a regular file.")
    return refusal(Reason.UNREADABLE, f"{printable(path)} cannot be read ({error.strerror}).")


def _what_is_missing(path: Path) -> str:
    try:
        target = path.readlink()
    except (OSError, ValueError):
        return f"{printable(path)} does not exist."
    return f"{printable(path)} is a link to {printable(target)}, which does not exist."
