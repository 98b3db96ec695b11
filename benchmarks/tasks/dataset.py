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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.protocol import Choices, Protocol
from indexer.corpus.paths import MAX_BYTES, read_file
from indexer.corpus.records import Corpus
from indexer.errors import CallError, ItemError, QueryError
from indexer.types import Center, Parts
from pipelines.evaluation.loop import Ranked
from pipelines.evaluation.qrels import JudgedQuery, Plan, Precision
from retrieval.documents import Ranking
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
        mend = f"{remedy or 'Get it from'} {self.home}" if self.home else "Install this project anew: it comes with it."
        return CallError(f"{self.title}: {what}", mend)

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
        """See that what queries name is among the images.

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
    """Where an image is.

    Attributes:
        path: Below one of a task's folders; `.png` and `.jpg` stand for each other.
        box: Left, top, width and height of the part that is meant, in pixels; None for all of it.
    """

    path: str
    box: Box | None = None


@dataclass(frozen=True)
class Task:
    """What is asked of which documents.

    Attributes:
        queries: Each names what it needs by ids of documents.
        images: By id, the images that are indexed; nothing where there is a `corpus`.
        folders: Below the data set's root, where images may be.
        corpus: What is indexed in place of `images`.
        ids: Of the documents of `corpus`.
        parts: Which parts of documents are embedded.
        digests: By name, of what the task was read from, where that may change with a release.
    """

    queries: Sequence[JudgedQuery]
    images: Mapping[str, Place] = field(default_factory=dict)
    folders: Sequence[str] = ("",)
    corpus: Path | Corpus | None = None
    ids: frozenset[str] = frozenset()
    parts: Parts = Parts.IMAGE
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def documents(self) -> frozenset[str]:
        """The ids of all that is indexed."""
        return self.ids if self.corpus is not None else frozenset(self.images)


def spread(task: Task, limit: int) -> Task:
    """The task with at most so many queries, spread evenly over all."""
    count = min(limit, len(task.queries))
    return replace(task, queries=[task.queries[place * len(task.queries) // count] for place in range(count)])


@dataclass(frozen=True)
class Benchmark:
    """A data set as a benchmark. It supplies queries, documents and qrels, and nothing else.

    Attributes:
        name: Of its module.
        title: What people call it.
        home: Where to get it; empty for one that comes with the project.
        layout: Which files are expected below `--data`, for `--help`.
        splits: The first is the default.
        choices: Its protocol.
        measures: What is measured; its rules are taken from the protocol.
        main: The measure that weights are tuned by.
        read: Reads a split. It raises CallError where the files are not as published.
        submit: Writes what a server takes for a split without public qrels; None where there is no server.
        hidden: The splits without public qrels.
        depth: How many ids a server takes for a query.
        model: The default embedder.
        limited: The task with at most so many queries.
        tuned_on: The one split that weights are tuned on, to be stored with the package; None where a sweep stores
            nothing and may look at any split.
        centers: The ways of comparing modalities that are measured.
        beyond: Measures of rankings besides the plan's, by name.
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
    model: str = "open_clip:ViT-L-14/openai"
    limited: Callable[[Task, int], Task] = spread
    tuned_on: str | None = None
    centers: tuple[Center, ...] = (Center.AUTO,)
    beyond: Callable[[Task, Mapping[str, Ranking]], dict[str, Any]] | None = None

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
        """The queries and documents of a split, checked against each other.

        Raises:
            CallError: The files are not as published, or a query names an image that its gallery lacks.
        """
        try:
            task = self.read(data, split, protocol)
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # of annotations that are JSON, and another
            what = f"the annotations of {split} are not of the published shape ({type(error).__name__}: {error})."
            raise data.wrong(what, "Get them anew from") from error
        data.require_unique("query", [query.query_id for query in task.queries])
        documents = task.documents
        galleries = {id(query.gallery): set(query.gallery) for query in task.queries if query.gallery}
        data.require_known("candidate", [("", name) for own in galleries.values() for name in own], documents)
        for query in task.queries:
            gallery = galleries.get(id(query.gallery), documents)
            if query.query.like is not None:
                data.require_known("reference", [(query.query_id, query.query.like)], documents)
            data.require_known("target", [(query.query_id, name) for name in query.targets], gallery)
            data.require_known("group member", [(query.query_id, name) for name in query.subset], gallery)
        return task
