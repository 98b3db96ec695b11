"""A published data set on this machine: its files as its publisher lays them out, and what a benchmark reads of them.

A file that is missing is named together with where to get it; counts are compared with the published ones. Nothing is
downloaded.

What this module does not know: any data set, how queries are ranked.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.protocol import Choices, Protocol
from indexer.corpus.paths import MAX_BYTES, read_file
from indexer.errors import CallError, ItemError, QueryError
from pipelines.evaluation.loop import Ranked
from pipelines.evaluation.qrels import JudgedQuery, Plan, Precision
from retrieval.query import Query

Box = tuple[float, float, float, float]

BLANK_SENTENCE = "the same image"
"""What a query with a blank caption is asked as.

CIRR's test1 has one (pair 27098, a single space), and its server expects an answer to every pair.
"""


@dataclass(frozen=True)
class DataSet:
    """The folder of a data set.

    Attributes:
        title: What people call it.
        root: The folder.
        home: Where to get it.
    """

    title: str
    root: Path
    home: str

    def wrong(self, what: str, remedy: str = "") -> CallError:
        """The error to raise where the data set is not as published; it names the data set and where to get it."""
        return CallError(f"{self.title}: {what}", f"{remedy or 'Get it from'} {self.home}")

    def find(self, *places: str) -> Path:
        """The first of several places that exists.

        Raises:
            CallError: None does.
        """
        for place in places:
            if (self.root / place).exists():
                return self.root / place
        others = f" (nor {', '.join(places[1:])})" if len(places) > 1 else ""
        raise self.wrong(f"{self.root / places[0]} is not there{others}.")

    def json(self, *places: str) -> Any:
        """The JSON in the first place that exists.

        Raises:
            CallError: None exists, or what is there is no JSON.
        """
        path = self.find(*places)
        try:
            return json.loads(self._text(path))
        except (ValueError, RecursionError) as error:
            raise self.wrong(f"{path} is no JSON ({error}).", "Get it anew from") from error

    def records(self, fields: Sequence[str], *places: str) -> list[Mapping[str, Any]]:
        """A JSON list of objects that have at least the given fields.

        Raises:
            CallError: As `json`; or it is something else.
        """
        found = self.json(*places)
        path = self.find(*places)
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise self.wrong(f"{path} is no list of objects.", "Get it anew from")
        for number, record in enumerate(found):
            if absent := [name for name in fields if name not in record]:
                raise self.wrong(f"entry {number} of {path} has no {absent[0]!r}.", "Get it anew from")
        return found

    def rows(self, columns: int, *places: str) -> list[list[str]]:
        """The rows of a CSV without a head.

        Raises:
            CallError: None exists, or a row has another number of columns.
        """
        path = self.find(*places)
        rows = [row for row in csv.reader(io.StringIO(self._text(path))) if row]
        for number, row in enumerate(rows, 1):
            if len(row) != columns:
                raise self.wrong(f"row {number} of {path} has {len(row)} columns, not {columns}.", "Get it anew from")
        return rows

    def query(self, query_id: str, sentences: Sequence[str], reference: str) -> Query:
        """A query by its sentence, said in one wording or several, and the id of its reference.

        A blank wording is read as `BLANK_SENTENCE`.

        Raises:
            CallError: It cannot be asked; it is named.
        """
        text, *wordings = (BLANK_SENTENCE if isinstance(each, str) and not each.strip() else each for each in sentences)
        try:
            return Query(text=text, like=reference, wordings=tuple(wordings))
        except QueryError as error:
            raise self.wrong(f"the query {query_id} cannot be asked: {error.message}", "Get it anew from") from error

    def require_count(self, what: str, found: int, published: int | None) -> None:
        """See that there are as many as were published; None where no number is known.

        Raises:
            CallError: There are not.
        """
        if published is not None and found != published:
            raise self.wrong(
                f"{found:,} {what}, and {published:,} are published.", "Numbers would not compare; get it anew from"
            )

    def require_unique(self, what: str, ids: Iterable[object]) -> None:
        """See that no id occurs twice.

        Raises:
            CallError: One does; it is named.
        """
        for name, times in Counter(ids).items():
            if times > 1:
                raise self.wrong(f"the {what} {name} occurs {times} times.", "Get it anew from")

    def require_known(self, what: str, named: Iterable[tuple[str, str | None]], known: Container[str | None]) -> None:
        """See that what queries name is among the pictures.

        Args:
            what: What it is to the query.
            named: The query's id and the id that it names.
            known: Where it must be.

        Raises:
            CallError: It is not; query and id are named.
        """
        for query, name in named:
            if name not in known:
                whose = f" of the query {query}" if query else ""
                raise self.wrong(f"the {what} {name}{whose} is not in the gallery.", "Get the annotations anew from")

    def _text(self, path: Path) -> str:
        try:
            return read_file(path, MAX_BYTES).decode("utf-8-sig")
        except ItemError as error:
            raise self.wrong(error.detail) from error
        except UnicodeDecodeError as error:
            raise self.wrong(f"{path} is not UTF-8 at byte {error.start:,}.", "Get it anew from") from error


@dataclass(frozen=True)
class Place:
    """Where a picture is.

    Attributes:
        path: Below one of a task's folders; `.png` and `.jpg` stand for each other.
        box: Left, top, width and height of the part that is meant, in pixels; None for all of it.
    """

    path: str
    box: Box | None = None


@dataclass(frozen=True)
class Task:
    """What is asked of which pictures.

    Attributes:
        queries: Each with the id of its reference as `like`, among the pictures.
        pictures: By id, all that is indexed.
        folders: Below the data set's root, where pictures may be.
    """

    queries: Sequence[JudgedQuery]
    pictures: Mapping[str, Place]
    folders: Sequence[str] = ("",)


@dataclass(frozen=True)
class Benchmark:
    """A data set as a benchmark. It supplies queries, pictures and judgments, and nothing else.

    Attributes:
        name: Of its module.
        title: What people call it.
        home: Where to get it.
        layout: Which files are expected below `--data`, for `--help`.
        splits: The first is the default.
        choices: Its protocol.
        measures: What is measured; its rules are taken from the protocol.
        main: The measure that weights are tuned by.
        read: Reads a split. It raises CallError where the files are not as published.
        submit: Writes what a server takes for a split without public judgments; None where there is no server.
        hidden: The splits without public judgments.
        depth: How many ids a server takes for a query.
    """

    name: str
    title: str
    home: str
    layout: str
    splits: tuple[str, ...]
    choices: Choices
    measures: Plan
    main: str
    read: Callable[[DataSet, str, Protocol], Task]
    submit: Callable[[Task, Ranked, Path], list[Path]] | None = None
    hidden: frozenset[str] = frozenset()
    depth: int = 50

    def plan(self, protocol: Protocol) -> Plan:
        """What is measured under a protocol."""
        whole = protocol.precision if protocol.precision in (Precision.STANDARD, Precision.TRAPEZOID) else None
        return replace(
            self.measures,
            whole=whole,
            average=protocol.average,
            ties=protocol.ties,
            references=protocol.reference,
        )

    def task(self, data: DataSet, split: str, protocol: Protocol) -> Task:
        """The queries and pictures of a split, checked against each other.

        Raises:
            CallError: The files are not as published, or a query names a picture that its gallery lacks.
        """
        try:
            task = self.read(data, split, protocol)
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # of annotations that are JSON, and another
            what = f"the annotations of {split} are not of the published shape ({type(error).__name__}: {error})."
            raise data.wrong(what, "Get them anew from") from error
        data.require_unique("query", [query.query_id for query in task.queries])
        galleries = {id(query.gallery): set(query.gallery) for query in task.queries if query.gallery}
        data.require_known("candidate", [("", name) for own in galleries.values() for name in own], task.pictures)
        for query in task.queries:
            gallery = galleries.get(id(query.gallery), task.pictures)
            data.require_known("reference", [(query.query_id, query.query.like)], task.pictures)
            data.require_known("target", [(query.query_id, name) for name in query.targets], gallery)
            data.require_known("group member", [(query.query_id, name) for name in query.subset], gallery)
        return task
