"""Several answers to the same queries become one: merged, or without what must not be found.

What this module does not know: where answers come from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from indexer.vectors.protocol import NO_ID, Ids, Neighbours


def without(found: Neighbours, hidden: Ids, k: int) -> tuple[Neighbours, bool]:
    """The k best that are not hidden, and whether each query has all that it can have."""
    places = np.minimum(np.searchsorted(hidden, found.ids), len(hidden) - 1)
    kept = (hidden[places] != found.ids) & (found.ids != NO_ID)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    first = np.take_along_axis(kept, order, 1)
    ids = np.where(first, np.take_along_axis(found.ids, order, 1), NO_ID)
    scores = np.where(first, np.take_along_axis(found.scores, order, 1), np.float32(-np.inf))
    exhausted = found.ids[:, -1] == NO_ID
    return Neighbours(ids, scores, found.plan), bool((first.all(axis=1) | exhausted).all())


def merge(found: Sequence[Neighbours], k: int) -> Neighbours:
    """The k best of several answers to the same queries, ties by ascending id."""
    ids = np.concatenate([each.ids for each in found], axis=1)
    scores = np.concatenate([each.scores for each in found], axis=1)
    # Padding has score -inf and id -1: it must come after every id.
    keys = np.where(ids < 0, np.iinfo(np.int64).max, ids)
    order = np.lexsort((keys, -scores), axis=1)[:, :k]
    return Neighbours(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1), plans_of(found))


def plans_of(found: Sequence[Neighbours]) -> str:
    """How several answers were found, each way once."""
    return " and ".join(dict.fromkeys(plan for each in found for plan in each.plan.split(" and ")))
