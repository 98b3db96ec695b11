"""The commands `diagnose ...`: measures of a collection that explain its rankings.

What this module does not know: how anything is measured.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.collection import AsJson, CollectionFolder, DatabaseUrl, open_existing
from pipelines.terminal.console import err, examples, listed, out, plain, show_facts, show_json, show_remark

if TYPE_CHECKING:
    from pipelines.diagnostics.gap import Gap

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Measure a collection: why does it rank as it does?"
)

GAP_EPILOG = examples("underdrawing diagnose gap shop", "underdrawing diagnose gap shop --plot gap.png --json")


@app.callback()
def diagnose() -> None:
    """Measure a collection: why does it rank as it does?"""


@app.command(epilog=GAP_EPILOG)
def gap(
    collection: CollectionFolder,
    k: Annotated[
        int, typer.Option("-k", "--k", metavar="N", help="How many first hits the shares are computed on.")
    ] = 10,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Write a plot there, as PNG.")] = None,
    database: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Measure the gap between texts, images and documents of both, as stored and centered.

    Shows how far apart their centroids lie, how well a linear probe separates them, and which are found too often.
    """
    from pipelines.diagnostics.gap import measure_gap, plot_gap

    with open_existing(collection, database) as opened, opened.snapshot() as snapshot:
        with err.status("Measuring"):
            found = measure_gap(snapshot, k)
            if plot is not None:
                plot_gap(snapshot, found, plot)
    if as_json:
        show_json(asdict(found))
    else:
        _show(found)
    if plot is not None:
        show_remark(f"Wrote {plot}")


def _show(found: Gap) -> None:
    from rich import box
    from rich.table import Table

    show_facts({
        "documents": listed(found.documents),
        "search": "corrects the modality gap" if found.auto else "leaves vectors alone (--center on overrides it)",
        "because": found.why,
    })  # fmt: skip
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "as stored", "centered"):
        table.add_column(name, justify="right" if name else "left")
    for title, before, after in (
        ("distance of centroids", found.before.distance, found.after.distance),
        ("separated by a linear probe", found.before.separability, found.after.separability),
    ):
        for pair, value in before.items():
            table.add_row(f"{title}, {pair}", f"{value:.3f}", f"{after[pair]:.3f}")
    for asking, shares in found.before.share.items():
        for modality, value in shares.items():
            told = f"share of {modality} in the first {found.k}, asked by {asking}"
            table.add_row(plain(told), f"{value:.2f}", f"{found.after.share[asking][modality]:.2f}")
    out.print(table)
