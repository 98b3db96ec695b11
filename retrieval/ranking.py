"""From rules to ranked documents: which vectors a rule may choose from, and their exact scores.

A rule of one vector is one search of the index. Any other rule is scored on all rows, where those are few, or
else on the best of each of its probes; either way the leaders are then scored once more from the segments, so
that a document's score does not depend on how it was found.

Ties are settled by document id, which vectors do not know. So whatever ties with the last of k comes along,
up to `MOST_TIES`, and the caller cuts after it has fetched the ids.

What this module does not know: queries, methods, documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from indexer.types import Modality
from indexer.vectors.protocol import NO_ID, Ids, Plan
from retrieval.methods.base import Rule
from retrieval.methods.folding import Linear
from retrieval.scoring import Scores, leaders

if TYPE_CHECKING:
    from indexer.snapshot import Snapshot
    from indexer.vectors.centered import CentredSnapshot

    View: TypeAlias = Snapshot | CentredSnapshot

SCAN_ROWS = 100_000
"""Up to this many vectors a product looks at every row: the work of an exact search by two vectors."""
TOGETHER = 64  # queries; their scores of `SCAN_ROWS` take 50 MB
DEPTH = 1000
"""Above `SCAN_ROWS`: how many candidates each probe gives, at least."""
MARGIN = 50
MOST_TIES = 1000
ROUNDING = 1e-4
"""Float32 sums of a scan differ from exact scores by less."""


@dataclass(frozen=True)
class Found:
    """The leaders of one query.

    Attributes:
        ids: (m,) int64 vector ids, best first. The k best and what ties with the last of them.
        scores: (m,) float32.
        plan: How they were found, in the words of `Plan`.
    """

    ids: Ids
    scores: Scores
    plan: str = ""


@dataclass(frozen=True)
class Scope:
    """What the queries of a call may find.

    Attributes:
        where: A filter over fields, or None.
        exclude: Document ids that no query may find.
        modalities: What a document's vector may be made of; none for anything.
        hidden: For each query, the vector ids that it may not find; or nothing for all.
    """

    where: Mapping[str, Any] | None = None
    exclude: Sequence[str] = ()
    modalities: Sequence[Modality] = ()
    hidden: Sequence[Ids] = ()

    @property
    def conditions(self) -> tuple[Mapping[str, Any] | None, Sequence[str], Sequence[Modality]]:
        """What holds for all queries, as a snapshot takes it."""
        return self.where, self.exclude, self.modalities

    def hidden_from(self, place: int) -> Ids:
        """The vector ids that one query may not find."""
        return self.hidden[place] if self.hidden else np.empty(0, np.int64)


def find(snapshot: View, rules: Sequence[Rule], k: int, scope: Scope) -> list[Found]:
    """The leaders of each rule: the k best documents and those that tie with the last of them.

    Args:
        snapshot: What is searched; not empty.
        rules: One for each query.
        k: At least 1.
        scope: What may be found.
    """
    found: dict[int, Found] = {}
    single = [place for place, rule in enumerate(rules) if isinstance(rule, Linear)]
    if single:
        found |= _search(snapshot, {place: rules[place] for place in single}, k, scope)
    rest = [place for place in range(len(rules)) if place not in found]
    shortlist = _shortlist_all if len(snapshot) <= SCAN_ROWS else _shortlist_probes
    for start in range(0, len(rest), TOGETHER):
        batch = {place: rules[place] for place in rest[start : start + TOGETHER]}
        shortlists, plan = shortlist(snapshot, batch, k, scope)
        for place, ids in shortlists.items():
            found[place] = replace(score(snapshot, rules[place], ids, k), plan=plan)
    return [found[place] for place in range(len(rules))]


def score(snapshot: View, rule: Rule, ids: Ids, k: int | None = None) -> Found:
    """The leaders among given vectors, by their exact scores.

    Args:
        snapshot: Holds the vectors.
        rule: How they are scored.
        ids: (m,) int64.
        k: How many lead; None for all.
    """
    scores = rule.score(snapshot.scores(rule.probes, ids))
    places = leaders(scores, len(ids) if k is None else k)
    return Found(ids[places], scores[places])


def places(snapshot: View, rules: Sequence[Rule], wanted: Sequence[Ids], scope: Scope) -> list[tuple[int, ...]]:
    """Where given vectors stand among all, for each rule: ascending, 1 for the best; what ties goes before them.

    Args:
        snapshot: What is searched.
        rules: One for each query.
        wanted: For each rule, (m,) int64 vector ids, none of them hidden.
        scope: What may be found.
    """
    found = []
    for start in range(0, len(rules), TOGETHER):
        batch = rules[start : start + TOGETHER]
        probes = [rule.probes for rule in batch]
        ids, products = snapshot.scan(np.concatenate(probes), *scope.conditions)
        ends = np.cumsum([len(each) for each in probes])
        for place, (rule, end, each) in enumerate(zip(batch, ends, probes, strict=True), start):
            own = np.unique(wanted[place])
            others = ~np.isin(ids, np.append(scope.hidden_from(place), own))
            scores = rule.score(products[end - len(each) : end, others])
            found.append(_places(snapshot, rule, own, ids[others], scores))
    return found


def _places(snapshot: View, rule: Rule, wanted: Ids, others: Ids, scores: Scores) -> tuple[int, ...]:
    """The places of some vectors, from the inexact scores of all others: those that could tie are scored exactly."""
    exact = np.sort(rule.score(snapshot.scores(rule.probes, wanted)))
    bounds = np.concatenate([[-np.inf], exact, [np.inf]]).astype(np.float32)
    after = np.searchsorted(exact, scores) + 1
    near = np.minimum(scores - bounds[after - 1], bounds[after] - scores) < ROUNDING
    settled = scores.copy()
    settled[near] = rule.score(snapshot.scores(rule.probes, others[near]))
    before = len(settled) - np.searchsorted(np.sort(settled), exact[::-1], side="left")
    return tuple((before + np.arange(1, len(exact) + 1)).tolist())


def _search(snapshot: View, rules: Mapping[int, Rule], k: int, scope: Scope) -> dict[int, Found]:
    """One search for all rules of one vector, repeated deeper for those whose ties reach the end."""
    size, found = len(snapshot), {}
    depth = k + 1 + max(len(scope.hidden_from(place)) for place in rules)
    pending = list(rules)
    while pending:
        depth = min(depth, size)
        vectors = np.concatenate([rules[place].probes for place in pending])
        neighbours = snapshot.search(vectors, depth, *scope.conditions)
        open_ended = []
        for place, ids, scores in zip(pending, neighbours.ids, neighbours.scores, strict=True):
            seen = (ids != NO_ID) & ~np.isin(ids, scope.hidden_from(place))
            places = np.flatnonzero(seen)[leaders(scores[seen], k)]
            found[place] = Found(ids[places], scores[places], neighbours.plan)
            if depth < min(size, k + MOST_TIES) and ids[-1] != NO_ID and scores[-1] == scores[places[-1]]:
                open_ended.append(place)
        pending, depth = open_ended, 4 * depth
    return found


def _shortlist_all(snapshot: View, rules: Mapping[int, Rule], k: int, scope: Scope) -> tuple[dict[int, Ids], str]:
    """The best of all rows, by a scan whose float32 sums differ from exact ones in the last digits only; the plan."""
    probes = [rule.probes for rule in rules.values()]
    ids, products = snapshot.scan(np.concatenate(probes), *scope.conditions)
    ends = np.cumsum([len(each) for each in probes])
    shortlists = {}
    for (place, rule), end, each in zip(rules.items(), ends, probes, strict=True):
        seen = ~np.isin(ids, scope.hidden_from(place))
        shortlists[place] = _shortest(ids[seen], rule.score(products[end - len(each) : end, seen]), k)
    return shortlists, Plan.SCAN.value


def _shortlist_probes(snapshot: View, rules: Mapping[int, Rule], k: int, scope: Scope) -> tuple[dict[int, Ids], str]:
    """The union of what each probe of a rule finds, and the plan."""
    probes = [rule.probes for rule in rules.values()]
    depth = min(max(DEPTH, 10 * k), len(snapshot))
    neighbours = snapshot.search(np.concatenate(probes), depth, *scope.conditions)
    ends = np.cumsum([len(each) for each in probes])
    shortlists = {}
    for place, end, each in zip(rules, ends, probes, strict=True):
        ids = np.unique(neighbours.ids[end - len(each) : end])
        shortlists[place] = np.setdiff1d(ids, np.append(scope.hidden_from(place), NO_ID))
    return shortlists, neighbours.plan


def _shortest(ids: Ids, scores: Scores, k: int) -> Ids:
    """The k best ids, and a margin for rounding and for ties."""
    return ids[leaders(scores, k + MARGIN)[: k + MOST_TIES]]


def margin(scores: Scores) -> float:
    """What the best of at least two scores, (n,) float32, has over the second."""
    best = np.sort(scores)[::-1]
    return float(best[0] - best[1])
