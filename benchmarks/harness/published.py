"""Comparison of measured with published numbers, only where the protocols agree.

`expected.json` holds rows of papers, each with its source. A row is compared with a result of the same benchmark,
split, method and backbone; if a choice of the protocol or a weight that the row is known to depend on differs, the
difference is reported instead of numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("expected.json")


def rows_for(benchmark: str, split: str, method: str, model: str) -> list[dict[str, Any]]:
    """The published rows that a result may be compared with.

    Args:
        benchmark: Name of the benchmark.
        split: Name of the split.
        method: The variant's name, such as `inversion` or `cig-reinvert`.
        model: The embedder's name; a row has one backbone, such as `ViT-L-14`.
    """
    rows: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["rows"]
    backbone = model.partition(":")[2].partition("/")[0].removesuffix("-quickgelu")
    return [
        row
        for row in rows
        if (row["benchmark"], row["split"], row["backbone"]) == (benchmark, split, backbone)
        and method in row["methods"]
    ]


def compared(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """A row beside a result.

    Returns:
        `label` and `source` of the row; and `differs`, the values of both protocols by field, or else `measures`: by
        name the published and the measured number, in percent, and their difference.
    """
    mine = {**result["protocol"], "pretrained": result["model"].rpartition("/")[2]}
    told: dict[str, Any] = {"label": row["label"], "source": row["source"]}
    differs = {
        field: {"published": value, "here": mine[field]}
        for field, value in row["protocol"].items()
        if mine[field] != value
    }
    differs |= {
        f"weight {name}": {"published": value, "here": result["weights"].get(name)}
        for name, value in row.get("weights", {}).items()
        if result["weights"].get(name) != value
    }
    if result["limit"] is not None:
        differs["limit"] = {"published": None, "here": result["limit"]}
    if differs:
        return told | {"differs": differs}
    measures = {}
    for name, published in row["measures"].items():
        if name in result["measures"]:
            measured = round(100 * result["measures"][name]["value"], 2)
            measures[name] = {
                "published": published,
                "measured": measured,
                "difference": round(measured - published, 2),
            }
    return told | {"measures": measures}


def told(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """The comparisons as lines."""
    lines = []
    for each in comparisons:
        lines.append(f"published: {each['label']} ({each['source']})")
        for field, own in each.get("differs", {}).items():
            lines.append(f"  not compared: {field} is {own['published']} in the paper, {own['here']} here")
        lines += [
            f"  {name:8} {own['published']:6.2f} published {own['measured']:6.2f} measured {own['difference']:+6.2f}"
            for name, own in each.get("measures", {}).items()
        ]
    return "\n".join(lines)


def announced(rows: Sequence[Mapping[str, Any]]) -> str:
    """Published rows to compare a server's answer with, as lines."""
    lines = []
    for row in rows:
        numbers = ", ".join(f"{name} {value:.2f}" for name, value in row["measures"].items())
        needed = {**row["protocol"], **{f"weight {name}": value for name, value in row.get("weights", {}).items()}}
        choices = ", ".join(f"{field} {value}" for field, value in needed.items())
        lines.append(f"published: {row['label']}: {numbers}" + (f" [{choices}]" if choices else ""))
    return "\n".join(lines)
