"""The EmojiCIR program on a few drawings and a model without weights."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from benchmarks.harness import methods
from benchmarks.harness import run as harness
from benchmarks.tasks import emojicir
from indexer.bundled import CORPUS, QUERIES
from indexer.collection import Collection
from pipelines.evaluation.emojicir import Split, read_queries
from retrieval import Method, Weights
from retrieval.methods import Helper, load_method


def run(data, capsys, *arguments):
    code = harness.main(emojicir.BENCHMARK, ["--model", "fake:32", "--data", str(data / "cache"), *arguments])
    return code, capsys.readouterr()


def test_one_method(data, capsys):
    code, out = run(
        data, capsys, "--split", "test", "--method", "sum", "--json", str(data / "o.json"), "--run", str(data / "o.run")
    )
    document = json.loads(out.out.splitlines()[-1])
    assert code == 0
    assert document == json.loads((data / "o.json").read_text())
    assert (document["split"], document["method"], document["model"], document["queries"]) == (
        "test", "sum", "fake:32", 6,
    )  # fmt: skip
    protocol = document["protocol"]
    assert (protocol["reference"], protocol["gallery"], protocol["average"]) == ("removed", "whole", "families")
    assert {"corpus", "judgments"} < protocol.keys()
    assert document["weights_source"] == "chosen, not tuned"
    assert document["families"].keys() == {"warm", "cold"}
    colours = ("red", "green", "blue", "black", "white", "orange")
    lines = [line.split() for line in (data / "o.run").read_text().splitlines()]
    assert len(lines) == 6 * 5
    assert all(line[2] != f"v/{colours[int(line[0].split('/')[1])]}" for line in lines)
    assert {line[5] for line in lines} == {"fake:32/sum"}


def test_a_sentence_of_each_reference_and_none_that_could_not_be_written(data, capsys):
    """Captions by content, as the corpus keeps its images."""
    rows = pq.read_table(emojicir.CORPUS).to_pylist()
    table = {hashlib.sha256(row["image"]).hexdigest(): f"a {row['text']} square" for row in rows}
    (data / "captions.json").write_text(json.dumps(table))
    models = ("--captioner", f"table:{data / 'captions.json'}", "--rewriter", "join")
    code, out = run(data, capsys, "--method", "caption", *models)
    document = json.loads(out.out.splitlines()[-1])
    assert (code, document["method"], document["queries"]) == (0, "caption", 6)
    assert (document["captioner"], document["rewriter"]) == (f"table:{data / 'captions.json'}", "join")
    assert len(list((data / "cache" / "sentences").rglob("*.json"))) == 12
    (data / "captions.json").write_text("{}")
    code, out = run(data, capsys, "--method", "caption", *models)
    assert (code, out.out) == (1, "")
    assert "has no caption of" in out.err
    code, out = run(data, capsys, "--method", "caption")
    assert code == 2
    assert "needs a captioner" in out.err


def galleries(data):
    return sorted((data / "cache" / "emojicir").iterdir())


def test_the_gallery_is_indexed_once(data, capsys):
    run(data, capsys, "--method", "image")
    [folder] = galleries(data)
    with Collection.open(folder) as collection:
        before = collection.snapshot().generation
        assert len(collection.snapshot()) == 6
    run(data, capsys, "--method", "image")
    with Collection.open(folder) as collection:
        assert collection.snapshot().generation == before
    run(data, capsys, "--method", "image", "--model", "fake:16")
    assert len(galleries(data)) == 2
    assert folder.exists()


def test_names_are_not_embedded(data, capsys):
    run(data, capsys, "--method", "image")
    [folder] = galleries(data)
    with Collection.open(folder) as collection, collection.snapshot() as snapshot:
        stored = snapshot.documents(snapshot.vector_ids(["v/red"]))[0]
        assert (stored.text, stored.modality.value) == ("red", "image")


def test_the_table_has_a_row_for_each_method(data, capsys):
    code, out = run(data, capsys, "--table", "--limit", "4")
    lines = out.out.splitlines()
    assert code == 0
    assert lines[0] == "| method | R@1 | R@5 | R@10 | mAP@10 | Rsub@1 |"
    expected = ["text", "image", "sum", "slerp", "product", "shift"]  # the fake model reads no words
    assert [line.split("`")[1] for line in lines[2:-1]] == expected
    assert [each["queries"] for each in json.loads(lines[-1])["results"]] == [4] * len(expected)


def test_every_variant_can_be_run_where_nothing_is_lacking():
    def possible(fuses=True, **lacking):
        return methods.possible([each for each in Helper if each not in lacking], SimpleNamespace(fuses_natively=fuses))

    assert possible() == list(methods.compared())
    assert {name.partition("-")[0] for name in possible()} == set(Method)
    assert "cig" not in possible()
    assert [name for name in possible(generator=False) if "-" in name] == []
    assert "inversion" not in possible(inversion=False)
    assert "caption" not in possible(rewriter=False)
    assert "joint" not in possible(fuses=False)


@pytest.mark.parametrize("name", sorted(methods.grids()))
def test_grids_hold_weights_that_their_method_reads(name):
    method = load_method(name)
    for weights in methods.grids()[name]:
        assert set(weights.given()) <= method.reads
        assert method.tuned == name


def test_a_sweep_writes_the_best_weights_and_the_curve(data, capsys, monkeypatch):
    points = {"sum": [Weights(image=1.0, text=0.0), Weights(image=0.75, text=0.25)], "slerp": [Weights(alpha=0.5)]}
    monkeypatch.setattr(harness, "grids", lambda: points)
    code, _ = run(data, capsys, "--sweep")
    table = json.loads((data / "weights.json").read_text())
    assert code == 0
    assert table["default"] == {"sum": {"weights": {}, "source": "none"}}
    entry = table["fake:32"]["sum"]
    assert [point for point, _ in entry["curve"]] == [{"image": 1.0, "text": 0.0}, {"image": 0.75, "text": 0.25}]
    best = max(entry["curve"], key=lambda point: point[1])[0]
    assert entry["weights"] == {**best, "negative": 0.5}
    assert entry["split"] == "EmojiCIR validation, 6 queries"
    assert entry["command"] == "python -m benchmarks.emojicir --sweep --model fake:32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sweep", "--split", "test"), "tuned on the validation split, not on test"),
        (("--limit", "0"), "--limit is 0"),
        (("--model", "fake"), "no family"),
    ],
)
def test_a_wrong_call_ends_with_2_and_the_reason(data, capsys, arguments, message):
    code, out = run(data, capsys, *arguments)
    assert code == 2
    assert message in out.err
    assert out.out == ""


def test_a_limit_is_spread_over_the_families():
    every, some = (
        read_queries(QUERIES, Split.TEST),
        read_queries(QUERIES, Split.TEST, 200),
    )
    assert len(some) == 200
    assert {query.family for query in some} == {query.family for query in every}


def test_the_bundled_judgments_are_about_the_bundled_corpus():
    documents = set(pq.read_table(CORPUS, columns=["id"])["id"].to_pylist())
    for split in Split:
        for query in read_queries(QUERIES, split):
            assert {*query.targets, *query.subset, *query.exclude} <= documents
            assert set(query.targets) <= set(query.subset)
            assert query.query.like == query.exclude[0]
