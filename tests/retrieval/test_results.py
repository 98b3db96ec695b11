"""The JSON that the command line promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from retrieval import Hit, Results

HIT = Hit(1, 0.75, "a", "a cat", "file:a.png", Path("a.png"), {"price": 3}, {"text": 0.5, "image": 0.25})
RESULTS = Results(
    hits=(HIT,), method="sum", model="fake:64", generation=3, scale="cosine", took_ms={"encode": 1.23456},
    notes=("so",),
)  # fmt: skip


def test_the_json_is_as_promised():
    assert json.loads(json.dumps(RESULTS.to_json())) == {
        "hits": [
            {
                "rank": 1,
                "id": "a",
                "score": 0.75,
                "branches": {"text": 0.5, "image": 0.25},
                "text": "a cat",
                "uri": "file:a.png",
                "fields": {"price": 3},
            }
        ],
        "method": "sum",
        "model": "fake:64",
        "generation": 3,
        "artifacts": {},
        "pseudo_target": None,
        "took_ms": {"encode": 1.235},
        "notes": ["so"],
        "plan": "",
    }


def test_a_pseudo_target_is_told():
    told = replace(RESULTS, artifacts={"pseudo_target": {"path": "p.png", "seed": 1, "cached": True}}).to_json()
    assert told["artifacts"]["pseudo_target"] == told["pseudo_target"] == {"path": "p.png", "seed": 1, "cached": True}


def test_a_written_sentence_is_told():
    told = replace(
        RESULTS, artifacts={"caption": {"sentence": "a blue cat", "caption": "a cat", "cached": False}}
    ).to_json()
    assert (
        told["artifacts"]["caption"]
        == told["written"]
        == {"sentence": "a blue cat", "caption": "a cat", "cached": False}
    )


def test_results_are_their_hits():
    assert list(RESULTS) == [HIT]
    assert len(RESULTS) == 1
