"""Support for forked processes, which have none of their parent's threads.

Servers that load an application once and fork their workers (gunicorn --preload, uwsgi), `multiprocessing` on Linux and
the workers of data loaders all fork. OpenMP keeps its threads for the next computation, and a child would wait for
threads that do not exist there. So in a child, torch and FAISS compute in one thread, our own pools are recreated, and
locks held by other threads are released.

What this module does not know: what is computed.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Any

_child = False


class Lock:
    """A lock that is free in a forked child, even if a thread of the parent held it.

    Args:
        again: Whether the lock is reentrant.
    """

    def __init__(self, *, again: bool = False) -> None:
        self._kind = threading.RLock if again else threading.Lock
        self._lock: Any = self._kind()
        _locks.add(self)

    def renew(self) -> None:
        """Reset to a lock that nobody holds."""
        self._lock = self._kind()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def in_child() -> bool:
    """Whether this process was forked from one that had loaded this package."""
    return _child


def _settle() -> None:
    """Prepare a forked child so that nothing waits for a thread of the parent."""
    global _child
    _child = True
    torch, faiss = sys.modules.get("torch"), sys.modules.get("faiss")
    for library, name in ((torch, "set_num_threads"), (faiss, "omp_set_num_threads")):
        limit = getattr(library, name, None)  # None during its import
        if limit is not None:
            limit(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_settle)
