"""Members of one name become one document; a damaged shard gives the documents before the damage and a reject."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import tracemalloc

import pytest

from indexer.corpus import open_corpus
from indexer.corpus import webdataset as reader
from indexer.types import Rejected


@pytest.fixture
def shard(tmp_path, tar_bytes):
    """Write (name, content) pairs to a shard."""

    def write(members, name="shard.tar"):
        content = tar_bytes([(n, c if isinstance(c, bytes) else c.encode()) for n, c in members])
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if name.endswith(".tar") else gzip.compress(content, mtime=0))
        return tmp_path / name

    return write


def samples(count, start=0):
    for n in range(start, start + count):
        yield f"{n:04}.jpg", bytes([n % 256]) * 1_000
        yield f"{n:04}.txt", f"number {n}"


def ids(records):
    return [record.document.id for record in records]


class TestDocuments:
    @pytest.mark.parametrize("name", ["shard.tar", "shard.tar.gz", "shard.tgz"])
    def test_sample(self, shard, read, name):
        details = {"key": "0001", "price": 5, "fields": {"style": "ink"}}
        path = shard([("a/0001.jpg", b"abc"), ("a/0001.txt", " a cat\n"), ("a/0001.json", json.dumps(details))], name)
        [record], rejects = read(path)
        document = record.document
        assert (document.id, document.text, document.image) == ("a/0001", "a cat", b"abc")
        assert document.fields == {"key": "0001", "price": 5, "style": "ink"}
        assert document.uri == f"{path.as_uri()}#key=a/0001"
        assert rejects == []

    @pytest.mark.parametrize(
        ("members", "text"),
        [
            ([("x.json", '{"caption": "c"}')], "c"),
            ([("x.txt", "t"), ("x.json", '{"caption": "c"}')], "t"),
            ([("x.txt", "t"), ("x.json", '{"caption": "c", "text": "j"}')], "j"),
            ([("x.txt", "")], None),
        ],
    )
    def test_which_text_counts(self, shard, read, members, text):
        [record], _ = read(shard([("x.png", b"1"), *members]))
        assert record.document.text == text

    def test_json_may_give_the_id(self, shard, read):
        assert ids(read(shard([("x.txt", "t"), ("x.json", '{"id": "cat"}')]))[0]) == ["cat"]

    def test_suffix_begins_at_the_first_dot(self, shard, read):
        members = [("v1.0/x.seg.png", b"no"), ("v1.0/x.JPG", b"yes"), ("v1.0/x.png", b"second")]
        [record], _ = read(shard(members))
        assert (record.document.id, record.document.image) == ("v1.0/x", b"yes")

    def test_several_images(self, shard, read, monkeypatch):
        path = shard([("x.1.png", b"1"), ("x.2.png", b"2"), ("x.10.png", b"3"), ("x.txt", b"t")])
        [record], _ = read(path)
        assert (record.document.id, record.document.images) == ("x", (b"1", b"2", b"3"))
        monkeypatch.setattr(reader, "MAX_IMAGES", 2)
        assert [each.reason for each in read(path)[1]] == ["too-many-images"]

    def test_leading_dot_slash_is_dropped(self, shard, read):
        assert ids(read(shard([("./x.txt", "t"), ("././y.txt", "t")]))[0]) == ["x", "y"]

    def test_names_that_are_not_utf_8(self, shard, read):
        [record], _ = read(shard([(os.fsdecode(b"caf\xe9.txt"), "t")]))
        assert record.document.id == "caf%E9"
        record.document.uri.encode()

    def test_a_name_is_no_path(self, shard, read, tmp_path):
        records, _ = read(shard([("../../escape.txt", "t"), ("/etc/escape.txt", "t")]))
        assert ids(records) == ["../../escape", "/etc/escape"]
        assert [path.name for path in tmp_path.iterdir()] == ["shard.tar"]

    def test_svg_is_left_to_the_decoder(self, shard, read):
        [record], _ = read(shard([("x.svg", "<svg/>")]))
        assert record.document.image == b"<svg/>"

    def test_everything_else_is_passed_over(self, shard, read, passed_over):
        members = [
            ("x.jpg", b"1"),
            ("x.npy", b"2"),
            ("x.cls", b"3"),
            ("readme", b"4"),
            ("d/._x.jpg", b"5"),
            ("y.npy", b"6"),
        ]
        path = shard(members)
        assert len(read(path)[0]) == 1
        kinds = {"x.npy": ".npy", "x.cls": ".cls", "readme": "no suffix", "._x.jpg": "hidden file", "y.npy": ".npy"}
        assert {name.removeprefix("shard.tar#key="): kind for name, kind in passed_over(path).items()} == kinds

    def test_links_are_passed_over(self, tmp_path, read):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for name, kind in [("d", tarfile.DIRTYPE), ("x.jpg", tarfile.SYMTYPE), ("y.jpg", tarfile.FIFOTYPE)]:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "/etc/passwd"
                archive.addfile(member)
        assert read(tmp_path / "a.tar") == ([], [])
        assert [each.kind for each in open_corpus(tmp_path / "a.tar")] == ["link", "device"]

    def test_stamp_is_that_of_the_content(self, shard):
        [first] = open_corpus(shard([("x.jpg", b"1"), ("x.txt", "t")]))
        [same] = open_corpus(shard([("y.txt", "t"), ("y.png", b"1")], "other.tar.gz"))
        [other] = open_corpus(shard([("x.jpg", b"2"), ("x.txt", "t")]))
        assert first.stamp == same.stamp != other.stamp


class TestShards:
    def test_several_shards_go_before_the_key(self, shard, read, tmp_path):
        for name in "s-001.tar", "s-000.tar", "s-002.tar.gz":
            shard(samples(2), name)
        records, _ = read(tmp_path)
        assert ids(records) == [f"s-{n:03}/{key}" for n in range(3) for key in ("0000", "0001")]
        assert open_corpus(tmp_path).source == str(tmp_path)

    @pytest.mark.parametrize(
        ("suffix", "pack"),
        [(".tgz", gzip.compress), (".tbz", bz2.compress), (".TBZ2", bz2.compress), (".txz", lzma.compress)],
    )
    def test_short_suffixes(self, tmp_path, read, tar_bytes, suffix, pack):
        (tmp_path / "in").mkdir()
        path = tmp_path / "in" / f"s{suffix}"
        path.write_bytes(pack(tar_bytes([("x.txt", b"t")])))
        assert ids(read(path)[0]) == ["x"]
        assert ids(read(tmp_path / "in")[0]) == ["s/x"]

    def test_pattern(self, shard, read, tmp_path):
        for name in "a/s-09.tar", "a/s-10.tar", "b/s-09.tar", "b/s-10.tar":
            shard(samples(1), name)
        records, _ = read(f"{tmp_path}/{{a,b}}/s-{{09..10}}.tar")
        assert ids(records) == ["a/s-09/0000", "a/s-10/0000", "b/s-09/0000", "b/s-10/0000"]

    def test_pattern_of_one(self, shard, read, tmp_path):
        shard(samples(1), "s-0.tar")
        assert ids(read(str(tmp_path / "s-{0..0}.tar"))[0]) == ["s-0/0000"]

    def test_ids_stay_when_a_folder_grows(self, shard, read, tmp_path):
        shard(samples(1), "a.tar")
        before = ids(read(tmp_path)[0])
        shard(samples(1), "b.tar")
        assert ids(read(tmp_path)[0]) == [*before, "b/0000"]

    def test_shards_may_be_links(self, shard, read, tmp_path):
        (tmp_path / "links").mkdir()
        for name, stored in ("x.tar", "a"), ("y.tar", "b"), ("z.tar", "a"):
            (tmp_path / "links" / name).symlink_to(shard(samples(1), f"store/{stored}.tar"))
        assert ids(read(tmp_path / "links")[0]) == ["x/0000", "y/0000"]  # what z.tar leads to was read as x.tar


class TestRejects:
    @pytest.mark.parametrize(
        ("member", "reason"),
        [
            (("x.txt", b""), "empty"),
            (("x.txt", b"\xff"), "not-utf-8"),
            (("x.txt", b"a\0b"), "nul"),
            (("x.json", b"{"), "bad-json"),
            (("x.json", b'{"a": 1}'), "empty"),
            (("x.json", b'{"text": "t", "fields": 5}'), "bad-fields"),
        ],
    )
    def test_a_bad_sample_is_rejected_alone(self, shard, read, member, reason):
        path = shard([("a.txt", "t"), member, ("z.txt", "t")])
        records, [reject] = read(path)
        assert ids(records) == ["a", "z"]
        assert (reject.uri, reject.reason) == (f"{path.as_uri()}#key=x", reason)

    @pytest.mark.parametrize("suffix", ["cr2", "NEF", "jxl", "psd"])
    def test_an_image_that_is_not_read_makes_no_text(self, shard, read, suffix):
        path = shard([(f"a.{suffix}", b"1"), ("a.txt", "t"), ("b.jpg", b"1"), (f"b.{suffix}", b"2")])
        records, [reject] = read(path)
        assert (ids(records), records[0].document.image) == (["b"], b"1")
        assert (reject.reason, reject.hides) == ("unsupported-format", "a")
        assert f"a.{suffix}" in reject.detail

    def test_member_too_long(self, shard, read, monkeypatch):
        monkeypatch.setattr(reader, "MAX_BYTES", 100)
        records, [reject] = read(shard([("a.txt", "t"), ("x.jpg", b"1" * 101), ("x.txt", "t"), ("z.txt", "t")]))
        assert (ids(records), reject.reason) == (["a", "z"], "too-many-bytes")
        assert "101" in reject.detail

    @pytest.mark.parametrize("content", [b"", b"hello", b"hello" * 1_000, b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(50)])
    def test_no_archive(self, read, tmp_path, content):
        (tmp_path / "a.tar").write_bytes(content)
        records, [reject] = read(tmp_path / "a.tar")
        assert (records, reject.uri) == ([], (tmp_path / "a.tar").as_uri())
        assert reject.reason in {"truncated", "damaged"}

    def test_a_damaged_shard_does_not_cost_the_next(self, shard, read, tmp_path):
        (tmp_path / "a.tar").write_bytes(b"hello" * 1_000)
        shard(samples(1), "b.tar")
        records, rejects = read(tmp_path)
        assert (ids(records), [reject.reason for reject in rejects]) == (["b/0000"], ["damaged"])


class TestCutShards:
    """A sample takes five blocks: header and two of the image, header and one of the text."""

    @pytest.mark.parametrize(
        ("cut", "whole", "position", "lost"),
        [
            (12 * 512 + 100, 2, 10 * 512, None),  # inside the third image
            (11 * 512, 2, 10 * 512, None),  # behind its header
            (13 * 512, 2, 13 * 512, "0002"),  # behind the third image, so its text is gone
            (13 * 512 + 100, 2, 13 * 512, "0002"),  # inside the header of its text
            (14 * 512 + 3, 2, 13 * 512, "0002"),  # inside its text
            (15 * 512, 2, 15 * 512, "0002"),  # behind it: whole, but nobody can know
        ],
    )
    def test_cut(self, shard, read, cut, whole, position, lost):
        path = shard(samples(5))
        path.write_bytes(path.read_bytes()[:cut])
        records, [reject] = read(path)
        assert ids(records) == [f"{n:04}" for n in range(whole)]
        assert (reject.uri, reject.reason) == (path.as_uri(), "truncated")
        assert f"shard.tar: cannot be read beyond byte {position:,}" in reject.detail
        assert (f"; {lost} is incomplete" in reject.detail) == (lost is not None)

    def test_every_cut_is_noticed(self, shard, read):
        path = shard(samples(3))
        content = path.read_bytes()
        for cut in range(0, 15 * 512 + 1, 64):
            path.write_bytes(content[:cut])
            records, rejects = read(path)
            assert [reject.reason for reject in rejects] == ["truncated"], cut
            assert len(records) <= 2

    def test_cut_gzip(self, shard, read):
        noise = random.Random(0)
        path = shard([(f"{n:04}.jpg", noise.randbytes(1_000)) for n in range(100)], "shard.tar.gz")
        path.write_bytes(path.read_bytes()[:-1_000])
        records, [reject] = read(path)
        assert 90 < len(records) < 100
        assert reject.reason == "truncated"
        assert f"beyond byte {len(records) * 1_536:,}" in reject.detail  # a header and two blocks for each

    def test_bad_header(self, shard, read):
        path = shard(samples(3))
        content = bytearray(path.read_bytes())
        content[10 * 512 + 20] ^= 1
        path.write_bytes(content)
        records, [reject] = read(path)
        assert (ids(records), reject.reason) == (["0000"], "damaged")
        assert "beyond byte 5,120" in reject.detail

    def test_mutated_shards(self, shard):
        """Whatever happens to an archive, its samples come or a reject does, and nothing else."""
        chance = random.Random(0)
        path = shard([*samples(3), ("long/" * 60 + "x.txt", "t"), ("é" * 80 + ".txt", "t")])
        content = path.read_bytes()
        seen = set()
        for _ in range(200):
            mutant = bytearray(content)
            for _ in range(chance.choice([1, 4, 16])):
                mutant[chance.randrange(len(mutant))] = chance.choice([0, 32, 48, 55, 255, chance.randrange(256)])
            path.write_bytes(mutant)
            seen |= {entry.reason if isinstance(entry, Rejected) else "record" for entry in open_corpus(path)}
        assert {"record", "damaged"} <= seen


class TestMemory:
    def test_a_shard_is_read_sample_by_sample(self, tmp_path):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for n in range(500):
                for suffix, content in (("jpg", bytes(20_000)), ("json", b"{}")):
                    member = tarfile.TarInfo(f"{n:05}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        list(open_corpus(tmp_path / "a.tar"))
        tracemalloc.start()
        try:
            records = iter(open_corpus(tmp_path / "a.tar"))
            next(records)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            assert sum(1 for _ in records) == 499
            assert tracemalloc.get_traced_memory()[1] - before < 1_000_000, "of 10 MB; 1,000 headers are held"
        finally:
            tracemalloc.stop()
