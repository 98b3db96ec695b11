"""What a forked child has to know: it has none of its parent's threads.

Servers that load an application once and fork their workers (gunicorn --preload, uwsgi), `multiprocessing` on Linux and
the workers of data loaders all do this. OpenMP keeps its threads for the next computation, and a child would wait for
threads that are not there. So torch and FAISS compute in one thread in a child; pools of our own are started anew; and
locks that somebody else held are free again.

What this module does not know: who computes what.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Any

_child = False


class Lock:
    """A lock that is free in a forked child, whoever held it in the parent: that thread is not there.

    Args:
        again: Whether the thread that holds it may take it again.
    """

    def __init__(self, *, again: bool = False) -> None:
        self._kind = threading.RLock if again else threading.Lock
        self._lock: Any = self._kind()
        _locks.add(self)

    def renew(self) -> None:
        """Be a lock that nobody holds."""
        self._lock = self._kind()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def in_child() -> bool:
    """Whether this process was forked from one that had this package loaded."""
    return _child


def _settle() -> None:
    """In a child: nothing may wait for a thread that stayed with the parent."""
    global _child
    _child = True
    torch, faiss = sys.modules.get("torch"), sys.modules.get("faiss")
    for library, name in ((torch, "set_num_threads"), (faiss, "omp_set_num_threads")):
        limit = getattr(library, name, None)  # None while it is being imported
        if limit is not None:
            limit(1)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_settle)
