"""The summary that `index` prints at its end, and its question before it prunes many documents.

What this module does not know: how a job works.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from indexer.types import Rejected
from pipelines.cli.request import with_options
from pipelines.terminal.console import (
    counted,
    duration,
    err,
    listed,
    out,
    plain,
    show_error,
    show_facts,
    show_pairs,
    show_remark,
)

if TYPE_CHECKING:
    from indexer.collection import Collection
    from indexer.errors import CallError
    from indexer.ingest.job import Summary
    from pipelines.terminal.progress import IndexProgress

REJECTS_SHOWN = 20
KINDS_SHOWN = 8

NOTHING = (
    "A source is a folder of images and texts, or .jsonl, .csv, .parquet or .tar files with texts and images; "
    "docs/corpora.md says what they may look like."
)


def show_summary(summary: Summary, collection: Path, rejects: Path | None, index: str) -> None:
    """All of it, for a person."""
    out.print(f"Indexed {plain(summary.source)} in {duration(summary.seconds)}.", markup=False, soft_wrap=True)
    show_facts({
        "added": f"{summary.added:,}" + _of_these(summary),
        "replaced": _replaced(summary.replaced_from),
        "unchanged": f"{summary.unchanged:,}" if summary.unchanged else "",
        "pruned": f"{summary.pruned:,}" if summary.pruned else "",
        "kept": f"{summary.kept:,} that may lie under what could not be read" if summary.kept else "",
        "rejected": f"{summary.rejected:,}" + (f" ({listed(summary.reasons)})" if summary.reasons else ""),
        "passed over": passed_over(summary.passed_over),
        "searchable": f"{counted(summary.documents, 'document')} in {collection}, generation {summary.generation}",
        "index": index,
    })  # fmt: skip
    if summary.rejects:
        _show_rejects(summary, rejects)
    if not summary.found:
        show_error(
            f"The collection has no document from {summary.source}: nothing there can be used.",
            "The reasons are listed above." if summary.rejects else NOTHING,
        )
    elif summary.documents and out.is_terminal:
        show_remark(f'Next: underdrawing search {collection} "what you look for"')


def passed_over(kinds: Mapping[str, int]) -> str:
    """A line for each of the kinds that there is most of, then a count."""
    ordered = sorted(kinds.items(), key=lambda each: (-each[1], each[0]))
    if not ordered:
        return ""
    lines = [f"{number:,} {plain(kind)}" for kind, number in ordered[:KINDS_SHOWN]]
    if rest := ordered[KINDS_SHOWN:]:
        lines.append(f"{sum(number for _, number in rest):,} more of {counted(len(rest), 'other kind')}")
    return "\n".join(lines)


def job_line(job: Mapping[str, Any]) -> str:
    """A source and how its last run ended, for `info`."""
    from indexer.ingest.summary import in_brackets

    line = f"{plain(job['source'])}: {job['state']}, {counted(job['rejected'], 'reject')}"
    if kinds := job["passed_over"]:
        line += f", {sum(kinds.values()):,} passed over {plain(in_brackets(kinds).strip())}"
    return line


def agreed(progress: IndexProgress, error: CallError) -> bool:
    """Ask whether more may be pruned than is pruned without asking; no, where nobody can answer."""
    if not (sys.stdin.isatty() and err.is_terminal):
        return False
    with progress.paused():
        show_remark(error.message)
        return typer.confirm("Delete them all the same?", default=False, err=True)


def summary_json(summary: Summary) -> dict[str, Any]:
    """All of it, for a program."""
    # By hand: `asdict` takes a Counter apart wrongly.
    return {
        "source": summary.source,
        "documents": summary.documents,
        "found": summary.found,
        "added": summary.added,
        "replaced": summary.replaced,
        "replaced_from": dict(summary.replaced_from),
        "moved": summary.moved,
        "reused": summary.reused,
        "unchanged": summary.unchanged,
        "pruned": summary.pruned,
        "kept": summary.kept,
        "rejected": summary.rejected,
        "passed_over": dict(summary.passed_over),
        "seconds": round(summary.seconds, 3),
        "waited": round(summary.waited, 3),
        "generation": summary.generation,
        "reasons": dict(summary.reasons),
        "rejects": [_reject_json(each) for each in summary.rejects],
    }


def write_rejects(file: Path, rejects: Iterable[Rejected]) -> None:
    """As JSON lines."""
    from indexer.files.atomic import atomic_write

    lines = [json.dumps(_reject_json(each), ensure_ascii=False) + "\n" for each in rejects]
    atomic_write(file, "".join(lines).encode("utf-8", "backslashreplace"))


def all_rejects(opened: Collection, summary: Summary, shard_size: int) -> list[Rejected]:
    """Of the summary where it holds them all, else from the ledger."""
    if len(summary.rejects) == summary.rejected:
        return summary.rejects
    from indexer.metadata.jobs import rejects_of

    return rejects_of(opened.database, summary.source, {"shard_size": shard_size})


def _of_these(summary: Summary) -> str:
    told = {
        "a new version": summary.replaced - summary.replaced_from.total() - summary.moved,
        "moved here from a source that is gone": summary.moved,
        "not embedded, since the collection had the same content": summary.reused,
    }
    parts = ", ".join(f"{number:,} {what}" for what, number in told.items() if number > 0)
    return f" (of these {parts})" if parts else ""


def _replaced(sources: Mapping[str, int]) -> str:
    return "\n".join(f"{number:,} of {plain(source)}" for source, number in sorted(sources.items()))


def _show_rejects(summary: Summary, file: Path | None) -> None:
    out.print("Rejected, with reasons:")
    show_pairs([_reject_row(each) for each in summary.rejects[:REJECTS_SHOWN]], "yellow")
    more = summary.rejected - REJECTS_SHOWN
    if more > 0 and file is None:
        show_remark(f"... and {more:,} more; --rejects FILE writes them all.")
    if file is not None:
        show_remark(f"All of them are in {file}.")


def _reject_row(reject: Rejected) -> tuple[str, str]:
    return reject.reason, f"{plain(reject.uri).removeprefix('file://')}\n{plain(with_options(reject.detail))}"


def _reject_json(reject: Rejected) -> dict[str, Any]:
    told = asdict(reject)
    del told["hides"]  # of the reader's, for pruning; the ledger does not keep it
    return told
