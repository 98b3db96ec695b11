"""PatternCom in miniature: attribute values as sentences, average precision over the whole ranking."""

from __future__ import annotations

import miniatures
import pytest

from benchmarks.harness.gallery import images_of
from benchmarks.tasks import patterncom
from benchmarks.tasks.dataset import DataSet
from benchmarks.tasks.patterncom import BENCHMARK
from indexer.errors import CallError


@pytest.fixture
def data(monkeypatch, tmp_path):
    monkeypatch.setattr(patterncom, "IMAGES", 24)
    monkeypatch.setattr(patterncom, "QUERIES", 56)
    return miniatures.patterncom(tmp_path / "pattern")


def test_pictures_may_lie_in_one_folder_or_in_one_for_each_class(data, tmp_path):
    flat = miniatures.patterncom(tmp_path / "flat", nested=False)
    for root in (data, flat):
        dataset = DataSet("PatternCom", root, "home")
        task = BENCHMARK.task(dataset, "color", BENCHMARK.choices.default)
        assert len(images_of(task, dataset, tmp_path)) == 24


def test_other_values_of_the_class_are_asked(data):
    task = BENCHMARK.task(DataSet("PatternCom", data, "home"), "all", BENCHMARK.choices.default)
    by_id = {query.query_id: query for query in task.queries}
    first = by_id["color-0-0"]
    assert (first.query.like, first.query.text) == ("crosswalk000.jpg", "yellow")
    assert first.targets == tuple(f"crosswalk00{number}.jpg" for number in range(4, 8))
    # Dense and sparse residential areas are one class, and so ask for each other's value.
    dense = by_id["density-0-0"]
    assert (dense.query.like, dense.query.text) == ("denseresidential000.jpg", "sparse")
    assert dense.targets == tuple(f"sparseresidential00{number}.jpg" for number in range(8))


def test_precision_is_over_the_whole_ranking(data, run_benchmark):
    code, result, out = run_benchmark(BENCHMARK, data, "--method", "image", "--split", "color")
    assert code == 0, out
    # The twin, which is a target, comes second, after the reference; of the other three nothing is known but that they
    # come somewhere among 24.
    value = result["measures"]["mAP"]["value"]
    assert (1 / 2 + 2 / 22 + 3 / 23 + 4 / 24) / 4 <= value <= (1 / 2 + 2 / 3 + 3 / 4 + 4 / 5) / 4
    _, trapezoid, _ = run_benchmark(
        BENCHMARK, data, "--method", "image", "--split", "color", "--precision", "trapezoid"
    )
    assert trapezoid["measures"]["mAP"]["value"] < value
    assert trapezoid["protocol"]["precision"] == "trapezoid"


def test_the_whole_precision_is_that_of_a_full_ranking(data, run_benchmark, tmp_path):
    from retrieval.metrics import average_precision_at

    _, result, _ = run_benchmark(
        BENCHMARK, data, "--method", "sum", "--split", "density", "--ties", "by-id", "--run", str(tmp_path / "run")
    )
    ranked = {}
    for line in (tmp_path / "run").read_text().splitlines():
        query, _, document, *_ = line.split()
        ranked.setdefault(query, []).append(document)
    task = BENCHMARK.task(DataSet("PatternCom", data, "home"), "density", BENCHMARK.choices.default)
    values = [average_precision_at(ranked[query.query_id], query.targets, 24) for query in task.queries]
    assert result["measures"]["mAP"]["value"] == pytest.approx(sum(values) / len(values), abs=0.02)


def test_wrong_files_are_refused(data):
    dataset = DataSet("PatternCom", data, "home")
    color = data / "PatternCom/color.csv"
    lines = color.read_text().splitlines()
    for text, message in (
        ("\n".join([*lines, lines[0]]), "crosswalk000.jpg occurs 2 times"),
        ("\n".join([*lines, "crosswalk000.jpg,color"]), "row 9 of .* has 2 columns, not 3"),
        ("\n".join([*lines, "crosswalk900.jpg,color,white"]), "the target crosswalk900.jpg of the query color-4-0"),
        ("\n".join(lines[:6]), "queries, and more than 56 are published"),
    ):
        color.write_text(text)
        with pytest.raises(CallError, match=message):
            BENCHMARK.task(dataset, "all", BENCHMARK.choices.default)
    color.unlink()
    with pytest.raises(CallError, match="PatternCom/color.csv does not exist.*rscir"):
        BENCHMARK.task(DataSet("PatternCom", data, BENCHMARK.home), "color", BENCHMARK.choices.default)


def test_the_published_gallery_is_that_of_patternnet(tmp_path):
    miniatures.patterncom(tmp_path)
    with pytest.raises(CallError, match="24 images in images/, and 30,400 are published"):
        BENCHMARK.task(DataSet("PatternCom", tmp_path, "home"), "color", BENCHMARK.choices.default)
