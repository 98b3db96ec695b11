"""Decode records ahead of the model, in worker processes or in a thread.

What this module does not know: models, commits.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

from indexer.corpus.records import Record
from indexer.errors import UnderdrawingError
from indexer.ingest.prepare import Ingest, Ready
from indexer.types import Rejected

Work = TypeVar("Work")
Given = TypeVar("Given")
Made = TypeVar("Made")


def decoded_ahead(
    work: Iterable[tuple[Work, Sequence[Given]]],
    executor: Executor,
    prepare: Callable[[Sequence[Given]], list[Made]],
    depth: int,
) -> Iterator[tuple[Work, list[Made]]]:
    """Prepare chunks in the executor, `depth` of them ahead, and yield the results in order.

    Args:
        work: Chunks, each with a value that is yielded together with its result.
        executor: An executor of processes or of one thread.
        prepare: Prepares a chunk; picklable.
        depth: At least 1.

    Raises:
        UnderdrawingError: A process died.
    """
    waiting: deque[tuple[Work, Future[list[Made]]]] = deque()
    stream = iter(work)
    try:
        while True:
            for about, chunk in islice(stream, depth - len(waiting)):
                waiting.append((about, executor.submit(prepare, chunk)))
            if not waiting:
                return
            about, future = waiting.popleft()
            yield about, future.result()
    except BrokenProcessPool as error:
        raise UnderdrawingError(
            "A decoding process died.",
            "If this is a script, guard its start with `if __name__ == '__main__':`, or use workers=0. "
            "If memory ran out, use fewer workers. Run it again: it continues where it stopped.",
        ) from error
    finally:
        for _, future in waiting:
            future.cancel()


def ingest_chunk(ingest: Ingest, source: str, chunk: Sequence[Record]) -> list[Ready | Rejected]:
    """Check and decode a few records."""
    return [ingest(record.document, source, record.stamp) for record in chunk]


@contextmanager
def decoders(workers: int) -> Iterator[Executor]:
    """An executor of this many processes, or of one thread for 0."""
    # Spawned, not forked, since the parent holds a model, threads and database connections.
    pool: Executor = (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_follow_the_job)
        if workers
        else ThreadPoolExecutor(1, thread_name_prefix="decode")
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_the_job() -> None:
    """Make a decoding process end if the job is killed, and ignore Ctrl-C, which the job handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
