"""A folder of pictures and texts, good and bad, the collection made of it, and two ways to call the command line."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from pipelines.cli.app import app, main

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
BAD = {"broken.jpg": b"\xff\xd8\xff\xe0 ends here", "letter.jpg": b"a letter", "nothing.png": b""}
MODEL = "fake:64"


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """`photos`, and `shop` made of it; tests copy what they change."""
    folder = tmp_path_factory.mktemp("originals")
    photos = folder / "photos"
    photos.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(photos / f"{name}.png")
        (photos / f"{name}.txt").write_text(f"a {name} square")
        (photos / f"{name}.json").write_text(json.dumps({"price": 10 * len(name), "tags": ["square", name]}))
    (photos / "note.txt").write_text("a note about lamps")
    for name, content in BAD.items():
        (photos / name).write_bytes(content)
    made = CliRunner().invoke(app, ["index", str(photos), str(folder / "shop"), "--model", MODEL])
    assert made.exit_code == 0, made.output
    return folder


@pytest.fixture
def photos(originals, tmp_path):
    """The folder, to be changed. Its times are kept, but its path is another: a collection sees a new source."""
    return shutil.copytree(originals / "photos", tmp_path / "photos")


@pytest.fixture
def shop(originals, tmp_path):
    """The path of a collection of four documents, to be changed."""
    return shutil.copytree(originals / "shop", tmp_path / "shop")


@pytest.fixture
def damaged(shop):
    """A segment of `shop` that was cut short."""
    segment = next((shop / "segments").glob("*.safetensors"))
    segment.write_bytes(segment.read_bytes()[:-8])
    return segment


@pytest.fixture
def run():
    """Call a command; the result has `exit_code`, `stdout` and `stderr`."""

    def run_one(*arguments):
        return CliRunner().invoke(app, [str(each) for each in arguments])

    return run_one


@pytest.fixture
def call(capsys, monkeypatch):
    """Call the entry point, as the installed command does: exit code, stdout, stderr."""

    def call_main(*arguments):
        monkeypatch.setattr(sys, "argv", ["underdrawing", *(str(each) for each in arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return call_main
