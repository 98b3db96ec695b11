"""Random command lines succeed, or are refused or fail with one line; never a traceback."""

from __future__ import annotations

import random
import shutil
import time

import pytest
from PIL import Image
from typer.testing import CliRunner

from indexer import Collection, Document
from pipelines.cli.app import app

pytestmark = pytest.mark.fuzz

LINES, MINUTES = 12, 10
COMMANDS = ["search", "info", "check", "compact", "delete", "index", "doctor", "diagnose", "train", "", "nonsense"]
OPTIONS = [
    "--image", "--like", "--not", "--not-image", "--where", "--method", "-k", "--json", "--html", "--modality", "--centre",
    "--image-weight", "--text-weight", "--repair", "--model", "--workers", "--prune", "--parts", "--seed", "--gate",
    "--database", "--help", "--plot", "--", "-", "--nonsense", "gap", "clip",
]  # fmt: skip
WORDS = [
    "a red cat", "", " ", "\0", "\ud800", "🎨", "a", "b", "nobody", "0", "-1", "1e9", "nan", "inf", "true", "1" * 40, "text",
    "image", "sum", "product", "auto", "fake:16", "fake:0", "fake:x", "bundled:none", "open_clip:x/y", "{", "[]", "null",
    '{"n": {"$lt": 3}}', '{"$or": []}', '{"n": {"$like": 1}}', "/", "/dev/null", "..", "SHOP", "PICTURE", "FOLDER", "NEW",
]  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    (folder / "photos").mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "photos" / "red.png")
    with Collection.open(folder / "shop", "fake:16") as shop:
        shop.add(
            [
                Document("a", text="a cat", fields={"n": 1}),
                Document("b", text="a dog", image=folder / "photos" / "red.png"),
            ]
        )
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A line that names a model on the hub is refused at once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def line(chance, folder):
    names = {"SHOP": "shop", "PICTURE": "photos/red.png", "FOLDER": "photos", "NEW": "new"}
    words = [chance.choice(COMMANDS), *chance.choices(["SHOP", chance.choice(WORDS)], [4, 1])]
    for _ in range(chance.randrange(7)):
        words.append(chance.choice(OPTIONS if chance.random() < 0.5 else WORDS))
    return [str(folder / names[word]) if word in names else word for word in words]


def try_lines(places, tmp_path, seed, count):
    chance = random.Random(seed)
    shutil.copytree(places, tmp_path / "here")
    for _ in range(count):
        words = line(chance, tmp_path / "here")
        result = CliRunner().invoke(app, words)
        told = f"{words}: {result.exit_code}, {result.exception!r}\n{result.output}"
        assert result.exit_code in (0, 1, 2), told
        assert result.exception is None or isinstance(result.exception, SystemExit), told
        assert "Traceback" not in result.output, told


def test_some_lines(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try_lines(places, tmp_path, 1, LINES)


def test_a_database_that_is_none_is_refused_before_a_model_is_fetched(places, tmp_path, monkeypatch):
    """Found by the lines above: `--database` had taken the next option for its value, and a download began."""
    monkeypatch.setattr("indexer.lazy_embedder.load_embedder", lambda *_, **__: pytest.fail("a model was loaded"))
    result = CliRunner().invoke(app, ["index", str(places / "photos"), str(tmp_path / "new"), "--database", "--json"])
    assert result.exit_code == 2
    assert "'--json' is not a database URL" in result.output
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_lines_at_length(places, tmp_path, monkeypatch):
    end, seed = time.monotonic() + 60 * MINUTES, 100
    while time.monotonic() < end:
        (folder := tmp_path / str(seed)).mkdir()
        monkeypatch.chdir(folder)
        try_lines(places, folder, seed, LINES)
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder)
        seed += 1
    print(f"{LINES * (seed - 100)} lines")  # noqa: T201
