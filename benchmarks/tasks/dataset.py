"""A published data set on this machine: its files in the publisher's layout, and what a benchmark reads from them.

The error for a missing file says where to get it; counts are compared with the published ones. Nothing is downloaded.
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
"""Replacement for a blank caption.

CIRR's test1 has one (pair 27098, a single space), and its server expects an answer to every pair.
"""


@dataclass(frozen=True)
class DataSet:
    """The folder of a data set.

    Attributes:
        title: Its usual name.
        root: The folder.
        home: Where to get it.
    """

    title: str
    root: Path
    home: str

    def wrong(self, what: str, remedy: str = "") -> CallError:
        """The error for a data set that is not as published; it names the data set and where to get it."""
        mend = f"{remedy or 'Get it from'} {self.home}" if self.home else "Reinstall this project, which includes it."
        return CallError(f"{self.title}: {what}", mend)

    def find(self, *places: str) -> Path:
        """The first of several paths that exists.

        Raises:
            CallError: None exists.
        """
        for place in places:
            if (self.root / place).exists():
                return self.root / place
        others = f" (nor {', '.join(places[1:])})" if len(places) > 1 else ""
        raise self.wrong(f"{self.root / places[0]} does not exist{others}.")

    def json(self, *places: str) -> Any:
        """The JSON in the first path that exists.

        Raises:
            CallError: None exists, or it is not JSON.
        """
        path = self.find(*places)
        try:
            return json.loads(self._text(path))
        except (ValueError, RecursionError) as error:
            raise self.wrong(f"{path} is not JSON ({error}).", "Download it again from") from error

    def records(self, fields: Sequence[str], *places: str) -> list[Mapping[str, Any]]:
        """A JSON list of objects that have at least the given fields.

        Raises:
            CallError: As `json`; or it is not such a list.
        """
        found = self.json(*places)
        path = self.find(*places)
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise self.wrong(f"{path} is not a list of objects.", "Download it again from")
        for number, record in enumerate(found):
            if absent := [name for name in fields if name not in record]:
                raise self.wrong(f"entry {number} of {path} has no {absent[0]!r}.", "Download it again from")
        return found

    def rows(self, columns: int, *places: str) -> list[list[str]]:
        """The rows of a CSV without a header.

        Raises:
            CallError: None exists, or a row has another number of columns.
        """
        path = self.find(*places)
        rows = [row for row in csv.reader(io.StringIO(self._text(path))) if row]
        for number, row in enumerate(rows, 1):
            if len(row) != columns:
                raise self.wrong(
                    f"row {number} of {path} has {len(row)} columns, not {columns}.", "Download it again from"
                )
        return rows

    def query(self, query_id: str, sentences: Sequence[str], reference: str) -> Query:
        """A query by its sentence, in one wording or several, and the id of its reference.

        A blank wording is replaced by `BLANK_SENTENCE`.

        Raises:
            CallError: The query is invalid; the error names it.
        """
        text, *wordings = (BLANK_SENTENCE if isinstance(each, str) and not each.strip() else each for each in sentences)
        try:
            return Query(text=text, like=reference, wordings=tuple(wordings))
        except QueryError as error:
            raise self.wrong(f"the query {query_id} is invalid: {error.message}", "Download it again from") from error

    def require_count(self, what: str, found: int, published: int | None) -> None:
        """Check that a count equals the published one; None if no number is known.

        Raises:
            CallError: The counts differ.
        """
        if published is not None and found != published:
            raise self.wrong(
                f"{found:,} {what}, and {published:,} are published.",
                "Numbers would not be comparable; download it again from",
            )

    def require_unique(self, what: str, ids: Iterable[object]) -> None:
        """Check that no id occurs twice.

        Raises:
            CallError: One does; the error names it.
        """
        for name, times in Counter(ids).items():
            if times > 1:
                raise self.wrong(f"the {what} {name} occurs {times} times.", "Download it again from")

    def require_known(self, what: str, named: Iterable[tuple[str, str | None]], known: Container[str | None]) -> None:
        """Check that the images that queries name exist.

        Args:
            what: The role of the image in the query.
            named: The query's id and the id that it names.
            known: The existing ids.

        Raises:
            CallError: One is missing; the error names query and id.
        """
        for query, name in named:
            if name not in known:
                whose = f" of the query {query}" if query else ""
                raise self.wrong(
                    f"the {what} {name}{whose} is not in the gallery.", "Download the annotations again from"
                )

    def _text(self, path: Path) -> str:
        try:
            return read_file(path, MAX_BYTES).decode("utf-8-sig")
        except ItemError as error:
            raise self.wrong(error.detail) from error
        except UnicodeDecodeError as error:
            raise self.wrong(f"{path} is not UTF-8 at byte {error.start:,}.", "Download it again from") from error


@dataclass(frozen=True)
class Place:
    """The location of an image.

    Attributes:
        path: Relative to one of a task's folders; `.png` and `.jpg` are interchangeable.
        box: Left, top, width and height of the part that is used, in pixels; None for the whole image.
    """

    path: str
    box: Box | None = None


@dataclass(frozen=True)
class Task:
    """Queries and their documents.

    Attributes:
        queries: Queries, which refer to documents by id.
        images: Images to index, by id; empty if there is a `corpus`.
        folders: Folders of images, below the data set's root.
        corpus: What is indexed instead of `images`.
        ids: Ids of the documents of `corpus`.
        parts: Which parts of documents are embedded.
        digests: Digests of the task's sources that may change with a release, by name.
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
        """The ids of all documents."""
        return self.ids if self.corpus is not None else frozenset(self.images)


def spread(task: Task, limit: int) -> Task:
    """The task with a limited number of queries, spread evenly."""
    count = min(limit, len(task.queries))
    return replace(task, queries=[task.queries[place * len(task.queries) // count] for place in range(count)])


@dataclass(frozen=True)
class Benchmark:
    """A data set as a benchmark. It supplies queries, documents and qrels, and nothing else.

    Attributes:
        name: Name of its module.
        title: Its usual name.
        home: Where to get it; empty if it is bundled.
        layout: The files expected in `--data`, for `--help`.
        splits: Its splits; the first is the default.
        choices: Its protocol.
        measures: The measures; their rules come from the protocol.
        main: The measure that weights are tuned for.
        read: Reads a split. It raises CallError if the files are not as published.
        submit: Writes the server's files for a split without public qrels; None without a server.
        hidden: The splits without public qrels.
        depth: How many ids per query the server takes.
        model: The default embedder.
        limited: Limits the number of queries of the task.
        tuned_on: The one split that weights are tuned on and stored for; None if a sweep stores nothing and may use any
            split.
        centers: The ways of comparing modalities that are measured.
        beyond: Further measures of rankings, by name.
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
        """The measures under a protocol."""
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
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # annotations of another structure
            what = f"the annotations of {split} do not have the published structure ({type(error).__name__}: {error})."
            raise data.wrong(what, "Download them again from") from error
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
