"""GeneCIS in miniature: four tasks, a list of candidates for each query, parts cut out of images."""

from __future__ import annotations

import json

import miniatures
import numpy as np
import pytest
from PIL import Image

from benchmarks.harness.gallery import crop_of, images_of
from benchmarks.tasks import genecis
from benchmarks.tasks.dataset import DataSet
from benchmarks.tasks.genecis import BENCHMARK
from indexer.errors import CallError


@pytest.fixture
def data(monkeypatch, tmp_path):
    objects = {"focus_object": 6, "change_object": 6}
    monkeypatch.setattr(genecis, "QUERIES", dict.fromkeys(genecis.QUERIES) | objects)
    return miniatures.genecis(tmp_path / "genecis")


def test_a_query_chooses_among_its_own_candidates(data, run_benchmark, tmp_path):
    code, result, out = run_benchmark(BENCHMARK, data, "--method", "image", "--run", str(tmp_path / "run"))
    assert code == 0, out
    assert list(result["measures"]) == ["R@1", "R@2", "R@3"]
    assert result["families"].keys() == set(genecis.QUERIES)
    assert {own["queries"] for own in result["families"].values()} == {6}
    assert result["measures"]["R@1"]["value"] == 1.0
    lines = [line.split() for line in (tmp_path / "run").read_text().splitlines()]
    assert sum(line[0] == "focus_object-0" for line in lines) == 15
    assert sum(line[0] == "focus_attribute-0" for line in lines) == 5


def test_ties_go_against_the_target_though_it_is_listed_first(data, run_benchmark):
    for number in range(1, 41):  # all the same image
        miniatures.paint(data / f"val2017/{number:012}.jpg", 7)
    _, result, _ = run_benchmark(BENCHMARK, data, "--split", "focus_object", "--method", "image")
    assert result["measures"]["R@3"]["value"] == 0.0
    _, result, _ = run_benchmark(BENCHMARK, data, "--split", "focus_object", "--method", "image", "--ties", "by-id")
    assert result["measures"]["R@3"]["value"] > 0.0


def test_parts_are_cut_out_once(data, run_benchmark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # folders may be given relative to where one is
    arguments = ("--split", "focus_attribute", "--method", "image", "--cache", "cache")
    assert run_benchmark(BENCHMARK, "genecis", *arguments)[0] == 0
    parts = sorted((tmp_path / "cache/genecis/crops").rglob("*.png"))
    assert len(parts) == 4 * 6
    before = {part: part.stat().st_mtime_ns for part in parts}
    assert run_benchmark(BENCHMARK, data, "--split", "change_attribute", "--method", "image")[0] == 0
    assert {part: part.stat().st_mtime_ns for part in (tmp_path / "cache/genecis/crops").rglob("*.png")} == before


def test_a_box_grows_by_seven_tenths_and_lies_on_a_black_square():
    picture = Image.new("RGB", (200, 100), "red")
    part = np.asarray(crop_of(picture, (100, 40, 40, 20)))
    # From 72 to 140 and from 26 to 60: 68 by 34.
    assert part.shape == (68, 68, 3)
    assert (part[17:51] == [255, 0, 0]).all()
    assert not part[:17].any()
    assert not part[51:].any()
    # At the left edge the corner cannot grow, and the box is 1.7 times as wide.
    assert crop_of(picture, (0, 0, 40, 40)).size == (68, 68)
    assert crop_of(picture, (190, 0, 40, 40)).size == (68, 68)


def test_the_annotations_of_attributes_need_visual_genome(data, run_benchmark):
    (data / "VG_100K/3.jpg").unlink()
    code, _, out = run_benchmark(BENCHMARK, data)
    assert code == 2
    assert "3.jpg" in out
    assert "visualgenome" in out
    assert run_benchmark(BENCHMARK, data, "--split", "change_object", "--method", "image")[0] == 0


def test_a_part_of_a_broken_picture_is_named(data, run_benchmark):
    (data / "VG_100K/3.jpg").write_bytes(b"no picture")
    code, _, out = run_benchmark(BENCHMARK, data, "--split", "focus_attribute")
    assert code == 2
    assert "3.jpg cannot be read" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: records.pop(), "5 queries in genecis/focus_object.json, and 6 are published"),
        (lambda records: records[1]["gallery"].pop(), "14 candidates in entry 1 of .*, and 15 are published"),
        (lambda records: records[1].update(target={"id": 3}), "entry 1 of .* names no image"),
        (lambda records: records[1].update(gallery=None), "the gallery in entry 1 of .* is not a list"),
    ],
)
def test_wrong_annotations_are_refused(data, change, message):
    file = data / "genecis/focus_object.json"
    records = json.loads(file.read_text())
    change(records)
    file.write_text(json.dumps(records))
    with pytest.raises(CallError, match=message):
        BENCHMARK.task(DataSet("GeneCIS", data, "home"), "all", BENCHMARK.choices.default)


def test_object_tasks_of_the_published_shape_have_the_published_counts(tmp_path):
    miniatures.genecis(tmp_path, queries=1960)
    dataset = DataSet("GeneCIS", tmp_path, "home")
    task = BENCHMARK.task(dataset, "change_object", BENCHMARK.choices.default)
    assert len(task.queries) == 1960
    assert {len(query.gallery) for query in task.queries} == {15}
    assert len(images_of(task, dataset, tmp_path)) == 40
