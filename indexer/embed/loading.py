"""One model is loaded at a time in a process.

transformers, diffusers, open_clip and accelerate build models on a device without memory, by switches that hold for the
whole process: two threads that load at once give each other modules without weights. The lock is one for all of them,
and whoever holds it may take it again: a bridge loads its image encoder.

What this module does not know: any model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from indexer.forks import Lock

_lock = Lock(again=True)


@contextmanager
def loading() -> Iterator[None]:
    """Hold the lock under which models are loaded."""
    with _lock:
        yield
