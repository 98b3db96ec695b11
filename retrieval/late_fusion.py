"""Late fusion: several retrievers answer one query, and their rankings are fused into one.

The retrievers search one collection and may differ in space, method or re-ranker. There are two ways to fuse:

* `ranks`: reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009): the sum of weight / (60 + rank).
* `scores`: the weighted sum of standardized scores. Each ranking's scores lose their mean and are divided by their
  standard deviation. A document that a ranking lacks gets that ranking's last score.

Each ranking is as exact as the search in its space. Only the first `depth` hits of each ranking are fused.

What this module does not know: methods, spaces, how a retriever finds anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from indexer.arguments import described, finite, whole_number
from indexer.errors import CallError
from indexer.types import Modality
from retrieval.query import Query
from retrieval.request import Fusion
from retrieval.results import Hit, Results
from retrieval.retriever import Retriever
from retrieval.scoring import order

if TYPE_CHECKING:
    from indexer.metadata.filters import Where

CONSTANT = 60
"""The constant of reciprocal rank fusion, as published; the larger, the less the first ranks stand out."""
DEPTH = 100


class LateFusion:
    """Searches by several retrievers, and fuses their rankings.

    Args:
        retrievers: Retrievers by names of your own, which are shown in a hit's `branches`.
        weights: Weights of the rankings by the same names; 1 where none is given.
        fusion: One of `Fusion`.
        depth: How many hits of each ranking are fused; k if that is more.

    Raises:
        CallError: There are fewer than two retrievers, or a weight belongs to none.
        UnknownNameError: No such fusion.
    """

    def __init__(
        self,
        retrievers: Mapping[str, Retriever],
        weights: Mapping[str, float] | None = None,
        *,
        fusion: str | Fusion = Fusion.RANKS,
        depth: int = DEPTH,
    ) -> None:
        if not isinstance(retrievers, Mapping) or len(retrievers) < 2:
            raise CallError(f"LateFusion takes two retrievers or more by name, not {described(retrievers)}.")
        if stray := sorted(set(weights or ()) - retrievers.keys()):
            raise CallError(f"The weight {stray[0]!r} belongs to no retriever; there are {', '.join(retrievers)}.")
        self._retrievers = dict(retrievers)
        self._weights = {name: finite((weights or {}).get(name, 1.0), f"weights[{name!r}]") for name in retrievers}
        self._fusion = Fusion(fusion)
        self._depth = whole_number(depth, "depth", 1)

    def search(
        self, query: Query, k: int = 10, where: Where | None = None, exclude: Sequence[str] = (),
        modalities: Iterable[Modality | str] = (), *, keep_reference: bool = False,
    ) -> Results:  # fmt: skip
        """The k best documents of the fused ranking. A batch of one; see `search_batch`."""
        return self.search_batch([query], k, where, exclude, modalities, keep_reference=keep_reference)[0]

    def search_batch(
        self, queries: Sequence[Query], k: int = 10, where: Where | None = None, exclude: Sequence[str] = (),
        modalities: Iterable[Modality | str] = (), *, keep_reference: bool = False,
    ) -> list[Results]:  # fmt: skip
        """The k best documents of each query's fused ranking; arguments and errors are those of a retriever.

        A hit's `branches` have its score in each ranking that found it, by the retriever's name. If a commit came
        between two rankings, `generation` is that of the newer one.
        """
        depth = max(k, self._depth) if isinstance(k, int) else k
        found = {
            name: each.search_batch(queries, depth, where, exclude, tuple(modalities), keep_reference=keep_reference)
            for name, each in self._retrievers.items()
        }
        return [self._fused({name: own[place] for name, own in found.items()}, k) for place in range(len(queries))]

    def stream(
        self, query: Query, k: int = 10, where: Where | None = None, exclude: Sequence[str] = (),
        modalities: Iterable[Modality | str] = (), *, keep_reference: bool = False,
    ) -> Iterator[Results]:  # fmt: skip
        """The fused answer in the time it takes: again when a retriever has a better one; see `Retriever.stream`."""
        depth, kinds = max(k, self._depth) if isinstance(k, int) else k, tuple(modalities)
        streams = {
            name: each.stream(query, depth, where, exclude, kinds, keep_reference=keep_reference)
            for name, each in self._retrievers.items()
        }
        found: dict[str, Results] = {}
        while better := {name: own for name, each in streams.items() if (own := next(each, None)) is not None}:
            found |= better
            yield self._fused(found, k)

    def _fused(self, rankings: Mapping[str, Results], k: int) -> Results:
        documents: dict[str, Hit] = {}
        totals: dict[str, float] = {}
        for ranking in rankings.values():
            for hit in ranking:
                documents.setdefault(hit.id, hit)
        totals = dict.fromkeys(documents, 0.0)
        for name, ranking in rankings.items():
            own, absent = self._values(ranking)
            for document in documents:
                totals[document] += self._weights[name] * own.get(document, absent)
        branches: dict[str, dict[str, float]] = {document: {} for document in documents}
        for name, ranking in rankings.items():
            for hit in ranking:
                branches[hit.id][name] = hit.score
        names = list(documents)
        scores = np.array([totals[name] for name in names], np.float32)
        best = [names[place] for place in order(scores, names)[:k]] if names else []
        hits = tuple(
            replace(documents[name], rank=rank, score=float(np.float32(totals[name])), branches=branches[name])
            for rank, name in enumerate(best, 1)
        )
        return _joined(rankings, hits, self._fusion)

    def _values(self, ranking: Results) -> tuple[dict[str, float], float]:
        """What each document of a ranking contributes, and what any other document does."""
        if self._fusion is Fusion.RANKS:
            return {hit.id: 1 / (CONSTANT + hit.rank) for hit in ranking}, 0.0
        scores = np.array([hit.score for hit in ranking], np.float64)
        spread = float(scores.std()) if len(scores) else 0.0
        standard = (scores - scores.mean()) / spread if spread > 0 else np.zeros(len(scores))
        values = dict(zip((hit.id for hit in ranking), standard.tolist(), strict=True))
        return values, float(standard.min(initial=0.0))


def _joined(rankings: Mapping[str, Results], hits: tuple[Hit, ...], fusion: Fusion) -> Results:
    own = list(rankings.values())
    took: dict[str, float] = {}
    for ranking in own:
        for stage, milliseconds in ranking.took_ms.items():
            took[stage] = took.get(stage, 0.0) + milliseconds
    scale = "sum of reciprocal ranks" if fusion is Fusion.RANKS else "sum of standardized scores"
    return Results(
        hits,
        method="late-fusion",
        model=" and ".join(dict.fromkeys(ranking.model for ranking in own)),
        generation=max(ranking.generation for ranking in own),
        scale=f"{scale} of {', '.join(rankings)}; comparable within one query only",
        artifacts={name: each for ranking in own for name, each in ranking.artifacts.items()},
        took_ms=took,
        notes=_notes(rankings),
        plan=" and ".join(dict.fromkeys(ranking.plan for ranking in own)),
    )


def _notes(rankings: Mapping[str, Results]) -> tuple[str, ...]:
    """What all rankings say, once, and what some say, with their names before it."""
    told = dict.fromkeys(note for ranking in rankings.values() for note in ranking.notes)
    by = {note: [name for name, ranking in rankings.items() if note in ranking.notes] for note in told}
    return tuple(note if len(by[note]) == len(rankings) else f"{', '.join(by[note])}: {note}" for note in told)
