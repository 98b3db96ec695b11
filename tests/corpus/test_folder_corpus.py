"""A folder gives each image and text once, in a fixed order, and every file that it does not give is accounted for."""

import inspect
import json
import os
import sys

import pytest

from indexer.corpus import open_corpus
from indexer.corpus.folder import FolderCorpus
from indexer.corpus.paths import portable_name
from indexer.types import Rejected


@pytest.fixture
def folder(tmp_path):
    """Make files below a folder; a name ending in a slash makes a folder."""
    root = tmp_path / "photos"
    root.mkdir()

    def make(files):
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        return root

    return make


def ids(records):
    return [record.document.id for record in records]


class TestDocuments:
    def test_image_with_its_companions(self, folder, read):
        details = {"text": None, "price": 5, "fields": {"style": "ink"}}
        root = folder({"a/x.jpg": b"not looked at", "a/x.txt": " a cat \n", "a/x.json": json.dumps(details)})
        [record], rejects = read(root)
        document = record.document
        assert (document.id, document.text, document.fields) == ("a/x.jpg", "a cat", {"price": 5, "style": "ink"})
        assert document.image == root / "a/x.jpg"
        assert document.uri == (root / "a/x.jpg").as_uri()
        assert rejects == []

    def test_image_alone(self, folder, read):
        [record], _ = read(folder({"x.PNG": b""}))
        assert (record.document.id, record.document.text, record.document.fields) == ("x.PNG", None, {})

    def test_text_alone(self, folder, read):
        records, _ = read(folder({"note.txt": "one", "page.md": "# two", "page.json": '{"n": 2}'}))
        assert [(r.document.id, r.document.text, r.document.image) for r in records] == [
            ("note.txt", "one", None),
            ("page.md", "# two", None),
        ]
        assert records[1].document.fields == {"n": 2}

    @pytest.mark.parametrize(
        ("files", "text"),
        [
            ({"x.txt": "file"}, "file"),
            ({"x.md": "page"}, "page"),
            ({"x.txt": "file", "x.md": "page"}, "file"),
            ({"x.txt": "file", "x.json": '{"caption": "caption"}'}, "file"),
            ({"x.json": '{"caption": "caption"}'}, "caption"),
            ({"x.txt": "file", "x.json": '{"text": "json", "caption": "caption"}'}, "json"),
            ({"x.txt": "  \n"}, None),
            ({}, None),
        ],
    )
    def test_which_text_counts(self, folder, read, files, text):
        [record], rejects = read(folder({"x.jpg": b"", **files}))
        assert (record.document.id, record.document.text, rejects) == ("x.jpg", text, [])

    def test_json_may_give_the_id(self, folder, read):
        records, _ = read(folder({"x.jpg": b"", "x.json": '{"id": "cat-7"}', "y.jpg": b"", "y.json": '{"id": 8}'}))
        assert ids(records) == ["cat-7", "8"]

    def test_duplicate_ids_are_passed_on(self, folder, read):
        records, rejects = read(folder({"x.jpg": b"", "x.png": b"", "x.json": '{"id": "same"}'}))
        assert (ids(records), rejects) == (["same", "same"], [])

    def test_caption_stays_a_field(self, folder, read):
        [record], _ = read(folder({"x.jpg": b"", "x.json": '{"caption": "c"}'}))
        assert record.document.fields == {"caption": "c"}

    def test_byte_order_mark_is_no_text(self, folder, read):
        [record], _ = read(folder({"x.txt": b"\xef\xbb\xbfhello"}))
        assert record.document.text == "hello"

    def test_text_of_a_million_characters(self, folder, read):
        [record], _ = read(folder({"x.txt": "é" * 1_000_000}))
        assert len(record.document.text) == 1_000_000


