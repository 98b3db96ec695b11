"""The search service, the one door for the command line, HTTP, agents and benchmarks: requests in, results out.

It owns what they share: collections by name, the default method, which fields a method reads, and the helper models,
each loaded once, when it is first needed. Threads may share a service.

What this module does not know: how anything is found, and what a front end calls a field.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from indexer.embed.devices import AUTO, checked_device
from indexer.embed.loading import loading
from indexer.errors import CallError, RequestError, UnderdrawingError, UnknownNameError
from retrieval.arguments import Source, require_collection, source_of
from retrieval.choice import agreed, default_method, implied_method, method_of, reads, require_both, require_read
from retrieval.late_fusion import LateFusion
from retrieval.methods.context import require_images, stored_references
from retrieval.providers.caption_rewrite import CaptionRewriter
from retrieval.providers.pseudo_target import PseudoTargetProvider
from retrieval.request import Fusion, SearchOptions, SearchRequest, fields_of
from retrieval.rerank import RERANKERS, Reranker, load_reranker
from retrieval.rerank.step import DEPTH
from retrieval.results import Results
from retrieval.retriever import Retriever

Options = TypeVar("Options", bound=SearchOptions)
Made = TypeVar("Made")


RETRIEVERS = 256
"""How many retrievers are cached for further requests with the same options. Each seed needs a retriever of its own."""
_HOW = tuple(fields_of(SearchOptions))


class SearchService:
    """Answers requests to one or several collections.

    Args:
        collections: A `Collection`, or several by name.
        defaults: Values of fields that requests leave open. A default that the method does not read is ignored.
        device: Where helper models run: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` or `mps`.
        cache: The folder where pseudo-targets and captions are cached; None for the user's cache folder.
        pseudo_targets: Makes pseudo-words and pseudo-targets for requests that name no models for them.
        captions: Captions and rewrites for requests that name no models for them.

    Raises:
        CallError: There is no collection, or one of them cannot be searched.
    """

    def __init__(
        self,
        collections: Source | Mapping[str, Source],
        *,
        defaults: SearchOptions | None = None,
        device: str = AUTO,
        cache: Path | None = None,
        pseudo_targets: PseudoTargetProvider | None = None,
        captions: CaptionRewriter | None = None,
    ) -> None:
        self._collections: Mapping[str, Source] = (
            dict(collections) if isinstance(collections, Mapping) else {"": collections}
        )
        if not self._collections:
            raise CallError("A service needs a collection.", "Open one with Collection.open.")
        for source in self._collections.values():
            require_collection(source)
        self._defaults = defaults or SearchOptions()
        self._device = checked_device(device)
        self._cache = cache
        given = {("pseudo-targets", None, None): pseudo_targets, ("captions", None, None): captions}
        self._providers: dict[tuple[str, Any, Any], Any] = {key: made for key, made in given.items() if made}
        self._retrievers: OrderedDict[tuple[Any, ...], Retriever] = OrderedDict()
        self._making = threading.Lock()

    @property
    def collections(self) -> Mapping[str, Source]:
        """The collections by name; a collection given without a name is `""`."""
        return self._collections

    def search(self, request: SearchRequest) -> Results:
        """The k best documents, or all that match if they are fewer.

        Raises:
            RequestError: A field names something that does not exist, or the method does not read it; `field` names it.
            QueryError: The query cannot be asked.
            FilterError: `where` does not parse.
        """
        settled = self.settled(request)
        return self._found([request], settled)[0]

    def stream(self, request: SearchRequest) -> Iterator[Results]:
        """The answer at once without a pseudo-target, and again when that is ready.

        Raises as `search`, before the first answer.
        """
        settled = self.settled(request)
        return self._answering(settled).stream(
            settled.query,
            settled.k,
            settled.where,
            settled.exclude,
            settled.modalities,
            keep_reference=settled.keep_reference,
        )

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[Results]:
        """The answers in order; requests that differ only in their queries are embedded and searched together.

        Raises as `search`, for the first request that cannot be answered.
        """
        answers = self.try_search_batch(requests)
        for each in answers:
            if isinstance(each, UnderdrawingError):
                raise each
        return [each for each in answers if isinstance(each, Results)]

    def try_search_batch(self, requests: Sequence[SearchRequest]) -> list[Results | UnderdrawingError]:
        """As `search_batch`, but a request that fails has its error in the place of its answer, and costs no other."""
        answers: list[Results | UnderdrawingError] = [CallError("It was not asked.")] * len(requests)
        together: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            together.setdefault(_all_but_the_query(request), []).append(place)
        for places in together.values():
            chosen = [requests[place] for place in places]
            try:
                found: Sequence[Results | UnderdrawingError] = self._found(chosen, self.settled(chosen[0]))
            except UnderdrawingError as error:
                found = [error] if len(chosen) == 1 else [self._tried(each) for each in chosen]
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    def prepare(self, request: SearchRequest) -> None:
        """Check a request and load the models that it needs, so that a missing one is reported at once.

        `search` goes on without a helper model that cannot be loaded, and adds a note.

        Raises:
            UnderdrawingError: As `search`, or a model is missing, cannot be loaded or does not fit.
        """
        settled = self.check(request)
        self.load(settled, caption=settled.caption is None)

    def check(self, request: SearchRequest) -> SearchRequest:
        """The request as it will be answered. Its files, documents and filter are checked; no model is loaded.

        Raises:
            UnderdrawingError: As `search`.
        """
        settled = self.settled(request)
        require_images([settled.query])
        for each in _by_space(settled).values():
            with self.source(each).snapshot() as snapshot:
                if settled.like is not None and len(snapshot):
                    stored_references(snapshot, [settled.like])
                if settled.where is not None:
                    snapshot.require_filter(settled.where)
        return settled

    def settled(self, request: SearchRequest) -> SearchRequest:
        """The request as it will be answered: with its method, and the service's defaults that the method reads.

        Raises:
            RequestError: As `search`.
        """
        chosen = request.method or self._defaults.method or implied_method(request)
        spaces = _by_space(self._with_defaults(request)).values()
        # Two models for which different methods did best are asked by the one that serves any.
        chosen = chosen or agreed([default_method(request, partial(self._model, each)) for each in spaces])
        request = replace(request, method=chosen)
        method = method_of(chosen, request.merge)
        require_read(request, method)
        require_both(request, method)
        return self._with_defaults(request)

    def needs(self, options: SearchOptions) -> tuple[str, ...]:
        """The helper models that the options' method needs, by the names of their fields."""
        method = self._with_defaults(options).method
        return () if method is None else tuple(map(str, method_of(method, options.merge).needs))

    def load(self, options: SearchOptions, *, caption: bool = True) -> None:
        """Load the helper models of the options' method.

        Args:
            options: Options with a method.
            caption: Whether references have to be captioned.

        Raises:
            UnderdrawingError: One is missing, cannot be loaded or does not fit.
        """
        options = self._with_defaults(options)
        if len(options.space) > 1:
            for each in _by_space(options).values():
                self.load(each, caption=caption)
            return
        for helper in self.needs(options):
            match helper:
                case "inversion":
                    self.pseudo_targets(options).inversion(self.source(options).embedder)
                case "generator":
                    self.pseudo_targets(options).generator(self.source(options).embedder)
                case "captioner" if caption:
                    self.captions(options).captioner()
                case "rewriter":
                    self.captions(options).rewriter()

    def source(self, options: SearchOptions) -> Source:
        """The collection that a request names, or one of its spaces.

        Raises:
            RequestError: There are several collections and none is named, or none has that name; or there is no such
                space, or more than one is named.
        """
        known = list(self._collections)
        if options.collection is None and len(known) > 1:
            raise RequestError("collection", "The request names no collection.", f"`collection` is one of {known}.")
        name = known[0] if options.collection is None else options.collection
        if name not in self._collections:
            raise _of_field("collection", UnknownNameError("collection", name, known))
        source = self._collections[name]
        if not options.space:
            return source
        if len(options.space) > 1:
            raise RequestError("space", f"`space` names {len(options.space)}: {', '.join(options.space)}.", "Name one.")
        try:
            chosen = source_of(source, options.space[0])
            chosen.snapshot()  # raises now if there is no such space
            return chosen
        except UnknownNameError as error:
            raise _of_field("space", error) from None

    def retriever(self, options: SearchOptions) -> Retriever:
        """The retriever for some options: the one place where collection, method and helper models are put together.

        Args:
            options: Options with a method; `search` chooses one for a request without.

        Raises:
            RequestError: No such collection, space or re-ranker; several spaces, which `search` fuses; or a value that
                the method does not take.
        """
        key = tuple(getattr(options, name) for name in _HOW)
        with self._making:
            if (made := self._retrievers.get(key)) is not None:
                self._retrievers.move_to_end(key)
                return made
        made = self._assembled(self._with_defaults(options))
        with self._making:
            self._retrievers[key] = made
            if len(self._retrievers) > RETRIEVERS:
                self._retrievers.popitem(last=False)
        return made

    def _answering(self, options: SearchOptions) -> Retriever | LateFusion:
        """The retriever of the options' space, or of several the fusion of theirs."""
        each = {space: self.retriever(own) for space, own in _by_space(options).items()}
        return LateFusion(each, fusion=options.fusion or Fusion.RANKS) if len(each) > 1 else each.popitem()[1]

    def _assembled(self, options: SearchOptions) -> Retriever:
        return Retriever(
            self.source(options),
            options.method or "sum",
            options.weights,
            merge=options.merge,
            pseudo_targets=self.pseudo_targets(options),
            captions=self.captions(options),
            gate=options.gate,
            center=options.center,
            rerank=None if options.rerank is None else self.reranker(options.rerank),
            rerank_depth=options.rerank_depth or DEPTH,
            rerank_deadline_ms=options.deadline_ms,
        )

    def pseudo_targets(self, options: SearchOptions) -> PseudoTargetProvider:
        """The provider of pseudo-words and pseudo-targets; all such requests share its models and its worker."""
        made = self._once(
            ("pseudo-targets", options.inversion, options.generator),
            lambda: PseudoTargetProvider(
                options.inversion,
                options.generator,
                cache=None if self._cache is None else self._cache / "drawings",
                device=self._device,
            ),
        )
        changes = {
            name: value
            for name, value in (
                ("steps", options.steps),
                ("guidance", options.guidance),
                ("images", options.pseudo_target_count),
                ("seed", options.seed),
            )
            if value is not None
        }
        return made.asked_for(changes, regenerate=options.regenerate, deadline_ms=options.deadline_ms)

    def captions(self, options: SearchOptions) -> CaptionRewriter:
        """The caption rewriter; all such requests share its models."""
        made = self._once(
            ("captions", options.captioner, options.rewriter),
            lambda: CaptionRewriter(
                options.captioner,
                options.rewriter,
                cache=None if self._cache is None else self._cache / "sentences",
                device=self._device,
            ),
        )
        return made.asked_for(anew=options.rewrite)

    def _with_defaults(self, options: Options) -> Options:
        """The options, completed with the service's defaults that the method reads."""
        own, preset = set(options.given()), list(self._defaults.given())
        if not preset:
            return options
        name = options.method or self._defaults.method
        method = None if name is None else method_of(name, None)
        known = fields_of(SearchOptions)
        missing = {
            each: getattr(self._defaults, each)
            for each in preset
            if each not in own and (method is None or reads(method, each, known[each]))
        }
        return replace(options, **missing)

    def reranker(self, name: str) -> str | Reranker:
        """The re-ranker of that name, loaded once; the name itself if it cannot be loaded, which a note will report.

        Raises:
            RequestError: There is none of that name.
        """
        if (family := name.partition(":")[0]) not in RERANKERS:
            raise _of_field("rerank", UnknownNameError(RERANKERS.kind, family, RERANKERS.names()))
        with loading():
            try:
                return self._once(("re-ranker", name, None), lambda: load_reranker(name, device=self._device))
            except UnderdrawingError:
                return name

    def _found(self, requests: Sequence[SearchRequest], settled: SearchRequest) -> list[Results]:
        return self._answering(settled).search_batch(
            [each.query for each in requests],
            settled.k,
            settled.where,
            settled.exclude,
            settled.modalities,
            keep_reference=settled.keep_reference,
        )

    def _tried(self, request: SearchRequest) -> Results | UnderdrawingError:
        try:
            return self.search(request)
        except UnderdrawingError as error:
            return error

    def _model(self, options: SearchOptions) -> str:
        with self.source(options).snapshot() as snapshot:
            return snapshot.space.model

    def _once(self, key: tuple[str, Any, Any], make: Callable[[], Made]) -> Made:
        with self._making:
            if key not in self._providers:
                self._providers[key] = make()
            made: Made = self._providers[key]
            return made


def _by_space(options: Options) -> dict[str, Options]:
    """The options for each of the spaces that they name, by its name; the options themselves where they name none."""
    if len(options.space) < 2:
        return {"": options}
    return {space: replace(options, space=(space,), fusion=None) for space in options.space}


def _all_but_the_query(request: SearchRequest) -> str:
    """The fields in which requests must agree to be answered together."""
    query = ("text", "image", "like", "not_texts", "not_images", "wordings", "instruction", "caption")
    told = {name: getattr(request, name) for name in fields_of(SearchRequest) if name not in query}
    parts = [request.text is None, request.image is None and request.like is None, request.caption is None]
    return json.dumps([told, parts], sort_keys=True, default=repr)


def _of_field(field: str, error: CallError) -> RequestError:
    return RequestError(field, error.message, error.remedy)
