"""A glob pattern selects files of a folder as in a shell; a single image is a source, too."""

import glob
import itertools
import os
from pathlib import Path

import pytest

from indexer.corpus import open_corpus
from indexer.corpus.records import Record
from indexer.corpus.selection import ALL, Selection, select
from indexer.errors import CallError
from indexer.types import PassedOver, Rejected

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)

TREE = (
    "a.jpg A.JPG b.png [1].jpg {x}.jpg .hidden.jpg sub/a.jpg sub/b.png sub/c/a.jpg sub/.dot/a.jpg other/deep/er/x.jpg other/x.jpeg"
).split()


@pytest.fixture
def tree(tmp_path):
    """Images in folders of folders."""
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


def found(source):
    return [each.document.id for each in open_corpus(source) if isinstance(each, Record)]


@pytest.mark.parametrize(
    "pattern",
    [
        "*.jpg",
        "**/*.jpg",
        "*/*.jpg",
        "**/a.*",
        "sub/*.*",
        "sub/**/a.jpg",
        "**/deep/**/*.jpg",
        "[ab].*",
        "[!a].*",
        "?.jpg",
        "[[]1].jpg",
        "*/*/*.jpg",
        "**/c/*",
        "**/**/x.jpg",
        "other/*/er/*",
        "*.[jJ][pP][gG]",
    ],
)
def test_it_finds_what_the_shell_finds(tree, pattern, monkeypatch):
    monkeypatch.chdir(tree)
    shell = [name for name in glob.glob(pattern, recursive=True) if Path(name).is_file()]  # noqa: PTH207
    base, _ = select(pattern)
    assert found(pattern) == [os.path.relpath(name, base) for name in sorted(set(shell), key=os.fsencode)] != []
    assert found(str(tree / pattern)) == found(pattern)


def test_a_folder_that_it_names_is_meant_with_all_that_is_in_it(tree):
    assert found(tree / "s*") == ["sub/a.jpg", "sub/b.png", "sub/c/a.jpg"]
    assert found(tree / "**") == found(tree)
    assert found(tree / "sub/**") == ["a.jpg", "b.png", "c/a.jpg"]


def test_braces_and_wildcards_go_together(tree):
    assert found(tree / "{sub,other}/**/*.{jpg,jpeg}") == [
        "other/deep/er/x.jpg",
        "other/x.jpeg",
        "sub/a.jpg",
        "sub/c/a.jpg",
    ]


def test_ids_are_paths_below_the_last_folder_that_it_names_in_full(tree):
    assert found(tree / "sub/c/*.jpg") == ["a.jpg"]
    assert open_corpus(tree / "sub/*/*.jpg").source == str(tree / "sub/*/*.jpg")


def test_what_it_does_not_name_is_not_seen(tree):
    (tree / "x.cr2").touch()
    (tree / "sub/c/list.csv").touch()
    entries = list(open_corpus(tree / "*.png"))
    assert [type(each) for each in entries] == [Record]
    assert [each.kind for each in open_corpus(tree / "*.cr2")] == [".cr2"]


def test_sidecars_need_not_be_named(tree):
    (tree / "a.txt").write_text("a cat")
    [record] = open_corpus(tree / "a.jp*")
    assert record.document.text == "a cat"


def test_a_name_that_is_there_is_no_pattern(tree):
    for name in "[1].jpg", "{x}.jpg":
        assert found(tree / name) == [name]


@pytest.mark.parametrize("pattern", ["*.gif", "nothing/*", "**/c", "a.jpg/*"])
def test_one_that_finds_nothing_is_an_error(tree, pattern):
    (tree / "sub/c/a.jpg").unlink()
    with pytest.raises(CallError, match="No file matches"):
        open_corpus(tree / pattern)


def test_one_that_leads_into_a_collection_is_an_error(tree):
    (tree / "sub/collection.json").write_text('{"format": 1, "metadata": "sqlite", "schema": null}')
    with pytest.raises(CallError, match="is an underdrawing collection"):
        open_corpus(tree / "sub/c/*.jpg")
    assert [each.kind for each in open_corpus(tree / "*/*.png")] == ["underdrawing collection"]


def test_a_folder_that_is_not_reached_is_not_listed(tree, monkeypatch):
    corpus = open_corpus(tree / "s*/*.jpg")
    scandir, listed = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    list(corpus)
    assert listed == [str(tree), str(tree / "sub")]


def test_a_link_to_what_is_not_named_is_followed(tree):
    (tree / "best").mkdir()
    (tree / "best/x.jpg").symlink_to(tree / "sub/a.jpg")
    (tree / "best/y.jpg").symlink_to(tree / "best/x.jpg")
    assert found(tree / "best/*.jpg") == ["x.jpg"]
    assert found(tree / "b*/*.jpg") == found(tree / "*/x.jpg") == ["best/x.jpg"]
    assert found(tree / "**/[axy].jpg") == ["a.jpg", "other/deep/er/x.jpg", "sub/a.jpg", "sub/c/a.jpg"]


@pytest.mark.parametrize("name", ["a.png", "x.mpo", "IMG_7", "IMG 7.photo", "broken.jpg"])
def test_an_image_alone(tmp_path, name):
    (tmp_path / name).write_bytes(b"" if name == "broken.jpg" else PNG)
    (tmp_path / "b.png").write_bytes(PNG)
    (tmp_path / f"{name}.json").write_text('{"price": 5}')
    [record] = open_corpus(tmp_path / name)
    assert (record.document.id, record.document.image, record.document.fields) == (name, tmp_path / name, {"price": 5})
    assert open_corpus(tmp_path / name).source == str(tmp_path / name)


def test_an_image_alone_may_be_a_link(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "x.png").symlink_to(tmp_path / "a.png")
    assert found(tmp_path / "x.png") == ["a.png"]


@pytest.mark.parametrize("reason", ["gone", "unreadable"])
def test_an_image_alone_that_goes_away_is_a_reject(tmp_path, reason):
    (tmp_path / "a.png").write_bytes(PNG)
    corpus = open_corpus(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    if reason == "unreadable":
        (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    entries = list(corpus)
    assert [(type(each), each.hides) for each in entries] == (
        [(Rejected, "a.png")] if reason == "unreadable" else [(PassedOver, "")]
    )


def test_selections_agree_with_the_shell_on_every_short_path(tmp_path):
    """Every pattern of up to three parts, on every path of up to three."""
    parts = ["**", "*", "a", "b*"]
    patterns = [pattern for n in (1, 2, 3) for pattern in itertools.product(parts, repeat=n)]
    names = [path for n in (1, 2, 3) for path in itertools.product(["a", "b", "c"], repeat=n)]
    for path in names:
        file = tmp_path / "/".join(f"{part}d" for part in path[:-1]) / path[-1]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    files = [file for file in sorted(tmp_path.rglob("*")) if file.is_file()]
    for pattern in patterns:
        shell = set(glob.glob("/".join(pattern), root_dir=tmp_path, recursive=True))  # noqa: PTH207
        for file in files:
            *folders, name = file.relative_to(tmp_path).parts
            here = Selection.of([pattern])
            above = any("/".join(folders[:n]) in shell for n in range(1, len(folders) + 1))
            for folder in folders:
                here = here and here.below(folder)
            got = here is not None and here.has(name)
            assert got == (above or str(file.relative_to(tmp_path)) in shell), (pattern, file)
    assert ALL.has("x")
    assert ALL.below("x") == ALL
