"""i-CIR in miniature: each instance has its database; average precision by trapezoids."""

from __future__ import annotations

import miniatures
import pytest

from benchmarks.tasks import icir
from benchmarks.tasks.dataset import DataSet
from benchmarks.tasks.icir import BENCHMARK
from indexer.errors import CallError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(icir, "QUERIES", 3)
    monkeypatch.setattr(icir, "INSTANCES", 2)


@pytest.mark.parametrize("prefix", ["icir/", "", "some/where/else/"])
def test_queries_choose_in_their_instances_database(small, tmp_path, run_benchmark, prefix):
    data = miniatures.icir(tmp_path / "i", prefix=prefix)
    code, result, out = run_benchmark(BENCHMARK, data, "--method", "image", "--run", str(tmp_path / "run"))
    assert code == 0, out
    # tower: targets are a pair of twins of the query's image, first and second. old mug: four targets, two of them
    # twins of the query's image, the others somewhere.
    assert result["families"]["tower"]["mAP"] == 1.0
    assert 0.5 < result["families"]["old mug"]["mAP"] <= 1.0
    mug, tower = result["families"]["old mug"]["mAP"], result["families"]["tower"]["mAP"]
    assert result["measures"]["mAP"]["value"] == pytest.approx((2 * tower + mug) / 3, abs=1e-4)
    assert result["macro"]["mAP"] == pytest.approx((tower + mug) / 2, abs=1e-4)
    lines = [line.split() for line in (tmp_path / "run").read_text().splitlines()]
    assert len(lines) == 3 * 10
    assert all(line[2].startswith("database/") for line in lines)
    assert "| mean of families | 3 |" in out


def test_a_query_without_a_target_is_named(small, tmp_path):
    data = miniatures.icir(tmp_path)
    file = data / "database_files.csv"
    file.write_text(file.read_text().replace("at night", "at noon"))
    with pytest.raises(CallError, match="no image is the target of query 1, tower: 'at night'"):
        BENCHMARK.task(DataSet("i-CIR", data, "home"), "test", BENCHMARK.choices.default)


def test_a_head_is_passed_over(small, tmp_path):
    data = miniatures.icir(tmp_path)
    for name in ("query_files.csv", "database_files.csv"):
        (data / name).write_text("image_path,text,instance\n" + (data / name).read_text())
    assert len(BENCHMARK.task(DataSet("i-CIR", data, "home"), "test", BENCHMARK.choices.default).queries) == 3


def test_published_counts_are_asked_for(tmp_path):
    data = miniatures.icir(tmp_path)
    with pytest.raises(CallError, match="3 queries in query_files.csv, and 1,883 are published"):
        BENCHMARK.task(DataSet("i-CIR", data, "home"), "test", BENCHMARK.choices.default)
