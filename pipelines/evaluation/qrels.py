"""Queries of a benchmark with their qrels, and the plan of its measures.

What this module does not know: how queries are ranked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from indexer.errors import CallError, UnknownNameError
from indexer.types import HelpfulEnum
from retrieval.metrics import (
    average_precision_at,
    average_precision_of,
    hit_rate_at,
    ndcg_at,
    subset_recall_at,
    trapezoidal_precision_of,
)
from retrieval.query import Query


class Ties(HelpfulEnum):
    """Which of two documents of the same score goes first."""

    BY_ID = "by-id"
    AGAINST_TARGET = "against-target"


class Average(HelpfulEnum):
    """What a benchmark's one number is the mean of."""

    FAMILIES = "families"
    QUERIES = "queries"


class Reference(HelpfulEnum):
    """Whether a query may find its own reference."""

    REMOVED = "removed"
    KEPT = "kept"


class Precision(HelpfulEnum):
    """Which average precision.

    `truncated` looks at the first K alone (CIRCO's mAP@K). The others look at the whole ranking: `standard` adds P at
    each target, `trapezoid` the mean of P just before and at each target.
    """

    NONE = "none"
    TRUNCATED = "truncated"
    STANDARD = "standard"
    TRAPEZOID = "trapezoid"


@dataclass(frozen=True)
class JudgedQuery:
    """A query and what it should find.

    Attributes:
        query_id: Unique in its benchmark.
        query: What is asked.
        targets: Ids of the relevant documents; at least one, where it is to be measured.
        subset: Ids of the documents that Rsub@K chooses from, targets among them; or nothing.
        family: Queries of a family are averaged first.
        exclude: Ids of documents left out of the ranking, such as the reference.
        gallery: Ids of the documents to rank, where they are not the whole collection.
        intended: Of several targets the one that the query was written for: R@K counts this alone.
        aspects: Groups that a query is in, any number: reported, and not averaged over.
    """

    query_id: str
    query: Query
    targets: tuple[str, ...]
    subset: tuple[str, ...] = ()
    family: str = "all"
    exclude: tuple[str, ...] = ()
    gallery: tuple[str, ...] = ()
    intended: str | None = None
    aspects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The measures of a benchmark, and the rules they follow. The defaults are EmojiCIR's.

    Attributes:
        recall: The K of R@K: whether a target is among the first K.
        precision: The K of mAP@K, truncated as CIRCO's is.
        subset: The K of Rsub@K, for queries that have a subset.
        gain: The K of nDCG@K, where every target is as good as any other.
        whole: Average precision over the whole ranking, `standard` or `trapezoid`; its mean is called mAP. What ties
            with a target goes before it there, whatever `ties` says.
        average: What is averaged.
        ties: Which of equal scores goes first.
        references: Whether a query may find its own `like`.
    """

    recall: tuple[int, ...] = (1, 5, 10)
    precision: tuple[int, ...] = (10,)
    subset: tuple[int, ...] = (1,)
    gain: tuple[int, ...] = ()
    whole: Precision | None = None
    average: Average = Average.FAMILIES
    ties: Ties = Ties.BY_ID
    references: Reference = Reference.REMOVED

    def __post_init__(self) -> None:
        if self.whole not in (None, Precision.STANDARD, Precision.TRAPEZOID):
            raise CallError(f"{self.whole} is no average precision of a whole ranking.", "Use standard or trapezoid.")

    @property
    def depth(self) -> int:
        """How many ranks the measures look at, whole rankings aside."""
        return max((*self.recall, *self.precision, *self.gain), default=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the measures, those of subsets included."""
        whole = () if self.whole is None else ("mAP",)
        cut = (("R", self.recall), ("mAP", self.precision), ("Rsub", self.subset), ("nDCG", self.gain))
        return tuple(f"{kind}@{k}" for kind, own in cut for k in own) + whole

    def only(self, measure: str) -> Plan:
        """The plan of one measure of this plan.

        Raises:
            UnknownNameError: It has no such measure.
        """
        if measure not in self.names:
            raise UnknownNameError("measure", measure, list(self.names))
        kind, _, k = measure.partition("@")
        cut = (int(k),) if k else ()
        return replace(
            self,
            recall=cut if kind == "R" else (),
            precision=cut if kind == "mAP" else (),
            subset=cut if kind == "Rsub" else (),
            gain=cut if kind == "nDCG" else (),
            whole=None if k else self.whole,
        )

    def values(
        self, query: JudgedQuery, ranked: Sequence[str], subset: Sequence[str], places: Sequence[int]
    ) -> dict[str, float]:
        """The measures of one query.

        Args:
            query: With at least one target.
            ranked: The ids found, best first, at least `depth` of them where there are so many.
            subset: The ids of its subset, best first.
            places: Where its targets stand in the whole ranking, if `whole` is measured.
        """
        goals = query.targets if query.intended is None else (query.intended,)
        found = {f"R@{k}": hit_rate_at(ranked, goals, k) for k in self.recall}
        found |= {f"mAP@{k}": average_precision_at(ranked, query.targets, k) for k in self.precision}
        found |= {f"nDCG@{k}": ndcg_at(ranked, query.targets, k) for k in self.gain}
        if self.whole is not None:
            area = average_precision_of if self.whole is Precision.STANDARD else trapezoidal_precision_of
            found["mAP"] = area(places, len(set(query.targets)))
        if query.subset:
            found |= {f"Rsub@{k}": subset_recall_at(subset, query.targets, query.subset, k) for k in self.subset}
        return found


EMOJICIR = Plan()


def checked(queries: Iterable[JudgedQuery], *, judged: bool = True) -> list[JudgedQuery]:
    """The queries as a list, refused where a measure would be silently wrong.

    Args:
        queries: All of a benchmark.
        judged: Whether each needs a target.

    Raises:
        CallError: No queries, a query id twice, a query without a target or whose target it cannot find, subsets or
            galleries for some queries only.
    """
    found = list(queries)
    if not found:
        raise CallError("There are no queries to evaluate.")
    for query_id, times in Counter(query.query_id for query in found).items():
        if times > 1:
            raise CallError(f"The query {query_id} occurs {times} times.")
    first = found[0]
    for query in found:
        if judged and not query.targets:
            raise CallError(f"The query {query.query_id} has no judgment.", "Leave queries without targets out.")
        for name, own, other in (
            ("subset", query.subset, first.subset),
            ("gallery", query.gallery, first.gallery),
        ):
            if bool(own) != bool(other):
                raise CallError(f"{query.query_id} and {first.query_id}: only one of them has a {name}.")
        if not set(query.targets).isdisjoint(query.exclude):
            raise CallError(f"The query {query.query_id} excludes its own target.")
    _check_galleries(found)
    return found


def _check_galleries(queries: Sequence[JudgedQuery]) -> None:
    known: Mapping[int, set[str]] = {id(query.gallery): set(query.gallery) for query in queries if query.gallery}
    for query in queries:
        if not query.gallery:
            continue
        if absent := [target for target in query.targets if target not in known[id(query.gallery)]]:
            raise CallError(f"The target {absent[0]} of the query {query.query_id} is not in the query's gallery.")
