"""What a warm search runs through is counted, and does not grow."""

import json
from contextlib import ExitStack

from benchmarks.speed.crossings import ROOT, Watch, main
from indexer.arguments import flag
from retrieval.metrics import mean

LIMITS = {"files": 24, "switches": 58, "with_library": 70}
"""Of a `sum` search that returns one document. Lower them when a change does."""
CIG_FILES = 6
"""Of `retrieval`, that only `cig` runs through."""


def test_calls_are_counted_by_file_and_between_files():
    watch = Watch()
    with watch.installed():
        mean([1.0])
        with watch.counting() as found:
            mean([2.0])
            flag(True, "a flag")
    assert found.calls == {"retrieval/metrics.py": 1, "indexer/arguments.py": 1}
    assert found.switches.total() == 0, "this test is no file of the project"


def test_a_call_through_a_library_is_counted_apart():
    watch = Watch()
    outer = _as_if_in("indexer/outer.py", "def work(stack, called):\n with stack:\n  stack.callback(called)")
    inner = _as_if_in("retrieval/inner.py", "def work():\n pass")
    with watch.installed(), watch.counting() as found:
        outer(ExitStack(), inner)
    assert not found.switches
    assert found.through == {("indexer/outer.py", "retrieval/inner.py"): 1}


def test_a_call_from_one_file_into_another_is_a_switch():
    watch = Watch()
    outer = _as_if_in("indexer/outer.py", "def work(called):\n called()")
    inner = _as_if_in("retrieval/inner.py", "def work():\n pass")
    with watch.installed(), watch.counting() as found:
        outer(inner)
    assert found.switches == {("indexer/outer.py", "retrieval/inner.py"): 1}
    assert found.counts() == {"files": 2, "switches": 1, "with_library": 1, "calls": 2}


def _as_if_in(file, source):
    names = {}
    exec(compile(source, str(ROOT / file), "exec"), names)
    return names["work"]


def test_a_sum_search_runs_through_no_more_files_than_it_did(tmp_path, capsys):
    assert main(["--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["searches"]
    first = found["sum, 1 of 64 documents"]
    assert {name: first[name] <= limit for name, limit in LIMITS.items()} == dict.fromkeys(LIMITS, True), first
    assert 0 < found["cig alone"]["files"] < found["cig, 1 document"]["files"]
    alone = sorted(file for file in found["cig alone"]["where"] if file.startswith("retrieval/"))
    assert len(alone) <= CIG_FILES, alone
    assert "| cig alone |" in capsys.readouterr().out
