"""The benchmark of pseudo-targets: bundled models, six squares, few steps."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from benchmarks.speed import compose as speed_compose
from benchmarks.speed.pictures import Panel, draw_panels
from retrieval import GenerateOptions, PseudoTargetProvider
from retrieval import retriever as retriever_module

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def run(data, monkeypatch, capsys):
    """Run parts of it; the last line of what it prints, and what was printed to standard error."""
    monkeypatch.setattr(speed_compose, "STEPS", (1, 2))
    monkeypatch.setattr(speed_compose, "SHARES", (0.0, 0.5, 1.0))

    def call(*arguments):
        code = speed_compose.main(["--data", str(data / "cache"), *arguments])
        out = capsys.readouterr()
        return code, json.loads(out.out.splitlines()[-1]) if code == 0 else None, out.err

    return call


def test_differences_are_those_of_the_recalls(run):
    _, told, _ = run("--part", "differences", "families")
    assert told["differences"]["queries"] == 6
    by_family = {row["family"]: row for row in told["families"]["rows"]}
    macro = {name: np.mean([row[f"{name} R@1"] for row in by_family.values()]) for name in ("inversion", "sum")}
    row = told["differences"]["rows"][0]
    assert (row["of"], row["over"]) == ("inversion", "sum")
    assert row["R@1"]["points"] == pytest.approx(macro["inversion"] - macro["sum"], abs=0.02)
    low, high = row["R@1"]["interval_95"]
    assert low <= row["R@1"]["points"] <= high
    for own in by_family.values():
        name = told["families"]["cig"]
        gained = (own["fixed"] - own["broken"]) / own["queries"]
        assert 100 * gained == pytest.approx(own[f"{name} R@1"] - own["inversion R@1"], abs=0.02)


def test_steps_count_evaluations_of_the_network(run, monkeypatch):
    real, loaded = speed_compose.evaluate, []

    def timed(queries, retriever, **options):
        loaded.append((retriever.method, retriever._pseudo_targets._inversion, retriever._pseudo_targets._generator))
        # No clock is judged: the plain method takes 1 s, the first of the drawn ones 3 s, the next one 4 s, and so on.
        return replace(real(queries, retriever, **options), seconds={"encode": 1.0 + len(loaded) * (len(loaded) > 1)})

    monkeypatch.setattr(speed_compose, "evaluate", timed)
    _, told, _ = run("--part", "steps", "--limit", "2")
    assert len(loaded) == 7
    assert all(inversion is not None for _, inversion, _ in loaded), "models are loaded before time is taken"
    assert all(generator is not None for method, _, generator in loaded if method == "cig")
    rows = {(row["steps"], row["guidance"], row["images"]): row for row in told["steps"]["rows"]}
    assert rows[2, 1.0, 1]["evaluations"] == 2
    assert rows[2, 2.0, 1]["evaluations"] == 4
    assert rows[2, 1.0, 4]["evaluations"] == 8
    assert [row["ms_per_query"] for row in told["steps"]["rows"]] == [1000 * n / 2 for n in range(2, 8)]


def test_a_gate_lets_through_none_some_and_all(run, data):
    _, told, _ = run("--part", "gate")
    none, some, every = told["gate"]["rows"]
    assert (none["share"], some["share"], every["share"]) == (0.0, 0.5, 1.0)
    assert none["gate"] == 0.0
    assert every["gate"] is None
    assert some["gate"] > 0


def test_a_stage_is_told_where_its_work_is_done(run, monkeypatch):
    clock, real = [0.0], PseudoTargetProvider.generate

    def generate(self, *arguments):
        clock[0] += 0.05
        return real(self, *arguments)

    monkeypatch.setattr(retriever_module.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(PseudoTargetProvider, "generate", generate)
    _, told, _ = run("--part", "stages")
    rows = told["stages"]["rows"]
    assert {name: own["draw"] for name, own in rows.items()} == {
        "sum": 0, "inversion": 0, told["stages"]["cig"]: 50,
    }  # fmt: skip
    assert not any(own[stage] for own in rows.values() for stage in own if stage != "draw")


def test_references_are_spoilt_and_results_kept(run, data):
    file = data / "told.json"
    run("--part", "stages", "--json", str(file))
    _, told, _ = run("--part", "references", "--json", str(file))
    assert [row["reference"] for row in told["references"]["rows"]] == list(speed_compose.DEGRADED)
    assert set(json.loads(file.read_text())) == {"stages", "references"}


def test_spoiling_changes_a_picture_and_keeps_its_size():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
    for label, spoil in speed_compose.DEGRADED.items():
        spoilt = spoil(picture)
        assert (spoilt.size, spoilt.mode) == (picture.size, "RGB")
        assert (np.asarray(spoilt) == np.asarray(picture)).all() == (label == "as stored")


def test_pictures_are_drawn(run, data, monkeypatch):
    run("--part", "stages", "--pictures", str(data / "none changed"))
    assert (data / "none changed" / "pseudo-targets.png").exists()
    outcomes = itertools.cycle([[1, 0, 1, 0, 1, 0], [0, 1, 1, 0, 1, 0]])  # by turns without drawings and with
    monkeypatch.setattr(speed_compose, "hits", lambda *_: next(outcomes))
    run("--part", "stages", "--pictures", str(data / "pictures"))
    for name in ("pseudo-targets.png", "fixed-and-broken.png"):
        with Image.open(data / "pictures" / name) as picture:
            assert picture.width > 300


def test_a_panel_with_fewer_pictures_leaves_its_place_empty(tmp_path):
    square = Image.new("RGB", (8, 8), "red")
    draw_panels([Panel("one", {"a": square, "b": square}), Panel("two", {"a": square})], tmp_path / "p.png", columns=2)
    pixels = np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).astype(int)
    red = (abs(pixels - [255, 0, 0]).sum(-1) < 30).any(0)
    thirds = [red[start : start + len(red) // 4].any() for start in range(0, len(red) - 3, len(red) // 4)]
    assert thirds == [True, True, True, False]


def test_a_wrong_limit_is_told(run):
    code, _, err = run("--limit", "0")
    assert code == 2
    assert "--limit is 0" in err


def test_options_go_to_the_drawings(data):
    with speed_compose.opened(2, data / "cache") as bench:
        bench.run(bench.cig, options=GenerateOptions(steps=1, images=2))
    assert len(list((data / "cache" / "drawings").rglob("*.png"))) == 4
