"""A package adds a part of each kind by entry points, one file each, and every program finds them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "example"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which pip installed the package."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    call = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(source)]
    ended = subprocess.run(call, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return folder / "site"


@pytest.fixture
def underdrawing(installed):
    """Run the command line where the package is installed."""

    def run(*arguments, code=0):
        path = os.pathsep.join([str(installed), *sys.path])
        call = [sys.executable, "-W", "error", "-m", "pipelines.cli", *map(str, arguments)]
        ended = subprocess.run(call, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
        assert ended.returncode == code, ended.stderr
        return ended

    return run


@pytest.fixture
def python(installed):
    """What a program prints as JSON where the package is installed."""

    def run(code, *arguments):
        path = os.pathsep.join([str(installed), *sys.path])
        call = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
        ended = subprocess.run(call, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return run


@pytest.fixture
def made(underdrawing, tmp_path):
    """A collection of three lines by the package's model, reader and transform."""
    (tmp_path / "words.lines").write_text("aabb\n\nab, at some length\nbbbb\nno abba\n")
    call = ["index", tmp_path / "words.lines", tmp_path / "made", "--model", "letters:ab", "--transform", "without:no"]
    told = json.loads(underdrawing(*call, "--json").stdout)
    assert (told["added"], told["rejected"]) == (3, 0)
    return tmp_path / "made"


def test_a_model_a_reader_and_a_transform_of_a_package_make_a_collection(underdrawing, made):
    told = json.loads(underdrawing("search", made, "bbb", "--json").stdout)
    assert [hit["id"] for hit in told["hits"]] == ["words-4", "words-1", "words-3"]
    assert told["model"] == "letters:ab"


def test_a_search_by_a_method_of_a_package(underdrawing, made):
    told = json.loads(underdrawing("search", made, "bbb", "--method", "least", "--json").stdout)
    assert [hit["id"] for hit in told["hits"]] == ["words-3", "words-1", "words-4"]
    assert told["method"] == "least"
    ended = underdrawing("search", made, "bbb", "--method", "lest", code=2)
    assert "Did you mean 'least'" in ended.stderr


def test_a_broken_part_costs_itself(underdrawing, made, tmp_path):
    ended = underdrawing("index", tmp_path / "words.lines", tmp_path / "other", "--model", "broken:x", code=1)
    assert "model family 'broken' of the package underdrawing-example 1.0" in ended.stderr
    assert "No module named 'underdrawing_example.no_such_module'" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "other").exists()


def test_doctor_lists_what_packages_add(python):
    found = python(
        "import json; from dataclasses import asdict; from pipelines.diagnostics.plugins import plugins\n"
        "print(json.dumps([asdict(each) for each in plugins()]))"
    )
    assert {each["package"] for each in found} == {"underdrawing-example 1.0"}
    named = {(each["kind"], each["name"]): each["problem"] for each in found}
    assert "cannot be imported: ModuleNotFoundError" in named.pop(("model family", "broken"))
    assert named == dict.fromkeys(
        [
            ("model family", "letters"),
            ("method", "least"),
            ("method", "hopeless"),
            ("reader", "lines"),
            ("transform", "without"),
            ("vector store", "matrix"),
            ("re-ranker", "shortest"),
            ("re-ranker", "moody"),
        ]
    )


def test_a_re_ranker_of_a_package_reorders_hits(underdrawing, made):
    for options, ids in (([], ["words-4", "words-1", "words-3"]), (["shortest"], ["words-1", "words-4", "words-3"])):
        call = ["search", made, "bbb", "--json", *(f"--rerank={name}" for name in options)]
        assert [hit["id"] for hit in json.loads(underdrawing(*call).stdout)["hits"]] == ids


def test_a_vector_store_of_a_package_searches_and_is_kept_with_the_collection(python, underdrawing, made):
    found = python(
        "import json, sys\nfrom indexer import Collection\n"
        "with Collection.open(sys.argv[1], vector_store='matrix') as made:\n"
        "    made.build_index()\n"
        "    print(json.dumps(made.snapshot().index))",
        made,
    )
    assert found == "One matrix; there is nothing to build."
    told = json.loads(underdrawing("search", made, "bbb", "--json").stdout)
    assert [hit["id"] for hit in told["hits"]] == ["words-4", "words-1", "words-3"]
    assert json.loads(underdrawing("info", made, "--explain", "--json").stdout)["reason"] == found


def test_a_method_that_fails_is_an_error_that_names_its_package(underdrawing, made):
    ended = underdrawing("search", made, "bbb", "--method", "hopeless", code=1)
    assert (
        "The method 'hopeless' of the package underdrawing-example 1.0 failed: RuntimeError: no hope." in ended.stderr
    )
    assert "Traceback" not in ended.stderr


def test_a_re_ranker_that_fails_leaves_the_hits_and_a_note_that_names_its_package(underdrawing, made):
    told = json.loads(underdrawing("search", made, "bbb", "--rerank", "moody", "--json").stdout)
    assert [hit["id"] for hit in told["hits"]] == ["words-4", "words-1", "words-3"]
    [note] = [note for note in told["notes"] if note.startswith("Not re-ranked: ")]
    assert "of the package underdrawing-example 1.0 failed: RuntimeError: not today." in note
