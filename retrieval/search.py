"""The retriever: queries in, documents out.

    encode -> compose -> search -> documents

What this module does not know: models, SQL, files.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from indexer.errors import QueryError, SnapshotGoneError
from indexer.index.protocol import Ids
from retrieval.compose import Composed, Encoded, Merge, Method, Tuned, load_composer, load_weights
from retrieval.encode import add_drawings, encode_queries
from retrieval.fusion import Scores
from retrieval.hits import fetched, hits_of, settled
from retrieval.query import Query, Stored, Weights, needs_drawing
from retrieval.ranking import Found, Scope, find, places, score
from retrieval.results import Results
from retrieval.studio import Studio

if TYPE_CHECKING:
    from indexer.embed.protocol import Embedder
    from indexer.snapshot import Snapshot

STAGES = ("encode", "draw", "compose", "search", "documents")

Answer = TypeVar("Answer")


class Source(Protocol):
    """What a retriever searches: a `Collection`, or anything that looks like one."""

    @property
    def embedder(self) -> Embedder:
        """The model; loaded when first asked for."""
        ...

    def snapshot(self) -> Snapshot:
        """The newest generation."""
        ...


@dataclass(frozen=True)
class Ranking:
    """Document ids and scores of one query, best first; what a benchmark needs of a search."""

    ids: tuple[str, ...]
    scores: tuple[float, ...]


class Retriever:
    """Searches a collection by one method.

    Each call sees the newest generation of the collection, and one generation only.

    Args:
        source: A `Collection`.
        method: One of `Method`.
        weights: Over the method's tuned weights; a query's own go over both.
        merge: What `cig` makes of a drawing; one of `Merge`.
        studio: Makes words and drawings for `inversion` and `cig`; None for what comes with the model.
        gate: Draw only where the ranking without the drawing is in doubt: where the first two scores differ by less
            than this. None draws for every query.

    Raises:
        UnknownNameError: No such method.
        QueryError: A weight that the method does not read.
    """

    def __init__(
        self,
        source: Source,
        method: str | Method = Method.SUM,
        weights: Weights | None = None,
        *,
        merge: str | Merge = Merge.EMBED,
        studio: Studio | None = None,
        gate: float | None = None,
    ) -> None:
        self.method = Method(method)
        self._source = source
        self._composer = load_composer(self.method, merge)
        self._studio = studio or Studio()
        self._gate = gate
        self._weights = self._readable(weights or Weights())

    def search(
        self, query: Query, k: int = 10, where: Mapping[str, Any] | None = None, exclude: Sequence[str] = ()
    ) -> Results:
        """The k best documents; all that match where there are fewer. A batch of one; see `search_batch`."""
        return self.search_batch([query], k, where, exclude)[0]

    def search_batch(
        self,
        queries: Sequence[Query],
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        exclude: Sequence[str] = (),
    ) -> list[Results]:
        """The k best documents of each query.

        Args:
            queries: Any number. Their texts are embedded together, and so are their pictures.
            k: At least 1.
            where: A filter over fields.
            exclude: Document ids to leave out.

        Raises:
            QueryError: k is below 1, or a query cannot be asked.
            FilterError: `where` does not parse.
            CallError: The model has no encoder for a part, or a document that a query names does not exist.
        """
        _check_k(k)
        return self._on_snapshot(lambda snapshot: self._answer(snapshot, queries, k, where, exclude))

    def stream(
        self, query: Query, k: int = 10, where: Mapping[str, Any] | None = None, exclude: Sequence[str] = ()
    ) -> Iterator[Results]:
        """The answer in the time it takes: at once without a pseudo-target, and again when that is drawn.

        A method that draws nothing, and a query that needs no drawing, has one answer. Raises as `search_batch`.
        """
        _check_k(k)
        parts = self._composer.parts(query)
        if any(needs_drawing(part) for part in parts.values()):
            yield self._on_snapshot(lambda snapshot: self._answer(snapshot, [query], k, where, exclude, drawing=False))[
                0
            ]
        yield self.search(query, k, where, exclude)

    def encode(self, queries: Sequence[Query]) -> list[Encoded]:
        """The vectors of the queries' parts, drawings among them; weights play no role but at a gate.

        Raises as `search_batch`.
        """
        return self._on_snapshot(lambda snapshot: self._draw(snapshot, self._encode(snapshot, queries)))

    def rank(
        self,
        encoded: Sequence[Encoded],
        k: int,
        exclude: Sequence[Sequence[str]] | None = None,
        *,
        keep_references: bool = False,
        keep_ties: bool = False,
    ) -> list[Ranking]:
        """The k best document ids of each query, and no more than the ids.

        Args:
            encoded: What `encode` gave.
            k: At least 1.
            exclude: For each query, the document ids to leave out.
            keep_references: Let a query find its own `like`, which is left out otherwise.
            keep_ties: Give what ties with the last of the k too, up to 1,000 ids more.
        """

        def work(snapshot: Snapshot) -> list[Ranking]:
            if not len(snapshot):
                return [Ranking((), ())] * len(encoded)
            hidden = _hidden(snapshot, encoded, exclude, keep_references)
            rules = [each.rule for each in self._compose(snapshot, encoded)]
            return _rankings(snapshot, find(snapshot, rules, k, Scope(hidden=hidden)), None if keep_ties else k)

        return self._on_snapshot(work)

    def places(
        self,
        encoded: Sequence[Encoded],
        documents: Sequence[Sequence[str]],
        exclude: Sequence[Sequence[str]] | None = None,
        *,
        keep_references: bool = False,
    ) -> list[tuple[int, ...]]:
        """Where given documents stand in the ranking of all: ascending, 1 for the best.

        Whatever ties with one of them goes before it. Every document is scored; the ranking itself is not made.

        Args:
            encoded: What `encode` gave.
            documents: For each query, the ids to place.
            exclude: As for `rank`.
            keep_references: As for `rank`.

        Raises:
            CallError: A document does not exist.
        """

        def work(snapshot: Snapshot) -> list[tuple[int, ...]]:
            hidden = _hidden(snapshot, encoded, exclude, keep_references)
            rules = [each.rule for each in self._compose(snapshot, encoded)]
            return places(snapshot, rules, _vector_ids(snapshot, documents), Scope(hidden=hidden))

        return self._on_snapshot(work)

    def rank_among(self, encoded: Sequence[Encoded], documents: Sequence[Sequence[str]]) -> list[Ranking]:
        """Order given documents for each query: the whole of the list, nothing left out.

        Args:
            encoded: What `encode` gave.
            documents: For each query, the ids to order.

        Raises:
            CallError: A document does not exist.
        """

        def work(snapshot: Snapshot) -> list[Ranking]:
            ids = _vector_ids(snapshot, documents)
            composed = self._compose(snapshot, encoded)
            found = [score(snapshot, each.rule, own) for each, own in zip(composed, ids, strict=True)]
            return _rankings(snapshot, found, None)

        return self._on_snapshot(work)

    def require(self, documents: Iterable[str]) -> None:
        """See that documents are there.

        Raises:
            CallError: Some are not; it names them.
        """
        self._on_snapshot(lambda snapshot: snapshot.vector_ids(sorted(documents)))

    def weights(self) -> Tuned:
        """The weights of queries that bring none of their own, and where they come from."""
        tuned = self._on_snapshot(lambda snapshot: load_weights(snapshot.space.model, self._composer.tuned))
        given = self._weights.given()
        return Tuned(
            self._weights.over(tuned.weights), f"given: {given}; others: {tuned.source}" if given else tuned.source
        )

    def _answer(
        self,
        snapshot: Snapshot,
        queries: Sequence[Query],
        k: int,
        where: Mapping[str, Any] | None,
        exclude: Sequence[str],
        drawing: bool = True,
    ) -> list[Results]:
        took = dict.fromkeys(STAGES, 0.0)
        results = partial(
            Results,
            method=self.method.value,
            model=snapshot.space.model,
            generation=snapshot.generation,
            took_ms=took,
        )
        if not len(snapshot):
            return [results((), scale="no scores", notes=("The collection is empty.",))] * len(queries)
        if any(not isinstance(part, Stored) for query in queries for part in self._composer.parts(query).values()):
            _ = self._source.embedder  # loading the model is no part of a query's time
        with _timed(took, "encode"):
            encoded = self._encode(snapshot, queries)
        if drawing:
            with _timed(took, "draw"):
                encoded = self._draw(snapshot, encoded)
        with _timed(took, "compose"):
            composed = self._compose(snapshot, encoded)
        with _timed(took, "search"):
            scope = Scope(where, exclude, _references(encoded))
            found = find(snapshot, [each.rule for each in composed], k, scope)
        with _timed(took, "documents"):
            hits = hits_of(snapshot, composed, found, k)
        return [
            results(own, scale=each.rule.scale, pseudo_target=each.pseudo_target, notes=each.notes)
            for each, own in zip(composed, hits, strict=True)
        ]

    def _encode(self, snapshot: Snapshot, queries: Sequence[Query]) -> list[Encoded]:
        for query in queries:
            self._readable(query.weights or Weights())
        return encode_queries(queries, self._composer, lambda: self._source.embedder, snapshot, self._studio)

    def _draw(self, snapshot: Snapshot, encoded: Sequence[Encoded]) -> list[Encoded]:
        """Add the drawings that the method wants, to those in doubt alone where there is a gate."""
        answer = list(encoded)
        places = [
            place
            for place, each in enumerate(encoded)
            if any(needs_drawing(part) for part in self._composer.parts(each.query).values())
        ]
        if self._gate is not None and places:
            rules = [each.rule for each in self._compose(snapshot, [encoded[place] for place in places])]
            hidden = _references([encoded[place] for place in places])
            found = find(snapshot, rules, 2, Scope(hidden=hidden))
            certain = [len(each.scores) < 2 or _margin(each.scores) >= self._gate for each in found]
            for place in itertools.compress(places, certain):
                note = "The ranking is clear without a pseudo-target, so none was drawn."
                answer[place] = replace(answer[place], notes=(*answer[place].notes, note))
            places = list(itertools.compress(places, [not each for each in certain]))
        drawn = add_drawings(
            [encoded[place] for place in places],
            self._composer,
            lambda: self._source.embedder,
            snapshot,
            self._studio,
        )
        for place, each in zip(places, drawn, strict=True):
            answer[place] = each
        return answer

    def _compose(self, snapshot: Snapshot, encoded: Sequence[Encoded]) -> list[Composed]:
        weights = self._weights.over(load_weights(snapshot.space.model, self._composer.tuned).weights)
        return [
            self._composer.compose(each, (each.query.weights or Weights()).over(weights), snapshot.space)
            for each in encoded
        ]

    def _readable(self, weights: Weights) -> Weights:
        for name in weights.given():
            if name not in self._composer.reads:
                known = ", ".join(sorted(self._composer.reads))
                raise QueryError(f"The method {self.method} does not read the weight {name}.", f"It reads: {known}.")
        return weights

    def _on_snapshot(self, work: Callable[[Snapshot], Answer]) -> Answer:
        """Work on the newest generation; once more where that one is compacted away meanwhile."""
        try:
            with self._source.snapshot() as snapshot:
                return work(snapshot)
        except SnapshotGoneError:
            with self._source.snapshot() as snapshot:
                return work(snapshot)


def _check_k(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise QueryError(f"k is {k!r}; it must be a whole number of at least 1.")


def _margin(scores: Scores) -> float:
    """What the best score has over the second."""
    best = np.sort(scores)[::-1]
    return float(best[0] - best[1])


@contextmanager
def _timed(took: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    took[stage] = (time.perf_counter() - start) * 1000


def _vector_ids(snapshot: Snapshot, documents: Sequence[Sequence[str]]) -> list[Ids]:
    """The vector ids of lists of documents, looked up in one go."""
    names = list(dict.fromkeys(name for own in documents for name in own))
    ids = dict(zip(names, snapshot.vector_ids(names), strict=True)) if names else {}
    return [np.array([ids[name] for name in own], np.int64) for own in documents]


def _hidden(
    snapshot: Snapshot,
    encoded: Sequence[Encoded],
    exclude: Sequence[Sequence[str]] | None,
    keep_references: bool,
) -> list[Ids]:
    """For each query, the vectors that it may not find."""
    others = _vector_ids(snapshot, exclude or [()] * len(encoded))
    if keep_references:
        return others
    return [np.append(own, more) for own, more in zip(_references(encoded), others, strict=True)]


def _references(encoded: Sequence[Encoded]) -> list[Ids]:
    """For each query, the vector of its own stored reference, if it has one: (0,) or (1,) int64."""
    return [np.array([] if each.reference is None else [each.reference], np.int64) for each in encoded]


def _rankings(snapshot: Snapshot, found: Sequence[Found], k: int | None) -> list[Ranking]:
    documents = fetched(snapshot, found)
    chosen = [settled(each, documents, k) for each in found]
    return [
        Ranking(tuple(documents[number].id for number in each.ids.tolist()), tuple(each.scores.tolist()))
        for each in chosen
    ]
