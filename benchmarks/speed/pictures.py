"""A figure of composed queries: each panel has the sentence above and the images side by side below."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image


@dataclass(frozen=True)
class Panel:
    """One query.

    Attributes:
        sentence: The text above.
        pictures: Images by label, from left to right.
    """

    sentence: str
    pictures: Mapping[str, Image]


def draw_panels(panels: Sequence[Panel], file: Path, columns: int) -> None:
    """Write the panels, row by row, as one image.

    Args:
        panels: At least one; none has more images than the first.
        file: A `.png`.
        columns: Panels in a row.
    """
    from matplotlib.figure import Figure

    width = max(len(panel.pictures) for panel in panels)
    rows = -(-len(panels) // columns)
    height = rows * 1.42 + 0.3  # inches: the first sentence is above the first row
    figure = Figure(figsize=(columns * width * 0.92, height), dpi=110)
    grid = figure.add_gridspec(rows, columns, left=0.01, right=0.99, top=1 - 0.55 / height, bottom=0.01,
                               wspace=0.08, hspace=0.62)  # fmt: skip
    for place, panel in enumerate(panels):
        inner = grid[divmod(place, columns)].subgridspec(1, width, wspace=0.06)
        for column, (label, picture) in enumerate(panel.pictures.items()):
            axes = figure.add_subplot(inner[column])
            axes.imshow(picture)
            axes.set_axis_off()
            axes.set_title(label, fontsize=6.5, color="#666666", pad=2)
            if column == 0:
                sentence = textwrap.shorten(panel.sentence, 22 * width, placeholder="…")
                axes.text(0, 1.34, sentence, transform=axes.transAxes, fontsize=8, weight="bold", ha="left")
    figure.savefig(file)
