"""Results have a place, and say what they were measured in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.harness.results import ROOT, environment, place_of, slug
from pipelines.evaluation.comparison import grouped, read_results

FOLDER = ROOT / "benchmarks" / "results"
FILES = sorted([*FOLDER.glob("emojicir/*/*.json"), *FOLDER.glob("mixed/*/*.json")])


def test_a_place_is_named_by_task_model_and_method():
    found = {"benchmark": "cirr", "split": "val", "model": "open_clip:ViT-L-14/openai", "method": "sum"}
    assert place_of(Path(), found) == Path("cirr/open_clip-ViT-L-14-openai/sum.json")
    assert place_of(Path(), found | {"split": "test1"}).parts[0] == "cirr-test1"
    assert place_of(Path(), found | {"center": "on"}).name == "sum-on.json"
    assert slug("bridge:../runs/a b/model") == "bridge-..-runs-a-b-model"
    assert slug("../..") not in ("..", "../..")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(FOLDER).as_posix())
def test_a_result_on_file_lies_in_its_place_and_names_its_commit(file):
    document = json.loads(file.read_text())
    assert place_of(FOLDER, document) == file
    assert len(document["environment"]["commit"].rstrip("+")) == 40


def test_the_results_of_emojicir_make_one_table():
    rows = read_results([file for file in FILES if "emojicir" in file.parts])
    [group] = grouped(rows, apart=False)
    assert {"sum", "inversion", "cig-embed"} < {row.method for row in group.rows}


def test_the_environment_has_versions_cores_device_and_commit():
    found = environment("cpu")
    assert {"commit", "device", "cores", "python", "numpy", "torch", "underdrawing"} <= found.keys()
    assert found["device"] == "cpu"
