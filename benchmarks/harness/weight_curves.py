"""A plot of the tuning curves in `retrieval/methods/weights.json`: the validation measure by weight.

    python -m benchmarks.harness.weight_curves [--model bundled:emoji-clip] [--out docs/weights.png]

There is a panel for each method. If several weights were tuned together, a panel has a line for each: for every value
of one (or near it, if there are many), the best result over the others. A ring marks the weights in use.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer.errors import CallError, MissingExtraError, UnderdrawingError
from indexer.files.atomic import atomic_path
from retrieval.methods.weights import FILE

Entry = Mapping[str, Any]
COLUMNS = 3
MOST_POINTS, BIN = 25, 0.05


def lines_of(entry: Entry) -> dict[str, list[tuple[float, float]]]:
    """For each tuned weight, its values in order with the best score over the other weights."""
    curve = [(weights, score) for weights, score in entry["curve"]]
    lines: dict[str, list[tuple[float, float]]] = {}
    for name in curve[0][0]:
        best: dict[float, float] = {}
        # Shares that sum to one have many values with few points each, which would give a jagged line.
        width = BIN if len({weights[name] for weights, _ in curve}) > MOST_POINTS else 0
        for weights, score in curve:
            value = round(round(weights[name] / width) * width, 4) if width else weights[name]
            best[value] = max(score, best.get(value, score))
        if len(best) > 1:
            lines[name] = sorted(best.items())
    return lines


def draw_curves(entries: Mapping[str, Entry], file: Path) -> None:
    """Write the plot.

    Raises:
        CallError: No method of the model has a curve.
        MissingExtraError: matplotlib is not installed.
    """
    tuned = {method: entry for method, entry in entries.items() if "curve" in entry}
    if not tuned:
        raise CallError("No weights are tuned for this model.", "Run: python -m benchmarks.emojicir --sweep --model M")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "train", "Plotting weight curves") from None
    rows = -(-len(tuned) // COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 2.9 * rows), layout="constrained")
    grid = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes, (method, entry) in zip(grid, tuned.items(), strict=False):
        for name, points in lines_of(entry).items():
            (line,) = axes.plot(*zip(*points, strict=True), label=name, linewidth=1.4)
            used = entry["weights"][name]
            axes.plot(used, max(score for _, score in entry["curve"]), "o", mfc="none", ms=9, color=line.get_color())
        axes.set_title(method, fontsize=10)
        axes.set_ylabel("mAP@10", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    for axes in grid[len(tuned) :]:
        axes.set_visible(False)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.harness.weight_curves", description="Draw tuned weights."
    )
    parser.add_argument("--model", default="bundled:emoji-clip", help="whose weights")
    parser.add_argument("--out", type=Path, default=Path("docs/weights.png"), metavar="FILE", help="a PNG")
    options = parser.parse_args(arguments)
    try:
        draw_curves(json.loads(FILE.read_text(encoding="utf-8")).get(options.model, {}), options.out)
    except UnderdrawingError as error:
        print(f"weight_curves: {error}", file=sys.stderr)
        return error.exit_code
    print(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
