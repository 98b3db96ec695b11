"""A folder gives each image and text once, in a fixed order, and accounts for all other files."""

import errno
import inspect
import json
import os
import sys
from contextlib import contextmanager

import pytest

from indexer.collection import Collection
from indexer.corpus import open_corpus
from indexer.corpus.folder import FolderCorpus
from indexer.corpus.paths import portable_name
from indexer.corpus.places import FOLDER_READ
from indexer.errors import CallError
from indexer.types import PassedOver, Rejected


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

    def test_an_id_is_derived_unless_the_json_gives_it(self, folder, read):
        records, _ = read(folder({"x.jpg": b"", "x.json": '{"id": "7"}', "y.jpg": b"", "y.json": '{"id": ""}'}))
        assert [(each.document.id, each.derived) for each in records] == [("7", False), ("y.jpg", True)]

    def test_zero_is_an_id_and_names_of_keys_count_without_case(self, folder, read):
        records, _ = read(folder({"x.jpg": b"", "x.json": '{"ID": "own"}', "y.jpg": b"", "y.jpg.json": '{"id": 0}'}))
        assert [(each.document.id, each.derived) for each in records] == [("own", False), ("0", False)]

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
        files = ["setup.exe", "noend", "lonely.json", "x.mp4", "x.md", "raw.CR2", "x.jxl", "a/b.psd", "old.zip"]
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
            "b.psd": ".psd",
            "old.zip": ".zip",
        }

    def test_hidden_files_and_litter_are_passed_over(self, folder, read, passed_over):
        files = [".hidden.png", ".git/x.png", "__MACOSX/x.png", "Thumbs.db", "@eaDir/x.png", "lost+found/x.png"]
        root = folder(dict.fromkeys([*files, "seen.png"], b""))
        assert ids(read(root)[0]) == ["seen.png"]
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
            ({"x.txt": "a" * 10_000_001}, "too-long", "10,000,001"),
            ({"x.txt": "a" * 40_000_001}, "too-many-bytes", "40,000,000"),
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
        assert [(record.document.id, record.document.text) for record in records] == [("b.png", None)]
        assert [reject.reason for reject in rejects] == ["not-a-file"] * 3

    def test_fifos_that_look_like_tables_or_like_nothing_do_not_hang(self, folder, read, deadline, passed_over):
        root = folder({"b.png": b""})
        tables = ["p.parquet", "t.csv", "t.jsonl", "t.jsonl.gz", "t.tar"]
        for name in ["pipe", "lone.json", *tables]:
            os.mkfifo(root / name)
        with deadline():
            records, rejects = read(root)
            kinds = passed_over(root)
        assert ids(records) == ["b.png"]
        assert [(reject.uri.rpartition("/")[2], reject.reason) for reject in rejects] == [
            (name, "not-a-file") for name in tables
        ]
        assert kinds == {"pipe": "no regular file", "lone.json": ".json"}

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


