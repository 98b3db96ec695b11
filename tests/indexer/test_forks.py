"""A forked child of a process that has searched, embedded, indexed or generated does the same, without a deadlock.

Each case runs in a process of its own, which is killed if it hangs: that is a guard, and no clock is judged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from indexer import forks

PATIENCE = 240
SCRIPT = Path(__file__).parents[1] / "support" / "forked.py"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="only systems that fork")


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("embedding", "fork"), ("searching", "fork"), ("graph", "fork"), ("codes", "fork"), ("drawing", "fork"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("embedding", "pool"), ("embedding", "loader"), ("own_embedder", "fork"), ("searching", "pool"),
                ("adding", "fork"), ("indexing", "fork"), ("graph", "pool"), ("codes", "loader"),
            )
        ),
    ],
)  # fmt: skip
def test_a_forked_child_does_what_its_parent_did(what: str, how: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            [sys.executable, str(SCRIPT), what, how, str(tmp_path)],
            capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.fail(f"{what} hangs in a forked child")
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["before"] == told["after"] == told["again"]


@pytest.mark.parametrize("again", [False, True])
def test_a_lock_that_somebody_held_is_free_in_a_child(again: bool) -> None:
    lock = forks.Lock(again=again)
    holder = threading.Thread(target=lock.__enter__)  # it ends, and never gives the lock back
    holder.start()
    holder.join()
    assert lock in forks._locks
    lock.renew()  # as every child does
    with lock:
        pass
    assert not forks.in_child()
