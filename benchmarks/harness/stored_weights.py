"""Storage of tuned weights in the package's `weights.json`, with the curve that they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from indexer.files.atomic import atomic_write
from retrieval import Weights
from retrieval.methods.weights import FILE

Curve = Sequence[tuple[Weights, float]]


def entry_of(best: Weights, curve: Curve, split: str, queries: int, measure: str, command: str) -> dict[str, Any]:
    """A method's entry in the file.

    Args:
        best: The weights at the maximum of the curve.
        curve: All weights tried, with the measure for each.
        split: What they were tuned on, in words.
        queries: Number of queries of the split.
        measure: Name of the measure.
        command: The command that tuned them.
    """
    return {
        "weights": best.given() | {"negative": 0.5},
        "source": f"best {measure}, macro, of {len(curve)} on {split}; negative chosen",
        "split": f"{split}, {queries} queries",
        "metric": f"{measure}, macro over families",
        "command": command,
        "curve": [[weights.given(), round(value, 4)] for weights, value in curve],
    }


def write_weights(model: str, entries: Mapping[str, Any]) -> None:
    """Replace a model's entries in the file of tuned weights; those of other methods stay."""
    table = json.loads(FILE.read_text(encoding="utf-8"))
    table[model] = table.get(model, {}) | entries
    atomic_write(FILE, _pretty(table).encode())


def _pretty(table: Mapping[str, Any]) -> str:
    """JSON with one line for each field of an entry, so that changes touch few lines."""
    models = []
    for model, methods in table.items():
        entries = []
        for method, entry in methods.items():
            fields = ",\n".join(f"      {json.dumps(name)}: {json.dumps(value)}" for name, value in entry.items())
            entries.append(f"    {json.dumps(method)}: {{\n{fields}\n    }}")
        models.append(f"  {json.dumps(model)}: {{\n" + ",\n".join(entries) + "\n  }")
    return "{\n" + ",\n".join(models) + "\n}\n"
