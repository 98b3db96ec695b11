"""Comparison of result files: read, grouped by benchmark and protocol, and shown as tables.

Two results stand in one table if they are of the same benchmark, split, queries and protocol; methods, models and
weights are what a table compares. Others are groups of their own, and are never mixed in silence.

What this module does not know: how anything was measured, and where tables go.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.errors import CallError
from indexer.types import HelpfulEnum

SETTING = ("benchmark", "split", "limit", "queries")
FLAT = ("gallery", "embedded", "reference", "text", "corpus", "judgments")
"""The protocol of results that keep it beside the rest, as EmojiCIR's do."""
NONE = "–"


class Format(HelpfulEnum):
    """How a table is written."""

    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    CSV = "csv"
    LATEX = "latex"


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        file: Where it was read.
        setting: What it can be compared under: benchmark, split, limit, queries and every choice of the protocol.
        method: The method's name.
        model: The embedder's name.
        weights: As text.
        weights_source: Where they come from.
        measures: By name, the value and its 95 % interval, in percent.
        ms_per_query: Milliseconds of encoding and ranking, or None.
    """

    file: Path
    setting: Mapping[str, str]
    method: str
    model: str
    weights: str
    weights_source: str
    measures: Mapping[str, tuple[float, float, float]]
    ms_per_query: float | None


@dataclass(frozen=True)
class Group:
    """Rows of one setting."""

    setting: Mapping[str, str]
    rows: Sequence[Row]

    @property
    def names(self) -> list[str]:
        """Of the measures that any row has, in order."""
        return list(dict.fromkeys(name for row in self.rows for name in row.measures))

    @property
    def one_model(self) -> bool:
        """Whether all rows are of the same."""
        return len({row.model for row in self.rows}) == 1

    @property
    def title(self) -> str:
        """The setting as a line, with the model where there is one."""
        told = {**self.setting, **({"model": self.rows[0].model} if self.one_model else {})}
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items() if value != NONE)

    @property
    def labels(self) -> list[str]:
        """Of the rows: the method, and what tells rows of one method apart."""
        named = [row.method if self.one_model else f"{row.method}, {row.model}" for row in self.rows]
        again = {name for name in named if named.count(name) > 1}
        return [
            f"{name} ({row.weights})" if name in again else name for name, row in zip(named, self.rows, strict=True)
        ]

    @property
    def notes(self) -> list[str]:
        """For each row with weights, what they are and where they come from."""
        return [
            f"{label}: {row.weights} ({row.weights_source})"
            for label, row in zip(self.labels, self.rows, strict=True)
            if row.weights
        ]

    def best(self, name: str) -> float:
        """The largest value of a measure, as it is shown."""
        return max(round(row.measures[name][0], 1) for row in self.rows if name in row.measures)


def read_results(files: Sequence[Path]) -> list[Row]:
    """The results in files that the benchmarks wrote, in order; a file may hold several.

    Raises:
        CallError: A file cannot be read, or holds no result; it is named.
    """
    return [row for file in files for row in _rows(file)]


def grouped(rows: Sequence[Row], *, apart: bool) -> list[Group]:
    """The rows by their setting.

    Args:
        rows: At least one.
        apart: Allow several settings.

    Raises:
        CallError: There are several and none were allowed; the fields that differ are named.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(sorted(row.setting.items())), []).append(row)
    found = [Group(own[0].setting, own) for own in groups.values()]
    if len(found) > 1 and not apart:
        first, other = found[0], found[1]
        differing = [
            f"{name} is {first.setting.get(name, NONE)} in {first.rows[0].file} "
            f"and {other.setting.get(name, NONE)} in {other.rows[0].file}"
            for name in dict.fromkeys([*first.setting, *other.setting])
            if first.setting.get(name) != other.setting.get(name)
        ]
        raise CallError(
            f"These results do not belong in one table: {'; '.join(differing)}.", "Use --apart for a table of each."
        )
    return found


def told(groups: Sequence[Group], how: Format) -> str:
    """The tables as text; for `terminal` ask `cells`.

    Args:
        groups: At least one.
        how: In which format.
    """
    match how:
        case Format.CSV:
            return _csv(groups)
        case Format.LATEX:
            return "\n".join(_latex(group) for group in groups)
        case _:
            return "\n".join(_markdown(group) for group in groups)


