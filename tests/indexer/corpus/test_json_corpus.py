"""A JSON file is read object by object with any line breaks, up to the first unrecoverable error."""

import json
import lzma
import tracemalloc

import pytest

from indexer.corpus import json_file as reader
from indexer.corpus import open_corpus
from indexer.corpus.json_file import JsonCorpus

OBJECTS = [{"id": "a", "text": "one", "n": [1, {"x": "]},{"}]}, {"id": "b", "text": 'tw"o\\'}, {"text": "three é"}]


@pytest.fixture
def file(tmp_path):
    """Write a JSON file."""

    def write(content, name="set.json"):
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(lzma.compress(raw) if name.endswith("xz") else raw)
        return tmp_path / name

    return write


def ids(records):
    return [record.document.id for record in records]


@pytest.mark.parametrize("name", ["set.json", "set.json.xz"])
@pytest.mark.parametrize(
    "content",
    [
        json.dumps(OBJECTS),
        json.dumps(OBJECTS, indent=4, ensure_ascii=False),
        "\ufeff" + json.dumps(OBJECTS),
        "\n".join(map(json.dumps, OBJECTS)),
        ",\n".join(json.dumps(each, indent=2) for each in OBJECTS),
        "  " + json.dumps(OBJECTS) + "\n\n",
    ],
)
def test_objects(file, read, content, name):
    records, rejects = read(file(content, name))
    assert [(each.document.id, each.document.text, each.derived) for each in records] == [
        ("a", "one", False),
        ("b", 'tw"o\\', False),
        ("set-3", "three é", True),
    ]
    assert (records[0].document.fields, rejects) == ({"n": [1, {"x": "]},{"}]}, [])
    assert records[2].document.uri.endswith("set.json#item=3") or name.endswith("xz")


@pytest.mark.parametrize("size", range(1, 40))
def test_pieces_of_every_size(file, read, monkeypatch, size):
    monkeypatch.setattr(reader, "_CHUNK_BYTES", size)
    records, rejects = read(file(json.dumps(OBJECTS, ensure_ascii=False)))
    assert (ids(records), rejects) == (["a", "b", "set-3"], [])


@pytest.mark.parametrize("content", ["", " \n", "[]", " [ ] "])
def test_nothing_in_it(file, read, content):
    assert read(file(content)) == ([], [])


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("", "truncated"),
        (', {"text": "x', "truncated"),
        (", {", "truncated"),
        (", {text: 1}, " + json.dumps({"text": "x" * 100}), "bad-json"),
        ("] []", "bad-json"),
        ("]}", "bad-json"),
        (', {"n": ' + "[" * 100_000, "bad-json"),
        (', {"n": ' + "9" * 5_000 + "}", "bad-json"),
    ],
)
def test_where_it_cannot_be_read_on(file, read, rest, reason):
    records, [reject] = read(file('[{"id": "a", "text": "t"}' + rest))
    assert (ids(records), reject.reason, reject.hides) == (["a"], reason, "")
    assert "beyond object" in reject.detail
    assert len(reject.detail) < 300


def test_what_is_no_object_costs_itself(file, read):
    records, rejects = read(file('[5, {"id": "a", "text": "t"}, "x", null, ["y"], {"id": "b"}]'))
    assert (ids(records), [each.reason for each in rejects]) == (["a"], ["bad-json"] * 4 + ["empty"])


def test_bytes_that_are_not_utf_8(file, read):
    records, [reject] = read(file(b'[{"id": "a", "text": "t"},' + b" " * 300_000 + b'{"id": "caf\xe9", "text": "t"}]'))
    assert (ids(records), reject.reason) == (["a"], "not-utf-8")


def test_coco_is_told_by_name(file, read):
    content = {
        "info": {},
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "caption": "a"}],
    }
    records, [reject] = read(file(json.dumps(content)))
    assert (records, reject.reason) == ([], "bad-json")
    assert "COCO" in reject.detail


def test_an_object_without_end_is_not_held(file):
    path = file(b'[{"id": "a", "text": "t"}, {"text": "' + b"x" * 20_000_000)
    tracemalloc.start()
    try:
        found = list(JsonCorpus(path, max_object_bytes=1_000_000))
        assert [type(each).__name__ for each in found] == ["Record", "Rejected"]
        assert found[1].reason == "too-long"
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()


def test_blanks_without_end(file, read, monkeypatch):
    monkeypatch.setattr(reader, "MAX_SILENT_BYTES", 1_000_000)
    records, [reject] = read(file(b'[{"text": "t"}' + b"\n" * 5_000_000 + b"]"))
    assert (len(records), reject.reason) == (1, "too-many-bytes")


def test_a_long_list_is_read_object_by_object(file):
    path = file(json.dumps([{"text": "x" * 100_000}] * 200))
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_corpus(path)) == 200
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
