"""The re-ranking step after a method: the first hits are scored again by a slower, better model.

It never makes a query fail: if a re-ranker is missing, fails or runs out of time, hits stay as the method ranked them,
and a note says so.

What this module does not know: any re-ranker, how the hits were found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from indexer.arguments import described, finite, whole_number
from indexer.embed.loading import loading
from indexer.errors import CallError, UnderdrawingError, UnknownNameError
from retrieval.query import Query
from retrieval.rerank.base import RERANKERS, Reranker, load_reranker, reranked
from retrieval.results import Hit

DEPTH = 50
"""How many candidates are scored by default."""


@dataclass
class RerankStep:
    """The step of one retriever.

    Attributes:
        reranker: A re-ranker, or the name of one, which is loaded on first use.
        depth: How many candidates are scored; k if that is more.
        deadline_ms: The time limit for a query; None for none.
    """

    reranker: str | Reranker
    depth: int = DEPTH
    deadline_ms: float | None = None

    def __post_init__(self) -> None:
        whole_number(self.depth, "rerank_depth", 1)
        if self.deadline_ms is not None and finite(self.deadline_ms, "rerank_deadline_ms", infinite=True) < 0:
            raise CallError(f"rerank_deadline_ms is {self.deadline_ms}; it must not be negative.")
        if isinstance(self.reranker, str):
            family = self.reranker.partition(":")[0]
            if family not in RERANKERS:
                raise UnknownNameError(RERANKERS.kind, family, RERANKERS.names())
        elif not isinstance(self.reranker, Reranker):
            raise CallError(f"rerank is {described(self.reranker)}, which has no method `rerank`.")

    def apply(
        self, queries: Sequence[Query], hits: Sequence[Sequence[Hit]], k: int, method: str, scales: Sequence[str]
    ) -> tuple[list[tuple[Hit, ...]], list[str], list[tuple[str, ...]]]:
        """For each query the k best hits, what their scores mean, and notes.

        Args:
            queries: The queries.
            hits: The candidates of each, best first.
            k: How many to return.
            method: The method's name, under which a hit's `branches` have its score.
            scales: What the scores of the method mean.
        """
        found = [self._one(query, own, k, method) for query, own in zip(queries, hits, strict=True)]
        new = f"score of the re-ranker {self._name}; the score of {method} is in `branches`"
        return (
            [own for own, _, _ in found],
            [new if judged else scale for (_, judged, _), scale in zip(found, scales, strict=True)],
            [notes for _, _, notes in found],
        )

    def _one(
        self, query: Query, candidates: Sequence[Hit], k: int, method: str
    ) -> tuple[tuple[Hit, ...], bool, tuple[str, ...]]:
        """The k best hits, whether they were judged, and notes."""
        reranker: Reranker | None = None
        try:
            reranker = self._load()
            deadline = None if self.deadline_ms is None else time.monotonic() + self.deadline_ms / 1000
            scores = np.asarray(reranker.rerank(query, candidates, deadline), np.float32)
            beside = [replace(hit, branches={**hit.branches, method: hit.score}) for hit in candidates]
            hits = reranked(beside, scores)
        except UnderdrawingError as error:
            return tuple(candidates[:k]), False, (f"Not re-ranked: {error}",)
        except Exception as error:  # another package's code, which may raise anything
            failed = None if reranker is None else RERANKERS.failure(self._name, reranker, error)
            if failed is None:
                raise
            return tuple(candidates[:k]), False, (f"Not re-ranked: {failed}",)
        left = int(np.isnan(scores).sum())
        if not left:
            return hits[:k], True, ()
        note = f"The re-ranker {self._name} did not judge {left:,} of {len(candidates):,} candidates; they come last."
        return hits[:k], left < len(candidates), (note,)

    @property
    def _name(self) -> str:
        return self.reranker if isinstance(self.reranker, str) else type(self.reranker).__name__

    def _load(self) -> Reranker:
        if not isinstance(self.reranker, str):
            return self.reranker
        with loading():  # concurrent threads get one
            if isinstance(self.reranker, str):
                self.reranker = load_reranker(self.reranker)
            return self.reranker
