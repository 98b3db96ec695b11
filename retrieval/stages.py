"""The stages of an answer, and how long each takes.

What this module does not know: what a stage does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("encode", "draw", "compose", "search", "documents")
"""Of every answer; a method that has sentences written adds `write` before them."""


@contextmanager
def timed(took: dict[str, float], stage: str) -> Iterator[None]:
    """Note the milliseconds that the block takes."""
    start = time.perf_counter()
    yield
    took[stage] = (time.perf_counter() - start) * 1000
