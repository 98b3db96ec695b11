"""Tune an approximate index: queries of every kind, the recall of each, and the least effort that reaches the target.

An index that finds the neighbors of one kind of query may miss those of another: over emoji, an inverted file that
found 0.99 of the neighbors of held-out images found 0.60 for bare change sentences. So the kinds are

* *documents held out*: taken from the collection and added to the index only after tuning, so that it has never
  seen them; each modality separately, if modalities are given;
* *sums of two documents*, the hardest kind for a graph; the two themselves do not count as neighbors;
* the caller's samples: generic texts, names of documents and change sentences, as the model embeds them;
* *documents with texts*: sums of a stored document and a sampled text, like composed queries.

The recall of each kind is recorded, and the effort is the least at which the worst kind reaches the target. If a kind
would need so much effort that the index no longer pays, it is answered exactly. Its queries are recognized by their
distance from the documents: an index misses neighbors of queries whose best score is low (0.47 for change sentences,
0.91 for images). So tuning finds a best score above which the index alone reaches the target; a query below it is
searched again exactly.

Stored vectors would be too easy as queries: on clustered data, a graph with an efSearch of 10 that finds 99 % of their
neighbors finds 58 % of the neighbors of sums.

What this module does not know: any index but the exact one, models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.types import JsonValue, Vectors
from indexer.vectors.exact import ExactIndex
from indexer.vectors.protocol import NO_ID, Ids, Neighbors, Scores
from indexer.vectors.unit import unit_rows

QUERIES = 200
"""Queries of each kind."""
LEAST_SHARE = 20
"""At most every twentieth vector is held out: without many of its vectors, a small index would be a different one."""
K = 10
PARENTS = 2
DEPTH = K + PARENTS
"""Neighbors to search for: ten, plus the two that do not count."""
DOCUMENTS, SUMS, COMPOSED = "documents held out", "sums of two documents", "documents with texts"
MOSTLY = 0.5
"""If this share of the queries that the index could answer would be answered exactly too, more effort is better."""

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recall:
    """The recall@10 of one kind of query.

    Attributes:
        mean: The mean over the queries.
        low: The lower end of its 95 % confidence interval, which other queries can count on.
    """

    mean: float
    low: float

    def reaches(self, target: float) -> bool:
        """Whether the lower end reaches the target."""
        return self.low >= target or self.mean == 1


class TuningQueries:
    """Queries and their true neighbors.

    Args:
        exact: Holds the vectors; not empty.
        rng: Chooses them.
        samples: Query vectors of unit length, (n, dim) float32 each, by kind, such as `texts`.
        groups: Ids by modality; each modality is held out separately. None for all documents as one kind.

    Attributes:
        vectors: The queries, (n, dim) float32: the vectors held out, then the sums, then the samples.
        held_out: Ascending ids that the index must not hold yet during tuning.
        kinds: The rows of each kind's queries.
    """

    def __init__(
        self,
        exact: ExactIndex,
        rng: np.random.Generator,
        samples: Mapping[str, Vectors] | None = None,
        groups: Mapping[str, Ids] | None = None,
    ) -> None:
        ids = exact.all_ids()
        samples = {name: rows[:QUERIES] for name, rows in (samples or {}).items() if len(rows)}
        own = {DOCUMENTS: ids} if not groups else {f"{name} {DOCUMENTS}": each for name, each in groups.items()}
        out = {
            name: np.sort(rng.choice(each, min(QUERIES, len(each) // LEAST_SHARE), replace=False))
            for name, each in own.items()
        }
        self.held_out: Ids = np.sort(np.concatenate(list(out.values())))
        remaining = np.setdiff1d(ids, self.held_out, assume_unique=True)
        pairs = {name: np.stack([each] * PARENTS) for name, each in out.items()}
        # A held-out vector counts as the sum of itself with itself; the index holds neither.
        pairs[SUMS] = rng.choice(remaining, (PARENTS, QUERIES))
        vectors = [
            unit_rows(exact.vectors(each.ravel()).reshape(*each.shape, exact.dim).sum(axis=0))
            for each in pairs.values()
        ]
        parents = list(pairs.values())
        names = list(pairs)
        if samples:
            texts = np.concatenate(list(samples.values()))
            said = texts[rng.integers(0, len(texts), QUERIES)]
            shown = rng.choice(remaining, QUERIES)
            vectors.append(unit_rows(exact.vectors(shown) + said))
            parents.append(np.stack([shown] * PARENTS))
            names.append(COMPOSED)
        for name, rows in samples.items():
            vectors.append(unit_rows(rows))
            parents.append(np.full((PARENTS, len(rows)), NO_ID))
            names.append(name)
        ends = np.cumsum([0, *map(len, vectors)])
        self.kinds = {
            name: slice(int(start), int(stop))
            for name, start, stop in zip(names, ends, ends[1:], strict=False)
            if stop > start
        }
        self.vectors: Vectors = np.concatenate(vectors)
        self._parents = np.concatenate(parents, axis=1)
        truth = exact.search(self.vectors, DEPTH, remaining)
        counted = self._counted(truth.ids)
        counted &= np.cumsum(counted, axis=1) <= K
        self._wanted = counted.sum(axis=1)
        self._last: Scores = np.where(counted, truth.scores, np.float32(np.inf)).min(axis=1)

    def shares(self, found: Neighbors) -> Shares:
        """For each query, the share of its neighbors in an answer of `DEPTH` rows; NaN if it has none."""
        # By score, not by id: any of several equal vectors is right.
        right = (self._counted(found.ids) & (found.scores >= self._last[:, None])).sum(axis=1)
        asked = self._wanted > 0
        shares = np.full(len(right), np.nan)
        shares[asked] = np.minimum(right, self._wanted)[asked] / self._wanted[asked]
        return shares

    def recalls(self, shares: Shares) -> dict[str, Recall]:
        """By kind."""
        return {name: _recall(shares[part]) for name, part in self.kinds.items()}

    def recall(self, found: Neighbors) -> Recall:
        """The recall of the worst kind."""
        return min(self.recalls(self.shares(found)).values(), key=lambda recall: recall.low)

    def _counted(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return np.asarray((ids != NO_ID) & (ids != self._parents[0][:, None]) & (ids != self._parents[1][:, None]))


def _recall(shares: Shares) -> Recall:
    shares = shares[~np.isnan(shares)]
    if not len(shares):
        return Recall(1.0, 1.0)
    mean = float(shares.mean())
    return Recall(mean, mean - 1.96 * float(shares.std()) / math.sqrt(len(shares)))


@dataclass(frozen=True)
class _Tried:
    effort: int
    shares: Shares
    best: Scores
    reached: int


@dataclass(frozen=True)
class Tuned:
    """The outcome of tuning.

    Attributes:
        effort: nprobe or efSearch.
        sure_above: The best score below which a query of unit length is searched again exactly; None if
            the index answers all.
        kinds: For each kind of query its recall, the lower end of the interval, the number of queries, and the share
            that is answered exactly.
    """

    effort: int
    sure_above: float | None
    kinds: Mapping[str, Mapping[str, JsonValue]]

    def facts(self) -> dict[str, JsonValue]:
        """The entries for an index's metadata. `recall_at_10` is that of the worst kind."""
        worst = min(self.kinds.values(), key=lambda recalls: float(str(recalls["low"])))
        return {
            "recall_at_10": worst["recall"],
            "recall_at_10_low": worst["low"],
            "recall_by_kind": {name: dict(recalls) for name, recalls in self.kinds.items()},
            "sure_above": self.sure_above,
        }


