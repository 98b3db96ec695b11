"""Run a model on several batches in parallel.

What this module does not know: where batches come from.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future

from indexer.embed.base import Embedder, Prepared
from indexer.ingest.prepare import embed
from indexer.types import Vectors

STREAM_BATCH = 16
"""Items of each parallel batch: enough for one core, few enough to finish soon at the end of a shard."""


class Streams:
    """An embedder that accepts as many batches as it has streams, and one more that waits for the first to finish.

    Attributes:
        busy: Seconds spent on batches, summed over all streams.
    """

    def __init__(self, embedder: Embedder, threads: Executor) -> None:
        self._embedder, self._threads = embedder, threads
        self._taken: deque[Future[Vectors]] = deque()
        self._lock = threading.Lock()
        self.busy = 0.0

    @property
    def busy_seconds(self) -> float:
        """Seconds spent on batches, the mean of all streams."""
        return self.busy / self._embedder.streams

    @property
    def batch_size(self) -> int:
        """Items per batch."""
        most = self._embedder.batch_size
        return most if self._embedder.streams == 1 else min(most, STREAM_BATCH)

    @property
    def ahead(self) -> int:
        """The most items that it holds."""
        return self.batch_size * (self._embedder.streams + 1)

    def embed(self, batch: Sequence[Prepared]) -> Future[Vectors]:
        """Accept a batch as soon as there is room for it."""
        while len(self._taken) > self._embedder.streams:
            self._taken.popleft().result()
        future = self._threads.submit(self._work, batch)
        self._taken.append(future)
        return future

    def _work(self, batch: Sequence[Prepared]) -> Vectors:
        start = time.monotonic()
        vectors = embed(self._embedder, batch)
        with self._lock:
            self.busy += time.monotonic() - start
        return vectors
