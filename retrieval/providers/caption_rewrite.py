"""Captioning and rewriting for the method `caption`: a captioner, a rewriter, and a cache of their answers.

Models are loaded on first use. Answers are cached on disk at once, by the image's content, the model and its prompt, so
that an interrupted sweep continues where it stopped.

What this module does not know: methods, collections, how rewritten captions are searched with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.arguments import flag, require_kinds
from indexer.deprecation import warn_renamed
from indexer.embed.devices import AUTO, checked_device
from indexer.embed.loading import loading
from indexer.errors import CallError, ItemError, StoreError, WritingError
from indexer.types import ImageSource, JsonValue
from retrieval.providers.cache import Entries, cache_folder, digest_of, evened
from retrieval.providers.language import Answer, Captioner, Change, Rewriter, load_captioner, load_rewriter
from retrieval.providers.language.plain import joined

BATCH = 16
"""How many answers are asked for at a time: the most that a killed process loses."""


@dataclass(frozen=True)
class RewriteRequest:
    """A reference and a text to be captioned and rewritten.

    Attributes:
        text: How the answer differs from the reference.
        image: The reference, or None if its caption is given.
        caption: What the reference shows, or None for the captioner to say.
    """

    text: str
    image: ImageSource | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Rewritten:
    """A rewritten caption.

    Attributes:
        text: The text to search with.
        artifact: Its description for front ends; see `Results.artifacts`.
        notes: Problems on the way.
    """

    text: str
    artifact: Mapping[str, JsonValue]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Made:
    """An answer, whether it came from the cache, and why it could not be cached."""

    answer: Answer
    cached: bool = False
    uncached: str | None = None


class CaptionRewriter:
    """Captions the references of composed queries, and rewrites the captions by their texts.

    Args:
        captioner: A `Captioner`, or a name for `load_captioner`; not needed for queries that have a caption.
        rewriter: A `Rewriter`, or a name for `load_rewriter`.
        cache: The folder where captions and rewritten captions are cached; None for the user's cache folder.
        anew: Caption and rewrite again what is cached.
        strict: Raise an error if an answer is missing, instead of searching with less and a note.
        device: Where local models run: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` or `mps`.
    """

    def __init__(
        self,
        captioner: str | Path | Captioner | None = None,
        rewriter: str | Path | Rewriter | None = None,
        *,
        cache: Path | None = None,
        anew: bool = False,
        strict: bool = False,
        device: str = AUTO,
    ) -> None:
        require_kinds(cache=(cache, str | Path))
        flag(anew, "anew")
        flag(strict, "strict")
        self._captioner = captioner
        self._rewriter = rewriter
        self._cache = Entries(cache or cache_folder("sentences"))
        self._anew = anew
        self._strict = strict
        self._device = checked_device(device)
        self._models = self
        """The first of those that share models; it loads them."""

    def asked_for(self, *, anew: bool) -> CaptionRewriter:
        """The same models and cache; with `anew`, what is in the cache is written again."""
        if not anew or self._anew:
            return self
        other = CaptionRewriter(
            self._captioner,
            self._rewriter,
            cache=self._cache.folder,
            anew=anew,
            strict=self._strict,
            device=self._device,
        )
        other._models = self._models
        return other

    def captioner(self) -> Captioner:
        """The captioner.

        Raises:
            CallError: None was given.
            ModelError: It cannot be loaded.
        """
        if self._models is not self:
            return self._models.captioner()
        with loading():
            if self._captioner is None:
                raise CallError(
                    "The method caption needs a captioner, which says what the reference shows.",
                    "Give one with `captioner` (an image-to-text model of transformers, or table:FILE), or say what "
                    "the reference shows with `caption`.",
                )
            if isinstance(self._captioner, str | Path):
                self._captioner = load_captioner(self._captioner, device=self._device)
            return self._captioner

    def rewriter(self) -> Rewriter:
        """The rewriter.

        Raises:
            CallError: None was given, or its name does not parse.
            ModelError: It cannot be loaded.
        """
        if self._models is not self:
            return self._models.rewriter()
        with loading():
            if self._rewriter is None:
                raise CallError(
                    "The method caption needs a rewriter, which changes the caption as the text says.",
                    "Give one with `rewriter`: a chat model of transformers, api:MODEL, or join for caption and "
                    "text side by side.",
                )
            if isinstance(self._rewriter, str | Path):
                self._rewriter = load_rewriter(self._rewriter, device=self._device)
            return self._rewriter

    def rewrite(self, wanted: Sequence[RewriteRequest]) -> list[Rewritten | ItemError]:
        """The rewritten captions, in order, from the cache or new; an `ItemError` for an image that cannot be used.

        Without a caption, the result is the text alone; if the rewriter fails, it is caption and text side by side.
        Both come with a note.

        Raises:
            CallError: A model is needed and was not given.
            ModelError: A model cannot be loaded.
            WritingError: An answer is missing and `strict` is set.
        """
        captions = self._captions(wanted)
        changes = {
            place: Change(made.answer, wanted[place].text)
            for place, made in captions.items()
            if isinstance(made.answer, str)
        }
        rewritten = self._rewritten(changes)
        return [self._settled(each, captions[place], rewritten.get(place)) for place, each in enumerate(wanted)]

    def write(self, wanted: Sequence[RewriteRequest]) -> list[Rewritten | ItemError]:
        """The old name of `rewrite`."""
        warn_renamed("CaptionRewriter.write", "CaptionRewriter.rewrite")
        return self.rewrite(wanted)

    def _captions(self, wanted: Sequence[RewriteRequest]) -> dict[int, _Made]:
        from indexer.corpus.images import image_digest

        made = {
            place: _Made(each.caption or "", cached=True) for place, each in enumerate(wanted) if each.image is None
        }
        images = {place: each.image for place, each in enumerate(wanted) if each.image is not None}
        if not images:
            return made
        captioner = self.captioner()
        identity = dict(captioner.identity())
        keys = {}
        for place, image in images.items():
            try:
                keys[place] = digest_of(["caption", image_digest(image), identity])
            except ItemError as error:
                made[place] = _Made(error)
        return made | self._answers(keys, lambda places: captioner.caption([images[place] for place in places]))

    def _rewritten(self, changes: Mapping[int, Change]) -> dict[int, _Made]:
        if not changes:
            return {}
        rewriter = self.rewriter()
        identity = dict(rewriter.identity())
        keys = {
            place: digest_of(["sentence", evened(each.caption), evened(each.text), identity])
            for place, each in changes.items()
        }
        return self._answers(keys, lambda places: rewriter.rewrite([changes[place] for place in places]))

    def _answers(self, keys: Mapping[int, str], ask: Callable[[list[int]], Sequence[Answer]]) -> dict[int, _Made]:
        """For each position the answer of its key: cached, or asked for once."""
        found: dict[str, _Made] = {}
        for key in set(keys.values()):
            entry = None if self._anew else self._cache.get(key)
            if entry is not None and isinstance(entry.get("answer"), str):
                found[key] = _Made(entry["answer"], cached=True)
        missing = list({key: place for place, key in keys.items() if key not in found}.values())
        for start in range(0, len(missing), BATCH):
            places = missing[start : start + BATCH]
            for place, answer in zip(places, ask(places), strict=True):
                found[keys[place]] = self._keep(keys[place], answer)
        return {place: found[key] for place, key in keys.items()}

    def _keep(self, key: str, answer: Answer) -> _Made:
        """Cache an answer; a failure is not cached, since the question may succeed another time."""
        if isinstance(answer, str):
            try:
                self._cache.put(key, {"answer": answer})
            except StoreError as error:
                # The answer is still good.
                return _Made(answer, uncached=f"The answer is not cached: {error}")
        return _Made(answer)

    def _settled(self, wanted: RewriteRequest, caption: _Made, rewritten: _Made | None) -> Rewritten | ItemError:
        if isinstance(caption.answer, ItemError):
            return caption.answer
        failed = next(
            (each.answer for each in (caption, rewritten) if each and isinstance(each.answer, Exception)), None
        )
        if failed is not None and self._strict:
            raise failed
        notes = dict.fromkeys(each.uncached for each in (caption, rewritten) if each and each.uncached)
        artifact: dict[str, JsonValue] = {
            "sentence": wanted.text,
            "caption": None,
            "captioner": None if wanted.image is None else self.captioner().name,
            "rewriter": None,
            "cached": caption.cached and rewritten is not None and rewritten.cached,
        }
        if isinstance(caption.answer, WritingError) or rewritten is None:
            notes[f"No caption: {failed} The query's text is searched alone."] = None
            return Rewritten(wanted.text, artifact | {"captioner": None}, tuple(notes))
        artifact["caption"] = caption.answer
        if isinstance(rewritten.answer, str):
            artifact |= {"sentence": rewritten.answer, "rewriter": self.rewriter().name}
        else:
            artifact["sentence"] = joined(Change(caption.answer, wanted.text))
            notes[f"Not rewritten: {failed} Caption and text are searched side by side."] = None
        return Rewritten(str(artifact["sentence"]), artifact, tuple(notes))
