"""Tables and shards in a folder are read as such; other files are accounted for."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.corpus import open_corpus
from indexer.corpus.records import Record
from indexer.types import PassedOver, Rejected

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
CARDS = ["README.md", "readme.txt", "LICENSE.txt", "LICENSE", "CITATION.cff", ".gitattributes", "dataset_infos.json"]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def tar(*keys):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for key in keys:
            info = tarfile.TarInfo(f"{key}.png")
            info.size = len(PNG)
            archive.addfile(info, io.BytesIO(PNG))
    return file.getvalue()


@pytest.fixture
def told(tmp_path):
    """What a folder gives: the ids, the reasons of rejects by name, the kinds of what is passed over by name."""

    def read(files):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        ids, rejects, passed = [], {}, {}
        for each in open_corpus(tmp_path):
            match each:
                case Record():
                    ids.append(each.document.id)
                case Rejected():
                    rejects[Path(each.uri).name] = each.reason
                case PassedOver():
                    passed[Path(each.uri).name] = each.kind
        return ids, rejects, passed

    return read


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({"a.parquet": parquet(text=["x", "y"]), "b.parquet": parquet(text=["z"])}, ["a-0", "a-1", "b-0"]),
        ({"data/a.parquet": parquet(text=["x"]), "b.parquet": parquet(text=["z"])}, ["b-0", "data/a-0"]),
        ({"a.tar": tar("x", "sub/y"), "b.tar.gz": gzip.compress(tar("x"))}, ["a/x", "a/sub/y", "b/x"]),
        ({"train/0.tar": tar("x"), "test/0.tar": tar("x")}, ["test/0/x", "train/0/x"]),
        ({"a.jsonl": lines({"text": "x"}), "b.ndjson": lines({"text": "y"})}, ["a.jsonl-1", "b.ndjson-1"]),
        ({"logs/a.jsonl.gz": gzip.compress(lines({"text": "x"}))}, ["logs/a.jsonl.gz-1"]),
        ({"a.jsonl": lines({"text": "x"}), "a.parquet": parquet(text=["y"])}, ["a.jsonl-1", "a-0"]),
        ({"a.jsonl": lines({"id": "own", "text": "x"})}, ["own"]),
        ({"a.csv": b"text,n\nx,1\ny,2\n", "b/a.tsv": b"id\ttext\nown\tz\n"}, ["a.csv-2", "a.csv-3", "own"]),
        (
            {"a.csv": b"text\nx\n", "a.tsv": b"text\ny\n", "a.jsonl": lines({"text": "z"})},
            ["a.csv-2", "a.jsonl-1", "a.tsv-2"],
        ),
        ({"a.jsonl": lines({"text": "x"}), "x.png": PNG, "note.txt": b"n"}, ["a.jsonl-1", "note.txt", "x.png"]),
    ],
)
def test_each_table_gives_its_own_documents(told, files, ids):
    assert told(files) == (ids, {}, {})


@pytest.mark.parametrize("prefix", ["", "data/", "data/train/"])
@pytest.mark.parametrize("table", ["t.parquet", "t.jsonl", "t.tar"])
def test_what_hubs_put_beside_tables_is_passed_over(told, prefix, table):
    content = {"t.parquet": parquet(text=["x"]), "t.jsonl": lines({"text": "x"}), "t.tar": tar("x")}[table]
    ids, rejects, passed = told({**dict.fromkeys(CARDS, b"{}"), "banner.png": PNG, prefix + table: content})
    assert (len(ids), rejects) == (2, {})
    assert passed == {
        "README.md": "README beside tables",
        "readme.txt": "README beside tables",
        "LICENSE.txt": "README beside tables",
        "LICENSE": "no suffix",
        "CITATION.cff": ".cff",
        ".gitattributes": "hidden file",
        "dataset_infos.json": ".json",
    }


def test_a_readme_without_tables_is_a_document(told):
    assert told({"README.md": b"hello", "a/x.png": PNG, "notes/LICENSE.txt": b"x"}) == (
        ["README.md", "a/x.png", "notes/LICENSE.txt"],
        {},
        {},
    )


def test_other_texts_beside_tables_are_documents(told):
    ids, _, _ = told({"readable.md": b"x", "licenses-of-poets.txt": b"y", "t.jsonl": lines({"text": "z"})})
    assert ids == ["readable.md", "t.jsonl-1"] or ids == ["licenses-of-poets.txt", "readable.md", "t.jsonl-1"]


def test_what_img2dataset_writes_beside_a_shard(told):
    files = {"00000.tar": tar("x"), "00000.parquet": parquet(url=["u"], caption=["c"]), "00000_stats.json": b"{}"}
    assert told(files) == (
        ["00000/x"],
        {},
        {"00000.parquet": "table beside its shard", "00000_stats.json": ".json"},
    )


@pytest.mark.parametrize(
    "content",
    [
        {"n.parquet": parquet(n=list(range(50)))},
        {"n.parquet": parquet(n=[1, 2], blob=[b"no image", b"neither"])},
        {"n.jsonl": lines(*({"n": n} for n in range(50)))},
        {"n.csv": b"a,b\n1,2\n3,4\n"},
    ],
)
def test_a_table_without_text_or_image_is_passed_over_as_a_whole(told, content):
    assert told({**content, "x.png": PNG}) == (["x.png"], {}, dict.fromkeys(content, "table without text or image"))


def test_empty_rows_before_others_are_rejects(told, tmp_path):
    ids, _, passed = told({"n.jsonl": lines(*({"n": n} for n in range(20)), {"text": "x"})})
    assert (ids, passed) == (["n.jsonl-21"], {})
    assert sum(isinstance(each, Rejected) for each in open_corpus(tmp_path)) == 20


def test_tables_of_spark(told):
    files = {"_metadata.parquet": parquet(text=["x"]), "_SUCCESS": b"", "part-0.parquet": parquet(text=["x"])}
    assert told(files) == (["part-0-0"], {}, {"_metadata.parquet": ".parquet", "_SUCCESS": "no suffix"})


def test_a_list_of_objects_that_is_no_sidecar_is_a_table(told):
    rows = b'\xef\xbb\xbf [\n {"text": "x"}, {"id": "own", "text": "y"}]'
    files = {
        "train.json": rows,
        "a/x.png": PNG,
        "a/x.json": rows,
        "vocab.json": b'["a", "b"]',
        "README.md": b"# A card",
    }
    ids, rejects, passed = told(
        {**files, "infos.json": b'{"a": 1}', "b/names.json": b'[{"name": "n"}]', ".h.json": rows}
    )
    assert ids == ["a/x.png", "train.json-1", "own"]
    assert rejects == {"x.json": "bad-json"}
    assert passed == {
        ".h.json": "hidden file",
        "README.md": "README beside tables",
        "names.json": "table without text or image",
        "infos.json": ".json",
        "vocab.json": ".json",
    }


def test_hidden_tables_are_passed_over(told, tmp_path):
    files = {".a.jsonl": lines({"image": "x.png", "text": "x"}), "x.png": PNG, "README.md": b"hello"}
    assert told(files) == (["README.md", "x.png"], {}, {".a.jsonl": "hidden file"})
    assert [each.document.text for each in open_corpus(tmp_path) if isinstance(each, Record)] == ["hello", None]


def test_a_broken_table_costs_itself(told):
    ids, rejects, _ = told({"a.parquet": b"PAR1", "b.jsonl": lines({"text": "x"}), "c.tar": b"x", "x.png": PNG})
    assert ids == ["b.jsonl-1", "x.png"]
    assert rejects == {"a.parquet": "damaged", "c.tar": "truncated"}


def test_other_archives_are_passed_over(told):
    assert told({"a.zip": b"", "b.7z": b"", "c.tar.lz4": b"", "x.png": PNG})[2] == {
        "a.zip": ".zip",
        "b.7z": ".7z",
        "c.tar.lz4": ".lz4",
    }


def test_a_table_that_is_a_link_names_what_lies_beside_the_link(told, tmp_path):
    (tmp_path / ".store").mkdir()
    (tmp_path / ".store/1234").write_bytes(lines({"image": "a.png", "text": "red"}))
    (tmp_path / "metadata.jsonl").symlink_to(tmp_path / ".store/1234")
    assert told({"a.png": PNG}) == (["a.png"], {}, {".store": "hidden folder"})
    [record] = [each for each in open_corpus(tmp_path) if isinstance(each, Record)]
    assert record.document.text == "red"
