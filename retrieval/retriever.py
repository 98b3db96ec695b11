"""The retriever: queries in, documents out.

    resolve -> refine -> compose -> search -> documents

What this module does not know: methods, models, SQL, files.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from indexer.arguments import finite, flag, require_kinds
from indexer.deprecation import renamed_arguments
from indexer.errors import CallError, QueryError, SnapshotGoneError, UnderdrawingError
from indexer.types import Center, Modality
from retrieval.arguments import Source, checked_k, queries_of, require_query, scope_of, source_of
from retrieval.documents import hits_of, leave_out, references_of
from retrieval.methods import METHODS, Composed, Merge, Method, Refining, Resolved, Tuned, load_method, load_weights
from retrieval.methods.base import without_gap
from retrieval.methods.context import Context, require_images
from retrieval.providers.caption_rewrite import CaptionRewriter
from retrieval.providers.pseudo_target import PseudoTargetProvider
from retrieval.query import Query, Weights
from retrieval.ranking import Scope, find, margin
from retrieval.rankings import Rankings
from retrieval.rerank import Reranker
from retrieval.rerank.step import DEPTH, RerankStep
from retrieval.results import Results

if TYPE_CHECKING:
    from indexer.metadata.filters import Where
    from indexer.snapshot import Snapshot

Answer = TypeVar("Answer")
Names: TypeAlias = Sequence[str]
Kinds: TypeAlias = Sequence[Modality | str]
STAGES = ("encode", "draw", "compose", "search", "documents")
"""The stages in `Results.took_ms`; a method that has captions rewritten adds `write` before them."""
RENAMED = {"studio": "pseudo_targets", "scribe": "captions", "centre": "center"}
"""Arguments of `Retriever`: old names and new."""


class Retriever(Rankings):
    """Searches a collection by one method.

    Each call sees the newest generation of the collection, and one generation only.

    Args:
        source: A `Collection`.
        method: A name of `METHODS` (`retrieval/methods`), such as one of `Method`.
        weights: Weights that override the method's tuned ones; a query's own override both.
        merge: `cig` with a merge is the method `cig-MERGE`; other methods do not read it.
        pseudo_targets: Makes pseudo-words and pseudo-targets; None for the models that come with the embedder.
        captions: Captions references and rewrites captions; the method `caption` needs it.
        gate: Refine (for `cig`: generate a pseudo-target) only if the ranking without it is in doubt, that is, if
            the two best scores differ by less than this. None refines every query.
        center: Whether the modality gap is corrected, so that texts, images and documents of both compete fairly; one
            of `Center`. `auto` corrects it if a collection mixes them.
        rerank: A re-ranker or its name (`retrieval/rerank`), which scores the first hits again and reorders them.
        rerank_depth: How many hits it scores, at least k.
        rerank_deadline_ms: The time limit for re-ranking a query; hits that were not reached in time come last.
        space: The embedding space to search, by its model; None for the default one.
        renamed: Arguments by their old names, which warn with a `DeprecationWarning`; see `RENAMED`.

    Raises:
        UnknownNameError: There is no such method, merge, correction or re-ranker.
        PluginError: The package that offers the method cannot be used.
        QueryError: A weight that the method does not read.
    """

    def __init__(
        self,
        source: Source,
        method: str | Method = Method.SUM,
        weights: Weights | None = None,
        *,
        merge: str | Merge | None = None,
        pseudo_targets: PseudoTargetProvider | None = None,
        captions: CaptionRewriter | None = None,
        gate: float | None = None,
        center: str | Center | None = None,
        rerank: str | Reranker | None = None,
        rerank_depth: int = DEPTH,
        rerank_deadline_ms: float | None = None,
        space: str | None = None,
        **renamed: Any,
    ) -> None:
        self._source = source_of(source, space)
        given: dict[str, Any] = {"pseudo_targets": pseudo_targets, "captions": captions, "center": center}
        settled = renamed_arguments("Retriever", renamed, RENAMED, given) if renamed else given
        pseudo_targets, captions, center = settled["pseudo_targets"], settled["captions"], settled["center"]
        require_kinds(
            weights=(weights, Weights),
            pseudo_targets=(pseudo_targets, PseudoTargetProvider),
            captions=(captions, CaptionRewriter),
        )
        self._method = load_method(method, merge)
        self.method = str(method)
        self._refining = self._method if isinstance(self._method, Refining) else None
        self._pseudo_targets = pseudo_targets or PseudoTargetProvider()
        self._captions = captions or CaptionRewriter()
        self._gate = None if gate is None else finite(gate, "gate", infinite=True)
        self._center = Center(Center.AUTO if center is None else center)
        self._rerank = None if rerank is None else RerankStep(rerank, rerank_depth, rerank_deadline_ms)
        self._weights = self._readable(weights or Weights())
        self._settled: tuple[str, dict[str, float]] = "", {}

    def search(
        self, query: Query, k: int = 10, where: Where | None = None, exclude: Names = (), modalities: Kinds = (),
        *, keep_reference: bool = False,
    ) -> Results:  # fmt: skip
        """The k best documents, or all that match if they are fewer. A batch of one; see `search_batch`."""
        if not isinstance(query, Query):
            require_query(query, "search")
        return self.search_batch([query], k, where, exclude, modalities, keep_reference=keep_reference)[0]

    def search_batch(
        self, queries: Sequence[Query], k: int = 10, where: Where | None = None, exclude: Names = (),
        modalities: Kinds = (), *, keep_reference: bool = False,
    ) -> list[Results]:  # fmt: skip
        """The k best documents of each query.

        Args:
            queries: Any number. Their texts are embedded together, and so are their images.
            k: At least 1.
            where: A filter over fields.
            exclude: Document ids to leave out.
            modalities: Only documents whose vectors are made of these, of `Modality`; empty for any.
            keep_reference: Let a query find its own reference: the document that `like` names, and, where the query
                says more than its image, documents with that very image. They are left out otherwise.

        Raises:
            QueryError: k is below 1, or a query cannot be asked.
            FilterError: `where` does not parse.
            CallError: The model has no encoder for a part, or a document that a query names does not exist.
        """
        asked, k, scope = _checked(queries, k, where, exclude, modalities, keep_reference, "search_batch")
        return self._on_snapshot(lambda snapshot: self._answer(snapshot, asked, k, scope, keep_reference))

    def stream(
        self, query: Query, k: int = 10, where: Where | None = None, exclude: Names = (), modalities: Kinds = (),
        *, keep_reference: bool = False,
    ) -> Iterator[Results]:  # fmt: skip
        """The answer at once without a pseudo-target, and again when that is ready.

        There is only one answer if the method or the query has nothing to refine. Raises as `search_batch`.
        """
        require_query(query, "stream")
        asked, k, scope = _checked([query], k, where, exclude, modalities, keep_reference, "stream")
        if self._on_snapshot(lambda _: self._in_two_steps(query)):
            yield self._on_snapshot(
                lambda snapshot: self._answer(snapshot, asked, k, scope, keep_reference, refine=False)
            )[0]
        yield self.search(query, k, where, exclude, modalities, keep_reference=keep_reference)

    def _in_two_steps(self, query: Query) -> bool:
        self._method.branches(query)
        return self._refining is not None and self._refining.refines(query)

    def encode(self, queries: Sequence[Query]) -> list[Resolved]:
        """The vectors of the queries' branches, including pseudo-targets; weights matter only for a gate.

        Raises as `search_batch`.
        """
        asked = queries_of(queries, "encode")

        def work(snapshot: Snapshot) -> list[Resolved]:
            context = self._context(snapshot)
            return self._refine(context, self._resolve(context, asked), Scope())

        return self._on_snapshot(work)

    def weights(self) -> Tuned:
        """The weights of queries that have none of their own, and where they come from."""
        tuned = self._on_snapshot(lambda snapshot: self._tuned(snapshot))
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
        refine: bool = True,
    ) -> list[Results]:
        took: dict[str, float] = {}
        results = partial(
            Results, method=self.method, model=snapshot.space.model, generation=snapshot.generation, took_ms=took
        )
        if not len(snapshot):
            took.update(dict.fromkeys(STAGES, 0.0))
            return [results((), scale="no scores", notes=("The collection is empty.",))] * len(queries)
        # Cheap checks come before a model is loaded.
        require_images(queries)
        if scope.where is not None:
            snapshot.require_filter(scope.where)
        branches = [self._method.branches(query) for query in queries]
        if any(query.like is None or own.keys() != {"image"} for query, own in zip(queries, branches, strict=True)):
            _ = self._source.embedder  # loading the model does not count as a query's time
        context = self._context(snapshot)
        with timed(took, "encode"):
            resolved = self._resolve(context, queries)
        took["encode"] -= sum(context.took.values())
        took.update(context.took | dict.fromkeys(STAGES, 0.0) | {"encode": took.pop("encode")})
        left_out = leave_out(snapshot, resolved, keep_reference)
        scope = replace(scope, hidden=[each.ids for each in left_out])
        if refine:
            with timed(took, "draw"):
                resolved = self._refine(context, resolved, scope)
        with timed(took, "compose"):
            view = snapshot.centered(self._center)
            composed = self._compose(view, resolved)
        with timed(took, "search"):
            depth = k if self._rerank is None else max(k, self._rerank.depth)
            found = find(view, [each.scoring for each in composed], depth, scope)
        with timed(took, "documents"):
            hits = hits_of(view, composed, found, depth)
        notes = view.notes
        if scope.where is not None:
            notes += snapshot.filter_notes(scope.where)
        scales = [each.scoring.scale for each in composed]
        warned: list[tuple[str, ...]] = [()] * len(queries)
        if self._rerank is not None:
            with timed(took, "rerank"):
                hits, scales, warned = self._rerank.apply(queries, hits, k, self.method, scales)
        return [
            results(
                own,
                scale=scale,
                artifacts=asked.artifacts,
                notes=each.notes + left.notes + notes + more,
                plan=" and ".join(top.plans),
            )
            for asked, each, own, top, left, scale, more in zip(
                resolved, composed, hits, found, left_out, scales, warned, strict=True
            )
        ]

    def _context(self, snapshot: Snapshot) -> Context:
        return Context(snapshot, self._source, self._pseudo_targets, self._captions)

    def _resolve(self, context: Context, queries: Sequence[Query]) -> list[Resolved]:
        for query in queries:
            if query.weights is not None:
                self._readable(query.weights)
        return self._method.resolve(context, queries)

    def _refine(self, context: Context, resolved: Sequence[Resolved], scope: Scope) -> list[Resolved]:
        """The queries with the results of the slow step; with a gate, only those in doubt are refined."""
        answer = list(resolved)
        if self._refining is None:
            return answer
        chosen = [place for place, each in enumerate(resolved) if self._refining.refines(each.query)]
        if self._gate is not None and chosen:
            view = context.snapshot.centered(self._center)
            functions = [each.scoring for each in self._compose(view, [resolved[place] for place in chosen])]
            hidden = scope.hidden or references_of(resolved)
            found = find(view, functions, 2, replace(scope, hidden=[hidden[place] for place in chosen]))
            certain = [len(each.scores) < 2 or margin(each.scores) >= self._gate for each in found]
            for place in itertools.compress(chosen, certain):
                note = "The ranking is clear without a pseudo-target, so none was generated."
                answer[place] = replace(answer[place], notes=(*answer[place].notes, note))
            chosen = list(itertools.compress(chosen, [not each for each in certain]))
        refined = self._refining.refine(context, [answer[place] for place in chosen])
        for place, each in zip(chosen, refined, strict=True):
            answer[place] = each
        return answer

    def _compose(self, view: Snapshot, resolved: Sequence[Resolved]) -> list[Composed]:
        weights = self._weights_for(view)
        if view.center is not Center.OFF:
            resolved = without_gap(resolved, self._method, view.vectors, view.plain.space)
        return [
            self._method.compose(
                each,
                weights if each.query.weights is None else weights | each.query.weights.given(),
                view.space,
            )
            for each in resolved
        ]

    def _tuned(self, view: Snapshot) -> Tuned:
        return load_weights(view.space.model, self._method.tuned, self._method.defaults)

    def _weights_for(self, view: Snapshot) -> dict[str, float]:
        """The weights, by name, of queries that have none; cached, since a collection always has the same model."""
        model, weights = self._settled
        if model != view.space.model:
            weights = self._weights.over(self._tuned(view).weights).given()
            if lacking := sorted(self._method.reads - weights.keys()):
                raise CallError(
                    f"The method {self.method} has no default for its weight {lacking[0]}.",
                    f"Write Retriever(..., weights=Weights({lacking[0]}=...)).",
                )
            self._settled = view.space.model, weights
        return weights

    def _readable(self, weights: Weights) -> Weights:
        for name in weights.given():
            if name not in self._method.reads:
                known = ", ".join(sorted(self._method.reads))
                raise QueryError(f"The method {self.method} does not read the weight {name}.", f"It reads: {known}.")
        return weights

    def _on_view(self, work: Callable[[Snapshot], Answer]) -> Answer:
        return self._on_snapshot(lambda snapshot: work(snapshot.centered(self._center)))

    def _on_snapshot(self, work: Callable[[Snapshot], Answer]) -> Answer:
        """Run the work on the newest generation, and once more if that is compacted away meanwhile."""
        try:
            try:
                return work(self._source.snapshot())
            except SnapshotGoneError:
                return work(self._source.snapshot())
        except UnderdrawingError:
            raise
        except Exception as error:  # another package's method may raise anything
            raise METHODS.failure(self.method, self._method, error) or error from error


@contextmanager
def timed(took: dict[str, float], stage: str) -> Iterator[None]:
    """Note the milliseconds that the block takes."""
    start = time.perf_counter()
    yield
    took[stage] = (time.perf_counter() - start) * 1000


def _checked(
    queries: Sequence[Query], k: int, where: Where | None, exclude: Names, modalities: Kinds, keep_reference: bool,
    method: str,
) -> tuple[Sequence[Query], int, Scope]:  # fmt: skip
    """The queries of a call, k, and the scope; `arguments.py` checks whatever is not plainly right.

    Raises:
        QueryError: k is below 1, or something is not a query.
        CallError: Another argument is of the wrong type.
    """
    if type(k) is not int or k < 1:
        k = checked_k(k)
    if type(queries) is not list or not all(isinstance(each, Query) for each in queries):
        queries = queries_of(queries, method)
    if keep_reference is not True and keep_reference is not False:
        flag(keep_reference, "keep_reference")
    plain = where is None and all(isinstance(each, tuple) and not each for each in (exclude, modalities))
    return queries, k, Scope() if plain else scope_of(where, exclude, modalities)
