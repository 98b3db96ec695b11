"""The writer's lock: one writer at a time, through a locked file that names its holder.

The operating system releases the lock when the process dies in any way, so there is nothing to clean up. On network
file systems without such locks, ensure a single writer by other means.

What this module does not know: what is written.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType

from indexer.errors import LockedError, StoreError
from indexer.files.atomic import make_folder
from indexer.files.layout import require_plain

PAUSE = 0.05
"""Seconds between two attempts while waiting."""
_NOT_A_LINK = getattr(os, "O_NOFOLLOW", 0)


class WriterLock:
    """The lock, held inside `with WriterLock(path):`; not reentrant, and exclusive between threads, too.

    Args:
        path: The lock's file.
        patience: The most seconds to wait for another writer.

    Raises:
        LockedError: On entering, another writer holds it for longer; the message names that writer.
        StoreError: On entering, the folder is not writable, or the lock is a link, whose target would be overwritten.
    """

    def __init__(self, path: Path, patience: float = 0.0) -> None:
        self.path, self._patience = path, patience
        self._file: FileIO | None = None

    def __enter__(self) -> WriterLock:
        until = time.monotonic() + self._patience
        while True:
            try:
                self._take()
                return self
            except LockedError:
                if time.monotonic() >= until:
                    raise
            time.sleep(PAUSE)

    def _take(self) -> None:
        try:
            make_folder(self.path.parent)
            require_plain(self.path)
            # Opened without truncation: until we hold the lock, the content is its holder's name.
            file = FileIO(os.open(self.path, os.O_RDWR | os.O_CREAT | _NOT_A_LINK, 0o644), "r+b")
        except OSError as error:
            require_plain(self.path)
            raise StoreError(
                f"{self.path.parent} cannot be written: {error.strerror or error}.",
                "Is the disk full, or the folder read-only?",
            ) from error
        try:
            _lock(file)
        except OSError:
            holder = _holder(file.read())
            file.close()
            raise LockedError(
                f"{self.path.parent} is being written by {holder}.", "Wait for it to finish, or stop it."
            ) from None
        own = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": Path(sys.argv[0]).name or "python",
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # on a full disk the lock is still held, but names nobody
            file.truncate(0)
            file.write(json.dumps(own).encode())
        self._file = file

    def require(self) -> None:
        """Verify that the locked file is still the one that others find by its path.

        Raises:
            StoreError: The file was removed, so another writer may hold a new one.
        """
        if self._file is None:
            return
        held = os.fstat(self._file.fileno())
        try:
            found = self.path.stat()
        except OSError:
            found = None
        if found is None or not os.path.samestat(held, found):
            raise StoreError(
                f"{self.path} was removed or replaced while it was held: another writer may be active.",
                "Run it again, and do not delete the file: the lock ends with its process.",
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


def _holder(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f"{holder['command']} (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"


if sys.platform == "win32":
    import msvcrt

    def _lock(file: FileIO) -> None:
        # Locked far beyond the content, so that the holder's name stays readable.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

else:
    import fcntl

    def _lock(file: FileIO) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
