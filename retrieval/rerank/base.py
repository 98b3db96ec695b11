"""The protocol of re-rankers, their registry, and the reordering of hits by their scores.

What this module does not know: how the candidates were found, any model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from indexer.errors import CallError, PluginError, UnderdrawingError
from indexer.registry import Registry
from retrieval.query import Query
from retrieval.results import Hit
from retrieval.scoring import Scores, order


@runtime_checkable
class Reranker(Protocol):
    """Scores a query's candidates by reading query and document together."""

    def rerank(self, query: Query, candidates: Sequence[Hit], deadline: float | None) -> Scores:
        """The scores of the candidates, computed from the first to the last.

        Args:
            query: The query.
            candidates: m hits of the first stage, best first.
            deadline: The time by `time.monotonic()` at which to stop and return; None for no limit.

        Returns:
            (m,) float32, larger is better. A candidate that was not reached in time, or that cannot be judged, such
            as one whose image is gone, has NaN.
        """
        ...


class RerankerFamily(Protocol):
    """Loads the re-rankers of one name."""

    def __call__(self, rest: str, *, device: str) -> Reranker:
        """A re-ranker.

        Args:
            rest: The part of the name after the colon, such as a folder; empty without a colon.
            device: As `load_embedder` takes it.

        Raises:
            CallError: The rest does not parse.
            ModelError: The weights cannot be found, fetched or read.
            MissingExtraError: A package is missing.
        """
        ...


RERANKERS = Registry[RerankerFamily]("re-ranker", "underdrawing.rerankers", {})
"""Re-rankers by name. A package adds one by an entry point of the group `underdrawing.rerankers`."""


def load_reranker(name: str, *, device: str = "auto") -> Reranker:
    """The re-ranker of a name: `NAME`, or `NAME:REST` if it needs more, such as a folder.

    Raises:
        UnknownNameError: There is none of that name; the message lists the known ones.
        PluginError: The package that offers it cannot be imported, or returns something else.
        CallError: The rest of the name does not parse.
        ModelError: Its weights cannot be found, fetched or read.
        MissingExtraError: It needs a package that is not installed.
    """
    family, _, rest = name.partition(":")
    load = RERANKERS.get(family)
    try:
        made = load(rest, device=device)
    except UnderdrawingError:
        raise
    except Exception as error:  # another package's code, which may raise anything
        raise RERANKERS.failure(family, load, error) or error from error
    if not isinstance(made, Reranker):
        raise PluginError(f"The re-ranker {name!r} is of type {type(made).__name__}, which has no method `rerank`.")
    return made


def reranked(hits: Sequence[Hit], scores: Scores) -> tuple[Hit, ...]:
    """The hits in the order of their new scores, ties by id, with new ranks.

    Hits whose score is NaN come last, in the order and with the scores they had.

    Args:
        hits: m hits, best first.
        scores: (m,), larger is better.

    Raises:
        CallError: The number of scores is not that of the hits.
    """
    if np.shape(scores) != (len(hits),):
        raise CallError(f"The re-ranker gave scores of the shape {np.shape(scores)} for {len(hits)} candidates.")
    judged = np.flatnonzero(~np.isnan(scores))
    best = judged[order(scores[judged], [hits[place].id for place in judged.tolist()])]
    ordered = [replace(hits[place], score=float(scores[place])) for place in best.tolist()]
    ordered += [hits[place] for place in np.flatnonzero(np.isnan(scores)).tolist()]
    return tuple(replace(hit, rank=rank) for rank, hit in enumerate(ordered, 1))
