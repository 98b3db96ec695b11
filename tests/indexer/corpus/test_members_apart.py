"""Archive members of one name that are not adjacent: joined within a window, reported beyond it."""

import gzip

import pytest

from indexer.corpus import open_corpus
from indexer.corpus import webdataset as reader
from indexer.corpus.records import Record
from indexer.corpus.sample_names import group


@pytest.fixture
def packed(tmp_path, tar_bytes):
    """Write a shard that holds all images, then all texts, then all details."""

    def write(count, name):
        members = [(f"{n:03}.png", b"image %d" % n) for n in range(count)]
        members += [(f"{n:03}.txt", b"text %d" % n) for n in range(count)]
        members += [(f"{n:03}.json", b'{"n": %d}' % n) for n in range(count)]
        content = tar_bytes(members)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_shard_packed_by_suffix_is_joined(packed, read, name):
    records, rejects = read(packed(20, name))
    found = [(each.document.id, each.document.text, each.document.image, each.document.fields) for each in records]
    assert found == [(f"{n:03}", f"text {n}", b"image %d" % n, {"n": n}) for n in range(20)]
    assert rejects == []


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_beyond_the_window_the_reason_names_the_cause(packed, read, name, monkeypatch):
    monkeypatch.setattr(reader, "WINDOW_MEMBERS", 8)
    records, rejects = read(packed(20, name))
    assert [each.document.id for each in records] == [f"{n:03}" for n in range(20)]
    assert {each.reason for each in rejects} == {"members-apart"}
    assert all("not adjacent" in each.detail and "--sort=name" in each.detail for each in rejects)
    assert {each.hides for each in rejects} >= {"000", ""}  # a .json may have an id of its own


def test_a_compressed_shard_is_held_up_to_a_limit(packed, read, monkeypatch):
    monkeypatch.setattr(reader, "WINDOW_BYTES", 100)
    records, rejects = read(packed(20, "a.tar.gz"))
    assert (len(records), {each.reason for each in rejects}) == (20, {"members-apart"})


def test_windows_do_not_cut_samples(tmp_path, tar_bytes, read, monkeypatch):
    members = [
        (f"{n:03}.{part}", b"{}" if part == "json" else b"x") for n in range(30) for part in ("json", "png", "txt")
    ]
    for window in range(3, 12):
        monkeypatch.setattr(reader, "WINDOW_MEMBERS", window)
        (tmp_path / "a.tar").write_bytes(tar_bytes(members))
        records, rejects = read(tmp_path / "a.tar")
        assert (len(records), rejects) == (30, [])
        assert all(each.document.text == "x" and each.document.image == b"x" for each in records)


def test_a_sample_without_end_is_told(tmp_path, tar_bytes, monkeypatch):
    monkeypatch.setattr(reader, "WINDOW_MEMBERS", 8)
    (tmp_path / "a.tar").write_bytes(tar_bytes([("x.png", b"1"), *((f"x.part{n}.npy", b"2") for n in range(100))]))
    held = []
    monkeypatch.setattr(reader, "group", lambda names: held.append(len(names)) or group(names))
    entries = list(open_corpus(tmp_path / "a.tar"))
    assert len(entries) == 101
    assert sum(isinstance(each, Record) for each in entries) == 1
    assert max(held) <= 8


def test_two_archives_written_one_behind_the_other(tmp_path, tar_bytes, read):
    (tmp_path / "a.tar").write_bytes(tar_bytes([("0.txt", b"a")]) + tar_bytes([("0.txt", b"b"), ("1.txt", b"c")]))
    records, rejects = read(tmp_path / "a.tar")
    assert [(each.document.id, each.document.text) for each in records] == [("0", "a"), ("0", "b"), ("1", "c")]
    assert rejects == []
