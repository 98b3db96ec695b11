"""The table of connectors: what is gathered, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.emoji.bridges import main

COSTS = {"trained": 1_500_000, "picture_tokens": 32, "memory_mb": 2100, "seconds": 90}


def run(folder: Path, step: int = 30, **files: object) -> Path:
    """A finished run as `train bridge` leaves it."""
    folder.mkdir()
    recipe = {"connector": "qformer", "text": "minilm", "tower": "clip", "align_steps": 10, "steps": 20, "batch": 8}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    lines = [{"step": 10, **COSTS, "seconds": 30}, {"step": step, **COSTS}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, content in files.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(content))
    return folder


def test_costs_and_measures_stand_in_one_row_and_what_was_not_measured_is_blank(tmp_path: Path, capsys) -> None:
    model = f"bridge:{tmp_path / 'a' / 'model'}"
    emojicir = {"model": model, "measures": {"R@10": {"value": 0.25}, "mAP@10": {"value": 0.125}}}
    folder = run(tmp_path / "a", emojicir=emojicir)
    assert main([str(folder), "--json", str(tmp_path / "out.json")]) == 0
    *table, line = capsys.readouterr().out.splitlines()
    assert table[-1] == "| `qformer` | `minilm` | 1.50 M | 32 | 2.1 GB | 1.5 min |  |  | 25.0 | 12.5 |  |  |"
    [told] = json.loads(line)["results"]
    assert (told["aligned"], told["pairs"]) == (80, 160)
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(line)


def test_unfinished_runs_strange_files_and_other_models_results_are_refused(tmp_path: Path, capsys) -> None:
    other = {"model": "bridge:elsewhere/model", "measures": {}}
    for folder, told in (
        (run(tmp_path / "b", step=20), "is at step 20 of 30"),
        (run(tmp_path / "c", mixed=other), "belongs to the model bridge:elsewhere/model"),
        (
            run(tmp_path / "d", mixed={"model": f"bridge:{tmp_path / 'd' / 'model'}"}),
            "does not have results/0/measures",
        ),
        (tmp_path / "nowhere", "holds no run"),
    ):
        assert main([str(folder)]) == 2
        assert told in capsys.readouterr().err
