"""`open_corpus` chooses the reader by content; for unreadable sources it lists the supported ones."""

import os
import pickle
import subprocess
import sys

import pytest

from indexer import index_corpus
from indexer.corpus import open_corpus
from indexer.corpus.csv_table import CsvCorpus
from indexer.corpus.folder import FolderCorpus
from indexer.corpus.formats import READERS
from indexer.corpus.json_file import JsonCorpus
from indexer.corpus.jsonl import JsonlCorpus
from indexer.corpus.parquet import ParquetCorpus
from indexer.corpus.webdataset import WebDatasetCorpus
from indexer.errors import CallError, UnknownNameError
from indexer.reasons import Reason


@pytest.fixture
def touch(tmp_path):
    """Make empty files."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", JsonlCorpus),
        ("a.ndjson", JsonlCorpus),
        ("a.jsonl.gz", JsonlCorpus),
        ("a.b.NDJSON.GZ", JsonlCorpus),
        ("a.parquet", ParquetCorpus),
        ("a.csv", CsvCorpus),
        ("a.TSV.gz", CsvCorpus),
        ("a.json", JsonCorpus),
        ("a.json.xz", JsonCorpus),
        ("a.tar", WebDatasetCorpus),
        ("a.tar.gz", WebDatasetCorpus),
        ("a.tgz", WebDatasetCorpus),
        ("a.tar.bz2", WebDatasetCorpus),
        ("a.tar.xz", WebDatasetCorpus),
        ("a.tar.zst", WebDatasetCorpus),
        ("a.jsonl.bz2", JsonlCorpus),
        ("a.jsonl.xz", JsonlCorpus),
        ("a.ndjson.zst", JsonlCorpus),
        ("{braces}.tar", WebDatasetCorpus),
    ],
)
def test_file(touch, name, kind):
    path = touch(name) / name
    assert type(open_corpus(path)) is type(open_corpus(str(path))) is kind
    assert open_corpus(path).source == str(path)


@pytest.mark.parametrize("names", [[], ["a.png"], ["a.parquet"], ["a.tar"], ["a.jsonl", "b/c.png"]])
def test_folder(touch, names):
    assert type(open_corpus(touch(*names))) is FolderCorpus


@pytest.mark.parametrize("source", ["nothing", "nothing.tar", "https://example.org/photos", "s-{0..3}.tar", "nul\0"])
def test_missing(touch, monkeypatch, source):
    monkeypatch.chdir(touch("s-0.tar", "s-1.tar"))
    with pytest.raises(CallError, match="does not exist.*Accepted are a folder.*parquet.*tar"):
        open_corpus(source)


@pytest.mark.parametrize("name", ["a.xlsx", "a.xml", "a", "a.gz", "a.jsonl.lz4", "a.txt", "a.cr2", "a.zip"])
def test_unknown(touch, name):
    with pytest.raises(CallError, match="not a source of documents.*Accepted are a folder"):
        open_corpus(touch(name) / name)


def test_pattern_names_the_shard_that_is_missing(touch):
    folder = touch("s-08.tar", "s-09.tar")
    with pytest.raises(CallError, match=r"s-10\.tar, named by .*does not exist"):
        open_corpus(folder / "s-{08..10}.tar")


def test_pattern_is_for_shards(touch):
    with pytest.raises(CallError, match=r"a\.png is not a shard"):
        open_corpus(touch("a.png", "b.png") / "{a,b}.png")


def test_pattern_with_an_empty_range(touch):
    with pytest.raises(CallError, match="range is empty"):
        open_corpus(touch("s-1.tar") / "s-{2..1}.tar")


def test_fifo_is_refused_without_waiting(tmp_path, deadline):
    os.mkfifo(tmp_path / "a.jsonl")
    with deadline(), pytest.raises(CallError, match="neither a folder nor a regular file"):
        open_corpus(tmp_path / "a.jsonl")


def test_folder_without_permission(touch, monkeypatch):
    folder = touch("a.png")

    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", deny)  # not by chmod, which does not bind root
    with pytest.raises(CallError, match="Permission denied"):
        open_corpus(folder)


def test_folder_of_photos_is_told_by_its_first_files(tmp_path, monkeypatch):
    for n in range(100):
        (tmp_path / f"{n}.png").touch()
    looked_at = []
    monkeypatch.setattr("indexer.corpus.paths._is_folder", lambda entry: looked_at.append(entry) or False)
    open_corpus(tmp_path)
    assert len(looked_at) == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.tar", "folder/a.png"])
def test_corpora_travel_between_processes(touch, name):
    path = touch(name) / name.partition("/")[0]
    assert pickle.loads(pickle.dumps(open_corpus(path))).source == str(path)


def test_same_source_by_any_name(touch, monkeypatch):
    folder = touch("a/x.jsonl")
    (folder / "link").symlink_to(folder / "a")
    monkeypatch.chdir(folder)
    names = ["a/x.jsonl", "./a/../a/x.jsonl", "link/x.jsonl", str(folder / "a/x.jsonl")]
    assert {open_corpus(name).source for name in names} == {str(folder / "a/x.jsonl")}


def test_import_is_light():
    code = "import sys, indexer.corpus; print([m for m in ('PIL', 'pyarrow', 'numpy', 'torch') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_reasons_are_stable():
    """They are stored beside rejects and counted: never change one, only add."""
    assert {str(reason) for reason in Reason} == {
        *("missing", "not-a-file", "unreadable", "too-many-bytes", "empty", "truncated", "damaged"),
        *("not-an-image", "svg", "unsupported-format", "too-many-pixels", "decode-failed", "aspect"),
        *("too-complex", "missing-package", "too-many-images"),
        *("bad-json", "not-utf-8", "nul", "too-long", "bad-id", "bad-text", "bad-image", "bad-fields", "remote-uri"),
        *("not-unicode", "duplicate-id", "other-source", "members-apart", "bad-row", "no-column", "no-vector"),
        "changed",
    }
    with pytest.raises(UnknownNameError, match="truncated"):
        Reason("boring")


def test_a_reader_is_named_before_a_colon(tmp_path, shop):
    (tmp_path / "export.txt").write_text("id,text\n1,cat\n2,dog\n")
    corpus = open_corpus(f"csv:{tmp_path / 'export.txt'}")
    assert type(corpus) is CsvCorpus
    assert index_corpus(f"csv:{tmp_path / 'export.txt'}", shop).added == 2
    with pytest.raises(CallError, match="'nothing.txt' is not a file"):
        open_corpus("json:nothing.txt")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("csv", CsvCorpus),
        ("json", JsonCorpus),
        ("jsonl", JsonlCorpus),
        ("parquet", ParquetCorpus),
        ("tar", WebDatasetCorpus),
    ],
)
def test_every_reader_opens_a_file_of_any_name(touch, name, kind):
    path = touch("a.bin") / "a.bin"
    corpus = open_corpus(f"{name}:{path}")
    assert (type(corpus), corpus.source) == (kind, str(path))


def test_a_path_with_a_colon_is_a_path(touch, monkeypatch):
    monkeypatch.chdir(touch("csv:a.jsonl", "tar:b/c.png"))
    assert type(open_corpus("csv:a.jsonl")) is JsonlCorpus
    assert type(open_corpus("tar:b")) is FolderCorpus


def test_a_readers_name_is_a_suffix_of_its_files(touch, monkeypatch):
    path = touch("a.mine", "b.png", "c.csv") / "a.mine"
    for name in ("mine", "png", "csv"):
        monkeypatch.setitem(READERS._registered, name, (lambda rest, *, columns: (rest, columns), ""))
    assert open_corpus(path) == (str(path), None)
    assert type(open_corpus(path.with_name("b.png"))) is FolderCorpus
    assert type(open_corpus(path.with_name("c.csv"))) is CsvCorpus
