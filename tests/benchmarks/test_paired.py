"""Two checkouts are compared by turns."""

import json

import pytest

from benchmarks.speed.paired import ROOT, compared, main, table


def test_a_ratio_is_of_neighbouring_turns():
    """Both got slower by half in the second pair, which says nothing about either."""
    pairs = [({"work": [10.0, 12.0, 11.0]}, {"work": [22.0]}), ({"work": [100.0]}, {"work": [200.0]})]
    found = compared(pairs)["work"]
    assert found["ratio"] == {"median": 2.0, "quartiles": [2.0, 2.0]}
    assert found["slower"]
    assert "| 2 slower | 2 … 2 |" in table({"work": found})


def test_a_folder_without_the_project_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "is not a checkout of this project" in capsys.readouterr().err


@pytest.mark.slow
def test_a_checkout_is_compared_with_itself(tmp_path):
    file = tmp_path / "found.json"
    assert main([str(ROOT), "--rounds=1", "--rows=200", "--images=4", "--turns=2", f"--json={file}"]) == 0
    found = json.loads(file.read_text())["work"]
    assert {"search, text and image", "search, HNSW", "index images", "add one document"} < found.keys()
    assert all(own["pairs"] == 2 for own in found.values())