def tune(
    ask: Callable[[int], Neighbors], queries: TuningQueries, target: float, least: int, most: int, worth: int
) -> Tuned:
    """The least effort at which every kind of query reliably reaches the target.

    Args:
        ask: Answers the queries, `DEPTH` neighbors each, with an effort.
        queries: The queries and their true neighbors.
        target: The recall to reach.
        least: The effort to start with.
        most: The largest effort.
        worth: The effort above which exact search is as fast.
    """
    effort, best_so_far = least, None
    while True:
        found = ask(effort)
        shares = queries.shares(found)
        recalls = queries.recalls(shares)
        reached = sum(each.reaches(target) for each in recalls.values())
        now = _Tried(effort, shares, found.scores[:, 0], reached)
        if reached == len(recalls):
            return _tuned(queries, now, None)
        if effort <= worth:
            best_so_far = now if best_so_far is None or reached > best_so_far.reached else best_so_far
        elif best_so_far is not None and best_so_far.reached:
            threshold = _sure_above(queries, best_so_far, target)
            if threshold is not None:
                return _tuned(queries, best_so_far, threshold)
            best_so_far = None  # so many queries would be answered exactly that more effort is better
        if effort == most:
            return _tuned(queries, now, None)
        effort = min(math.ceil(effort * 1.2), most)


def _sure_above(queries: TuningQueries, tried: _Tried, target: float) -> float | None:
    """The lowest best score from which the index alone reaches the target; None if most queries are below it."""
    recalls = queries.recalls(tried.shares)
    failed = np.concatenate([tried.best[queries.kinds[name]] for name in recalls if not recalls[name].reaches(target)])
    for threshold in np.unique(failed):
        sure = float(np.nextafter(threshold, np.float32(np.inf)))
        shares = np.where(tried.best < sure, np.where(np.isnan(tried.shares), np.nan, 1.0), tried.shares)
        if all(each.reaches(target) for each in queries.recalls(shares).values()):
            fine = [queries.kinds[name] for name in recalls if recalls[name].reaches(target)]
            exactly = float(np.mean([np.mean(tried.best[part] < sure) for part in fine]))
            return sure if exactly < MOSTLY else None
    return None


def _tuned(queries: TuningQueries, tried: _Tried, sure_above: float | None) -> Tuned:
    exactly = np.zeros(len(tried.best), np.bool_) if sure_above is None else tried.best < sure_above
    shares = np.where(exactly & ~np.isnan(tried.shares), 1.0, tried.shares)
    kinds: dict[str, dict[str, JsonValue]] = {}
    for name, recall in queries.recalls(shares).items():
        part = queries.kinds[name]
        kinds[name] = {
            "recall": round(recall.mean, 4),
            "low": round(recall.low, 4),
            "queries": part.stop - part.start,
            "exact": round(float(exactly[part].mean()), 4),
        }
    return Tuned(tried.effort, sure_above, kinds)
