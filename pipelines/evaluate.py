"""The one evaluation loop: judged queries and a retriever in, measures with intervals out.

A benchmark supplies queries, judgments and a collection, and nothing else. All of them are ranked, measured, tuned
and written to run files here, so that two benchmarks or two methods never differ in the loop.

Measures are those of composed image retrieval: R@K is the share of queries with a target among the first K (a hit
rate), Rsub@1 the same within a query's subset of hard siblings, mAP@10 the mean of CIRCO's truncated average
precision. Each is averaged within a family, then over families (macro), with a 95 % bootstrap interval.

What this module does not know: any benchmark, model or method.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from indexer.errors import CallError
from indexer.files import atomic_write
from retrieval.metrics import average_precision_at, bootstrap_interval, hit_rate_at, macro_mean, mean, subset_recall_at
from retrieval.query import Query, Weights
from retrieval.search import Ranking, Retriever

CUTOFFS = (1, 5, 10)
DEPTH = 10
BATCH = 256

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class JudgedQuery:
    """A query and what it should find.

    Attributes:
        query_id: Unique in its benchmark.
        query: What is asked.
        targets: Ids of the relevant documents; at least one.
        subset: Ids of the documents that Rsub@1 chooses from, targets among them; or nothing.
        family: Queries of a family are averaged first.
        exclude: Ids of documents left out of the ranking, such as the reference.
    """

    query_id: str
    query: Query
    targets: tuple[str, ...]
    subset: tuple[str, ...] = ()
    family: str = "all"
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measure:
    """A macro average with its 95 % bootstrap interval, each between 0 and 1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        queries: How many there were.
        measures: By name, the macro average over families.
        families: By family and name, the average within the family.
        counts: By family, the number of queries.
        rankings: By query id.
        seconds: Wall time of encoding and of ranking.
    """

    queries: int
    measures: Mapping[str, Measure]
    families: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    rankings: Mapping[str, Ranking]
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The measures without the rankings; `json.dumps` takes it as it is."""
        return {
            "queries": self.queries,
            "measures": {
                name: {"value": _short(each.value), "interval_95": [_short(each.low), _short(each.high)]}
                for name, each in self.measures.items()
            },
            "families": {
                family: {"queries": self.counts[family], **{name: _short(value) for name, value in own.items()}}
                for family, own in self.families.items()
            },
            "seconds": {stage: round(seconds, 2) for stage, seconds in self.seconds.items()},
        }


def evaluate(
    queries: Iterable[JudgedQuery], retriever: Retriever, k: int = DEPTH, *, progress: bool = False
) -> Evaluation:
    """Rank every query and measure the rankings.

    Args:
        queries: All of a benchmark.
        retriever: What is evaluated.
        k: How deep rankings go, for run files; the measures need 10.
        progress: Show a bar on standard error.

    Raises:
        CallError: No queries, a query id twice, a query without a target, subsets for some queries only, or a
            judged document that the collection does not hold.
    """
    judged = checked(queries)
    retriever.require({document for query in judged for document in (*query.targets, *query.subset)})
    rankings: dict[str, Ranking] = {}
    subsets: dict[str, Ranking] = {}
    seconds = {"encode": 0.0, "rank": 0.0}
    for start in _shown(range(0, len(judged), BATCH), progress, "evaluate"):
        batch = judged[start : start + BATCH]
        names = [query.query_id for query in batch]
        begin = time.perf_counter()
        encoded = retriever.encode([query.query for query in batch])
        middle = time.perf_counter()
        rankings |= zip(names, retriever.rank(encoded, max(k, DEPTH), [q.exclude for q in batch]), strict=True)
        seconds["encode"] += middle - begin
        seconds["rank"] += time.perf_counter() - middle
        if batch[0].subset:
            subsets |= zip(names, retriever.rank_among(encoded, [q.subset for q in batch]), strict=True)
    return _measured(judged, rankings, subsets, seconds)


