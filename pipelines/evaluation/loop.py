"""The evaluation loop of all benchmarks: queries with qrels and a retriever in, measures with intervals out.

A benchmark supplies only queries, qrels and a collection. Ranking, measuring, tuning and writing run files happen here,
so that two benchmarks or two methods never differ in the loop.

Measures are those of composed image retrieval: R@K is the share of queries with a target among the first K (a hit
rate), Rsub@K the same within a query's subset of hard siblings, mAP@K the mean of CIRCO's truncated average precision,
mAP that over a whole ranking. Which, and by which rules, is the benchmark's `Plan`; each is averaged over queries, or
within families and then over families, with a 95 % bootstrap interval.

What this module does not know: any benchmark, model or method.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from indexer.errors import CallError
from indexer.files.atomic import atomic_write
from pipelines.evaluation.qrels import EMOJICIR, Average, JudgedQuery, Plan, Reference, Ties, checked
from retrieval.documents import Ranking
from retrieval.methods import Resolved
from retrieval.metrics import against, bootstrap_interval, macro_mean, mean, places_of
from retrieval.query import Weights
from retrieval.retriever import Retriever

__all__ = [
    "DEPTH", "Evaluation", "JudgedQuery", "Measure", "Plan", "Ranked", "answer", "checked", "evaluate", "sweep",
    "write_run",
]  # fmt: skip

DEPTH = 10
BATCH = 256

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Measure:
    """An average with its 95 % bootstrap interval, each between 0 and 1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranked:
    """What queries found.

    Attributes:
        rankings: By query id, the best documents.
        subsets: By query id, the whole of its subset in order, where it has one.
        places: By query id, where its targets stand in the whole ranking, where the plan asks for that.
        seconds: Wall time of encoding and of ranking.
        notes: What went wrong in making a query's vectors without spoiling its answer, and for how many queries.
        drawings: How many pseudo-targets were `drawn`, and how many `cached`, which cost no time.
    """

    rankings: dict[str, Ranking] = field(default_factory=dict)
    subsets: dict[str, Ranking] = field(default_factory=dict)
    places: dict[str, tuple[int, ...]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"encode": 0.0, "rank": 0.0})
    notes: Counter[str] = field(default_factory=Counter)
    drawings: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        queries: How many there were.
        measures: By name, the average that the plan asks for.
        families: By family and name, the average within the family.
        counts: By family, the number of queries.
        rankings: By query id.
        seconds: Wall time of encoding and of ranking.
        aspects: By aspect and name, the average over the queries that have it; `queries` is their number.
        notes: As `Ranked`: drawings that are missing, for one.
        drawings: As `Ranked`.
    """

    queries: int
    measures: Mapping[str, Measure]
    families: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    rankings: Mapping[str, Ranking]
    seconds: Mapping[str, float]
    aspects: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)
    drawings: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The measures without the rankings; `json.dumps` takes it as it is."""
        told: dict[str, Any] = {
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
        if self.aspects:
            told["aspects"] = {
                name: {key: _short(value) for key, value in own.items()} for name, own in self.aspects.items()
            }
        return told


def evaluate(
    queries: Iterable[JudgedQuery],
    retriever: Retriever,
    k: int = DEPTH,
    *,
    plan: Plan = EMOJICIR,
    progress: bool = False,
) -> Evaluation:
    """Rank every query and measure the rankings.

    Args:
        queries: All of a benchmark.
        retriever: What is evaluated.
        k: How deep rankings go, for run files; the measures look as deep as they must.
        plan: What is measured.
        progress: Show a bar on standard error.

    Raises:
        CallError: As `checked`; or a judged document that the collection does not hold.
    """
    judged = checked(queries)
    ranked = _ranked(judged, retriever, max(k, plan.depth), plan, progress)
    return _measured(judged, _values(judged, ranked, plan), ranked, plan)


def answer(
    queries: Iterable[JudgedQuery], retriever: Retriever, k: int, *, plan: Plan = EMOJICIR, progress: bool = False
) -> Ranked:
    """Rank queries whose judgments are not public: by the loop that `evaluate` runs, without measuring.

    Args:
        queries: All of a split; targets are not looked at.
        retriever: What answers.
        k: How deep rankings go.
        plan: For its rule about references.
        progress: Show a bar on standard error.

    Raises:
        CallError: As `checked`; or a document that the collection does not hold.
    """
    return _ranked(checked(queries, judged=False), retriever, k, Plan(whole=None, references=plan.references), progress)


def sweep(
    queries: Iterable[JudgedQuery],
    retriever: Callable[[Weights], Retriever],
    grid: Sequence[Weights],
    *,
    plan: Plan = EMOJICIR,
    measure: str = "mAP@10",
    progress: bool = False,
) -> list[tuple[Weights, float]]:
    """One measure, averaged as the plan has it, at every point of a grid of weights.

    Queries are encoded once. At each point they are composed and ranked anew, by the code that answers users.

    Args:
        queries: Of a validation split.
        retriever: Makes the retriever for given weights.
        grid: What to try; at least one.
        plan: As for `evaluate`.
        measure: Its name, one of the plan's.
        progress: Show a bar on standard error.

    Raises:
        CallError: As `evaluate`.
    """
    judged, narrow = checked(queries), plan.only(measure)
    encoded = retriever(grid[0]).encode([query.query for query in judged])
    curve = []
    for weights in _shown(grid, progress, "weights"):
        ranked, weighted = Ranked(), retriever(weights)
        for start in range(0, len(judged), BATCH):
            batch = slice(start, start + BATCH)
            _rank(judged[batch], encoded[batch], weighted, narrow.depth, narrow, ranked)
        values = _values(judged, ranked, narrow)[measure]
        grouped = _grouped(values, [query.family for query in judged])
        curve.append((weights, macro_mean(grouped) if plan.average is Average.FAMILIES else mean(values)))
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


def _ranked(judged: Sequence[JudgedQuery], retriever: Retriever, k: int, plan: Plan, progress: bool) -> Ranked:
    """The one loop over batches of queries."""
    retriever.require({document for query in judged for document in (*query.targets, *query.subset)})
    retriever.require({document for gallery in {query.gallery for query in judged} for document in gallery})
    ranked = Ranked()
    for start in _shown(range(0, len(judged), BATCH), progress, "evaluate"):
        batch = judged[start : start + BATCH]
        begin = time.perf_counter()
        encoded = retriever.encode([query.query for query in batch])
        ranked.seconds["encode"] += time.perf_counter() - begin
        ranked.notes.update(note for each in encoded for note in each.notes)
        about = [each.artifacts["pseudo_target"] for each in encoded if "pseudo_target" in each.artifacts]
        ranked.drawings.update("cached" if each["cached"] else "drawn" for each in about)
        _rank(batch, encoded, retriever, k, plan, ranked)
    return ranked


def _rank(
    batch: Sequence[JudgedQuery],
    encoded: Sequence[Resolved],
    retriever: Retriever,
    k: int,
    plan: Plan,
    ranked: Ranked,
) -> None:
    """Add what a batch finds."""
    names = [query.query_id for query in batch]
    begin = time.perf_counter()
    found, places = _found(batch, encoded, retriever, k, plan)
    ranked.seconds["rank"] += time.perf_counter() - begin
    ranked.rankings.update(zip(names, found, strict=True))
    ranked.places.update(zip(names, places, strict=bool(places)))
    if plan.subset and batch[0].subset:
        subsets = retriever.rank_among(encoded, [q.subset for q in batch])
        ranked.subsets.update(zip(names, _settled(batch, subsets, plan), strict=True))


def _found(
    batch: Sequence[JudgedQuery], encoded: Sequence[Resolved], retriever: Retriever, k: int, plan: Plan
) -> tuple[list[Ranking], list[tuple[int, ...]]]:
    """The rankings of a batch, k deep, and the places of targets in the whole rankings where the plan asks for them."""
    kept = plan.references is Reference.KEPT
    exclude, targets = [query.exclude for query in batch], [query.targets for query in batch]
    places: list[tuple[int, ...]] = []
    if batch[0].gallery:
        whole = retriever.rank_among(encoded, [query.gallery for query in batch])
        found = [_without(each, query.exclude) for each, query in zip(whole, batch, strict=True)]
    else:
        against_target = plan.ties is Ties.AGAINST_TARGET
        found = retriever.rank(encoded, k, exclude, keep_references=kept, keep_ties=against_target)
        if plan.whole is not None:
            places = retriever.places(encoded, targets, exclude, keep_references=kept)
    if batch[0].gallery and plan.whole is not None:
        worst = _settled(batch, found, replace(plan, ties=Ties.AGAINST_TARGET))
        places = [tuple(places_of(each.ids, own)) for each, own in zip(worst, targets, strict=True)]
    found = _settled(batch, found, plan)
    return [Ranking(each.ids[:k], each.scores[:k]) for each in found], places


def _without(ranking: Ranking, exclude: Sequence[str]) -> Ranking:
    if not exclude:
        return ranking
    left = [pair for pair in zip(ranking.ids, ranking.scores, strict=True) if pair[0] not in exclude]
    return Ranking(tuple(name for name, _ in left), tuple(score for _, score in left))


def _settled(batch: Sequence[JudgedQuery], rankings: Sequence[Ranking], plan: Plan) -> list[Ranking]:
    """The rankings with ties as the plan has them."""
    if plan.ties is Ties.BY_ID:
        return list(rankings)
    settled = []
    for query, ranking in zip(batch, rankings, strict=True):
        order = against(ranking.ids, ranking.scores, query.targets)
        settled.append(Ranking(tuple(ranking.ids[p] for p in order), tuple(ranking.scores[p] for p in order)))
    return settled


def _values(judged: Sequence[JudgedQuery], ranked: Ranked, plan: Plan) -> dict[str, list[float]]:
    """By measure, the value of each query."""
    values: dict[str, list[float]] = {}
    for query in judged:
        own = plan.values(
            query,
            ranked.rankings[query.query_id].ids,
            ranked.subsets[query.query_id].ids if plan.subset and query.subset else (),
            ranked.places.get(query.query_id, ()),
        )
        for name, value in own.items():
            values.setdefault(name, []).append(value)
    return values


def _measured(
    judged: Sequence[JudgedQuery], values: Mapping[str, list[float]], ranked: Ranked, plan: Plan
) -> Evaluation:
    groups = [query.family for query in judged]
    by_family = {name: _grouped(own, groups) for name, own in values.items()}
    measures = {}
    for name, own in values.items():
        if plan.average is Average.FAMILIES:
            measures[name] = Measure(macro_mean(by_family[name]), *bootstrap_interval(own, groups))
        else:
            measures[name] = Measure(mean(own), *bootstrap_interval(own))
    return Evaluation(
        queries=len(judged),
        measures=measures,
        families={family: {name: mean(by_family[name][family]) for name in values} for family in dict.fromkeys(groups)},
        counts=Counter(groups),
        rankings=ranked.rankings,
        seconds=ranked.seconds,
        aspects=_by_aspect(judged, values),
        notes=ranked.notes,
        drawings=ranked.drawings,
    )


def _by_aspect(judged: Sequence[JudgedQuery], values: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    members: dict[str, list[int]] = {}
    for place, query in enumerate(judged):
        for aspect in query.aspects:
            members.setdefault(aspect, []).append(place)
    return {
        aspect: {"queries": len(places)} | {name: mean([own[p] for p in places]) for name, own in values.items()}
        for aspect, places in sorted(members.items())
    }


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
