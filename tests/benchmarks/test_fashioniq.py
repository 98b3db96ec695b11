"""FashionIQ in miniature: three categories, each with its gallery, and two captions a query."""

from __future__ import annotations

import json

import miniatures
import numpy as np
import pytest

from benchmarks.tasks import fashioniq
from benchmarks.tasks.dataset import DataSet
from benchmarks.tasks.fashioniq import BENCHMARK, Counts
from indexer.embed import load_embedder
from indexer.errors import CallError
from indexer.types import Item
from indexer.vectors.unit import unit_rows


@pytest.fixture
def data(monkeypatch, tmp_path):
    monkeypatch.setattr(fashioniq, "COUNTS", dict.fromkeys(miniatures.CATEGORIES, Counts(8, 24, 16)))
    return miniatures.fashioniq(tmp_path / "fiq")


def test_each_category_has_its_gallery_and_weighs_the_same(data, run_benchmark, tmp_path):
    code, result, out = run_benchmark(BENCHMARK, data, "--method", "image", "--run", str(tmp_path / "run"))
    assert code == 0, out
    assert result["families"].keys() == {"dress", "shirt", "toptee"}
    assert result["pictures"] == 72
    # The reference stays, ties with its twin, and goes first.
    assert (result["measures"]["R@1"]["value"], result["measures"]["R@5"]["value"]) == (0.0, 1.0)
    lines = [line.split() for line in (tmp_path / "run").read_text().splitlines()]
    assert len(lines) == 3 * 8 * 24
    assert all(line[2][1] == str(miniatures.CATEGORIES.index(line[0].split("-")[0])) for line in lines)
    assert "| dress | 8 |" in out


def test_the_gallery_of_the_queries_own_pictures_is_smaller(data, run_benchmark, tmp_path):
    code, result, out = run_benchmark(
        BENCHMARK, data, "--gallery", "val", "--reference", "removed", "--method", "image", "--run", str(tmp_path / "r")
    )
    assert code == 0, out
    assert result["pictures"] == 48
    assert result["measures"]["R@1"]["value"] == 1.0
    assert len((tmp_path / "r").read_text().splitlines()) == 3 * 8 * 15


def test_one_category_can_be_run(data, run_benchmark):
    _, result, _ = run_benchmark(BENCHMARK, data, "--split", "shirt", "--method", "image")
    assert (result["split"], result["queries"], list(result["families"])) == ("shirt", 8, ["shirt"])


@pytest.mark.parametrize(
    ("captions", "sentences"),
    [
        ("both-orders", ["is red and shiny and has number 1", "has number 1 and is red and shiny"]),
        ("forward", ["is red and shiny and has number 1"]),
        ("reversed", ["has number 1 and is red and shiny"]),
    ],
)
def test_captions_are_joined_as_asked(data, captions, sentences):
    protocol = BENCHMARK.choices.with_given({"captions": captions})
    task = BENCHMARK.task(DataSet("FashionIQ", data, "home"), "dress", protocol)
    assert list(task.queries[1].query.sentences) == sentences
    # An empty caption leaves the other.
    assert task.queries[0].query.text in ("and is more blue", "is more blue and")


def test_both_orders_are_averaged_as_unit_vectors(data, run_benchmark, tmp_path):
    from benchmarks.harness import run

    seen = []
    original = run.evaluate

    def spy(queries, retriever, *rest, **more):
        seen.extend(retriever.encode([queries[1].query]))
        return original(queries, retriever, *rest, **more)

    run.evaluate = spy
    try:
        assert run_benchmark(BENCHMARK, data, "--split", "dress", "--method", "text")[0] == 0
    finally:
        run.evaluate = original
    texts = [Item(text=text) for text in seen[0].query.sentences]
    both = load_embedder("fake:64").encode_query(texts)
    np.testing.assert_allclose(seen[0].vectors["text"], unit_rows(both.mean(0, keepdims=True))[0], atol=1e-6)


def test_published_rows_stand_beside_and_only_where_the_protocol_agrees(data, run_benchmark, tmp_path, monkeypatch):
    from benchmarks.harness import published

    row = {
        "benchmark": "fashioniq", "split": "val", "label": "a paper", "backbone": "64", "methods": ["image"],
        "protocol": {"gallery": "original", "reference": "kept"}, "measures": {"R@10": 90.0}, "source": "its table",
    }  # fmt: skip
    (tmp_path / "expected.json").write_text(json.dumps({"rows": [row]}))
    monkeypatch.setattr(published, "FILE", tmp_path / "expected.json")
    _, result, out = run_benchmark(BENCHMARK, data, "--method", "image")
    [told] = result["published"]
    assert told["measures"]["R@10"] == {"published": 90.0, "measured": 100.0, "difference": 10.0}
    assert "R@10      90.00 published 100.00 measured +10.00" in out
    for other in (("--gallery", "val"), ("--limit", "6")):
        _, result, out = run_benchmark(BENCHMARK, data, "--method", "image", *other)
        assert "measures" not in result["published"][0]
        assert f"not compared: {other[0][2:]} is" in out
    assert run_benchmark(BENCHMARK, data, "--method", "text")[1]["published"] == []


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("captions/cap.dress.val.json", lambda own: own.pop(), "7 queries in captions/cap.dress.val.json, and 8"),
        ("captions/cap.shirt.val.json", lambda own: own[2].update(target=own[2]["candidate"]), "15 images named in"),
        (
            "captions/cap.shirt.val.json",
            lambda own: own[0].update(captions=["one"]),
            "entry 0 of .* does not have two captions",
        ),
        ("image_splits/split.dress.val.json", lambda own: own.pop(), "23 images in image_splits"),
        (
            "image_splits/split.dress.val.json",
            lambda own: own.__setitem__(1, own[0]),
            "the image in image_splits/split.dress.val.json B0000000 occurs 2 times",
        ),
        (
            "image_splits/split.dress.val.json",
            lambda own: own.__setitem__(1, "new"),
            "the target B0000001 of the query dress-0 is not in the gallery",
        ),
    ],
)
def test_wrong_annotations_are_refused(data, file, change, message):
    own = json.loads((data / file).read_text())
    change(own)
    (data / file).write_text(json.dumps(own))
    with pytest.raises(CallError, match=message):
        BENCHMARK.task(DataSet("FashionIQ", data, "home"), "val", BENCHMARK.choices.default)


def test_a_missing_picture_is_named(data, run_benchmark):
    (data / "images/B1000003.png").unlink()
    code, _, out = run_benchmark(BENCHMARK, data)
    assert code == 2
    assert "1 of 72 images are not below" in out
    assert "B1000003.jpg" in out


def test_annotations_of_the_published_shape_have_the_published_counts(tmp_path):
    counts = {name: (own.queries, own.original, own.val) for name, own in fashioniq.COUNTS.items()}
    root = miniatures.fashioniq(tmp_path, counts=counts, draw=False)
    task = BENCHMARK.task(DataSet("FashionIQ", root, "home"), "val", BENCHMARK.choices.default)
    assert (len(task.queries), len(task.images)) == (6016, 15_536)
