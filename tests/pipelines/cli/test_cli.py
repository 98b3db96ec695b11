"""The command line as a whole: help, errors, and commands that start other programs."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest

from indexer.errors import CollectionNotFoundError, ModelError, UnknownNameError
from pipelines.cli import collection as cli_collection
from retrieval import Method

HEAVY = ("torch", "transformers", "open_clip", "faiss", "sqlalchemy", "pyarrow", "numpy", "PIL")
COMMANDS = ("demo", "doctor", "index", "search", "info", "delete", "check", "compact", "train")


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom pipelines.cli.app import main\n"
        "for command in (['--help'], ['index', '--help']):\n"
        "    sys.argv = ['underdrawing', *command]\n"
        "    try: main()\n"
        "    except SystemExit as left: assert not left.code\n"
        f"print('LOADED', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = python("-c", code)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert all(command in done.stdout for command in COMMANDS)


def test_a_process_that_fails_says_why_in_two_lines(tmp_path):
    done = python("-m", "pipelines.cli", "search", str(tmp_path / "nowhere"), "x")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: There is no collection at {tmp_path}/nowhere.\n"
        f"  Make one: underdrawing index SOURCE {tmp_path}/nowhere\n"
    )


def test_the_version(run):
    assert run("--version").stdout.startswith("underdrawing ")


def test_every_method_is_in_the_help_of_search(run):
    told = run("search", "--help").stdout
    assert all(method.value in told for method in Method)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["search", "SHOP", "x", "--where", '{"price":'], 2, ["--where is not JSON", "at character 10"]),
        (["search", "SHOP", "x", "--where", "year >= 2020"], 2, ["A filter is a JSON object", '{"year": {"$gte": 2020}']),
        (["search", "SHOP", "x", "--where", "[1]"], 2, ["A filter is an object"]),
        (["search", "SHOP", "x", "--where", '{"price": {"$near": 5}}'], 2, ["'$near'", "$gte"]),
        (["search", "SHOP", "x", "--method", "magic"], 2, ["'magic'", *(method.value for method in Method)]),
        (["search", "SHOP", "x", "-k", "0"], 2, ["k is 0"]),
        (["search", "SHOP", "x", "-k", "many"], 2, ["-k"]),
        (["search", "SHOP"], 2, ["needs something to look for"]),
        (["search", "SHOP", "--image", "PHOTOS/letter.jpg"], 2, ["image cannot be used", "a letter"]),
        (["search", "SHOP", "--image", "PHOTOS/none.jpg"], 2, ["none.jpg does not exist"]),
        (["search", "SHOP", "--like", "none"], 2, ["'none' is not in the collection", "id of a stored document"]),
        (["search", "SHOP", "x", "--image-weight", "0.3"], 2, ["text does not read the weight image"]),
        (["info", "PHOTOS"], 2, ["There is no collection at", "Index it into a new folder: underdrawing index"]),
        (["index", "PHOTOS/none", "SHOP"], 2, ["none does not exist", "Accepted are"]),
        (["index", "PHOTOS", "SHOP", "--model", "fake:32"], 1, ["made with fake:64", "underdrawing spaces", "add fake:32"]),
        (["index", "PHOTOS", "SHOP", "--model", "magic:1"], 2, ["magic", "open_clip"]),
        (["index", "PHOTOS", "PHOTOS/red.png", "--model", "fake:64"], 1, ["not a collection"]),
        (["index", "PHOTOS", "SHOP", "--dtype", "int4"], 2, ["'int4'", "bfloat16"]),
        (["index", "PHOTOS", "SHOP", "--parts", "sound"], 2, ["sound", "image"]),
        (["search", "SHOP", "x", "--html", "PHOTOS/red.png/page.html"], 1, ["red.png"]),
        (["train", "clip", "PHOTOS/none", "--out", "PHOTOS/run"], 2, ["none does not exist"]),
        (["train", "clip", "PHOTOS", "--out", "PHOTOS/red.png"], 2, ["red.png cannot be the folder of a run", "Name a"]),
        (["train", "clip", "PHOTOS", "--out", "SHOP", "--recipe", "PHOTOS"], 2, ["cannot be read", "Give a JSON file"]),
        (["train", "clip", "PHOTOS", "--out", "SHOP", "--recipe", "PHOTOS/none"], 2, ["No recipe", "Give a JSON file"]),
        (["evaluate", "PHOTOS/none"], 2, ["none cannot be read", "a benchmark wrote by --json"]),
    ],
)  # fmt: skip
def test_a_wrong_call_names_what_is_wrong(call, originals, arguments, code, said):
    places = {"SHOP": str(originals / "shop"), "PHOTOS": str(originals / "photos")}
    for name, place in places.items():
        arguments = [each.replace(name, place) for each in arguments]
    left, stdout, stderr = call(*arguments)
    assert left == code
    assert stdout == ""
    assert "Traceback" not in stderr
    for each in said:
        assert each in stderr


def test_a_damaged_segment_is_named_with_the_command_that_mends_it(call, shop, damaged):
    left, _, stderr = call("search", shop, "a red square")
    assert left == 1
    assert damaged.name in stderr
    assert "underdrawing check --repair" in stderr


def test_a_collection_of_a_newer_release_is_refused(call, shop):
    file = shop / "collection.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    left, _, stderr = call("info", shop)
    assert left == 1
    assert "format 99" in stderr
    assert "Upgrade" in stderr


def test_debug_shows_where_it_was_raised(run, tmp_path):
    assert isinstance(run("--debug", "info", tmp_path).exception, CollectionNotFoundError)
    assert isinstance(run("info", tmp_path).exception, SystemExit)


def test_an_interrupted_job_says_that_it_continues(call, shop, photos, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("indexer.ingest.job.index_corpus", interrupted)
    left, _, stderr = call("index", photos, shop)
    assert left == 130
    assert "continues where it stopped" in stderr
    monkeypatch.setattr("retrieval.service.SearchService.search", interrupted)
    left, _, stderr = call("search", shop, "x")
    assert (left, stderr) == (130, "error: interrupted.\n")


def test_a_reader_that_leaves_ends_it_quietly(call, shop, monkeypatch):
    def leave(*_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("pipelines.cli.search._show", leave)
    assert call("search", shop, "x") == (1, "", "")


def test_a_new_collection_without_a_model_takes_the_default_and_says_so(call, photos, tmp_path, monkeypatch):
    asked = []

    def offline(name, **_):
        asked.append(name)
        raise ModelError("The weights could not be fetched.", "Connect once.")

    monkeypatch.setattr("indexer.lazy_embedder.load_embedder", offline)
    left, _, stderr = call("index", photos, tmp_path / "new")
    assert left == 1
    assert asked == [cli_collection.DEFAULT_MODEL]
    assert stderr.splitlines()[1:] == ["error: The weights could not be fetched.", "  Connect once."]
    assert cli_collection.DEFAULT_MODEL in stderr.splitlines()[0]
    assert not (tmp_path / "new").exists()


def test_a_name_that_is_not_known_is_told_with_those_that_are():
    assert UnknownNameError("colour", "x", ["red", "blue"]).remedy == "Known: red, blue."
    assert UnknownNameError("colour", "x", []).remedy == "Known: none."


def test_demo_runs_in_the_folder_named(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "pipelines.demo.run.run_demo", lambda out, console, joint: asked.append((out, console.stderr, joint))
    )
    assert run("demo", "--out", tmp_path).exit_code == 0
    assert run("demo", "--out", tmp_path, "--joint", "bridge:runs/bridge").exit_code == 0
    assert asked == [(tmp_path, False, None), (tmp_path, False, "bridge:runs/bridge")]


def test_train_clip_lays_the_options_over_the_recipe(run, photos, tmp_path, monkeypatch):
    asked = []

    def train_clip(records, recipe, folder):
        asked.append((records.source, recipe, folder))
        return {"train_r10": 0.5}

    monkeypatch.setattr("pipelines.train.clip.train.train_clip", train_clip)
    (tmp_path / "recipe.json").write_text('{"steps": 7, "dim": 32, "batch": 9, "bf16": true}')
    done = run("train", "clip", photos, "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.json",
               "--batch", 3, "--learning-rate", 0.5, "--no-bf16")  # fmt: skip
    [(source, recipe, folder)] = asked
    assert (source, folder) == (str(photos), tmp_path / "run")
    assert (recipe.steps, recipe.dim, recipe.batch, recipe.peak, recipe.bf16) == (7, 32, 3, 0.5, False)
    assert str(tmp_path / "run" / "model") in done.stdout
    assert "0.5" in done.stdout
