"""The options about the index of vectors, and what `info --explain` shows.

What this module does not know: how an index is chosen; `indexer/index/choose.py` does it.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipelines.console import amount, out, show_facts, show_pairs

Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="What the index of vectors may take, such as 4GB; half of what is free, if not told.",
    ),
]
Kind = Annotated[
    str | None,
    typer.Option("--index", metavar="KIND", help="exact, hnsw or ivf; by size and memory, if not told."),
]
OnDevice = Annotated[
    str | None,
    typer.Option("--index-device", metavar="NAME", help="Where vectors are searched: cpu, or cuda for graphics cards."),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Load the model also where the collection names it by a path of this machine."),
]
Explain = Annotated[bool, typer.Option("--explain", help="Say which index a search will use, and why. Builds nothing.")]


def index_settings(memory: str | None, kind: str | None, device: str | None) -> Any:
    """The `IndexSettings` that the options stand for.

    Raises:
        CallError: No amount of memory.
        UnknownNameError: No such kind or device.
    """
    from indexer.index.protocol import Device, IndexKind, IndexSettings

    return IndexSettings(
        kind=IndexKind(kind or IndexKind.AUTO), memory_budget=memory, device=Device(device or Device.CPU)
    )


def show_explained(told: dict[str, Any]) -> None:
    """Show what `Collection.explain` told."""
    show_facts({
        "vectors": f"{told['vectors']:,} of {told['dim']} dimensions",
        "index": f"{told['kind']}, {told['codes']}, {amount(told['bytes'])}, on {told['device']}",
        "because": told["reason"],
    })  # fmt: skip
    out.print(f"What each would take, of {amount(told['allowed_bytes'])} allowed:")
    show_pairs([
        (
            f"{each['kind']}, {each['codes']}",
            f"{amount(each['bytes'])}, {'exact' if each['exact'] else 'approximate'}"
            + ("" if each["fits"] else ", too large"),
        )
        for each in told["alternatives"]
    ], "cyan")  # fmt: skip
