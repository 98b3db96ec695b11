"""A plot of how the cost of a query and of a commit grows with the number of vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer.errors import MissingExtraError


def draw_growth(rows: Sequence[Mapping[str, Any]], dim: int, file: Path) -> None:
    """Plot it on logarithmic axes.

    Args:
        rows: From `speed_search growth`.
        dim: Length of the vectors.
        file: A PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "train", "Drawing the plot") from None
    counts = [row["vectors"] for row in rows]
    figure = Figure(figsize=(8, 4), layout="constrained")
    query, commit = figure.subplots(1, 2)
    for name, label in (("exact", "exact"), ("ivf", "IVF, recall ≥ 0.95")):
        query.plot(counts, [row[name] for row in rows], marker="o", label=label)
    last = rows[-1]
    query.plot(
        [last["vectors"] / 100, last["vectors"]],
        [last["exact"] / 100, last["exact"]],
        ":",
        color="grey",
        label="linear",
    )
    query.set(title=f"One query, {dim} dimensions, documents returned", ylabel="milliseconds, median")
    commit.plot(counts, [row["commit_ms_per_document"] for row in rows], marker="o", color="C2")
    commit.set(title="Committing a document", ylabel="milliseconds each")
    commit.set_ylim(0, 1.3 * max(row["commit_ms_per_document"] for row in rows))
    for axes in (query, commit):
        axes.set(xscale="log", xlabel="vectors")
        axes.grid(alpha=0.3)
    query.set_yscale("log")
    query.legend()
    figure.savefig(file, dpi=110)
