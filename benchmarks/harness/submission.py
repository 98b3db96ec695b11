"""Submission files for the servers of CIRR and CIRCO: written, and checked for missing or duplicate queries.

    python -m benchmarks.submission cirr FILE --data DIR       check a file from any source
    python -m benchmarks.submission circo FILE --data DIR

CIRR takes two files for its split test1: `recall` with 50 names for each pair, and `recall_subset` with 3 of its group.
CIRCO takes one for its split test, with 50 image ids for each query.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write

if TYPE_CHECKING:
    from benchmarks.tasks.dataset import Task
    from pipelines.evaluation.loop import Ranked

CIRR_VERSION = "rc2"
CIRR_DEPTH, CIRR_SUBSET_DEPTH = 50, 3
CIRR_BYTES = 5_000_000
CIRCO_DEPTH = 50


@dataclass(frozen=True)
class Wanted:
    """What a submission must hold.

    Attributes:
        head: Keys that are not queries, and their values.
        choices: The ids that each query may answer with.
        depth: Number of ids per query.
        numbers: Whether ids are whole numbers, not names.
        most_bytes: Size limit of the server, or None.
    """

    head: Mapping[str, str]
    choices: Mapping[str, Collection[str]]
    depth: int
    numbers: bool = False
    most_bytes: int | None = None


def cirr_recall(task: Task) -> Wanted:
    """CIRR's first file: any image except the reference."""
    choices = {query.query_id: task.images.keys() - {query.query.like} for query in task.queries}
    return Wanted(
        {"version": CIRR_VERSION, "metric": "recall"},
        choices,
        CIRR_DEPTH,
        most_bytes=CIRR_BYTES,
    )


def cirr_subset(task: Task) -> Wanted:
    """CIRR's second file: the other five of the group."""
    choices = {query.query_id: query.subset for query in task.queries}
    head = {"version": CIRR_VERSION, "metric": "recall_subset"}
    return Wanted(head, choices, CIRR_SUBSET_DEPTH, most_bytes=CIRR_BYTES)


def circo(task: Task) -> Wanted:
    """CIRCO's file: any image."""
    return Wanted({}, {query.query_id: task.images.keys() for query in task.queries}, CIRCO_DEPTH, numbers=True)


def write_cirr(task: Task, ranked: Ranked, folder: Path) -> list[Path]:
    """Both files of CIRR.

    Raises:
        CallError: A query is missing or has the wrong number of names; nothing is written then.
    """
    documents = {
        "recall": ({name: each.ids[:CIRR_DEPTH] for name, each in ranked.rankings.items()}, cirr_recall(task)),
        "recall_subset": (
            {name: each.ids[:CIRR_SUBSET_DEPTH] for name, each in ranked.subsets.items()},
            cirr_subset(task),
        ),
    }
    return _written({folder / f"cirr-test1-{metric}.json": each for metric, each in documents.items()})


def write_circo(task: Task, ranked: Ranked, folder: Path) -> list[Path]:
    """CIRCO's file.

    Raises:
        CallError: As `write_cirr`.
    """
    answers = {name: [int(each) for each in ranking.ids[:CIRCO_DEPTH]] for name, ranking in ranked.rankings.items()}
    return _written({folder / "circo-test.json": (answers, circo(task))})


def check(text: str, wanted: Wanted) -> None:
    """Check a submission.

    Raises:
        CallError: It is invalid; the error names the query or the key.
    """
    if wanted.most_bytes is not None and len(text.encode()) > wanted.most_bytes:
        raise CallError(f"The file has {len(text.encode()):,} bytes; the server takes {wanted.most_bytes:,}.")
    try:
        document = json.loads(text, object_pairs_hook=_without_duplicates)
    except ValueError as error:
        raise CallError(f"The file is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise CallError("The file is not a JSON object.")
    for key, value in wanted.head.items():
        if document.get(key) != value:
            raise CallError(f"{key} is {document.get(key)!r}; it must be {value!r}.")
    answers = {key: value for key, value in document.items() if key not in wanted.head}
    missing = [name for name in wanted.choices if name not in answers]
    if missing:
        raise CallError(f"{len(missing):,} of {len(wanted.choices):,} queries are missing, such as {missing[0]}.")
    if extra := [name for name in answers if name not in wanted.choices]:
        raise CallError(f"{extra[0]} is not a query of this split.")
    for name, own in answers.items():
        _check_answer(name, own, wanted)


def _check_answer(name: str, own: Any, wanted: Wanted) -> None:
    kind = int if wanted.numbers else str
    if not isinstance(own, list) or any(type(each) is not kind for each in own):
        raise CallError(f"The query {name} does not answer with a list of {kind.__name__}s.")
    if len(own) != wanted.depth:
        raise CallError(f"The query {name} answers with {len(own)} ids; it must have {wanted.depth}.")
    if twice := [each for place, each in enumerate(own) if each in own[:place]]:
        raise CallError(f"The query {name} answers with {twice[0]} twice.")
    if unknown := [each for each in own if str(each) not in wanted.choices[name]]:
        raise CallError(f"The query {name} answers with {unknown[0]}, which is not among its choices.")


def _written(documents: Mapping[Path, tuple[Mapping[str, Sequence[Any]], Wanted]]) -> list[Path]:
    texts = {
        path: json.dumps(dict(wanted.head) | {name: list(own) for name, own in answers.items()})
        for path, (answers, wanted) in documents.items()
    }
    for path, (_, wanted) in documents.items():
        check(texts[path], wanted)
    for path, text in texts.items():
        atomic_write(path, text.encode())
    return list(texts)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise CallError(f"The query {key} occurs twice.")
        found[key] = value
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.submission", description="Check a file for the server of CIRR or CIRCO."
    )
    parser.add_argument("benchmark", choices=["cirr", "circo"])
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set's folder")
    options = parser.parse_args(arguments)
    try:
        _main(options)
    except (UnderdrawingError, OSError) as error:
        print(f"submission: {options.file}: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, UnderdrawingError) else 1
    print(json.dumps({"file": str(options.file), "benchmark": options.benchmark, "valid": True}))
    return 0


def _main(options: argparse.Namespace) -> None:
    from importlib import import_module

    from benchmarks.tasks.dataset import DataSet

    benchmark = import_module(f"benchmarks.tasks.{options.benchmark}").BENCHMARK
    data = DataSet(benchmark.title, options.data, benchmark.home)
    [split] = benchmark.hidden
    task = benchmark.task(data, split, benchmark.choices.default)
    text = options.file.read_text(encoding="utf-8", errors="replace")
    wanted = circo(task)
    if options.benchmark == "cirr":
        wanted = cirr_subset(task) if '"recall_subset"' in text else cirr_recall(task)
    check(text, wanted)
