"""Durable writes of one file or many: write a temporary file, sync, rename, sync the folder.

Files that grow by lines are the exception: lines are appended and synced, and an unterminated line is ignored.

POSIX promises that a rename is atomic, not that it is durable, nor that it comes after the data: hence the two syncs.
A crash leaves the old file or the new one, and at worst a `.tmp-` file beside it, which the next writer sweeps away.

What this module does not know: the meaning of the bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from indexer.errors import CorruptionError, StoreError

TEMPORARY_PREFIX = ".tmp-"
_TEMPORARY = re.compile(r"\.tmp(-[0-9A-Za-z_.]+|[0-9A-Za-z]{6})")
"""Prefixes of temporary files: ours, and safetensors' without the hyphen (`.tmpV1zCxM`)."""
SYNCED_AT_ONCE = 16


def atomic_write(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Write `content` to `path` durably and completely, or leave the old file.

    Raises:
        StoreError: The disk refuses.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name to write to; on leaving the block, the file is renamed to `path`, durably.

    For writers that insist on a file name, such as FAISS. If the block raises, the temporary file is removed.

    Raises:
        StoreError: The disk refuses.
    """
    with _aside(path, path.suffix) as temporary:
        yield temporary
        _sync_file(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)


def write_pending(path: Path, content: bytes) -> None:
    """Stage `content` in a temporary file for `settle` to rename to `path` durably, together with others.

    Raises:
        StoreError: The disk refuses.
    """
    if (pending := _pending(path)).exists():
        return
    with _aside(path) as temporary:
        temporary.write_bytes(content)
        temporary.chmod(0o644)
        temporary.replace(pending)


@contextmanager
def _aside(path: Path, suffix: str = "") -> Iterator[Path]:
    """A new temporary file in the folder of `path`, removed if the block raises.

    Raises:
        StoreError: Writing fails, here or in the block.
    """
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _refused(path, error) from error


def settle(paths: Iterable[Path]) -> None:
    """Rename each path's staged file to the path, durably. A path without a staged file must exist.

    All are synced before the first rename, and each folder once, several at a time: a file system's journal then writes
    many of them together, instead of waiting for the disk for each.

    Raises:
        StoreError: Writing fails, or there is neither a file nor a staged one.
    """
    pending = {path: _pending(path) for path in sorted(set(paths))}
    waiting = [path for path, aside in pending.items() if aside.exists()]
    _at_once(lambda path: _sync_file(pending[path]), waiting)
    for path in pending:
        try:
            if pending[path].exists():
                pending[path].replace(path)
            path.stat()
        except OSError as error:
            raise _refused(path, error) from error
    # Also if nothing was renamed: another process may have died before this step.
    _at_once(sync_folder, dict.fromkeys(path.parent for path in pending))


def _at_once(sync: Callable[[Path], None], paths: Collection[Path]) -> None:
    def checked(path: Path) -> None:
        try:
            sync(path)
        except OSError as error:
            raise _refused(path, error) from error

    with ThreadPoolExecutor(SYNCED_AT_ONCE, "sync") as pool:
        list(pool.map(checked, paths))


def _pending(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{path.name}")


def _refused(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written: {error.strerror or error}.", "Is the disk full, or the folder read-only?"
    )


def make_folder(folder: Path) -> None:
    """Create a folder and its parents durably; existing ones are left alone."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems cannot sync a folder and report EINVAL; any other error is real.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def append_lines(path: Path, lines: bytes) -> None:
    """Append complete lines durably, creating the file if needed. First an unterminated last line is cut off.

    Raises:
        StoreError: Writing fails. Lines written before may stay; the next call removes a partial line.
    """
    try:
        make_folder(path.parent)
        new = not path.exists()
        with path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            if file.read(1) not in (b"", b"\n"):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


def read_lines(path: Path) -> list[bytes]:
    """The complete lines of a file that `append_lines` writes; none if there is no file.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from error
    return content[: content.rfind(b"\n") + 1].splitlines()


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_temporary(folder: Path) -> list[Path]:
    """Remove temporary files of crashed writers under `folder`; call it only while holding the writer's lock.

    Links are not followed, and only files with our names are removed.
    """
    leftovers = [
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if _TEMPORARY.fullmatch(name)
    ]  # fmt: skip
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


def file_digest(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """sha256 of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return digest.hexdigest()


def require_digest(path: Path, expected: str) -> None:
    """Compare a file's sha256 with the recorded one.

    Raises:
        CorruptionError: The file is missing or its sha256 differs.
    """
    if not path.exists():
        raise CorruptionError(f"{path} is missing.", "Restore it from a backup, or run `underdrawing check --repair`.")
    found = file_digest(path)
    if found != expected:
        raise CorruptionError(
            f"{path} is damaged: its sha256 is {found[:12]}…, recorded was {expected[:12]}….",
            "Restore it from a backup, or run `underdrawing check --repair` and index its documents again.",
        )


def file_identity(path: Path) -> str:
    """A file's identity, which changes when it is rewritten: inode, size and time."""
    state = path.stat()
    return f"{state.st_dev}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}"
