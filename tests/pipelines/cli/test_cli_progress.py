"""The progress display of a job: amounts, times, and the remaining work."""

from __future__ import annotations

import json
import tarfile
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.corpus.readers import open_corpus
from indexer.ingest.job import Progress
from indexer.types import PassedOver
from pipelines.terminal.console import amount, duration, first, measure, plain, shortened
from pipelines.terminal.progress import IndexProgress, count_entries, progress_line


def counted(path):
    return count_entries(open_corpus(path), path)


def test_a_line_says_amount_rate_time_left_and_rejects():
    assert progress_line(2_048, 10_944, 3, 36.6) == "2,048 of 10,944 · 56/s · 2 min 39 s left · 3 rejected"
    assert progress_line(30, None, 0, 60) == "30 · 0.5/s"
    assert progress_line(0, 100, 0, 0) == "0 of 100 · 0.0/s"
    assert progress_line(120, 100, 0, 10) == "120 of 120 · 12/s · 0.0 s left"


def test_a_folder_counts_as_it_is_read(photos):
    (photos / "sub").mkdir()
    (photos / "sub" / "a.md").write_text("x")
    (photos / "sub" / "A.PNG").write_bytes(b"x")
    (photos / "sub" / "drawing.svg").write_text("<svg/>")
    (photos / "sub" / "left.out").write_text("x")
    (photos / "sub" / ".hidden.png").write_text("x")
    entries = [entry for entry in open_corpus(photos) if not isinstance(entry, PassedOver)]
    assert counted(photos) == len(entries) == 10


def test_lines_and_rows_are_counted_and_archives_are_not(tmp_path):
    (tmp_path / "lines.jsonl").write_text("{}\n{}\n{}")
    assert counted(tmp_path / "lines.jsonl") == 3
    (tmp_path / "tables").mkdir()
    for name, rows in (("a", 2), ("b", 3)):
        pq.write_table(pa.table({"id": ["x"] * rows}), tmp_path / "tables" / f"{name}.parquet")
    assert counted(tmp_path / "tables") == 5
    assert counted(tmp_path / "tables" / "b.parquet") == 3
    with tarfile.open(tmp_path / "shard.tar", "w"):
        pass
    assert counted(tmp_path / "shard.tar") is None
    (tmp_path / "broken.parquet").write_bytes(b"x")
    assert counted(tmp_path / "broken.parquet") is None
    (tmp_path / "lines.jsonl.gz").write_bytes(b"x")
    assert counted(tmp_path / "lines.jsonl.gz") is None


def test_a_log_gets_a_line_now_and_then(tmp_path, capsys, monkeypatch):
    (tmp_path / "lines.jsonl").write_text(json.dumps({"id": "a", "text": "x"}) + "\n")
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with IndexProgress(open_corpus(tmp_path / "lines.jsonl"), tmp_path / "lines.jsonl") as progress:
        for seconds, prepared in ((10, 100), (20, 200), (31, 310), (32, 320), (62, 620)):
            now[0] = 100.0 + seconds
            progress(Progress(prepared=prepared, unchanged=0, added=0, rejected=2))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["310", "620"]
    assert all(line.endswith("2 rejected") for line in lines)


def test_a_reader_that_gives_nothing_says_where_it_is(tmp_path, capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (tmp_path / "shard.tar").write_bytes(b"")
    with IndexProgress(open_corpus(tmp_path / "shard.tar"), tmp_path / "shard.tar") as progress:
        for seconds, prepared in ((31, 10), (62, 20), (93, 20)):
            now[0] = 100.0 + seconds
            progress(Progress(prepared=prepared, read=70_000, place="file:///a/b%20c.tar#key=d/0001"))
    first, second, third = capsys.readouterr().err.splitlines()
    assert "read" not in first + second
    assert third.endswith(" · 70,000 read, at b c.tar#key=d/0001")


def test_done_is_what_is_committed_or_prepared_whichever_is_more(tmp_path, capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (tmp_path / "shard.tar").write_bytes(b"")
    with IndexProgress(open_corpus(tmp_path / "shard.tar"), tmp_path / "shard.tar") as progress:
        now[0] = 200.0
        progress(Progress(prepared=5, added=3, unchanged=10, rejected=1))
        now[0] = 300.0
        progress(Progress(prepared=5, added=4, unchanged=10, rejected=20))
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["15", "34"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (60, "1 min 00 s"), (185, "3 min 05 s"), (7_800, "2 h 10 min")],
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


def test_amounts_and_texts():
    measures = [measure(each) for each in (0.41372, 18530, 18530.4, 8.0, float("nan"))]
    assert measures == ["0.4137", "18,530", "18,530.4", "8", "nan"]
    assert [amount(each) for each in (999, 1_000, 2_500_000, 3 * 10**9)] == ["999 bytes", "1.0 kB", "2.5 MB", "3.0 GB"]
    assert first(["a", "b", "c"], 2) == "a, b and 1 more"
    assert first(["a"], 2) == "a"
    assert plain(" a\n\tb\x1b[0m\udc80 ") == "a b\N{REPLACEMENT CHARACTER}[0m\N{REPLACEMENT CHARACTER}"
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcd", 4) == "abcd"
