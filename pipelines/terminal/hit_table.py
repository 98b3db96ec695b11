"""Tables of hits for a terminal, with ids that can be copied.

What this module does not know: how anything was found.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from pipelines.terminal.console import out, plain, shortened

if TYPE_CHECKING:
    from rich.console import JustifyMethod

    from retrieval.results import Hit, Results

LEAST = 40
"""Columns beside the id below which a hit gets a paragraph."""


def show_hits(results: Results, width: int, first: Sequence[str] = ()) -> None:
    """A hit a line where ids leave room for more in a terminal of that width, else each in a paragraph of its own.

    Ids are never cut or broken: they are there to be copied.

    Args:
        results: At least one hit.
        width: Of the terminal.
        first: Fields that are shown before all others, such as those of the filter.
    """
    if _room(results, width) >= LEAST:
        out.print(_table(results, width, first), soft_wrap=True)
        return
    for hit in results:
        out.print(Text.assemble((f"{hit.rank:>3}  {hit.score:.3f}  ", "bold"), (plain(hit.id), "cyan")), soft_wrap=True)
        for more in (plain(hit.text or ""), fields_line(hit, first), _branches(hit) if len(hit.branches) > 1 else ""):
            if more:
                out.print(Text(f"     {shortened(more, max(width - 6, LEAST))}", "dim"), soft_wrap=True)


def _room(results: Results, width: int) -> int:
    """Columns that are left for all but rank, score and id."""
    return width - 20 - max(cell_len(plain(hit.id)) for hit in results)


def _table(results: Results, width: int, first: Sequence[str]) -> Table:
    """A hit a line: texts and fields are cut to fit, branches are folded, ids are whole."""
    columns = {
        "#": [str(hit.rank) for hit in results],
        "score": [f"{hit.score:.3f}" for hit in results],
        "id": [plain(hit.id) for hit in results],
        "text": [plain(hit.text or "") for hit in results],
        "fields": [fields_line(hit, first) for hit in results],
        # One part alone scores as its branch does: the column would say everything twice.
        "branches": [_branches(hit) if len(hit.branches) > 1 else "" for hit in results],
    }
    cells = {name: [Text(value) for value in values] for name, values in columns.items() if any(values)}
    widths = _fitting({name: max(len(name), *(cell.cell_len for cell in own)) for name, own in cells.items()}, width)
    styles = {"#": "dim", "score": "bold", "id": "cyan", "fields": "dim"}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    if "branches" in cells:
        cells["branches"] = [Text(_folded(value, widths["branches"])) for value in columns["branches"]]
    for name, own in cells.items():
        for cell in own:
            if name in ("text", "fields"):
                cell.truncate(widths[name], overflow="ellipsis")
        right: JustifyMethod = "right" if name in ("#", "score") else "left"
        table.add_column(
            name, width=widths[name], overflow="fold", no_wrap=name == "id", justify=right, style=styles.get(name, "")
        )
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table


def _fitting(wanted: dict[str, int], width: int) -> dict[str, int]:
    """Column widths: ids get theirs, branches a third of the rest or one branch, text and fields share what is left."""
    gaps = 3 * len(wanted)
    room = max(width - gaps - wanted["#"] - wanted["score"] - wanted["id"], 10)
    branches = min(wanted.get("branches", 0), max(room // 3, 18))
    left = max(room - branches, 6)
    text = min(wanted.get("text", 0), max(left - wanted.get("fields", 0), left * 6 // 10))
    fields = min(wanted.get("fields", 0), left - text)
    return {**wanted, "text": text, "fields": fields, "branches": branches}


def fields_line(hit: Hit, first: Sequence[str] = ()) -> str:
    """A hit's fields in one line: those named first, then the others in the order in which they are stored."""
    names = [name for name in first if name in hit.fields]
    ordered = [*names, *(name for name in hit.fields if name not in names)]
    return plain(", ".join(f"{name}: {_value(hit.fields[name])}" for name in ordered))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def branch_name(name: str) -> str:
    """A branch's name as people read it: `not_text_1` is "not text 1"."""
    return name.replace("_", " ")


def stages(results: Results) -> dict[str, float]:
    """Milliseconds by stage, without the drawing where nothing was drawn."""
    drawn = results.pseudo_target is not None
    return {stage: spent for stage, spent in results.took_ms.items() if drawn or stage != "draw"}


def _branches(hit: Hit) -> str:
    return ", ".join(f"{plain(branch_name(name))} {value:.2f}" for name, value in hit.branches.items())


def _folded(branches: str, width: int) -> str:
    """Branches in lines of at most `width` columns where they fit; a name and its value stay on one line."""
    lines: list[str] = []
    each, *others = [f"{branch}," for branch in branches.split(", ")]
    for branch in [*others[:-1], *(other.removesuffix(",") for other in others[-1:])]:
        if cell_len(f"{each} {branch}") <= width:
            each += f" {branch}"
        else:
            lines.append(each)
            each = branch
    return "\n".join([*lines, each.removesuffix(",")])
