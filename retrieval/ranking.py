"""From scoring functions to ranked vectors: finding candidates and computing their exact scores.

A function of one vector is one search of the index. Any other function is computed on all rows if they are few, or else
on the nearest neighbors of each of its query vectors. Either way the top k are scored again from the segments, so
that a document's score does not depend on how it was found.

Ties are settled by document id, which vectors do not know. So all vectors that tie with the last of the k are returned,
up to `MOST_TIES`, and the caller cuts the list once it has fetched the ids.

What this module does not know: queries, methods, documents.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.types import Modality
from indexer.vectors.protocol import NO_ID, Ids, Plan
from retrieval.scoring import Linear, Scores, ScoringFunction, top_k

if TYPE_CHECKING:
    from indexer.snapshot import Snapshot

SCAN_ROWS = 100_000
"""Up to this many vectors, a product scores every row, which costs as much as an exact search by two vectors."""
TOGETHER = 64  # queries; their scores of `SCAN_ROWS` take 50 MB
DEPTH = 1000
"""Above `SCAN_ROWS`, the smallest number of candidates from each query vector."""
MARGIN = 50
MOST_TIES = 1000
ROUNDING = 1e-4
"""An upper bound on the difference between float32 sums of a scan and exact scores."""


@dataclass(frozen=True)
class Found:
    """The top k of one query.

    Attributes:
        ids: (m,) int64 vector ids, best first: the k best and those that tie with the last of them.
        scores: (m,) float32.
        plans: How they were found, each way once.
    """

    ids: Ids
    scores: Scores
    plans: tuple[Plan, ...] = ()


@dataclass(frozen=True)
class Scope:
    """The part of a collection that the queries of a call may find.

    Attributes:
        where: A filter over fields, or None.
        exclude: Document ids that no query may find.
        modalities: Modalities that a document's vector may be made of; empty for any.
        hidden: For each query, the vector ids that it may not find; or empty, if nothing is hidden from any.
    """

    where: Mapping[str, Any] | None = None
    exclude: Sequence[str] = ()
    modalities: Sequence[Modality] = ()
    hidden: Sequence[Ids] = ()

    @property
    def conditions(self) -> tuple[Mapping[str, Any] | None, Sequence[str], Sequence[Modality]]:
        """The selection that holds for all queries, as a snapshot takes it."""
        return self.where, self.exclude, self.modalities

    def hidden_from(self, place: int) -> Ids:
        """The vector ids that one query may not find."""
        return self.hidden[place] if self.hidden else np.empty(0, np.int64)


def find(snapshot: Snapshot, functions: Sequence[ScoringFunction], k: int, scope: Scope) -> list[Found]:
    """The top k of each function: the k best documents and those that tie with the last of them.

    Args:
        snapshot: The snapshot to search; not empty.
        functions: One for each query.
        k: At least 1.
        scope: Limits what may be found.
    """
    single = {place: each for place, each in enumerate(functions) if isinstance(each, Linear)}
    found = _search(snapshot, single, k, scope) if single else {}
    rest = {place: each for place, each in enumerate(functions) if place not in single}
    if rest:
        found |= _among_candidates(snapshot, rest, k, scope)
    return [found[place] for place in range(len(functions))]


def score(snapshot: Snapshot, function: ScoringFunction, ids: Ids, k: int | None = None) -> Found:
    """The top k among given vectors, by their exact scores.

    Args:
        snapshot: The snapshot that has the vectors.
        function: The scoring function.
        ids: (m,) int64.
        k: How many to return; None for all.
    """
    scores = function.score(snapshot.scores(function.query_vectors, ids))
    places = top_k(scores, len(ids) if k is None else k)
    return Found(ids[places], scores[places])


def places(
    snapshot: Snapshot, functions: Sequence[ScoringFunction], wanted: Sequence[Ids], scope: Scope
) -> list[tuple[int, ...]]:
    """The ranks of given vectors among all, for each function: ascending, 1 for the best; ties rank before them.

    Args:
        snapshot: The snapshot to search.
        functions: One for each query.
        wanted: For each function, (m,) int64 vector ids, none of them hidden.
        scope: Limits what may be found.
    """
    found = []
    for start in range(0, len(functions), TOGETHER):
        batch = functions[start : start + TOGETHER]
        vectors = [function.query_vectors for function in batch]
        ids, products = snapshot.scan(np.concatenate(vectors), *scope.conditions)
        ends = np.cumsum([len(each) for each in vectors])
        for place, (function, end, each) in enumerate(zip(batch, ends, vectors, strict=True), start):
            own = np.unique(wanted[place])
            others = ~np.isin(ids, np.append(scope.hidden_from(place), own))
            scores = function.score(products[end - len(each) : end, others])
            found.append(_places(snapshot, function, own, ids[others], scores))
    return found


def _places(snapshot: Snapshot, function: ScoringFunction, wanted: Ids, others: Ids, scores: Scores) -> tuple[int, ...]:
    """The ranks of some vectors, from the inexact scores of all others; those that could tie are scored exactly."""
    exact = np.sort(function.score(snapshot.scores(function.query_vectors, wanted)))
    bounds = np.concatenate([[-np.inf], exact, [np.inf]]).astype(np.float32)
    after = np.searchsorted(exact, scores) + 1
    near = np.minimum(scores - bounds[after - 1], bounds[after] - scores) < ROUNDING
    settled = scores.copy()
    settled[near] = function.score(snapshot.scores(function.query_vectors, others[near]))
    before = len(settled) - np.searchsorted(np.sort(settled), exact[::-1], side="left")
    return tuple((before + np.arange(1, len(exact) + 1)).tolist())


def _search(snapshot: Snapshot, functions: Mapping[int, Linear], k: int, scope: Scope) -> dict[int, Found]:
    """One search for all functions of one vector, repeated more deeply for those whose ties reach the end."""
    size, found = len(snapshot), {}
    depth = k + 1 + max(len(scope.hidden_from(place)) for place in functions)
    pending = list(functions)
    while pending:
        depth = min(depth, size)
        vectors = np.stack([functions[place].vector for place in pending])
        neighbours = snapshot.search(vectors, depth, *scope.conditions)
        open_ended = []
        for place, ids, scores in zip(pending, neighbours.ids, neighbours.scores, strict=True):
            seen = (ids != NO_ID) & ~np.isin(ids, scope.hidden_from(place))
            places = np.flatnonzero(seen)[top_k(scores[seen], k)]
            found[place] = Found(ids[places], scores[places], neighbours.plans)
            if depth < min(size, k + MOST_TIES) and ids[-1] != NO_ID and scores[-1] == scores[places[-1]]:
                open_ended.append(place)
        pending, depth = open_ended, 4 * depth
    return found


def _among_candidates(
    snapshot: Snapshot, functions: Mapping[int, ScoringFunction], k: int, scope: Scope
) -> dict[int, Found]:
    """The best of a shortlist for each function, scored exactly."""
    found = {}
    shortlist = _shortlist_all if len(snapshot) <= SCAN_ROWS else _shortlist_by_vector
    for start in range(0, len(functions), TOGETHER):
        batch = dict(itertools.islice(functions.items(), start, start + TOGETHER))
        shortlists, plans = shortlist(snapshot, batch, k, scope)
        for place, ids in shortlists.items():
            found[place] = replace(score(snapshot, functions[place], ids, k), plans=plans)
    return found


def _shortlist_all(
    snapshot: Snapshot, functions: Mapping[int, ScoringFunction], k: int, scope: Scope
) -> tuple[dict[int, Ids], tuple[Plan, ...]]:
    """The best of all rows, by a scan whose float32 sums differ from exact ones in the last digits only; the plans."""
    vectors = [function.query_vectors for function in functions.values()]
    ids, products = snapshot.scan(np.concatenate(vectors), *scope.conditions)
    ends = np.cumsum([len(each) for each in vectors])
    shortlists = {}
    for (place, function), end, each in zip(functions.items(), ends, vectors, strict=True):
        seen = ~np.isin(ids, scope.hidden_from(place))
        shortlists[place] = _shortest(ids[seen], function.score(products[end - len(each) : end, seen]), k)
    return shortlists, (Plan.SCAN,)


def _shortlist_by_vector(
    snapshot: Snapshot, functions: Mapping[int, ScoringFunction], k: int, scope: Scope
) -> tuple[dict[int, Ids], tuple[Plan, ...]]:
    """The union of what each query vector of a function finds, and the plans."""
    vectors = [function.query_vectors for function in functions.values()]
    depth = min(max(DEPTH, 10 * k), len(snapshot))
    neighbours = snapshot.search(np.concatenate(vectors), depth, *scope.conditions)
    ends = np.cumsum([len(each) for each in vectors])
    shortlists = {}
    for place, end, each in zip(functions, ends, vectors, strict=True):
        ids = np.unique(neighbours.ids[end - len(each) : end])
        shortlists[place] = np.setdiff1d(ids, np.append(scope.hidden_from(place), NO_ID))
    return shortlists, neighbours.plans


def _shortest(ids: Ids, scores: Scores, k: int) -> Ids:
    """The k best ids, with a margin for rounding and ties."""
    return ids[top_k(scores, k + MARGIN)[: k + MOST_TIES]]


def margin(scores: Scores) -> float:
    """The difference between the best and the second of at least two scores, (n,) float32."""
    best = np.sort(scores)[::-1]
    return float(best[0] - best[1])
