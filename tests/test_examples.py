"""The programs in `examples/` run as they stand, and show what they say."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from indexer import Collection, index_corpus

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def photos(tmp_path):
    """A folder of three images and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for color in ("red", "blue", "green"):
        Image.new("RGB", (80, 60), color).save(folder / f"{color}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def run(name, *arguments, folder):
    """What an example prints, run as a user runs it; its warnings are errors."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    call = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    ended = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_example_has_a_test():
    tests = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in sorted(EXAMPLES.glob("*.py")) if f'run("{path.stem}"' not in tests] == []


def test_a_folder_is_indexed_and_searched(photos, tmp_path):
    arguments = (photos, "a red square", "--model", "bundled:emoji-clip")
    first = run("search_folder", *arguments, folder=tmp_path).splitlines()
    assert first[0] == "3 added, 0 unchanged, 1 rejected"
    assert "broken.jpg" in first[1]
    assert first[2].startswith("1  ")
    assert first[2].endswith("red.jpg")
    again = run("search_folder", *arguments, folder=tmp_path).splitlines()
    assert again[0] == "0 added, 3 unchanged, 1 rejected"


def test_only_both_halves_of_a_query_find_what_is_meant(tmp_path):
    found = dict(line.split(maxsplit=1) for line in run("composed_query", folder=tmp_path).splitlines())
    assert list(found) == ["text", "image", "sum", "inversion", "negative"]
    meant = "raised fist: dark skin tone"
    assert found["inversion"].startswith(meant)
    assert not found["text"].startswith(meant)
    assert not found["image"].startswith(meant)
    assert found["negative"].startswith(meant)


def test_filters_leave_what_matches(tmp_path):
    lines = run("filters", folder=tmp_path).splitlines()
    found = {name: set(ids.split(", ")) for name, ids in (line.split(": ") for line in lines if ": " in line)}
    assert found["below 100"] == {"desk", "oil", "kids"}
    assert found["added in 2026"] == {"desk", "floor"}
    assert found["for study or bedroom"] == {"desk", "kids"}
    assert found["below 100, and of brass"] == {"desk", "oil"}
    assert lines[-1] == "  note: No document has a field 'prize'. Did you mean 'price'?"


def test_a_mixed_collection_finds_every_kind(tmp_path):
    kinds, images = run("mixed_collection", folder=tmp_path).splitlines()
    assert all(f"'{kind}': " in kinds for kind in ("both", "image", "text"))
    assert len(images.removeprefix("images only: ").split(", ")) == 5


def test_an_embedder_of_ones_own_finds_colors(tmp_path):
    assert run("custom_embedder", folder=tmp_path).splitlines()[0] == "1  1.000  navy"


def test_methods_are_measured_on_queries_of_ones_own(photos, tmp_path):
    with Collection.open(tmp_path / "collection", "bundled:emoji-clip") as collection:
        index_corpus(photos, collection)
    with (tmp_path / "queries.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["query", "image", "text", "target"])
        lines.writerow(["one", "photos/red.jpg", "", "red.jpg"])
        lines.writerow(["two", "photos/red.jpg", "the same in blue", "blue.jpg"])
        lines.writerow(["two", "photos/red.jpg", "the same in blue", "green.jpg"])
    told = run("own_benchmark", "collection", "queries.csv", "--methods", "image", "sum", folder=tmp_path).splitlines()
    assert told[0].startswith("2 queries, 3 documents")
    assert [line.split()[:2] for line in told[1:]] == [["image", "R@1"], ["sum", "R@1"]]
    assert float(told[2].split()[2]) == 100, "the reference itself is left out, and both others are right"


def test_the_cells_of_the_notebook_run_and_show_tables(tmp_path):
    run("notebook", folder=tmp_path)
    cells = (EXAMPLES / "notebook.py").read_text(encoding="utf-8").split("# %%\n")[1:]
    assert cells[2].strip().startswith("faces\n"), "a cell ends in what it shows"