class TestOrderAndNames:
    def test_order_is_that_of_the_bytes_of_the_paths(self, folder, read):
        names = ["a.png", "a/b.png", "a/z.png", "a0.png", "B.png", "é.png", "z.png"]
        records, _ = read(folder(dict.fromkeys(reversed(names), b"")))
        assert ids(records) == sorted(names, key=str.encode)

    def test_reading_again_gives_the_same(self, folder, read):
        corpus = open_corpus(folder({"a.png": b"", "b/c.txt": "c", "b/d.txt": ""}))
        assert list(corpus) == list(corpus)

    def test_names_that_are_not_utf_8(self, folder, read):
        root = folder({os.fsdecode(b"caf\xe9.png"): b"", "caf%E9.png": b"", "café.png": b"", "50%.png": b""})
        records, _ = read(root)
        assert sorted(ids(records)) == ["50%.png", "caf%25E9.png", "caf%E9.png", "café.png"]
        for record in records:
            record.document.uri.encode()
            assert record.document.image.exists()

    @pytest.mark.parametrize(
        "name", [b"%", b"%4", b"%41", b"%\xff", b"%4\xff", b"%25", b"%2541", b"\xff\xfe", b"100% x"]
    )
    def test_escapes_can_be_undone(self, name):
        def undo(text):
            out, rest = b"", text.encode()
            while rest:
                escaped = rest[:1] == b"%" and len(rest) > 2 and all(c in b"0123456789abcdefABCDEF" for c in rest[1:3])
                out += bytes.fromhex(rest[1:3].decode()) if escaped else rest[:1]
                rest = rest[3 if escaped else 1 :]
            return out

        assert undo(portable_name(os.fsdecode(name))) == name

    def test_source_is_the_absolute_path(self, folder, monkeypatch):
        root = folder({"a.png": b""})
        monkeypatch.chdir(root.parent)
        assert open_corpus("photos").source == open_corpus(root).source == str(root)

    def test_id_too_long(self, folder, read):
        deep = "/".join(["d" * 200] * 6) + "/x.png"
        records, [reject] = read(folder({deep: b""}))
        assert (records, reject.reason) == ([], "too-long")


