"""The retriever: queries in, documents out.

    write -> encode -> draw -> compose -> search -> documents

What this module does not know: models, SQL, files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from indexer.arguments import finite, flag, names, one_each, require_kinds
from indexer.errors import QueryError, SnapshotGoneError
from indexer.types import Centre, Modality
from indexer.vectors.centered import CentredSnapshot, centred
from retrieval.asked import (
    all_encoded,
    checked_k,
    one_query,
    queries_of,
    require_collection,
    scope_of,
)
from retrieval.encode import Sentences, add_drawings, encode_queries, require_pictures, write_sentences
from retrieval.hydrate import Ranking, hidden_from, hits_of, rankings_of, references_of, vector_ids_of
from retrieval.methods import Composed, Encoded, Merge, Method, Tuned, load_composer, load_weights
from retrieval.modality_gap import centre_queries
from retrieval.providers.caption_rewrite import Scribe
from retrieval.providers.pseudo_target import Studio
from retrieval.query import Query, Stored, Weights, needs_drawing
from retrieval.ranking import Scope, find, margin, places, score
from retrieval.references import leave_out
from retrieval.results import Results
from retrieval.stages import STAGES, timed

if TYPE_CHECKING:
    from indexer.embed.base import Embedder
    from indexer.metadata.filters import Where
    from indexer.snapshot import Snapshot
    from retrieval.ranking import View

Answer = TypeVar("Answer")
Names: TypeAlias = Sequence[str]
Kinds: TypeAlias = Sequence[Modality | str]


class Source(Protocol):
    """What a retriever searches: a `Collection`, or anything that looks like one."""

    @property
    def embedder(self) -> Embedder:
        """The model; loaded when first asked for."""
        ...

    def snapshot(self) -> Snapshot:
        """The newest generation."""
        ...


class Retriever:
    """Searches a collection by one method.

    Each call sees the newest generation of the collection, and one generation only.

    Args:
        source: A `Collection`.
        method: One of `Method`.
        weights: Over the method's tuned weights; a query's own go over both.
        merge: What `cig` makes of a drawing; one of `Merge`.
        studio: Makes words and drawings for `inversion` and `cig`; None for what comes with the model.
        scribe: Writes the sentences of `caption`, which cannot do without.
        gate: Draw only where the ranking without the drawing is in doubt: where the first two scores differ by less
            than this. None draws for every query.
        centre: Whether texts, pictures and documents of both are compared without what sets their kinds apart; one of
            `Centre`. `auto` does so where a collection mixes them.

    Raises:
        UnknownNameError: No such method, merge or centring.
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
        scribe: Scribe | None = None,
        gate: float | None = None,
        centre: str | Centre = Centre.AUTO,
    ) -> None:
        require_collection(source)
        self.method = Method(method)
        self._source = source
        require_kinds(weights=(weights, Weights), studio=(studio, Studio), scribe=(scribe, Scribe))
        self._composer = load_composer(self.method, merge)
        self._studio = studio or Studio()
        self._scribe = scribe or Scribe()
        self._gate = None if gate is None else finite(gate, "gate", infinite=True)
        self._centre = Centre(centre)
        self._weights = self._readable(weights or Weights())

    def search(
        self, query: Query, k: int = 10, where: Where | None = None, exclude: Names = (), modalities: Kinds = (),
        *, keep_reference: bool = False,
    ) -> Results:  # fmt: skip
        """The k best documents; all that match where there are fewer. A batch of one; see `search_batch`."""
        query = one_query(query, "search")
        return self.search_batch([query], k, where, exclude, modalities, keep_reference=keep_reference)[0]

    def search_batch(
        self, queries: Sequence[Query], k: int = 10, where: Where | None = None, exclude: Names = (),
        modalities: Kinds = (), *, keep_reference: bool = False,
    ) -> list[Results]:  # fmt: skip
        """The k best documents of each query.

        Args:
            queries: Any number. Their texts are embedded together, and so are their pictures.
            k: At least 1.
            where: A filter over fields.
            exclude: Document ids to leave out.
            modalities: What found documents are embedded by, of `Modality`; none for anything.
            keep_reference: Let a query find its own reference: the document that `like` names, and, where the query
                says more than its image, documents with that very image. They are left out otherwise.

        Raises:
            QueryError: k is below 1, or a query cannot be asked.
            FilterError: `where` does not parse.
            CallError: The model has no encoder for a part, or a document that a query names does not exist.
        """
        k, asked = checked_k(k), queries_of(queries, "search_batch")
        flag(keep_reference, "keep_reference")
        scope = scope_of(where, exclude, modalities)
        return self._on_snapshot(lambda snapshot: self._answer(snapshot, asked, k, scope, keep_reference))

    def stream(
        self, query: Query, k: int = 10, where: Where | None = None, exclude: Names = (), modalities: Kinds = (),
        *, keep_reference: bool = False,
    ) -> Iterator[Results]:  # fmt: skip
        """The answer in the time it takes: at once without a pseudo-target, and again when that is drawn.

        A method that draws nothing, and a query that needs no drawing, has one answer. Raises as `search_batch`.
        """
        k, query = checked_k(k), one_query(query, "stream")
        flag(keep_reference, "keep_reference")
        parts = self._composer.parts(query)
        if any(needs_drawing(part) for part in parts.values()):
            scope = scope_of(where, exclude, modalities)
            yield self._on_snapshot(
                lambda snapshot: self._answer(snapshot, [query], k, scope, keep_reference, drawing=False)
            )[0]
        yield self.search(query, k, where, exclude, modalities, keep_reference=keep_reference)

    def encode(self, queries: Sequence[Query]) -> list[Encoded]:
        """The vectors of the queries' parts, drawings among them; weights play no role but at a gate.

        Raises as `search_batch`.
        """
        asked = queries_of(queries, "encode")

        def work(snapshot: Snapshot) -> list[Encoded]:
            return self._draw(snapshot, self._encode(snapshot, asked, self._write(snapshot, asked)), Scope())

        return self._on_snapshot(work)

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
        k, encoded = checked_k(k), all_encoded(encoded)
        flag(keep_references, "keep_references")
        flag(keep_ties, "keep_ties")

        def work(snapshot: View) -> list[Ranking]:
            if not len(snapshot):
                return [Ranking((), ())] * len(encoded)
            hidden = hidden_from(snapshot, encoded, exclude, keep_references)
            rules = [each.rule for each in self._compose(snapshot, encoded)]
            return rankings_of(snapshot, find(snapshot, rules, k, Scope(hidden=hidden)), None if keep_ties else k)

        return self._on_snapshot(lambda snapshot: work(centred(snapshot, self._centre)))

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
        encoded = all_encoded(encoded)
        documents = [names(each, "documents") for each in one_each(documents, "documents", len(encoded))]
        flag(keep_references, "keep_references")

        def work(snapshot: View) -> list[tuple[int, ...]]:
            hidden = hidden_from(snapshot, encoded, exclude, keep_references)
            rules = [each.rule for each in self._compose(snapshot, encoded)]
            return places(snapshot, rules, vector_ids_of(snapshot, documents), Scope(hidden=hidden))

        return self._on_snapshot(lambda snapshot: work(centred(snapshot, self._centre)))

    def rank_among(self, encoded: Sequence[Encoded], documents: Sequence[Sequence[str]]) -> list[Ranking]:
        """Order given documents for each query: the whole of the list, nothing left out.

        Args:
            encoded: What `encode` gave.
            documents: For each query, the ids to order.

        Raises:
            CallError: A document does not exist.
        """
        encoded = all_encoded(encoded)
        documents = [names(each, "documents") for each in one_each(documents, "documents", len(encoded))]

        def work(snapshot: View) -> list[Ranking]:
            ids = vector_ids_of(snapshot, documents)
            composed = self._compose(snapshot, encoded)
            found = [score(snapshot, each.rule, own) for each, own in zip(composed, ids, strict=True)]
            return rankings_of(snapshot, found, None)

        return self._on_snapshot(lambda snapshot: work(centred(snapshot, self._centre)))

    def require(self, documents: Iterable[str]) -> None:
        """See that documents are there.

        Raises:
            CallError: Some are not; it names them.
        """
        wanted = names(documents, "documents")
        self._on_snapshot(lambda snapshot: snapshot.vector_ids(sorted(wanted)))

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
        scope: Scope,
        keep_reference: bool,
        drawing: bool = True,
    ) -> list[Results]:
        took: dict[str, float] = {}
        results = partial(
            Results,
            method=self.method.value,
            model=snapshot.space.model,
            generation=snapshot.generation,
            took_ms=took,
        )
        if not len(snapshot):
            took.update(dict.fromkeys(STAGES, 0.0))
            return [results((), scale="no scores", notes=("The collection is empty.",))] * len(queries)
        # What costs nothing to find out is found out before a model is loaded.
        require_pictures(queries)
        if scope.where is not None:
            snapshot.require_filter(scope.where)
        if any(not isinstance(part, Stored) for query in queries for part in self._composer.parts(query).values()):
            _ = self._source.embedder  # loading the model is no part of a query's time
        with timed(took, "write"):
            sentences = self._write(snapshot, queries)
        if not any(sentences):
            took.clear()
        took.update(dict.fromkeys(STAGES, 0.0))
        with timed(took, "encode"):
            encoded = self._encode(snapshot, queries, sentences)
        left_out = leave_out(snapshot, encoded, keep_reference)
        scope = replace(scope, hidden=[each.ids for each in left_out])
        if drawing:
            with timed(took, "draw"):
                encoded = self._draw(snapshot, encoded, scope)
        with timed(took, "compose"):
            view = centred(snapshot, self._centre)
            composed = self._compose(view, encoded)
        with timed(took, "search"):
            found = find(view, [each.rule for each in composed], k, scope)
        with timed(took, "documents"):
            hits = hits_of(view, composed, found, k)
        remarks = ((view.remark,) if isinstance(view, CentredSnapshot) else ()) + snapshot.remarks
        if scope.where is not None:
            remarks += snapshot.filter_notes(scope.where)
        return [
            results(
                own,
                scale=each.rule.scale,
                pseudo_target=each.pseudo_target,
                written=asked.written,
                notes=each.notes + left.notes + remarks,
                plan=leaders.plan,
            )
            for asked, each, own, leaders, left in zip(encoded, composed, hits, found, left_out, strict=True)
        ]

    def _write(self, snapshot: Snapshot, queries: Sequence[Query]) -> list[Sentences]:
        for query in queries:
            self._readable(query.weights or Weights())
        return write_sentences(queries, self._composer, snapshot, self._scribe)

    def _encode(self, snapshot: Snapshot, queries: Sequence[Query], sentences: Sequence[Sentences]) -> list[Encoded]:
        return encode_queries(queries, self._composer, lambda: self._source.embedder, snapshot, self._studio, sentences)

    def _draw(self, snapshot: Snapshot, encoded: Sequence[Encoded], scope: Scope) -> list[Encoded]:
        """Add the drawings that the method wants, to those in doubt alone where there is a gate."""
        answer = list(encoded)
        places = [
            place
            for place, each in enumerate(encoded)
            if any(needs_drawing(part) for part in self._composer.parts(each.query).values())
        ]
        if self._gate is not None and places:
            view = centred(snapshot, self._centre)
            rules = [each.rule for each in self._compose(view, [encoded[place] for place in places])]
            hidden = scope.hidden or references_of(encoded)
            found = find(view, rules, 2, replace(scope, hidden=[hidden[place] for place in places]))
            certain = [len(each.scores) < 2 or margin(each.scores) >= self._gate for each in found]
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

    def _compose(self, view: View, encoded: Sequence[Encoded]) -> list[Composed]:
        weights = self._weights.over(load_weights(view.space.model, self._composer.tuned).weights)
        if isinstance(view, CentredSnapshot):
            encoded = centre_queries(encoded, self._composer, view)
        return [
            self._composer.compose(each, (each.query.weights or Weights()).over(weights), view.space)
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
