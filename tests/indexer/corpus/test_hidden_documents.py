"""The documents that a reject may hide: its own id if known, otherwise those in the unread part of the source."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.corpus.records import Record
from indexer.types import Rejected


@pytest.fixture
def jsonl(tmp_path):
    def write(*lines, name="table.jsonl"):
        content = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return tmp_path / name

    return write


@pytest.fixture
def shard(tmp_path, tar_bytes):
    def write(name, members):
        content = tar_bytes([(n, c if isinstance(c, bytes) else c.encode()) for n, c in members])
        (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") else content)
        return tmp_path / name

    return write


def parquet(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)
    return path


class TestDerived:
    def test_lines(self, jsonl, read):
        records, _ = read(jsonl({"id": "a", "text": "t"}, {"text": "t"}, {"id": 5, "text": "t"}))
        assert [(each.document.id, each.derived) for each in records] == [("a", False), ("table-2", True), ("5", False)]

    def test_rows(self, tmp_path, read):
        path = parquet(tmp_path / "table.parquet", {"id": ["a", None], "text": ["t", "t"]})
        assert [each.derived for each in read(path)[0]] == [False, True]

    def test_samples(self, shard, read):
        records, _ = read(shard("a.tar", [("x.txt", "t"), ("y.txt", "t"), ("y.json", '{"id": "own"}')]))
        assert [(each.document.id, each.derived) for each in records] == [("x", True), ("own", False)]


class TestBadRecords:
    """A record whose id is known hides that alone; of another nobody knows what it hides."""

    @pytest.mark.parametrize(
        ("line", "hides"),
        [
            (b"{", ""),
            (b'{"id": "a", "text": ', ""),
            (b'{"id": 1.5, "text": "t"}', ""),
            (b"[]", ""),
            ({"id": "a", "text": 5}, "a"),
            ({"id": 7}, "7"),
            ({"id": "a", "text": "t", "fields": 5}, "a"),
            ({"id": "a", "image": "http://example.org/a.png"}, "a"),
            ({"text": 5}, "table-2"),
        ],
    )
    def test_line(self, jsonl, read, line, hides):
        _, [reject] = read(jsonl({"id": "before", "text": "t"}, line))
        assert reject.hides == hides

    @pytest.mark.parametrize(
        ("columns", "hides"),
        [
            ({"id": ["a"], "text": ["a\0"]}, "a"),
            ({"id": [""], "text": ["t"]}, ""),
            ({"text": [None]}, "table-0"),
            ({"id": ["a"], "image": ["http://example.org/a.png"]}, "a"),
            ({"id": ["a"], "text": ["t"], "x": pa.array([10**18], pa.timestamp("us"))}, "a"),
        ],
    )
    def test_row(self, tmp_path, read, columns, hides):
        _, [reject] = read(parquet(tmp_path / "table.parquet", columns))
        assert reject.hides == hides

    @pytest.mark.parametrize(
        ("members", "hides"),
        [
            ([("x.json", "{")], ""),
            ([("x.json", '{"a": 1}')], "x"),
            ([("x.txt", b"\xff"), ("x.json", '{"id": "own"}')], "own"),
            ([("x.txt", b"\xff")], "x"),
        ],
    )
    def test_sample(self, shard, read, members, hides):
        _, [reject] = read(shard("a.tar", members))
        assert reject.hides == hides


class TestUnreadParts:
    """What lies behind a cut or damage is covered, whichever ids it has."""

    def covered(self, found, ids):
        """The ids that are neither found nor hidden by a reject."""
        present = {each.document.id for each in found if isinstance(each, Record)}
        hidden = [each.hides for each in found if isinstance(each, Rejected) and each.hides is not None]
        return [id for id in ids if id not in present and not any(id.startswith(prefix) for prefix in hidden)]

    @pytest.mark.parametrize("own_ids", [True, False])
    @pytest.mark.parametrize("kind", ["jsonl.gz", "parquet", "tar", "tar.gz"])
    @pytest.mark.parametrize("share", [0.02, 0.1, 0.4, 0.7, 0.99])
    def test_cut_anywhere(self, tmp_path, jsonl, shard, read, kind, own_ids, share):
        folder = tmp_path / "set"
        folder.mkdir()
        names = [f"document {n * 7919 % 1_009}" for n in range(300)]
        if kind == "jsonl.gz":
            path = jsonl(*({"text": n} | ({"id": n} if own_ids else {}) for n in names), name="set/s.jsonl.gz")
        elif kind == "parquet":
            columns = {"text": names} | ({"id": names} if own_ids else {})
            path = parquet(folder / "s.parquet", columns, row_group_size=50)
        else:
            members = []
            for n, name in enumerate(names):
                members += [(f"{n:04}.txt", name)] + ([(f"{n:04}.json", json.dumps({"id": name}))] if own_ids else [])
            shard("set/r.tar", [("0.txt", "t")])
            path = shard(f"set/s.{kind}", members)
        source = path if kind == "jsonl.gz" else folder
        ids = [each.document.id for each in read(source)[0]]
        assert len(ids) >= 300
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        records, rejects = read(source)
        assert rejects or len(records) == len(ids)
        assert self.covered([*records, *rejects], ids) == []

    def test_a_cut_shard_does_not_hide_the_next(self, tmp_path, shard, read):
        path = shard("a.tar", [(f"{n}.txt", "t") for n in range(5)])
        shard("b.tar", [("0.txt", "t")])
        path.write_bytes(path.read_bytes()[:2_100])
        _, [reject] = read(tmp_path)
        assert (reject.reason, reject.hides) == ("truncated", "a/")
