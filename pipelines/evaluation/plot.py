"""Plots of a measure against milliseconds per query, with a panel for each setting.

What this module does not know: result files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from indexer.errors import CallError, MissingExtraError
from indexer.files.atomic import atomic_write
from pipelines.evaluation.comparison import Group

MARKS = "os^Dvph*X"
WIDTH, HEIGHT = 6.4, 4.2
"""Of a panel, in inches."""


def plot(groups: Sequence[Group], file: Path, measure: str | None = None) -> str:
    """Draw it; the suffix of the file says in which format, `.png`, `.svg` or `.pdf`.

    Args:
        groups: At least one.
        file: Where to.
        measure: What is drawn; None for the first of the first group.

    Returns:
        The measure's name.

    Raises:
        MissingExtraError: matplotlib is not installed.
        CallError: No row has that measure and a time, or the suffix is none of the three.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train", "A plot") from error
    if file.suffix not in (".png", ".svg", ".pdf"):
        raise CallError(f"--plot {file}: a plot is a .png, .svg or .pdf.")
    name = measure or groups[0].names[0]
    known = list(dict.fromkeys(each for group in groups for each in group.names))
    if name not in known:
        raise CallError(f"No result has the measure {name}.", f"There are: {', '.join(known)}.")
    figure = Figure((WIDTH, HEIGHT * len(groups)), layout="constrained")
    axes = figure.subplots(len(groups), squeeze=False)[:, 0]
    for panel, group in zip(axes, groups, strict=True):
        _panel(panel, group, name)
    content = io.BytesIO()
    figure.savefig(content, format=file.suffix[1:], dpi=150)
    atomic_write(file, content.getvalue())
    return name


def _panel(panel: Any, group: Group, name: str) -> None:
    """Colors stand for methods, markers for models."""
    pairs = zip(group.labels, group.rows, strict=True)
    timed = [(label, row) for label, row in pairs if name in row.measures and row.ms_per_query]
    models = list(dict.fromkeys(row.model for _, row in timed))
    methods = list(dict.fromkeys(row.method for _, row in timed))
    for label, row in timed:
        value, low, high = row.measures[name]
        panel.errorbar(
            row.ms_per_query,
            value,
            [[value - low], [high - value]],
            fmt=MARKS[models.index(row.model) % len(MARKS)],
            color=f"C{methods.index(row.method) % 10}",
            capsize=2,
            label=label,
        )
    if timed:
        panel.set_xscale("log")
        panel.legend(fontsize="x-small")
    panel.set_xlabel("milliseconds a query")
    panel.set_ylabel(f"{name}, %")
    panel.grid(alpha=0.3)
    setting = group.setting
    panel.set_title(f"{setting['benchmark']} {setting['split']}, {setting['queries']} queries", fontsize="medium")
