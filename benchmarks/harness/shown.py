"""A result for people: its variant and protocol, and a table of measures in percent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.protocol import MEANINGS
from pipelines.evaluation.loop import Evaluation

FAMILIES_SHOWN = 12


def shown(document: Mapping[str, Any], found: Evaluation) -> str:
    """The lines of a result."""
    lines = [
        f"{document['benchmark']} {document['split']}: {found.queries:,} queries, {document['pictures']:,} images, "
        f"{document['method']}, {document['model']}",
        f"weights: {json.dumps(document['weights'])} ({document['weights_source']})",
    ]
    if document["template"]:
        lines.append(f"template: {document['template']}")
    for field, choice in document["protocol"].items():
        lines.append(f"{field.replace('_', ' ')}: {choice}" + (_meaning(field, choice) if field in MEANINGS else ""))
    if "center" in document:
        lines.append(f"center: {document['center']}")
    names = list(found.measures)
    lines += ["", "| | queries | " + " | ".join(names) + " |", "| --- | ---: |" + " ---: |" * len(names)]
    rows: list[tuple[str, float, Mapping[str, float]]] = [
        ("all", found.queries, {name: each.value for name, each in found.measures.items()})
    ]
    if "macro" in document:
        rows.append(("mean of families", found.queries, document["macro"]))
    if 1 < len(found.families) <= FAMILIES_SHOWN:
        rows += [(family, found.counts[family], own) for family, own in found.families.items()]
    rows += [(aspect, own["queries"], own) for aspect, own in found.aspects.items()]
    for label, count, own in rows:
        lines.append(f"| {label} | {count:,} | " + " | ".join(f"{100 * own[name]:.2f}" for name in names) + " |")
    return "\n".join(lines)


def _meaning(field: str, value: str) -> str:
    return ": " + next(text for choice, text in MEANINGS[field].items() if choice == value)
