"""A small EmojiCIR, shared by the tests of the programs that run it."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.harness import run, stored_weights
from benchmarks.tasks import emojicir

COLOURS = ("red", "green", "blue", "black", "white", "orange")


def picture(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A corpus of six squares, with queries from each color to the next; and weights of its own."""
    corpus, queries, weights = tmp_path / "corpus.parquet", tmp_path / "queries.parquet", tmp_path / "weights.json"
    rows = [{"id": f"v/{colour}", "text": colour, "image": picture(colour)} for colour in COLOURS]
    pq.write_table(pa.Table.from_pylist(rows), corpus)
    pairs = list(zip(COLOURS, COLOURS[1:] + COLOURS[:1], strict=True))
    rows = [
        {
            "query_id": f"{split}/{place}",
            "split": split,
            "family": ("warm", "cold")[place % 2],
            "reference": f"v/{one}",
            "text": f"in {two}",
            "targets": [f"v/{two}"],
            "subset": sorted({f"v/{two}", f"v/{COLOURS[place - 2]}"} - {f"v/{one}"}),
        }
        for split in ("validation", "test")
        for place, (one, two) in enumerate(pairs)
    ]
    pq.write_table(pa.Table.from_pylist(rows), queries)
    weights.write_text(json.dumps({"default": {"sum": {"weights": {}, "source": "none"}}}))
    monkeypatch.setattr(emojicir, "CORPUS", corpus)
    monkeypatch.setattr(emojicir, "QUERIES", queries)
    monkeypatch.setattr(stored_weights, "FILE", weights)
    return tmp_path


@pytest.fixture
def run_benchmark(tmp_path, capsys):
    """Run a published benchmark on `fake:64`: its exit code, its result or None, and what it printed."""

    def call(benchmark, data, *arguments, model="fake:64"):
        where = ["--data", str(data), "--cache", str(tmp_path / "cache"), "--model", model]
        code = run.main(benchmark, [*where, *arguments])
        told = capsys.readouterr()
        return code, json.loads(told.out.splitlines()[-1]) if code == 0 else None, told.out + told.err

    return call
