"""Empty tables and archives are reported, and a truncated one may hide documents."""

import gzip
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer import index_corpus
from indexer.corpus import open_corpus
from indexer.corpus.tar import MAX_END
from indexer.types import PassedOver, Rejected


def parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def tar(*names):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 2_000
            archive.addfile(info, io.BytesIO(b"text " * 400))
    return file.getvalue()


EMPTY = {
    "a.jsonl": b"",
    "b.jsonl": b"\n\n",
    "c.csv": b"",
    "d.tsv": b"id\ttext\n",
    "e.json": b"[]",
    "f.parquet": parquet(text=pa.array([], pa.string())),
    "g.tar": tar(),
    "h.tar.gz": gzip.compress(tar()),
    "i.jsonl.gz": gzip.compress(b""),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_table_of_nothing_is_passed_over(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(EMPTY[name])
    kind, hides = ("empty table", None) if EMPTY[name] else ("empty file", f"{name[0]}-")
    assert list(open_corpus(path)) == [PassedOver(path.as_uri(), kind, hides=hides)]


def test_in_a_folder_all_of_them_are_counted(tmp_path, shop):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, content in {**EMPTY, "j.json": b""}.items():
        (folder / name).write_bytes(content)
    summary = index_corpus(folder, shop)
    assert dict(summary.passed_over) == {"empty file": 3, "empty table": 6, ".json": 1}  # `[]` may be anything
    assert summary.rejected == 0


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("own_ids", [False, True])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "json", "parquet", "tar"])
def test_a_file_that_lost_its_content_costs_no_document(tmp_path, shop, kind, own_ids, in_folder):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "other.txt").write_text("a text beside it")
    rows = [{"text": f"text {number}"} | ({"id": f"own {number}"} if own_ids else {}) for number in range(9)]
    content = {
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "json": json.dumps(rows).encode(),
        "csv": "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]).encode(),
        "parquet": parquet(**{name: [row[name] for row in rows] for name in rows[0]}),
        "tar": tar(*(f"{number}.txt" for number in range(9))),
    }[kind]
    path = folder / f"table.{kind}"
    path.write_bytes(content)
    source = folder if in_folder else path
    number = index_corpus(source, shop).documents
    assert number == 9 + in_folder
    path.write_bytes(b"")
    summary = index_corpus(source, shop, prune=True, prune_most=1)
    assert (summary.documents, summary.pruned, summary.kept) == (number, 0, 9)


class TestZerosAtTheEnd:
    """A crash, or a full disk, leaves zeros where content was to be written."""

    @pytest.mark.parametrize("packing", [bytes, gzip.compress])
    def test_a_long_end_is_a_reject_that_hides_what_was_there(self, tmp_path, shop, packing):
        content = tar(*(f"{number:03}.txt" for number in range(100)))
        path = tmp_path / "shard.tar"
        path.write_bytes(packing(content))
        assert index_corpus(path, shop).documents == 100
        cut = 20 * 2_560
        path.write_bytes(packing(content[:cut] + bytes(len(content) - cut)))
        summary = index_corpus(path, shop, prune=True, prune_most=1)
        assert (summary.documents, summary.unchanged, summary.kept) == (100, 20, 80)
        assert "bytes of zeros end it" in summary.rejects[0].detail

    def test_a_file_of_zeros_is_no_empty_archive(self, tmp_path):
        path = tmp_path / "shard.tar"
        path.write_bytes(bytes(20_480))
        [reject] = open_corpus(path)
        assert isinstance(reject, Rejected)
        assert (reject.reason, reject.hides) == ("truncated", "")

    def test_as_much_as_writers_fill_up_is_none(self, tmp_path):
        path = tmp_path / "shard.tar"
        content = tar("a.txt").rstrip(b"\0")
        path.write_bytes(content + bytes(-len(content) % 512) + bytes(MAX_END))
        assert [each.document.id for each in open_corpus(path)] == ["a"]
