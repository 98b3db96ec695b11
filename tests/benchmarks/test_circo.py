"""CIRCO in miniature: several targets a query, semantic aspects, and a file for the server."""

from __future__ import annotations

import json

import miniatures
import pytest

from benchmarks.harness import submission
from benchmarks.tasks import circo
from benchmarks.tasks.circo import BENCHMARK
from benchmarks.tasks.dataset import DataSet
from indexer.errors import CallError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(circo, "QUERIES", {"val": 12, "test": 12})
    monkeypatch.setattr(circo, "IMAGES", 60)


def test_precision_counts_all_targets_and_recall_the_intended_one(small, tmp_path, run_benchmark):
    data = miniatures.circo(tmp_path / "circo", "val")
    code, result, out = run_benchmark(BENCHMARK, data, "--method", "image")
    assert code == 0, out
    # The reference, which is no target, comes first: P is 1/2, 2/3, 3/4 at the three targets.
    expected = (1 / 2 + 2 / 3 + 3 / 4) / 3
    for k in (5, 10, 25, 50):
        assert result["measures"][f"mAP@{k}"]["value"] == pytest.approx(expected, abs=1e-4)
    assert result["measures"]["R@5"]["value"] == 1.0
    assert result["aspects"]["cardinality"]["queries"] == 12
    assert result["aspects"]["viewpoint"]["queries"] == 4
    assert "| viewpoint | 4 |" in out
    _, removed, _ = run_benchmark(BENCHMARK, data, "--method", "image", "--reference", "removed")
    assert removed["measures"]["mAP@5"]["value"] == 1.0


def test_recall_is_of_the_intended_target_alone(small, tmp_path):
    data = miniatures.circo(tmp_path / "circo", "val")
    task = BENCHMARK.task(DataSet("CIRCO", data, "home"), "val", BENCHMARK.choices.default)
    query = task.queries[0]
    intended, other, third = query.targets
    found = BENCHMARK.plan(BENCHMARK.choices.default).values(query, [other, third, "x", "y", "z", intended], (), ())
    assert (found["R@5"], found["R@10"]) == (0.0, 1.0)
    assert found["mAP@5"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("choice", "text"), [("left-out", "is number 3"), ("before", "a thing, is number 3")])
def test_the_shared_concept_is_told_or_not(small, tmp_path, choice, text):
    data = miniatures.circo(tmp_path / "circo", "val")
    protocol = BENCHMARK.choices.with_given({"shared_concept": choice})
    task = BENCHMARK.task(DataSet("CIRCO", data, "home"), "val", protocol)
    assert task.queries[3].query.text == text


@pytest.mark.parametrize("listed", [True, False])
def test_the_servers_file_answers_every_query_with_numbers(small, tmp_path, run_benchmark, capsys, listed):
    data = miniatures.circo(tmp_path / "circo", "test", listed=listed)
    code, result, out = run_benchmark(
        BENCHMARK, data, "--split", "test", "--method", "image", "--submission", str(tmp_path / "out")
    )
    assert code == 0, out
    [file] = result["submission"]
    answers = json.loads((tmp_path / "out/circo-test.json").read_text())
    assert list(answers) == [str(number) for number in range(12)]
    assert {len(own) for own in answers.values()} == {50}
    assert set(answers["0"][:4]) == {17, 20, 23, 26}
    assert submission.main(["circo", file, "--data", str(data)]) == 0
    answers["3"][5] = str(answers["3"][5])
    (tmp_path / "bad.json").write_text(json.dumps(answers))
    assert submission.main(["circo", str(tmp_path / "bad.json"), "--data", str(data)]) == 2
    assert "3 does not answer with a list of ints" in capsys.readouterr().err


def test_published_rows_of_the_server_are_told_with_the_files(small, tmp_path, run_benchmark, monkeypatch):
    from benchmarks.harness import published

    row = {
        "benchmark": "circo", "split": "test", "label": "SEARLE", "backbone": "64", "methods": ["image"],
        "protocol": {"preprocessing": "target-pad"}, "measures": {"mAP@5": 9.35}, "source": "its table",
    }  # fmt: skip
    (tmp_path / "expected.json").write_text(json.dumps({"rows": [row]}))
    monkeypatch.setattr(published, "FILE", tmp_path / "expected.json")
    data = miniatures.circo(tmp_path / "circo", "test")
    arguments = ("--split", "test", "--method", "image", "--submission", str(tmp_path / "out"))
    assert "published: SEARLE: mAP@5 9.35 [preprocessing target-pad]" in run_benchmark(BENCHMARK, data, *arguments)[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: records.pop(), "11 queries in annotations/val.json, and 12 are published"),
        (lambda records: records[1].update(gt_img_ids=[1]), "the target 1 of the query 1 is not in the gallery"),
        (lambda records: records[1].update(id=0), "the query 0 occurs 2 times"),
    ],
)
def test_wrong_annotations_are_refused(small, tmp_path, change, message):
    data = miniatures.circo(tmp_path / "circo", "val")
    records = json.loads((data / "annotations/val.json").read_text())
    change(records)
    (data / "annotations/val.json").write_text(json.dumps(records))
    with pytest.raises(CallError, match=message):
        BENCHMARK.task(DataSet("CIRCO", data, "home"), "val", BENCHMARK.choices.default)


def test_a_gallery_that_is_not_whole_is_refused(small, tmp_path):
    data = miniatures.circo(tmp_path / "circo", "val", listed=False)
    next((data / "COCO2017_unlabeled/unlabeled2017").iterdir()).unlink()
    with pytest.raises(CallError, match="59 images, and 60 are published"):
        BENCHMARK.task(DataSet("CIRCO", data, "home"), "val", BENCHMARK.choices.default)


def test_annotations_of_the_published_shape_have_the_published_counts(tmp_path):
    for split, queries in circo.QUERIES.items():
        listed = split == "val"  # the list is the same for both
        root = miniatures.circo(tmp_path, split, images=circo.IMAGES, queries=queries, listed=listed, draw=False)
        task = BENCHMARK.task(DataSet("CIRCO", root, "home"), split, BENCHMARK.choices.default)
        assert (len(task.queries), len(task.images)) == (queries, 123_403)
