"""The command `evaluate`: one table and a plot from the result files of benchmarks.

What this module does not know: how results are grouped, formatted and plotted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.evaluation.comparison import Format
from pipelines.terminal.console import HarmlessConsole, err, examples, harmless, out, plain, show_remark

if TYPE_CHECKING:
    from pipelines.evaluation.comparison import Group

WIDEST = 1000
"""Characters of a line of a table."""
EPILOG = examples(
    "python -m benchmarks.cirr --data CIRR --method sum --json sum.json",
    "python -m benchmarks.cirr --data CIRR --method slerp --json slerp.json",
    "underdrawing evaluate sum.json slerp.json",
    "underdrawing evaluate *.json --format latex --out table.tex --plot recall.png --measure R@10",
    "# Results of different benchmarks or protocols, a table of each:",
    "underdrawing evaluate *.json --apart",
)


def evaluate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Result files, as benchmarks write them with --json.", show_default=False
        ),
    ],
    how: Annotated[Format, typer.Option("--format", help="The format of the table.")] = Format.TERMINAL,
    to: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the table there, not to stdout.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Plot a measure against milliseconds, as .png, .svg or .pdf."),
    ] = None,
    measure: Annotated[
        str | None, typer.Option("--measure", metavar="NAME", help="The measure to plot; the first by default.")
    ] = None,
    apart: Annotated[
        bool, typer.Option("--apart", help="Allow results of different protocols, a table for each.")
    ] = False,
) -> None:
    """Put results of benchmarks side by side, as a table and a plot.

    Results that were made under different protocols are refused, and the choice that differs is named.
    """
    from pipelines.evaluation.comparison import grouped, read_results, told

    groups = grouped(read_results(files), apart=apart)
    if plot is not None:
        from pipelines.evaluation.plot import plot as draw

        with err.status("Drawing"):
            name = draw(groups, plot, measure)
        show_remark(f"Wrote {plot}: {name}")
    if to is not None:
        from indexer.files.atomic import atomic_write

        atomic_write(to, told(groups, how).encode())
        show_remark(f"Wrote {to}")
    elif how is Format.TERMINAL:
        _show(groups)
    else:
        typer.echo(harmless(told(groups, how)), nl=False)


def _show(groups: Sequence[Group]) -> None:
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from pipelines.evaluation.comparison import cells

    for group in groups:
        head, rows = cells(group)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for place, name in enumerate(head):
            table.add_column(name, justify="right" if place else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(plain(text).replace(" ± ", "±"), "bold" if best else "") for text, best in row))
        out.print(plain(group.title), style="dim", markup=False, soft_wrap=True)
        # Never narrower than its numbers: a terminal may break a line, but no digit is left out.
        needed = Measurement.get(out, out.options.update(max_width=WIDEST), table).maximum
        HarmlessConsole(width=max(needed, out.width), highlight=False, emoji=False).print(table)
        for note in group.notes:
            out.print(plain(note), style="dim", markup=False, soft_wrap=True)