class TestStamps:
    def stamp(self, root):
        [record] = open_corpus(root)
        return record.stamp

    def test_stays_the_same(self, folder):
        root = folder({"x.jpg": b"1", "x.txt": "a"})
        assert self.stamp(root) == self.stamp(root)

    @pytest.mark.parametrize("name", ["x.jpg", "x.txt", "x.json"])
    def test_changes_with_each_file(self, folder, name):
        root = folder({"x.jpg": b"1", "x.txt": "a", "x.json": "{}"})
        before = self.stamp(root)
        state = (root / name).stat()
        os.utime(root / name, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        touched = self.stamp(root)
        (root / name).write_text(" {} ")
        os.utime(root / name, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        assert len({before, touched, self.stamp(root)}) == 3

    def test_changes_when_a_companion_comes_or_goes(self, folder):
        root = folder({"x.jpg": b"1"})
        stamps = [self.stamp(root)]
        for name in "x.txt", "x.json":
            (root / name).write_text("{}")
            stamps.append(self.stamp(root))
        assert len(set(stamps)) == 3


class TestWhatIsNotADocument:
    def test_other_files_are_passed_over_by_suffix(self, folder, read, passed_over):
        files = ["setup.exe", "noend", "lonely.json", "x.mp4", "x.md", "raw.CR2", "x.jxl", "a/b.tga", "old.zip"]
        root = folder(dict.fromkeys([*files, "x.jpg", "x.txt"], b"{}"))
        assert (len(read(root)[0]), read(root)[1]) == (1, [])
        assert passed_over(root) == {
            "setup.exe": ".exe",
            "noend": "no suffix",
            "lonely.json": ".json",
            "x.mp4": ".mp4",
            "x.md": ".md",
            "raw.CR2": ".cr2",
            "x.jxl": ".jxl",
            "b.tga": ".tga",
            "old.zip": ".zip",
        }

    def test_hidden_files_and_litter_are_passed_over(self, folder, read, passed_over):
        files = [".hidden.png", ".git/x.png", "__MACOSX/x.png", "Thumbs.db", "@eaDir/x.png", "lost+found/x.png"]
        root = folder(dict.fromkeys(files, b""))
        assert read(root) == ([], [])
        assert passed_over(root) == {
            ".hidden.png": "hidden file",
            ".git": "hidden folder",
            "__MACOSX": "system folder",
            "Thumbs.db": "system file",
            "@eaDir": "system folder",
            "lost+found": "system folder",
        }

    def test_empty_folder(self, folder, read):
        assert read(folder({})) == ([], [])

    def test_folder_with_the_name_of_a_picture(self, folder, read):
        records, rejects = read(folder({"x.png/y.png": b""}))
        assert (ids(records), rejects) == (["x.png/y.png"], [])


class TestRejects:
    @pytest.mark.parametrize(
        ("files", "reason", "detail"),
        [
            ({"x.svg": "<svg/>"}, "svg", "x.svg"),
            ({"x.svg": "<svg/>", "x.txt": "a drawing"}, "svg", "x.svg"),
            ({"x.txt": ""}, "empty", "neither"),
            ({"x.txt": " \n "}, "empty", "neither"),
            ({"x.txt": "a\0b"}, "nul", "character 1"),
            ({"x.txt": b"caf\xe9"}, "not-utf-8", "byte 3"),
            ({"x.jpg": b"", "x.txt": b"\xff"}, "not-utf-8", "byte 0"),
            ({"x.txt": "a" * 10_000_001}, "too-long", "10,000,001"),
            ({"x.txt": "a" * 40_000_001}, "too-many-bytes", "40,000,000"),
            ({"x.jpg": b"", "x.json": '{\n"a": 1,\n}'}, "bad-json", "line 3, column 1"),
            ({"x.jpg": b"", "x.json": "[1]"}, "bad-json", "list"),
            ({"x.jpg": b"", "x.json": ""}, "bad-json", "column 1"),
            ({"x.jpg": b"", "x.json": '{"fields": [1]}'}, "bad-fields", "list"),
            ({"x.jpg": b"", "x.json": '{"id": true}'}, "bad-id", "True"),
            ({"x.jpg": b"", "x.json": '{"text": 5}'}, "bad-text", "int"),
        ],
    )
    def test_one_bad_file_is_rejected_alone(self, folder, read, files, reason, detail):
        root = folder({"a.png": b"", **files, "z.png": b""})
        records, [reject] = read(root)
        assert ids(records) == ["a.png", "z.png"]
        assert reject.reason == reason
        assert detail in reject.detail
        assert reject.uri == (root / next(iter(files))).as_uri()
        assert reject.hides == next(iter(files))

    def test_dangling_link(self, folder, read):
        root = folder({})
        (root / "x.png").symlink_to(root / "nothing")
        (root / "y.png").symlink_to(root / "y.png")
        _, rejects = read(root)
        assert [reject.reason for reject in rejects] == ["missing", "unreadable"]

    def test_fifos_do_not_hang(self, folder, read, deadline):
        root = folder({"b.png": b""})
        for name in "a.png", "a2.txt", "b.txt":
            os.mkfifo(root / name)
        with deadline():
            records, rejects = read(root)
        assert records == []
        assert [reject.reason for reject in rejects] == ["not-a-file"] * 3

    def test_unreadable_folder_costs_only_itself(self, folder, read, monkeypatch):
        root = folder({"a.png": b"", "b/c.png": b"", "d.png": b""})
        scandir = os.scandir

        def deny(path):
            if str(path).endswith("/b"):
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", deny)  # not by chmod, which does not bind root
        records, [reject] = read(root)
        assert ids(records) == ["a.png", "d.png"]
        assert (reject.uri, reject.reason, reject.hides) == ((root / "b").as_uri(), "unreadable", "b/")
        assert "Permission denied" in reject.detail


class TestLinks:
    def test_link_to_a_folder_is_followed(self, folder, read, tmp_path):
        root = folder({"a.png": b""})
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/b.png").touch()
        (root / "link").symlink_to(tmp_path / "elsewhere")
        assert ids(read(root)[0]) == ["a.png", "link/b.png"]

    def test_loops_end(self, folder, read, tmp_path):
        root = folder({"a/b/x.png": b""})
        (root / "a/b/up").symlink_to(root / "a")
        (root / "self").symlink_to(root)
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/back").symlink_to(root)
        (root / "out").symlink_to(tmp_path / "elsewhere")
        assert read(root)[1] == []
        assert ids(read(root)[0]) == ["a/b/x.png"]


class TestLaziness:
    def test_first_record_comes_before_later_folders_are_listed(self, folder, monkeypatch):
        root = folder({"a/x.png": b"", "b/x.png": b"", "c/x.png": b""})
        listed = []
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
        records = iter(FolderCorpus(root))
        assert next(records).document.id == "a/x.png"
        assert listed == [root, root / "a"]

    def test_first_record_comes_before_later_files_are_touched(self, folder):
        root = folder({"a.txt": "one", "b.txt": "two"})
        records = iter(FolderCorpus(root))
        next(records)
        (root / "b.txt").unlink()
        assert isinstance(next(records), Rejected)

    def test_folders_nest_deeper_than_python_calls(self, tmp_path):
        (tmp_path / "/".join("d" * 200)).mkdir(parents=True)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(len(inspect.stack(0)) + 150)
        try:
            assert list(FolderCorpus(tmp_path)) == []
        finally:
            sys.setrecursionlimit(limit)
