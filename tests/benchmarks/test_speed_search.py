"""The benchmarks of speed on tiny collections: what they say is right; how fast it was does not matter here."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.speed import index as speed_index
from benchmarks.speed import peers as speed_peers
from benchmarks.speed import processes as speed_processes
from benchmarks.speed import races as speed_races
from benchmarks.speed import search as speed_search
from benchmarks.speed import timing
from benchmarks.speed import transfer as speed_transfer
from benchmarks.speed.data import Maker, synthetic
from indexer.embed import load_embedder

SMALL = ["--rows", "1200", "--dim", "16", "--large", "900", "--large-dim", "8", "--turns", "3"]


@pytest.fixture(autouse=True)
def one_thread():
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture
def run(tmp_path, capsys):
    def call(*arguments):
        code = speed_search.main([*SMALL, "--data", str(tmp_path), *arguments])
        printed = capsys.readouterr()
        return code, json.loads(printed.out.splitlines()[-1]) if code == 0 else None, printed

    return call


def test_every_line_has_its_bar_and_says_whether_it_was_reached(run):
    code, told, printed = run("--part", "exact", "approximate", "batch", "filters", "crossover")
    assert code == 0
    lines = [line for part in told.values() for line in part["lines"]]
    assert len(lines) == 1 + 2 + 1 + 4 + 1
    assert all(line["reached"] == (line["good"] and line["value"] <= line["limit"]) for line in lines)
    assert speed_races.Line("w", "b", 1, 2, "x", "t").json()["reached"]
    assert not speed_races.Line("w", "b", 1, 2, "x", "t", good=False).json()["reached"]
    assert printed.out.count("reached") + printed.out.count("MISSED") >= len(lines)
    assert told["exact"]["recall"] == 1
    for kind in ("hnsw", "ivf"):
        assert told["approximate"][kind]["faiss_recall"] >= told["approximate"][kind]["recall"] >= 0.9
    assert [told["filters"][share]["recall"] for share in ("0.5", "0.1", "0.01")] == [1, 1, 1]


def test_peers_answer_the_same_queries_with_rows_and_filters_that_differ(run, tmp_path):
    code, told, _ = run("--part", "peers", "--turns", "3")
    assert code == 0
    told = told["peers"]
    assert {"exact", "hnsw", "faiss"} <= set(told["plain"])
    assert told["plain"]["exact"]["recall"] == told["filtered"]["exact"]["recall"] == 1
    assert min(row["recall"] for row in told["plain"].values()) >= 0.9
    assert "faiss" not in told["filtered"]
    assert told["effort"]["faiss"] in speed_peers.EFFORTS
    assert len({speed_peers._start(turn) for turn in range(-3, 30)}) == 33
    assert {line["work"].rsplit(" and ", 1)[1] for line in told["lines"]} >= {"faiss"}


def test_growth_and_opening_take_place_in_the_sizes_asked_for(run, tmp_path, monkeypatch):
    monkeypatch.setattr(speed_processes, "SIZES", (500, 700))
    monkeypatch.setattr(speed_processes, "OPENINGS", 1)
    _, told, _ = run("--part", "growth", "open", "--turns", "1", "--plot", str(tmp_path / "plot.png"))
    assert [row["vectors"] for row in told["growth"]["rows"]] == [500, 700, 900]
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert [line["unit"] for line in told["open"]["lines"]] == ["s", "s"]


def test_results_of_other_parts_stay_and_the_median_run_is_kept(run, tmp_path):
    file = tmp_path / "told.json"
    run("--part", "exact", "--json", str(file))
    _, told, _ = run("--part", "batch", "--runs", "3", "--json", str(file))
    assert set(json.loads(file.read_text())) == set(told) == {"exact", "batch"}
    assert told["batch"]["runs"] == 3
    runs = [{"lines": [{"value": value}]} for value in (3.0, 1.0, 2.0)]
    assert speed_search._median_run(runs) == runs[2]


def test_wrong_numbers_are_told(run):
    code, _, printed = run("--rows", "10")
    assert code == 2
    assert "at least 500 vectors" in printed.err


def test_contenders_take_turns_and_ratios_are_of_turns(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def work(name, seconds, turn):
        calls.append((name, turn))
        clock[0] += seconds * (10 if turn == 1 else 1)  # a turn that is slow for both

    contenders = {"a": lambda turn: work("a", 2, turn), "b": lambda turn: work("b", 1, turn)}
    found = timing.race(contenders, 3)
    assert calls[:4] == [("b", -3), ("a", -3), ("a", -2), ("b", -2)]  # one comes first, then the other
    assert found.ratio("a", "b") == {"median": 2.0, "quartiles": [2.0, 2.0]}
    assert found.beyond("a", "b")["median"] == 1000
    assert found.ms("b") == 1000


def test_recall_and_slope():
    assert speed_races.recall_of([[1, 2], [3, 4]], [[1, 2], [3, 5]]) == 0.75
    rows = [{"vectors": n, "t": n**0.5} for n in (10, 10_000, 100_000, 1_000_000)]
    assert speed_processes._slope(rows, "t") == 0.5


def test_made_up_collections_are_the_same_every_time_and_finished_where_they_broke_off(tmp_path, monkeypatch):
    import benchmarks.speed.data

    monkeypatch.setattr(benchmarks.speed.data, "COMMIT", 100)
    with synthetic(tmp_path, 250, 8) as made:
        ids = np.arange(250)
        vectors, fields = made.snapshot().vectors(ids), [each.fields for each in made.snapshot().documents(ids)]
    with synthetic(tmp_path / "other", 100, 8) as part:
        np.testing.assert_array_equal(part.snapshot().vectors(ids[:100]), vectors[:100])
    (tmp_path / "other" / "speed-100x8").rename(tmp_path / "other" / "speed-250x8")
    with synthetic(tmp_path / "other", 250, 8) as rest:
        np.testing.assert_array_equal(rest.snapshot().vectors(ids), vectors)
        assert [each.fields for each in rest.snapshot().documents(ids)] == fields
    assert not np.isclose(Maker(8).queries(5) @ vectors.T, 1, atol=1e-6).any()


def test_indexing_is_measured_against_the_model_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(speed_index, "PHOTOGRAPH", (96, 64))
    folder = tmp_path / "work"
    folder.mkdir()
    source = speed_index.photographs(tmp_path, 5)
    embedder = load_embedder("bundled:emoji-clip")
    told = speed_index.measure(embedder, source, 0, 1, folder)
    assert told["images"] == 5
    assert 0 <= told["waiting_share"] <= 1
    assert min(told["images_per_second"].values()) > 0
    assert list(folder.iterdir()) == []  # every collection is made anew, and gone
    told = speed_index.measure_texts(embedder, 5, 1, folder)
    assert told["texts"] == 5
    assert told["of_raw"]["median"] > 0
    assert set(speed_index.memory(tmp_path, [20])) == {"20"}


def test_handing_over_is_measured_in_both_ways():
    [row] = speed_transfer.measure([8], 1)
    assert set(row) == {"side", "pickled_ms", "shared_ms"}
