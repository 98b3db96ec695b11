"""How the batch job reads a corpus: it reports progress and holds at most a shard of limited bytes."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from indexer import Collection, index_corpus
from indexer.corpus.records import make_record
from indexer.ingest import job
from indexer.types import PassedOver


class Entries:
    """A corpus of what it is given."""

    source = "/entries"

    def __init__(self, *entries):
        self._entries = entries

    def __iter__(self):
        yield from self._entries


@pytest.fixture
def shop(tmp_path):
    """A collection."""
    with Collection.open(tmp_path / "shop", "fake:64") as opened:
        yield opened


def image(number):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "BMP")
    return file.getvalue()


def test_what_is_passed_over_is_progress(shop):
    entries = [PassedOver(f"file:///a#{n}", ".npy") for n in range(1_000)]
    record = make_record(id="a", text="t", fields={}, uri="file:///b")
    told = []
    index_corpus(
        Entries(*entries, record), shop, on_progress=lambda now: told.append((now.read, now.passed_over, now.place))
    )
    assert told[:3] == [(256 * n, 256 * n - 1, f"file:///a#{256 * n - 1}") for n in (1, 2, 3)]
    assert told[-1] == (1_001, 1_000, "file:///b")


@pytest.mark.parametrize(("most", "commits"), [(10**9, 1), (2 * len(image(0)), 5), (1, 10)])
def test_a_shard_holds_so_many_bytes(shop, monkeypatch, most, commits):
    monkeypatch.setattr(job, "MAX_SHARD_BYTES", most)
    records = [make_record(id=str(n), text=None, image=image(n), fields={}, uri=f"file:///{n}") for n in range(10)]
    summary = index_corpus(Entries(*records), shop)
    assert (summary.added, summary.generation) == (10, commits)
    assert index_corpus(Entries(*records), shop).unchanged == 10


@pytest.mark.parametrize(
    "part",
    [
        {"text": "t" * 1_000},
        {"fields": {"a": "v" * 1_000}},
        {"fields": {"a": [1] * 500, "b": {"c": "v"} | dict.fromkeys(map(str, range(500)), 1)}},
    ],
)
def test_long_texts_and_fields_make_a_shard_smaller(shop, monkeypatch, part):
    monkeypatch.setattr(job, "MAX_SHARD_BYTES", 2_000)
    records = [
        make_record(**{"id": str(n), "text": f"{n}", "fields": {}, "uri": f"file:///{n}"} | part) for n in range(4)
    ]
    summary = index_corpus(Entries(*records), shop)
    assert (summary.added, summary.generation) == (4, 2)
