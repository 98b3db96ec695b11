"""Curves of tuned weights as an image."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.harness.weight_curves import draw_curves, lines_of, main
from indexer.errors import CallError

ENTRY = {
    "weights": {"image": 0.5, "text": 1.0, "negative": 0.5},
    "curve": [
        [{"image": 0.0, "text": 1.0}, 0.1],
        [{"image": 0.5, "text": 1.0}, 0.4],
        [{"image": 0.5, "text": 0.5}, 0.3],
        [{"image": 0.0, "text": 0.5}, 0.2],
    ],
}


def test_a_line_has_the_best_that_the_other_weights_make_of_each_value() -> None:
    assert lines_of(ENTRY) == {"image": [(0.0, 0.2), (0.5, 0.4)], "text": [(0.5, 0.3), (1.0, 0.4)]}
    fixed = {"curve": [[{"image": 0.0, "text": 1.0}, 0.1], [{"image": 0.2, "text": 1.0}, 0.3]]}
    assert list(lines_of(fixed)) == ["image"]
    many = {"curve": [[{"image": number / 100}, number] for number in range(101)]}
    assert lines_of(many)["image"][:2] == [(0.0, 2), (0.05, 7)]


def test_the_bundled_models_curves_are_drawn(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "weights.png")]) == 0
    with Image.open(tmp_path / "weights.png") as picture:
        assert picture.width > 1000
        assert len(picture.convert("L").getcolors()) > 20


def test_a_model_without_curves_is_told_how_to_get_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CallError, match="No weights are tuned"):
        draw_curves({"sum": {"weights": {}}}, tmp_path / "none.png")
    assert main(["--model", "fake:8", "--out", str(tmp_path / "none.png")]) == 2
    assert "emojicir --sweep" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()
