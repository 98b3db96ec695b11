"""The one door to a search: requests in, results out, for the command line, HTTP, agents and benchmarks alike.

It owns what they share: collections by name, the default method, which fields a method reads, and the helper models,
which are loaded when they are first needed, at most once, whoever asks. Threads may share a service.

What this module does not know: how anything is found, and what a front end calls a field.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from indexer.embed.devices import AUTO, checked_device
from indexer.errors import CallError, RequestError, UnderdrawingError, UnknownNameError
from retrieval.arguments import Source, require_collection
from retrieval.methods import Merge, Method
from retrieval.methods.context import require_images, stored_references
from retrieval.methods.weights import preferred
from retrieval.providers.caption_rewrite import CaptionRewriter
from retrieval.providers.pseudo_target import PseudoTargetProvider
from retrieval.request import SearchOptions, SearchRequest, fields_of
from retrieval.results import Results
from retrieval.retriever import Retriever

Options = TypeVar("Options", bound=SearchOptions)
Made = TypeVar("Made")

QUICK = ("sum", "slerp", "product", "shift", "inversion")
"""What a composed query is answered by where nothing is said: methods that cost no more than an embedding."""
NEED_BOTH = ("inversion", "cig", "caption")
"""Methods that make something of a text and a reference together."""


class SearchService:
    """Answers requests to one or several collections.

    Args:
        collections: A `Collection`, or several by name.
        defaults: What requests leave open. A default that the method does not read is passed over.
        device: Where helper models run: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` or `mps`.
        cache: The folder where pseudo-targets and captions are cached; None for the user's cache folder.
        pseudo_targets: What makes pseudo-words and pseudo-targets for requests that name no models for it.
        captions: What captions and rewrites for requests that name no models for it.

    Raises:
        CallError: There is no collection, or one that cannot be searched.
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
        self._making = threading.Lock()

    @property
    def collections(self) -> Mapping[str, Source]:
        """What is searched, by name; the only one has the name `""` where none was given."""
        return self._collections

    def search(self, request: SearchRequest) -> Results:
        """The k best documents; all that match where there are fewer.

        Raises:
            RequestError: A field names something that is not there, or is not read by the method; `field` names it.
            QueryError: The query cannot be asked.
            FilterError: `where` does not parse.
        """
        return self._found([request], *self._settled(request))[0]

    def stream(self, request: SearchRequest) -> Iterator[Results]:
        """The answer in the time it takes: at once without a pseudo-target, and again when that is there.

        Raises as `search`, before the first answer.
        """
        settled, retriever = self._settled(request)
        return retriever.stream(
            settled.query,
            settled.k,
            settled.where,
            settled.exclude,
            settled.modalities,
            keep_reference=settled.keep_reference,
        )

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[Results]:
        """The answers in order; requests that differ in their queries alone are embedded and searched together.

        Raises as `search`, for the first request that cannot be answered.
        """
        answers = self.try_search_batch(requests)
        for each in answers:
            if isinstance(each, UnderdrawingError):
                raise each
        return [each for each in answers if isinstance(each, Results)]

    def try_search_batch(self, requests: Sequence[SearchRequest]) -> list[Results | UnderdrawingError]:
        """As `search_batch`, with the error in the place of an answer that cannot be given: it costs that one alone."""
        answers: list[Results | UnderdrawingError] = [CallError("It was not asked.")] * len(requests)
        together: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            together.setdefault(_all_but_the_query(request), []).append(place)
        for places in together.values():
            chosen = [requests[place] for place in places]
            try:
                settled, retriever = self._settled(chosen[0])
                found: Sequence[Results | UnderdrawingError] = self._found(chosen, settled, retriever)
            except UnderdrawingError as error:
                found = [error] if len(chosen) == 1 else [self._tried(each) for each in chosen]
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        return answers

    def prepare(self, request: SearchRequest) -> None:
        """Look at what a request names and load the models that it needs, so that what is missing is known at once.

        `search` does without a helper model that cannot be loaded, and says so in its notes.

        Raises:
            UnderdrawingError: As `search`, or a model is missing, cannot be loaded or does not fit.
        """
        settled, _ = self._settled(request)
        source = self.source(settled)
        require_images([settled.query])
        with source.snapshot() as snapshot:
            if settled.like is not None and len(snapshot):
                stored_references(snapshot, [settled.like])
            if settled.where is not None:
                snapshot.require_filter(settled.where)
        self.load(settled, caption=settled.caption is None)

    def load(self, options: SearchOptions, *, caption: bool = True) -> None:
        """Load the helper models of the options' method.

        Args:
            options: With a method.
            caption: Whether references have to be captioned.

        Raises:
            UnderdrawingError: One is missing, cannot be loaded or does not fit.
        """
        options = self._with_defaults(options)
        embedder = self.source(options).embedder if options.method in ("inversion", "cig") else None
        if embedder is not None:
            self.pseudo_targets(options).inversion(embedder)
            if options.method == "cig":
                self.pseudo_targets(options).generator(embedder)
        if options.method == "caption":
            if caption:
                self.captions(options).captioner()
            self.captions(options).rewriter()

    def source(self, options: SearchOptions) -> Source:
        """The collection that is asked.

        Raises:
            RequestError: There are several and none is named, or there is none of that name.
        """
        known = list(self._collections)
        if options.collection is None and len(known) == 1:
            return self._collections[known[0]]
        if options.collection is None:
            raise RequestError("collection", "Which collection is to be searched?", f"`collection` is one of {known}.")
        if options.collection not in self._collections:
            raise RequestError("collection", *_told(UnknownNameError("collection", options.collection, known)))
        return self._collections[options.collection]

    def retriever(self, options: SearchOptions) -> Retriever:
        """What answers: the one place where collection, method and helper models are put together.

        Args:
            options: With a method; a request without one gets its own in `search`.

        Raises:
            RequestError: No such collection; or a value that the method does not take.
        """
        options = self._with_defaults(options)
        return Retriever(
            self.source(options),
            options.method or Method.SUM,
            options.weights,
            merge=options.merge or Merge.EMBED,
            pseudo_targets=self.pseudo_targets(options),
            captions=self.captions(options),
            gate=options.gate,
            center=options.center,
        )

    def pseudo_targets(self, options: SearchOptions) -> PseudoTargetProvider:
        """What makes pseudo-words and pseudo-targets; its models and its worker are those of all such requests."""
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
        """What captions and rewrites; its models are those of all such requests."""
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

    def _settled(self, request: SearchRequest) -> tuple[SearchRequest, Retriever]:
        """The request with its method and the defaults that it reads, and what answers it."""
        source = self.source(request)
        method = request.method or self._defaults.method or _implied(request) or _default(request, source)
        request = replace(request, method=method)
        _require_read(request, method)
        _require_both(request, method)
        return self._with_defaults(request), self.retriever(request)

    def _with_defaults(self, options: Options) -> Options:
        """The options, and the service's where they say nothing and the method reads them."""
        known = fields_of(SearchOptions)
        own = set(options.given())
        method = options.method or self._defaults.method
        missing = {
            name: getattr(self._defaults, name)
            for name in self._defaults.given()
            if name not in own and (not known[name].read_by or method in known[name].read_by)
        }
        return replace(options, **missing) if missing else options

    def _found(self, requests: Sequence[SearchRequest], settled: SearchRequest, retriever: Retriever) -> list[Results]:
        return retriever.search_batch(
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

    def _once(self, key: tuple[str, Any, Any], make: Callable[[], Made]) -> Made:
        with self._making:
            if key not in self._providers:
                self._providers[key] = make()
            made: Made = self._providers[key]
            return made


def _implied(request: SearchRequest) -> str | None:
    """The method that a request's fields are for, where they are for one: `cig` where `steps` is set."""
    fields = fields_of(SearchOptions)
    read_by = [fields[name].read_by for name in request.given() if name in fields and fields[name].read_by]
    if not read_by:
        return None
    return next((method for method in read_by[0] if all(method in own for own in read_by)), read_by[0][0])


def _default(request: SearchRequest, source: Source) -> str:
    """`text` or `image` for a query of one part; for a composed one what did best with this model, or `sum`.

    Weights that a request brings are those of `sum`.
    """
    if request.text is None:
        return "image"
    if request.image is None and request.like is None:
        return "text"
    if request.weights is not None and request.weights.given():
        return "sum"
    with source.snapshot() as snapshot:
        return preferred(snapshot.space.model, QUICK) or "sum"


def _require_read(request: SearchRequest, method: str) -> None:
    """Refuse what is asked in vain: a field that the method does not read.

    Raises:
        RequestError: There is one.
    """
    for name, info in fields_of(SearchRequest).items():
        if info.read_by and method not in info.read_by and name in request.given():
            others = " or ".join(f"`method={each}`" for each in info.read_by)
            raise RequestError(
                name, f"The method {method} does not read `{name}`.", f"Leave it out, or choose {others}."
            )


def _require_both(request: SearchRequest, method: str) -> None:
    """Refuse a query without a part of which the method would make something.

    Raises:
        RequestError: The text or the reference is missing.
    """
    if method not in NEED_BOTH:
        return
    needs = f"The method {method} needs a text and a reference; this query has no"
    if request.image is None and request.like is None:
        raise RequestError("image", f"{needs} reference.", "Add `image` or `like`, or choose `method=text`.")
    if request.text is None:
        raise RequestError(
            "text", f"{needs} text.", "Say how the answer differs from the reference, or choose `method=image`."
        )


def _all_but_the_query(request: SearchRequest) -> str:
    """What requests that are answered together have in common."""
    query = ("text", "image", "like", "not_texts", "not_images", "wordings", "instruction", "caption")
    told = {name: getattr(request, name) for name in fields_of(SearchRequest) if name not in query}
    parts = [request.text is None, request.image is None and request.like is None, request.caption is None]
    return json.dumps([told, parts], sort_keys=True, default=repr)


def _told(error: UnderdrawingError) -> tuple[str, str | None]:
    return error.message, error.remedy
