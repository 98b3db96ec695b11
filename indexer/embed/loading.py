"""One model is loaded at a time in a process.

transformers, diffusers, open_clip and accelerate build models on a device without memory, by switches that hold for the
whole process: two threads that load at once give each other modules without weights. The lock is one for all of them,
and may be taken again by who holds it: a bridge loads its tower.

What this module does not know: any model.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()


@contextmanager
def loading() -> Iterator[None]:
    """Hold the lock under which models are loaded."""
    with _lock:
        yield


def _renew() -> None:
    """In a forked child: whoever held the lock is not there any more."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