class TestSidecarsThatCannotBeUsed:
    """They cost the document what they would have told of it, and not the document."""

    @pytest.mark.parametrize(
        ("files", "reason", "detail", "hides"),
        [
            ({"x.txt": b"\xff"}, "not-utf-8", "byte 0", None),
            ({"x.md": b"a\0b"}, "nul", "character 1", None),
            ({"x.jpg.txt": "a" * 10_000_001}, "too-long", "10,000,001", None),
            ({"x.json": '{\n"a": 1,\n}'}, "bad-json", "line 3, column 1", None),
            ({"x.json": '{"id": "7", '}, "bad-json", "column 13", ""),
            ({"x.json": "[1]"}, "bad-json", "list", None),
            ({"x.json": ""}, "bad-json", "column 1", ""),
            ({"x.json": "[" * 100_000}, "bad-json", "recursion", ""),
            ({"x.json": '{"text": "a"'}, "bad-json", "column 13", ""),
            ({"x.json": '{"text": a}'}, "bad-json", "column 10", None),
            ({"x.json": '{"text": a, "ID": 5}'}, "bad-json", "column 10", ""),
            ({"x.json": '{"fields": [1]}'}, "bad-fields", "list", None),
            ({"x.json": '{"id": "cat-7", "fields": [1]}'}, "bad-fields", "list", "cat-7"),
            ({"x.json": '{"id": true}'}, "bad-id", "True", "True"),
            ({"x.json": '{"text": 5}'}, "bad-text", "int", None),
            ({"x.jpg.json": '{"text": 5}'}, "bad-text", "int", None),
            ({"x.jpg.supplemental-metadata.json": "{"}, "bad-json", "column 2", ""),
        ],
    )
    def test_each_is_a_reject_of_its_own(self, folder, read, files, reason, detail, hides):
        root = folder({"a.png": b"", "x.jpg": b"", **files, "z.png": b""})
        records, [reject] = read(root)
        assert [(each.document.id, each.document.text, each.document.fields) for each in records] == [
            (name, None, {}) for name in ("a.png", "x.jpg", "z.png")
        ]
        assert (reject.reason, reject.uri) == (reason, (root / next(iter(files))).as_uri())
        assert detail in reject.detail
        assert reject.hides == hides

    def test_the_others_are_used(self, folder, read):
        root = folder({"x.jpg": b"", "x.txt": "a cat", "x.json": '{"fields": 5}', "x.jpg.json": '{"price": 5}'})
        [record], [reject] = read(root)
        assert (record.document.text, record.document.fields) == ("a cat", {"price": 5})
        assert reject.uri.endswith("/x.json")

    def test_a_text_document_with_bad_json(self, folder, read):
        [record], [reject] = read(folder({"page.txt": "hello", "page.json": "{"}))
        assert (record.document.text, reject.uri.rpartition("/")[2]) == ("hello", "page.json")

    def test_one_that_is_unreadable_hides_every_id(self, folder, read):
        root = folder({"x.jpg": b""})
        (root / "x.json").symlink_to(root / "away.json")
        [record], [reject] = read(root)
        assert (record.document.id, reject.reason, reject.hides) == ("x.jpg", "missing", "")

    def test_the_document_is_read_again_once_the_sidecar_can_be(self, folder, read):
        root = folder({"x.jpg": b"", "away.json": '{"price": 5}'})
        [before], _ = read(folder({}))
        (root / "x.json").symlink_to(root / "away2.json")
        [broken], _ = read(root)
        (root / "away.json").rename(root / "away2.json")
        [mended], _ = read(root)
        assert len({before.stamp, broken.stamp, mended.stamp}) == 3

    def test_an_unreadable_image_hides_the_id_that_its_json_gives(self, folder, read):
        root = folder({"x.json": '{"id": "cat-7"}'})
        (root / "x.jpg").symlink_to(root / "away.jpg")
        _, [reject] = read(root)
        assert (reject.reason, reject.hides) == ("missing", "cat-7")


