"""Measures of rankings, as the composed retrieval benchmarks use them, and their confidence intervals.

A ranking is a sequence of distinct ids, best first; relevance is a collection of ids. Every measure is of one query and
lies between 0 and 1; `mean` and `macro_mean` average over queries. Ties between scores are settled beforehand.

Beware of the word recall. The field's R@K (CIRR, FashionIQ, GeneCIS) asks whether *any* target is among the
first K: that is `hit_rate_at`. In information retrieval, recall is the *share* of relevant ids that are found:
that is `recall_at`. With one target per query, as in those benchmarks, the two are the same.

What this module does not know: files, benchmarks, how a ranking was made.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from indexer.errors import CallError

DRAWS_PER_BLOCK = 1 << 22


def hit_rate_at(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """1 if any relevant id is among the first k, else 0: R@K of composed retrieval, `success_k` of trec_eval.

    Raises:
        CallError: k below 1, nothing relevant, or an id ranked twice.
    """
    return float(any(_gains(ranked, relevant, k)))


def recall_at(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """|relevant among the first k| / |relevant|: `recall_k` of trec_eval.

    Raises:
        CallError: k below 1, nothing relevant, or an id ranked twice.
    """
    return sum(_gains(ranked, relevant, k)) / len(set(relevant))


def average_precision_at(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
    """The sum over ranks i <= k of P@i * rel(i), divided by min(|relevant|, k).

    P@i is the share of relevant ids among the first i. This is AP@K of CIRCO (Baldrati et al., ICCV 2023),
    whose mean is mAP@K. `map_cut_k` of trec_eval divides by |relevant| instead, so that a query with more
    than k targets could never reach 1.

    Raises:
        CallError: k below 1, nothing relevant, or an id ranked twice.
    """
    gains = np.array(_gains(ranked, relevant, k))
    precisions = np.cumsum(gains) / np.arange(1, len(gains) + 1)
    return float(precisions @ gains) / min(len(set(relevant)), k)


def ndcg_at(ranked: Sequence[Hashable], relevant: Collection[Hashable] | Mapping[Hashable, float], k: int) -> float:
    """DCG / ideal DCG, where DCG is the sum over ranks i <= k of gain(i) / log2(i + 1).

    Järvelin and Kekäläinen, TOIS 20(4), 2002, with the gain itself in the numerator, as in `ndcg_cut_k` of
    trec_eval; not 2^gain - 1, as in Burges et al., ICML 2005.

    Args:
        ranked: Ids, best first.
        relevant: Ids, each of gain 1, or a mapping from ids to positive gains.
        k: At least 1.

    Raises:
        CallError: k below 1, nothing relevant, a gain that is not positive, or an id ranked twice.
    """
    weights = relevant if isinstance(relevant, Mapping) else dict.fromkeys(relevant, 1.0)
    if any(gain <= 0 for gain in weights.values()):
        raise CallError("A gain is not positive.", "Leave ids that are not relevant out.")
    _gains(ranked, weights, k)
    ideal = _discounted(sorted(weights.values(), reverse=True)[:k])
    return _discounted([weights.get(item, 0.0) for item in ranked[:k]]) / ideal


def reciprocal_rank(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int | None = None) -> float:
    """1 / rank of the first relevant id, 0 if there is none among the first k: `recip_rank` of trec_eval.

    Raises:
        CallError: k below 1, nothing relevant, or an id ranked twice.
    """
    gains = _gains(ranked, relevant, max(len(ranked), 1) if k is None else k)
    return 1 / (gains.index(1.0) + 1) if 1.0 in gains else 0.0


def subset_recall_at(
    ranked: Sequence[Hashable], relevant: Collection[Hashable], subset: Collection[Hashable], k: int
) -> float:
    """`hit_rate_at` of the ranking restricted to a subset.

    The Recall_subset@K of CIRR (Liu et al., ICCV 2021), whose subset is the group of six similar images that
    a query was written for, less the reference image. Rank all of the subset: an id that the ranking leaves
    out counts as not found.

    Raises:
        CallError: k below 1, nothing relevant in the subset, or an id ranked twice.
    """
    inside = set(subset)
    chosen = [item for item in ranked if item in inside]
    return hit_rate_at(chosen, inside.intersection(relevant), k)


def average_precision_of(places: Sequence[int], relevant: int) -> float:
    """Average precision over a whole ranking, from the ranks of relevant ids: the sum of P@rank / |relevant|.

    Args:
        places: Ranks of the relevant ids that were ranked: ascending, 1 for the best.
        relevant: The number of relevant ids, ranked or not.

    Raises:
        CallError: The ranks do not ascend from 1, or there are more of them than relevant ids.
    """
    ranks = _checked_places(places, relevant)
    return float((np.arange(1, len(ranks) + 1) / ranks).sum()) / relevant


def trapezoidal_precision_of(places: Sequence[int], relevant: int) -> float:
    """The area under the precision-recall curve by trapezoids: between two relevant ids, P just before and P at.

    The landmark benchmarks (Philbin et al., CVPR 2007) and i-CIR (Psomas et al., NeurIPS 2025) call this average
    precision. It is never above `average_precision_of`, and equal to it if no irrelevant id precedes a relevant one.

    Args:
        places: As for `average_precision_of`.
        relevant: As for `average_precision_of`.

    Raises:
        CallError: As for `average_precision_of`.
    """
    ranks = _checked_places(places, relevant)
    before = np.arange(len(ranks))
    left = np.where(ranks == 1, 1.0, before / np.maximum(ranks - 1, 1))
    return float((left + (before + 1) / ranks).sum()) / 2 / relevant


def places_of(ranked: Sequence[Hashable], relevant: Collection[Hashable]) -> list[int]:
    """The ranks of the relevant ids: ascending, 1 for the best."""
    wanted = set(relevant)
    return [place for place, item in enumerate(ranked, 1) if item in wanted]


def against(ranked: Sequence[Hashable], scores: Sequence[float], relevant: Collection[Hashable]) -> list[int]:
    """An order, as positions in the ranking, in which irrelevant ids precede the relevant ones that they tie with.

    No measure then profits from the order in which equal scores happen to be listed, such as that of a gallery that
    begins with its target. The order of other ids does not change.

    Args:
        ranked: Ids, best first.
        scores: Their scores, not increasing.
        relevant: The relevant ids.

    Raises:
        CallError: There is not one score for each id, or scores increase.
    """
    if len(ranked) != len(scores) or any(a < b for a, b in pairwise(scores)):
        raise CallError(f"{len(ranked)} ids need as many scores, and scores must not increase.")
    wanted = set(relevant)
    return sorted(range(len(ranked)), key=lambda place: (-scores[place], ranked[place] in wanted))


def mean(values: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """The arithmetic mean over queries.

    Raises:
        CallError: There are no values.
    """
    if len(values) == 0:
        raise CallError("The mean of no values is not defined.")
    return float(np.mean(values))


def macro_mean(values_by_group: Mapping[str, Sequence[float] | npt.NDArray[np.float64]]) -> float:
    """The unweighted mean of the groups' means: FashionIQ's average over its categories.

    Raises:
        CallError: There are no groups, or a group has no values.
    """
    return mean([mean(values) for values in values_by_group.values()])


def bootstrap_interval(
    values: Sequence[float] | npt.NDArray[np.float64],
    groups: Sequence[Hashable] | None = None,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean.

    Queries are drawn with replacement, as many as there are, `samples` times; the interval holds the middle
    `level` of the means (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). With
    groups the statistic is the macro mean, and queries are drawn within their group, so that every sample has
    every group at its true size.

    Args:
        values: One measure of each query.
        groups: The group of each query, or None for the plain mean.
        samples: How many times to draw.
        level: Between 0 and 1.
        seed: Seed of the draws.

    Raises:
        CallError: There are no values or no samples, not one group for each value, or the level is not between 0 and 1.
    """
    observed = np.asarray(values, np.float64)
    if len(observed) == 0 or samples < 1 or not 0 < level < 1:
        raise CallError(f"No interval of {len(observed)} values from {samples} samples at the level {level}.")
    if groups is not None and len(groups) != len(observed):
        raise CallError(f"There are {len(observed)} values and {len(groups)} groups; each value needs one group.")
    members: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups if groups is not None else [None] * len(observed)):
        members.setdefault(group, []).append(place)
    rng = np.random.default_rng(seed)
    means = np.mean([_resampled(observed[places], samples, rng) for places in members.values()], axis=0)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(values: npt.NDArray[np.float64], samples: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """The means of `samples` draws, with replacement, of as many values as there are: (samples,)."""
    step = max(DRAWS_PER_BLOCK // len(values), 1)
    blocks = [min(step, samples - start) for start in range(0, samples, step)]
    return np.concatenate([values[rng.integers(0, len(values), (b, len(values)))].mean(axis=1) for b in blocks])


def _gains(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> list[float]:
    """1.0 for each of the first k that is relevant, else 0.0; arguments are checked."""
    if k < 1:
        raise CallError(f"k is {k}; it must be at least 1.")
    if len(relevant) == 0:
        raise CallError("Nothing is relevant; leave queries without a target out.")
    first = list(ranked[:k])
    if len(set(first)) < len(first):
        raise CallError("An id is ranked twice.", "Rank each id once, at its best place.")
    wanted = set(relevant)
    return [float(item in wanted) for item in first]


def _checked_places(places: Sequence[int], relevant: int) -> npt.NDArray[np.int64]:
    ranks = np.asarray(places, np.int64)
    if relevant < 1 or len(ranks) > relevant:
        raise CallError(f"{len(ranks)} ranks for {relevant} relevant ids: each has at most one rank.")
    if len(ranks) and (ranks[0] < 1 or (np.diff(ranks) < 1).any()):
        raise CallError("Ranks must ascend from 1 without repetition.")
    return ranks


def _discounted(gains: Sequence[float]) -> float:
    return float(np.asarray(gains) @ (1 / np.log2(np.arange(2, len(gains) + 2))))
