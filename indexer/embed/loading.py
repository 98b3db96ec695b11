"""The process-wide lock under which models are loaded, one at a time.

transformers, diffusers, open_clip and accelerate build models on a device without memory, using process-wide switches:
two threads that load at once give each other modules without weights. There is one lock for all libraries, and its
holder may take it again: a bridge loads its image encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from indexer.forks import Lock

_lock = Lock(again=True)


@contextmanager
def loading() -> Iterator[None]:
    """Hold the loading lock."""
    with _lock:
        yield
