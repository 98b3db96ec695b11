"""Hostile archives cost neither memory nor time: each is a reject that says where and how much."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
import tracemalloc
from contextlib import contextmanager

import pyarrow as pa
import pytest

from indexer.corpus import tar as tar_module
from indexer.corpus.records import Record
from indexer.corpus.webdataset import WebDatasetCorpus
from indexer.types import Rejected

TERABYTE = 10**12
PACKINGS = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name, content, kind=tarfile.REGTYPE):
    return header(name, len(content), kind) + content + bytes(-len(content) % 512)


def read(path):
    found = list(WebDatasetCorpus([path], str(path)))
    return [each for each in found if isinstance(each, Record)], [each for each in found if isinstance(each, Rejected)]


@contextmanager
def little_memory(limit=8_000_000):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


BEFORE = member("a.txt", b"t") + member("b.txt", b"t")  # the second may lack a part that damage hides
LONG = bytes([65]) * 40_000_000
CLAIMS = {
    "a long name": header("././@LongLink", 3 * 10**9, tarfile.GNUTYPE_LONGNAME) + LONG,
    "a long link": header("././@LongLink", 3 * 10**9, tarfile.GNUTYPE_LONGLINK) + LONG,
    "an extended header": header("pax", 3 * 10**9, tarfile.XHDTYPE) + LONG,
    "a global header": header("pax", 3 * 10**9, tarfile.XGLTYPE) + LONG,
    "a member": header("x.jpg", TERABYTE) + LONG,
    "a member that is no part": header("x.npy", TERABYTE) + LONG,
    "extended headers without end": member("pax", b"12 path=abc\n", tarfile.XHDTYPE) * 100_000,
    "a size that is not a number": member("pax", b"12 size=abc\n", tarfile.XHDTYPE) + member("x.txt", b"t"),
    "a size below zero": header("x.txt", -5) + member("y.txt", b"t"),
    "a record without end": member("pax", b"99 path=abc\n", tarfile.XHDTYPE) + member("x.txt", b"t"),
    "a million digits": member("pax", b"1" * 1_000_000, tarfile.XHDTYPE) + member("x.txt", b"t"),
}


@pytest.mark.parametrize("packing", ["tar", "tar.gz"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_claims(tmp_path, deadline, packing, claim):
    path = tmp_path / f"a.{packing}"
    path.write_bytes(PACKINGS[packing](BEFORE + CLAIMS[claim]))
    with deadline(30), little_memory():
        records, [reject] = read(path)
    assert records[0].document.id == "a"
    assert reject.reason in ("truncated", "damaged", "too-many-bytes")
    assert "beyond byte 2,048" in reject.detail
    assert reject.hides == ""  # as of all archives that are a source of their own


def test_a_sparse_terabyte_is_passed_over(tmp_path, deadline):
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(BEFORE + header("x.mp4", 10 * 2**30))
        file.seek(10 * 2**30, io.SEEK_CUR)
        file.write(member("z.txt", b"t") + bytes(1_024))
    with deadline(30), little_memory():
        records, rejects = read(path)
    assert ([each.document.id for each in records], rejects) == (["a", "b", "z"], [])


def test_what_a_compressed_member_unpacks_to_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_module, "MAX_SKIPPED", 10_000_000)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(BEFORE + member("x.mp4", LONG) + bytes(1_024)))
    records, [reject] = read(path)
    assert ([each.document.id for each in records], reject.reason) == (["a", "b"], "too-many-bytes")
    assert "Unpack" in reject.detail


@pytest.mark.parametrize("packing", PACKINGS)
def test_packings(tmp_path, packing):
    path = tmp_path / f"a.{packing}"
    content = PACKINGS[packing](BEFORE + member("c.jpg", bytes(100_000)) + member("c.txt", b"t") + bytes(1_024))
    path.write_bytes(content)
    records, rejects = read(path)
    assert ([each.document.id for each in records], rejects) == (["a", "b", "c"], [])
    path.write_bytes(content[:-20] if packing != "tar" else content[:-1_024])
    assert [each.reason for each in read(path)[1]] == ["truncated"]
    path.write_bytes(b"")
    assert [each.reason for each in read(path)[1]] == ["truncated"]


@pytest.mark.parametrize("packing", list(PACKINGS)[1:])
def test_damaged_packings(tmp_path, packing):
    """Bytes that were changed anywhere are a reject, and never another exception."""
    chance = random.Random(0)
    noise = b"".join(member(f"{n}.txt", chance.randbytes(300).hex().encode()) for n in range(50))
    content = PACKINGS[packing](noise + bytes(1_024))
    for _ in range(60):
        mutant = bytearray(content)
        for _ in range(chance.choice([1, 8])):
            mutant[chance.randrange(len(mutant))] ^= chance.randrange(1, 256)
        (tmp_path / "a").write_bytes(mutant)
        _, rejects = read(tmp_path / "a")
        assert all(each.reason in ("truncated", "damaged", "too-many-bytes", "not-utf-8", "nul") for each in rejects)


def test_streams_that_follow_each_other_are_one(tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(BEFORE) + bytes(700) + gzip.compress(member("c.txt", b"t") + bytes(1_024)))
    assert [each.document.id for each in read(path)[0]] == ["a", "b", "c"]
    path.write_bytes(path.read_bytes() + b"more")
    records, [reject] = read(path)
    assert (len(records), reject.reason) == (3, "damaged")


def test_names_of_every_format(tmp_path):
    long = "folder/" * 40 + "é" * 20
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
            info = tarfile.TarInfo(f"{long}.txt")
            info.size = 1
            archive.addfile(info, io.BytesIO(b"t"))
        records, rejects = read(tmp_path / "a.tar")
        assert ([each.document.id for each in records], rejects) == ([long], [])