def cells(group: Group) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """A group as a head and rows of texts, each with whether it is the best of its column."""
    names = group.names
    head = ["method", *names, "ms/query"]
    best = {name: group.best(name) for name in names}
    rows = []
    for label, row in zip(group.labels, group.rows, strict=True):
        texts = [(label, False)]
        for name in names:
            if name not in row.measures:
                texts.append((NONE, False))
                continue
            value, low, high = row.measures[name]
            texts.append((f"{value:.1f} ± {(high - low) / 2:.1f}", round(value, 1) == best[name]))
        texts.append((NONE if row.ms_per_query is None else f"{row.ms_per_query:.1f}", False))
        rows.append(texts)
    return head, rows


def _rows(file: Path) -> Iterator[Row]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CallError(
            f"{file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}.",
            "Give files that a benchmark wrote by --json.",
        ) from error
    except ValueError as error:
        raise CallError(f"{file} is no JSON: {error}.", "Give files that a benchmark wrote by --json.") from error
    found = document.get("results") if isinstance(document, dict) else None
    for each in found if isinstance(found, list) else [document]:
        yield _row(file, each)


def _row(file: Path, document: Any) -> Row:
    needed = ("benchmark", "split", "method", "model", "queries", "measures")
    if not isinstance(document, dict) or any(name not in document for name in needed):
        absent = next((name for name in needed if not isinstance(document, dict) or name not in document), "")
        raise CallError(
            f"{file} is not the result of an evaluation: it lacks {absent}.",
            "Sweeps, submissions and measurements of speed have files of their own; leave them out.",
        )
    protocol = document.get("protocol") or {name: document[name] for name in FLAT if name in document}
    setting = {name: _text(document.get(name)) for name in SETTING}
    try:
        measures = {
            name: (100 * each["value"], 100 * each["interval_95"][0], 100 * each["interval_95"][1])
            for name, each in document["measures"].items()
        }
        seconds = document.get("seconds") or {}
        spent = document.get("ms_per_query", 1000 * sum(seconds.values()) / document["queries"] if seconds else None)
        return Row(
            file=file,
            setting=setting | {name: _text(value) for name, value in protocol.items()},
            method=_text(document["method"]),
            model=_text(document["model"]),
            weights=", ".join(f"{name} {value:g}" for name, value in (document.get("weights") or {}).items()),
            weights_source=_text(document.get("weights_source")),
            measures=measures,
            ms_per_query=spent,
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise CallError(f"{file} is damaged: {type(error).__name__}: {error}.", "Run the benchmark again.") from error


def _text(value: Any) -> str:
    return NONE if value is None else str(value)


def _markdown(group: Group) -> str:
    head, rows = cells(group)
    lines = [group.title, "", f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    for row in rows:
        texts = [f"**{text}**" if best else text.replace("|", "\\|") for text, best in row]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join([*lines, "", "Percent, with half the 95 % interval. Weights:", "", *_listed(group), ""])


def _listed(group: Group) -> list[str]:
    return [f"* {note}" for note in group.notes]


def _latex(group: Group) -> str:
    head, rows = cells(group)
    lines = [
        f"% {group.title}",
        *(f"% {note}" for note in group.notes),
        f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        "\\toprule",
        " & ".join(_escaped(name) for name in head) + " \\\\",
        "\\midrule",
    ]
    for row in rows:
        texts = []
        for text, best in row:
            escaped = _escaped(text)
            texts.append(f"\\textbf{{{escaped}}}" if best else escaped)
        lines.append(" & ".join(texts) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


_LATEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", NONE: "--",
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _csv(groups: Sequence[Group]) -> str:
    """A line for each row, with its setting, so that groups stay apart; values in percent, intervals beside."""
    settings = list(dict.fromkeys(name for group in groups for name in group.setting))
    names = list(dict.fromkeys(name for group in groups for name in group.names))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = [part for name in names for part in (name, f"{name} low", f"{name} high")]
    writer.writerow(
        [*settings, "method", "model", "weights", "weights_source", *columns, "ms_per_query"],
    )
    for row in (row for group in groups for row in group.rows):
        values = [
            f"{value:.2f}" if name in row.measures else ""
            for name in names
            for value in row.measures.get(name, (0.0, 0.0, 0.0))
        ]
        spent = "" if row.ms_per_query is None else f"{row.ms_per_query:.3f}"
        told_setting = [row.setting.get(name, "").replace(NONE, "") for name in settings]
        writer.writerow([*told_setting, row.method, row.model, row.weights, row.weights_source, *values, spent])
    return file.getvalue()
