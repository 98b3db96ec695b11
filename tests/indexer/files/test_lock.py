"""One writer at a time over all threads and processes; others learn who it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from answers import found

from indexer import Document
from indexer.errors import LockedError

HOLD = """
import sys
from pathlib import Path
from indexer.files.lock import WriterLock
with WriterLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_writer_of_this_process_is_refused(shop, open_shop):
    with shop.writer(), pytest.raises(LockedError, match=rf"process {os.getpid()} on .*Wait for it to finish"):
        open_shop().add([Document("a", text="a")])
    assert shop.add([Document("a", text="a")]).added == 1


def test_so_is_one_of_another_thread(shop):
    refused = []

    def write():
        try:
            shop.delete(["a"])
        except LockedError as error:
            refused.append(error)

    with shop.writer():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(refused) == 1


def test_readers_are_not_hindered(shop, open_shop):
    shop.add([Document("cat", text="cat")])
    with shop.writer():
        assert found(open_shop(), "cat") == ["cat"]
        assert shop.check().clean


def test_whatever_writes_is_refused(shop):
    with shop.writer():
        for write in (shop.compact, shop.repair, lambda: shop.delete(["a"]), shop.writer().__enter__):
            with pytest.raises(LockedError):
                write()


def test_a_failure_inside_frees_the_lock(shop):
    with pytest.raises(ZeroDivisionError), shop.writer():
        1 / 0  # noqa: B018
    assert shop.delete([]) == 0


def test_another_process_is_named_and_when_killed_holds_no_longer(shop):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(shop.layout.lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=rf"being written by -c \(process {holder.pid} on .+, since 20"):
            shop.add([Document("a", text="a")])
        holder.send_signal(signal.SIGKILL)
    assert shop.add([Document("a", text="a")]).added == 1