class TestWhatMayHideDocuments:
    def test_a_link_that_leads_nowhere(self, folder, read, tmp_path):
        root = folder({"a.png": b""})
        (root / "nas").symlink_to(tmp_path / "away")
        (root / "sub").mkdir()
        (root / "sub/50%41").symlink_to(tmp_path / "away")
        (root / "loop").symlink_to(root / "loop")
        (root / "table.jsonl").symlink_to(tmp_path / "away.jsonl")
        records, rejects = read(root)
        assert ids(records) == ["a.png"]
        assert [(reject.reason, reject.hides) for reject in rejects] == [
            ("unreadable", "loop"),
            ("missing", "nas"),
            ("missing", "sub/50%2541"),
            ("missing", ""),
        ]
        assert rejects[1].detail == f"{root / 'nas'} is a link to {tmp_path / 'away'}, which does not exist."

    def test_a_folder_whose_list_breaks_off(self, folder, read, monkeypatch):
        root = folder({"a.png": b"", "b/c.png": b"", "b/d.png": b"", "e.png": b""})
        scandir = os.scandir

        @contextmanager
        def break_off(path):
            with scandir(path) as entries:
                yield cut(entries) if str(path).endswith("/b") else entries

        def cut(entries):
            yield next(entries)
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "scandir", break_off)
        records, [reject] = read(root)
        assert ids(records) == ["a.png", "e.png"]
        assert (reject.reason, reject.hides) == ("unreadable", "b/")

    def test_a_name_that_cannot_be_asked_what_it_is(self, folder, read, monkeypatch):
        root = folder({"a.png": b"", "nas/b.png": b""})
        scandir = os.scandir

        class Stale:
            name = "nas"

            def is_symlink(self):
                return False

            def is_dir(self):
                raise OSError(errno.ESTALE, "Stale file handle")

        @contextmanager
        def stale(path):
            with scandir(path) as entries:
                yield [Stale() if entry.name == "nas" else entry for entry in entries]

        monkeypatch.setattr(os, "scandir", stale)
        records, [reject] = read(root)
        assert (ids(records), reject.reason, reject.hides) == (["a.png"], "unreadable", "nas")

    @pytest.mark.parametrize("left", [[], [".keep"], ["lost+found/"], [".keep", ".Trash/"]])
    def test_an_empty_folder_may_be_a_mount_point(self, folder, left):
        root = folder({"a.png": b""})
        (root / "nas").mkdir()
        for name in left:
            (root / "nas" / name).mkdir() if name.endswith("/") else (root / "nas" / name).touch()
        [empty] = [each for each in FolderCorpus(root) if isinstance(each, PassedOver) and each.hides is not None]
        assert (empty.kind, empty.hides, empty.uri) == ("empty folder", "nas/", (root / "nas").as_uri())

    @pytest.mark.parametrize("name", ["x.jpg", "page.txt", "no-suffix"])
    def test_an_unreadable_file(self, folder, read, monkeypatch, name):
        root = folder({"a.png": b"", name: b"\x89PNG\r\n\x1a\n"})

        def deny(path, *rest):
            if str(path).endswith(name):
                raise PermissionError(13, "Permission denied", str(path))
            return opened(path, *rest)

        def ask(path, **options):
            if str(path).endswith(name):
                raise PermissionError(13, "Permission denied", str(path))
            return asked(path, **options)

        opened, asked = os.open, os.stat
        monkeypatch.setattr(os, "open", deny)
        monkeypatch.setattr(os, "stat", ask)
        records, [reject] = read(root)
        assert (ids(records), reject.reason, reject.hides) == (["a.png"], "unreadable", name)


class TestCollections:
    @pytest.fixture
    def shop(self, tmp_path):
        """A collection inside a folder of photos."""
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos/a.png").touch()
        with Collection.open(tmp_path / "photos/shop", model="fake:8"):
            pass
        (tmp_path / "photos/shop/media").mkdir(exist_ok=True)
        (tmp_path / "photos/shop/media/b.png").touch()
        return tmp_path / "photos/shop"

    def test_it_is_no_part_of_the_folder_that_it_lies_in(self, shop, read, passed_over):
        assert ids(read(shop.parent)[0]) == ["a.png"]
        assert passed_over(shop.parent) == {"shop": "underdrawing collection"}

    @pytest.mark.parametrize("below", ["", "media", "media/b.png"])
    def test_it_is_no_source(self, shop, below):
        with pytest.raises(CallError, match=r"shop.* is an underdrawing collection.*Name the folder or file"):
            open_corpus(shop / below)

    def test_a_file_of_that_name_alone_is_none(self, folder, read):
        root = folder({"a/collection.json": '{"title": "Stamps"}', "a/collection.png": b""})
        [record], _ = read(root)
        assert record.document.fields == {"title": "Stamps"}