def sweep(
    queries: Iterable[JudgedQuery],
    retriever: Callable[[Weights], Retriever],
    grid: Sequence[Weights],
    *,
    progress: bool = False,
) -> list[tuple[Weights, float]]:
    """mAP@10, macro over families, at every point of a grid of weights.

    Queries are encoded once. At each point they are composed and ranked anew, by the code that answers users.

    Args:
        queries: Of a validation split.
        retriever: Makes the retriever for given weights.
        grid: What to try; at least one.
        progress: Show a bar on standard error.

    Raises:
        CallError: As `evaluate`.
    """
    judged = checked(queries)
    encoded = retriever(grid[0]).encode([query.query for query in judged])
    exclude = [query.exclude for query in judged]
    curve = []
    for weights in _shown(grid, progress, "weights"):
        ranked = retriever(weights).rank(encoded, DEPTH, exclude)
        values = [
            average_precision_at(ranking.ids, query.targets, DEPTH)
            for query, ranking in zip(judged, ranked, strict=True)
        ]
        curve.append((weights, macro_mean(_grouped(values, [query.family for query in judged]))))
    return curve


def write_run(path: Path, rankings: Mapping[str, Ranking], tag: str) -> None:
    """Write a TREC run file: `query Q0 document rank score tag`, a line for each hit.

    Raises:
        CallError: An id or the tag contains white space, which the format cannot hold.
    """
    lines = []
    for query_id, ranking in rankings.items():
        for rank, (document, score) in enumerate(zip(ranking.ids, ranking.scores, strict=True), 1):
            if any(len(word.split()) != 1 for word in (query_id, document, tag)):
                raise CallError(f"A run file cannot hold white space in ids: {(query_id, document, tag)}.")
            # Nine digits tell any two float32 apart.
            lines.append(f"{query_id} Q0 {document} {rank} {score:.9g} {tag}\n")
    atomic_write(path, "".join(lines).encode())


def checked(queries: Iterable[JudgedQuery]) -> list[JudgedQuery]:
    """The queries as a list, refused where a measure would be silently wrong; see `evaluate`."""
    judged = list(queries)
    if not judged:
        raise CallError("There are no queries to evaluate.")
    for query_id, times in Counter(query.query_id for query in judged).items():
        if times > 1:
            raise CallError(f"The query {query_id} occurs {times} times.")
    for query in judged:
        if not query.targets:
            raise CallError(f"The query {query.query_id} has no judgment.", "Leave queries without targets out.")
        if bool(query.subset) != bool(judged[0].subset):
            raise CallError(f"{query.query_id} and {judged[0].query_id}: only one of them has a subset.")
        if not set(query.targets).isdisjoint(query.exclude):
            raise CallError(f"The query {query.query_id} excludes its own target.")
    return judged


def _measured(
    judged: Sequence[JudgedQuery],
    rankings: Mapping[str, Ranking],
    subsets: Mapping[str, Ranking],
    seconds: Mapping[str, float],
) -> Evaluation:
    values: dict[str, list[float]] = {}
    for query in judged:
        ids, targets = rankings[query.query_id].ids, query.targets
        for k in CUTOFFS:
            values.setdefault(f"R@{k}", []).append(hit_rate_at(ids, targets, k))
        values.setdefault("mAP@10", []).append(average_precision_at(ids, targets, 10))
        if query.subset:
            hit = subset_recall_at(subsets[query.query_id].ids, targets, query.subset, 1)
            values.setdefault("Rsub@1", []).append(hit)
    groups = [query.family for query in judged]
    by_family = {name: _grouped(own, groups) for name, own in values.items()}
    return Evaluation(
        queries=len(judged),
        measures={
            name: Measure(macro_mean(by_family[name]), *bootstrap_interval(own, groups)) for name, own in values.items()
        },
        families={family: {name: mean(by_family[name][family]) for name in values} for family in dict.fromkeys(groups)},
        counts=Counter(groups),
        rankings=rankings,
        seconds=seconds,
    )


def _grouped(values: Sequence[float], groups: Sequence[str]) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        grouped.setdefault(group, []).append(value)
    return grouped


def _shown(things: Sequence[Thing], progress: bool, label: str) -> Iterator[Thing]:
    """Iterate, behind a progress bar on standard error where asked for."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not progress) as bar:
        yield from bar.track(things, description=label)


def _short(value: float) -> float:
    return round(value, 4)
