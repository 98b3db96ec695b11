"""The options about the index of vectors, and what `info --explain` shows.

What this module does not know: how an index is chosen; `indexer/vectors/selection.py` does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.terminal.console import amount, out, show_facts, show_pairs

if TYPE_CHECKING:
    from indexer.collection import Collection

Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Memory for the index of vectors, such as 4GB; half of what is free by default.",
    ),
]
Kind = Annotated[
    str | None,
    typer.Option("--index", metavar="KIND", help="exact, hnsw or ivf; chosen by size and memory by default."),
]
OnDevice = Annotated[
    str | None,
    typer.Option("--index-device", metavar="NAME", help="Where vectors are searched: cpu, or cuda for GPUs."),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Load the model even where the collection names it by a path of this machine."),
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Show which index a search will use, and why. Builds nothing.")
]


def index_settings(memory: str | None, kind: str | None, device: str | None) -> dict[str, Any]:
    """What the options change of the index settings that a collection keeps."""
    told = {"memory_budget": memory, "kind": kind, "device": device}
    return {name: value for name, value in told.items() if value is not None}


def told_index(opened: Collection) -> dict[str, Any]:
    """Which index searches of a collection use, as plain JSON."""
    snapshot = opened.snapshot()
    facts = snapshot.index_facts
    return {
        "kind": facts.get("kind"),
        "codes": facts.get("codes"),
        "rows": facts.get("rows", 0),
        "recall_by_kind": facts.get("recall_by_kind"),
        "remarks": list(snapshot.notes),
    }


def index_line(told: dict[str, Any]) -> str:
    """What `told_index` told, in words; nothing where every vector is scanned and that is as it should be."""
    made = [f"{told['kind']}, {told['codes']}, of {told['rows']:,} vectors"] if told["kind"] else []
    return "\n".join([*made, *([recall_line(told)] if recall_line(told) else []), *told["remarks"]])


def recall_line(told: dict[str, Any]) -> str:
    """The recall@10 of each kind of query when the index was built, and what share of them is answered exactly."""
    return "; ".join(
        f"{kind} {own['recall']:.3f}" + (f" ({own['exact']:.0%} exactly)" if own["exact"] else "")
        for kind, own in (told["recall_by_kind"] or {}).items()
    )


def show_explained(told: dict[str, Any]) -> None:
    """Show what `Collection.explain` told."""
    show_facts({
        "vectors": f"{told['vectors']:,} of {told['dim']} dimensions",
        "index": f"{told['kind']}, {told['codes']}, {amount(told['bytes'])}, on {told['device']}",
        "because": told["reason"],
        "built": "yes" if told["built"] else "no; underdrawing index builds it, and until then answers are exact",
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
