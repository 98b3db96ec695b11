"""The tuned weights are those that their sweeps found, among the values that the sweeps tried."""

from __future__ import annotations

import json

import pytest

from benchmarks.harness.methods import grids
from retrieval.methods import weights as tuned
from retrieval.methods.weights import DEFAULT, FILE, load_weights, preferred
from retrieval.providers.companions import companion, has_companions

TABLE = json.loads(FILE.read_text(encoding="utf-8"))
TUNED = [(model, name) for model, methods in TABLE.items() for name, entry in methods.items() if "curve" in entry]


def without_negative(weights: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in weights.items() if name != "negative"}


def test_some_weights_are_tuned() -> None:
    assert {name for _, name in TUNED} >= set(grids())


@pytest.mark.parametrize(("model", "name"), TUNED)
def test_tuned_weights_are_the_best_point_of_their_curve(model: str, name: str) -> None:
    entry = TABLE[model][name]
    best = max(score for _, score in entry["curve"])
    assert without_negative(entry["weights"]) in [point for point, score in entry["curve"] if score == best]
    assert f"of {len(entry['curve'])} on" in entry["source"]
    assert entry["command"].startswith("python -m benchmarks.emojicir --sweep")
    assert load_weights(model, name).weights.given() == entry["weights"]


@pytest.mark.parametrize("model", sorted({model for model, _ in TUNED}))
def test_options_after_a_models_name_leave_it_its_weights_and_its_companions(model: str) -> None:
    drafted = f"{model}?draft=2"
    for name in TABLE[model]:
        assert load_weights(drafted, name) == load_weights(model, name)
    assert preferred(drafted, lambda _: True) == preferred(model, lambda _: True) is not None
    assert has_companions(drafted)
    assert companion(drafted, "inversion") == companion(model, "inversion")
    assert companion(drafted, "generator") == companion(model, "generator")


@pytest.mark.parametrize(("model", "name"), TUNED)
def test_curves_are_of_the_grid_that_the_sweep_tries(model: str, name: str) -> None:
    tried = [weights.given() for weights in grids()[name]]
    assert [point for point, _ in TABLE[model][name]["curve"]] == tried


@pytest.mark.parametrize("name", sorted(TABLE[DEFAULT]))
def test_weights_that_were_not_tuned_are_shares_and_factors_within_their_range(name: str) -> None:
    weights = TABLE[DEFAULT][name]["weights"]
    assert TABLE[DEFAULT][name]["source"]
    assert 0 <= weights["negative"] <= 1
    for key, value in weights.items():
        low, high = (-10, 0) if key.endswith("_floor") else (0, 1)
        assert low <= value <= high, (key, value)


def test_the_preferred_method_has_the_highest_point_of_all_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {
        "own": {
            "sum": {"curve": [[{}, 0.1], [{}, 0.6], [{}, 0.2]]},
            "shift": {"curve": [[{}, 0.5], [{}, 0.5]]},
            "slerp": {"curve": [[{}, 0.9]]},
            "text": {"weights": {}},
        },
        DEFAULT: {"shift": {"curve": [[{}, 1.0]]}},
    }
    monkeypatch.setattr(tuned, "_table", lambda: table)
    assert preferred("own", ["text", "shift", "sum"].__contains__) == "sum"
    assert preferred("own", ["text", "shift", "sum", "slerp"].__contains__) == "slerp"
    assert preferred("own", ["text"].__contains__) is None
    assert preferred("another", ["shift"].__contains__) is None
