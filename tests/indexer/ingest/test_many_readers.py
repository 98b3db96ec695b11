"""Many readers and one writer, in threads and processes: no wrong answer, no mixed generations, no deadlock.

Every commit replaces all documents by their next version, so a reader that sees two versions at once has seen half of a
commit. Readers search with filters, through an index and without, plain and centred; the writer compacts now and then.

The default run takes a second or two; `pytest tests/indexer/ingest/test_many_readers.py -m slow` goes on for `MINUTES`.
"""

from __future__ import annotations

import threading
import time

import doomed
import pytest
from answers import contents

from indexer import IndexKind, IndexSettings
from indexer.errors import LockedError

pytestmark = pytest.mark.crash

VERSIONS, MINUTES = 5, 3
READERS = 2
PATIENCE = 600
"""Seconds after which what has not ended is taken for a deadlock."""


class Readers:
    """Threads that read until told to stop; what any of them finds wrong is kept."""

    def __init__(self, collections):
        self.stop, self.wrong, self.seen = threading.Event(), [], []
        self.threads = [threading.Thread(target=self._read, args=(each,)) for each in collections]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a reader hangs"
        assert self.wrong == []

    def _read(self, shop):
        newest = 0
        while not (self.stop.is_set() or self.wrong):
            problem, version = doomed.look(shop)
            if problem is None and version is not None and version < newest:
                problem = f"version {version} after {newest}"
            if problem is not None:
                self.wrong.append(problem)
            elif version is not None:
                newest = version
                self.seen.append(version)


@pytest.fixture
def stocked(shop):
    """Five documents of version 0."""
    doomed.replace_all(shop, 0)
    return shop


def go_on(shop, versions, until=0.0):
    version = 0
    while version < versions or time.monotonic() < until:
        version += 1
        doomed.replace_all(shop, version)
        if version % 3 == 0:
            shop.compact()
    return version


def with_threads(shop, open_shop, versions, until=0.0):
    graph = open_shop(index=IndexSettings(kind=IndexKind.HNSW))
    graph.build_index()
    with Readers([shop, shop, open_shop(), graph]) as readers:
        last = go_on(shop, versions, until)
        while readers.seen.count(last) < 2 and not readers.wrong:
            time.sleep(0.01)
    assert {told[1]["v"] for told in contents(shop).values()} == {last}
    assert len(set(readers.seen)) > 2
    assert shop.check().findings == []


def with_processes(shop, database_url, versions, until=0.0):
    stop = doomed.context.Event()
    readers = [
        doomed.context.Process(target=doomed.look_until, args=(shop.path, database_url, stop)) for _ in range(READERS)
    ]
    for reader in readers:
        reader.start()
    try:
        go_on(shop, versions, until)
        with shop.writer(), pytest.raises(LockedError, match="is being written by"):
            doomed.replace_all(shop, 0)
    finally:
        stop.set()
    for reader in readers:
        reader.join(PATIENCE)
        assert reader.exitcode == 0
        reader.close()
    assert shop.check().findings == []


def test_in_threads(stocked, open_shop):
    with_threads(stocked, open_shop, VERSIONS)


def test_in_processes(stocked, database_url):
    with_processes(stocked, database_url, VERSIONS)


@pytest.mark.slow
def test_in_threads_for_minutes(stocked, open_shop):
    with_threads(stocked, open_shop, VERSIONS, time.monotonic() + 60 * MINUTES)


@pytest.mark.slow
def test_in_processes_for_minutes(stocked, database_url):
    with_processes(stocked, database_url, VERSIONS, time.monotonic() + 60 * MINUTES)
