"""In a folder, a file is an image by its suffix, or by its first bytes if the suffix is unknown."""

import io

import pytest
from PIL import Image

from indexer.corpus import open_corpus
from indexer.corpus.content import looks_like_image
from indexer.corpus.records import Record
from indexer.types import PassedOver


def encoded_as(format):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, format)
    return file.getvalue()


PNG, JPEG, TIFF, TGA = map(encoded_as, ("PNG", "JPEG", "TIFF", "TGA"))


def told(folder, name, content):
    """`document`, or the kind under which the file is passed over."""
    (folder / name).write_bytes(content)
    [entry] = open_corpus(folder)
    assert isinstance(entry, Record | PassedOver)
    return "document" if isinstance(entry, Record) else entry.kind


@pytest.mark.parametrize("name", ["x.mpo", "x.jpf", "x.pfm", "x.avifs", "x.dib", "x.tga", "x.heic", "x.JPEG"])
@pytest.mark.parametrize("content", [PNG, b""])
def test_what_has_an_image_suffix_is_one_whatever_is_in_it(tmp_path, name, content):
    assert told(tmp_path, name, content) == "document"


@pytest.mark.parametrize("name", ["IMG_7", "x.photo", "x.jxl", "x.image", "x.jpg_large", "x.jpg~", "x.2024", "x.dat"])
@pytest.mark.parametrize("content", [PNG, JPEG, TIFF, TGA])
def test_what_has_another_suffix_or_none_is_one_by_its_content(tmp_path, name, content):
    assert told(tmp_path, name, content) == "document"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("IMG_7", "no suffix"),
        ("x.photo", ".photo"),
        ("x.jxl", ".jxl"),
        ("x.psd", ".psd"),
        ("x.", "."),
        ("x.tar.lz4", ".lz4"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"\xff\x0a" + bytes(50), b"8BPS" + bytes(50), b"words", bytes(1_000)])
def test_other_content_is_passed_over(tmp_path, name, kind, content):
    assert told(tmp_path, name, content) == kind


@pytest.mark.parametrize(
    "suffix", ".cr2 .NEF .dng .arw .orf .rw2 .raf .pef .mp4 .mov .pdf .zip .xmp .aae .exe .py".split()
)
def test_what_is_known_to_be_none_is_not_opened(tmp_path, suffix, monkeypatch):
    opened = []
    monkeypatch.setattr("indexer.corpus.folder.looks_like_image", lambda path: opened.append(path) or True)
    assert told(tmp_path, f"x{suffix}", TIFF) == suffix.lower()
    assert opened == []


def test_a_look_reads_little(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(TGA[:-26] + bytes(5_000_000) + TGA[-26:])
    read = []

    class Counting(io.BufferedReader):
        def read(self, size=-1):
            content = super().read(size)
            read.append(len(content))
            return content

    monkeypatch.setattr("indexer.corpus.paths.open", lambda path, *_, **__: Counting(io.FileIO(path)), raising=False)
    assert looks_like_image(tmp_path / "x")
    assert sum(read) < 4_096