class TestLinks:
    def test_link_to_a_folder_is_followed(self, folder, read, tmp_path):
        root = folder({"a.png": b""})
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/b.png").touch()
        (root / "link").symlink_to(tmp_path / "elsewhere")
        assert ids(read(root)[0]) == ["a.png", "link/b.png"]

    def test_a_fan_of_links_gives_each_file_once(self, folder, read, passed_over):
        root = folder({f"{'d/' * level}x.png": b"" for level in range(15)})
        for level in range(14):
            above = root / ("d/" * level)
            (above / "e").symlink_to("d")
            (above / "c").symlink_to(above / "d")
        records, rejects = read(root)
        assert (len(records), rejects) == (15, [])
        assert sorted(each.kind for each in open_corpus(root) if isinstance(each, PassedOver)) == [FOLDER_READ] * 28

    def test_a_fan_of_links_elsewhere_gives_each_file_once(self, folder, read, tmp_path):
        root = folder({})
        for level in range(15):
            (tmp_path / f"far{level}").mkdir()
            (tmp_path / f"far{level}/x.png").touch()
            for name in "ab" if level < 14 else "":
                (tmp_path / f"far{level}/{name}").symlink_to(tmp_path / f"far{level + 1}")
        (root / "b").symlink_to(tmp_path / "far0")
        (root / "c").symlink_to(tmp_path / "far0")
        records, rejects = read(root)
        assert (sorted(ids(records)), rejects) == (sorted(f"b/{'a/' * level}x.png" for level in range(15)), [])

    def test_what_lies_below_the_folder_keeps_its_place_whatever_links_come_first(self, folder, read, passed_over):
        root = folder({"m/x.png": b"", "m/x.txt": "a cat", "z.png": b""})
        (root / "a").symlink_to(root / "m")
        (root / "b.png").symlink_to(root / "m/x.png")
        records, _ = read(root)
        assert ids(records) == ["m/x.png", "z.png"]
        assert passed_over(root) == {"a": "link to a folder already read", "b.png": "link to a file already read"}

    def test_links_to_files_elsewhere(self, folder, read, passed_over, tmp_path):
        root = folder({})
        (tmp_path / "far").mkdir()
        for name in "x.png", "y.png", "z.png":
            (tmp_path / "far" / name).touch()
        (root / "a.png").symlink_to(tmp_path / "far/x.png")
        (root / "b.png").symlink_to(tmp_path / "far/x.png")
        (root / "far").symlink_to(tmp_path / "far")
        (root / "z.png").symlink_to(tmp_path / "far/z.png")
        assert ids(read(root)[0]) == ["a.png", "far/y.png", "far/z.png"]
        assert passed_over(root) == dict.fromkeys(["b.png", "x.png", "z.png"], "link to a file already read")

    def test_links_into_hidden_folders_are_followed(self, folder, read):
        root = folder({".annex/1234": b"\x89PNG\r\n\x1a\n", "a/b.txt": "b"})
        (root / "x.png").symlink_to(root / ".annex/1234")
        assert ids(read(root)[0]) == ["a/b.txt", "x.png"]

    def test_links_to_what_is_not_read_by_its_own_name_are_followed_once(self, folder, read, passed_over):
        """As a cache keeps files: under digests, with links that have the names."""
        root = folder(
            {"blobs/1": b'{"text": "a"}', "blobs/2": "note", "blobs/3": b"\x89PNG\r\n\x1a\n", "blobs/4.mp4": b""}
        )
        names = {"r/t.jsonl": "1", "r/t2.jsonl": "1", "r/n.txt": "2", "r/x.png": "3", "r/y.png": "4.mp4"}
        (root / "r").mkdir()
        for name, blob in names.items():
            (root / name).symlink_to(root / "blobs" / blob)
        records, rejects = read(root)
        assert (ids(records), rejects) == (["blobs/3", "r/n.txt", "r/t.jsonl-1", "r/y.png"], [])
        assert {name: kind for name, kind in passed_over(root).items() if "link" in kind} == {
            "t2.jsonl": "link to a file already read",
            "x.png": "link to a file already read",
        }

    def test_the_same_of_what_lies_elsewhere(self, folder, read, tmp_path):
        root = folder({})
        (tmp_path / "far").mkdir()
        (tmp_path / "far/1").write_text('{"text": "a"}')
        (root / "blobs").symlink_to(tmp_path / "far")
        (root / "t.jsonl").symlink_to(tmp_path / "far/1")
        assert ids(read(root)[0]) == ["t.jsonl-1"]

    def test_a_sidecar_may_be_a_link(self, folder, read):
        root = folder({"x.png": b"", "shared.txt": "a cat"})
        (root / "x.txt").symlink_to(root / "shared.txt")
        assert [(each.document.id, each.document.text) for each in read(root)[0]] == [
            ("shared.txt", "a cat"),
            ("x.png", "a cat"),
        ]

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
            [empty] = FolderCorpus(tmp_path)
            assert empty.hides == "d/" * 200
        finally:
            sys.setrecursionlimit(limit)
