"""Pseudo-words and pseudo-targets for methods, made by an inversion and a generator.

Both models are loaded on first use. Pseudo-targets are cached, and generated in a separate thread, so that a query with
a deadline can be answered without them.

What this module does not know: methods, collections, how answers are found.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.arguments import finite, flag, require_kinds
from indexer.deprecation import warn_renamed
from indexer.embed.base import PseudoWordEncoder
from indexer.embed.devices import AUTO, checked_device
from indexer.embed.loading import loading
from indexer.errors import CallError, GeneratorError, StoreError, UnderdrawingError
from indexer.files.atomic import file_digest
from indexer.types import ImageSource, Item, JsonValue
from indexer.vectors.unit import unit_rows
from retrieval.providers.companions import companion
from retrieval.providers.generation.cache import PseudoTargetCache, default_folder, key_of
from retrieval.providers.generation.protocol import GenerateOptions, Generator, PseudoTargetRequest, generate_each
from retrieval.scoring import Matrix, Vector

if TYPE_CHECKING:
    from indexer.embed.base import Embedder
    from indexer.embed.textual_inversion import Inversion

BATCH = 32
"""How many pseudo-targets are generated at once."""


@dataclass(frozen=True)
class Reference:
    """A query's reference, as pseudo-words and pseudo-targets need it.

    Attributes:
        images: The image, or several generated for one query; empty if they are not loaded.
        vector: Their mean vector in the collection's space, (dim,) float32 of unit length.
        stored: For a stored document, a function that loads its images.
    """

    images: tuple[ImageSource, ...]
    vector: Vector
    stored: Callable[[], tuple[Path, ...]] | None = None

    @property
    def digest(self) -> str:
        """A digest of the images' content, or of the vector if a stored document is the reference."""
        if not self.images:
            return hashlib.sha256(self.vector.astype(np.float16).tobytes()).hexdigest()
        return " ".join(_image_digest(image) for image in self.images)

    def sources(self) -> tuple[ImageSource, ...]:
        """The images; those of a stored document are loaded, and may be none."""
        return self.images if self.images or self.stored is None else self.stored()


@dataclass(frozen=True)
class PseudoTargetOutcome:
    """The outcome of a request for a pseudo-target.

    Attributes:
        reference: The images with their mean vector, or None if there are none.
        artifact: `path` of the first image, `paths` of all, `seed`, `steps`, `guidance`, and `cached`: whether it was
            generated before. Or None.
        note: What went wrong, or None.
    """

    reference: Reference | None
    artifact: Mapping[str, JsonValue] | None = None
    note: str | None = None


class PseudoTargetProvider:
    """Makes pseudo-words and pseudo-targets for queries.

    Args:
        inversion: A name for `load_inversion`; None for the one that comes with the embedder.
        generator: A `Generator`, or a name for `PseudoTargetGenerator.load`; None for the one that comes with the
            embedder.
        options: How images are generated.
        template: A template for texts in place of the inversion's own, with `{word}` once, and `{text}`.
        cache: The folder of cached pseudo-targets; None for one in the user's cache folder.
        regenerate: Generate again what is cached.
        deadline_ms: How long an answer may wait for pseudo-targets; None to wait until they are ready.
        device: Where the generator runs: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1` or `mps`.
    """

    def __init__(
        self,
        inversion: str | Path | Inversion | None = None,
        generator: str | Path | Generator | None = None,
        options: GenerateOptions | None = None,
        *,
        template: str | None = None,
        cache: Path | None = None,
        regenerate: bool = False,
        deadline_ms: float | None = None,
        device: str = AUTO,
    ) -> None:
        require_kinds(options=(options, GenerateOptions), cache=(cache, str | Path), template=(template, str))
        flag(regenerate, "regenerate")
        if deadline_ms is not None and not finite(deadline_ms, "deadline_ms", infinite=True) >= 0:
            raise CallError(f"The deadline is {deadline_ms} ms; it must not be negative.")
        if template is not None:
            from indexer.embed.textual_inversion import check_template

            check_template(template)
        self._inversion = inversion
        self._generator = generator
        self._template = template
        self._options = options or GenerateOptions()
        self._cache = PseudoTargetCache(cache or default_folder())
        self._regenerate = regenerate
        self._deadline_ms = deadline_ms
        self._device = checked_device(device)
        self._models = self
        """The first of those that share models; it loads them and runs them."""
        self._loaded: dict[str, Embedder] = {}
        self._worker: tuple[int, ThreadPoolExecutor] | None = None

    def asked_for(
        self, changes: Mapping[str, Any], *, regenerate: bool = False, deadline_ms: float | None = None
    ) -> PseudoTargetProvider:
        """A provider with the same models, cache and worker, and other options.

        Args:
            changes: Fields of `GenerateOptions` that override the provider's own.
            regenerate: Generate again what is in the cache, even if the provider does not.
            deadline_ms: Replaces the provider's own, if not None.
        """
        if not changes and not regenerate and deadline_ms is None:
            return self
        other = PseudoTargetProvider(
            self._inversion,
            self._generator,
            replace(self._options, **changes),
            template=self._template,
            cache=self._cache.folder,
            regenerate=regenerate or self._regenerate,
            deadline_ms=self._deadline_ms if deadline_ms is None else deadline_ms,
            device=self._device,
        )
        other._models = self._models
        return other

    def read(self, embedder: Embedder, texts: Sequence[str], references: Sequence[Reference]) -> Matrix:
        """The vectors of texts read with the pseudo-words of references: (n, dim) float32, rows of unit length.

        Raises:
            CallError: The model's text encoder reads no pseudo-words, or there is no inversion for it.
            ModelError: The inversion cannot be loaded, or does not fit.
        """
        encoder = self._reading(embedder)
        inversion = self.inversion(embedder)
        words = inversion.words(self._features(embedder, references, unit=inversion.config.normalized))
        return encoder.encode_pseudo_words(self.template(embedder), texts, words)

    def template(self, embedder: Embedder) -> str:
        """The template of texts; raises as `inversion`."""
        return self._template or self.inversion(embedder).config.template

    def generate(
        self, embedder: Embedder, texts: Sequence[str], references: Sequence[Reference]
    ) -> list[PseudoTargetOutcome]:
        """The pseudo-targets of texts and references, from the cache or generated. It never fails.

        A pseudo-target that cannot be generated, or not before the deadline, is missing, with a note. A late one is
        finished in the background and cached for the next time.
        """
        work: Future[list[PseudoTargetOutcome]] = self._pool.submit(
            self._generate, embedder, list(texts), list(references)
        )
        try:
            return work.result(None if self._deadline_ms is None else min(self._deadline_ms / 1000, TIMEOUT_MAX))
        except TimeoutError:
            note = f"No pseudo-target within {self._deadline_ms:.0f} ms; it is finished in the background and cached."
            return [PseudoTargetOutcome(None, note=note)] * len(texts)

    def draw(
        self, embedder: Embedder, texts: Sequence[str], references: Sequence[Reference]
    ) -> list[PseudoTargetOutcome]:
        """The old name of `generate`."""
        warn_renamed("PseudoTargetProvider.draw", "PseudoTargetProvider.generate")
        return self.generate(embedder, texts, references)

    def inversion(self, embedder: Embedder) -> Inversion:
        """The inversion for an embedder's text encoder.

        Raises:
            CallError: None was given, and none comes with the model.
            ModelError: It does not fit the text encoder.
        """
        from indexer.embed.textual_inversion import Inversion, load_inversion

        if self._models is not self:
            return self._models.inversion(embedder)
        with loading():
            if not isinstance(self._inversion, Inversion):
                source = self._inversion if self._inversion is not None else companion(embedder.name, "inversion")
                self._inversion = load_inversion(source)
        width = self._reading(embedder).pseudo_word_reader.word_dim
        config = self._inversion.config
        if (config.feature_dim, config.word_dim) != (embedder.dim, width):
            raise CallError(
                f"The inversion turns {config.feature_dim} numbers into pseudo-words of {config.word_dim}; "
                f"{embedder.name} has features of {embedder.dim} and pseudo-words of {width}.",
                "Use an inversion that was trained for this model: underdrawing train inversion.",
            )
        return self._inversion

    def generator(self, embedder: Embedder) -> Generator:
        """The generator.

        Raises:
            CallError: None was given, and none comes with the model.
            ModelError: It cannot be loaded.
            MissingExtraError: diffusers is not installed.
        """
        if self._models is not self:
            return self._models.generator(embedder)
        if self._generator is not None and not isinstance(self._generator, str | Path):
            return self._generator
        with loading():  # concurrent threads get one generator; a failed load is tried again next time
            if self._generator is None or isinstance(self._generator, str | Path):
                from retrieval.providers.generation.diffusion import PseudoTargetGenerator

                source = self._generator if self._generator is not None else companion(embedder.name, "generator")
                self._generator = PseudoTargetGenerator.load(source, device=self._device)
            return self._generator

    @property
    def _pool(self) -> ThreadPoolExecutor:
        if self._models is not self:
            return self._models._pool
        # One thread, since models are not shared between threads, and work that a late call left goes first. A forked
        # child has none of its parent's threads and starts its own.
        with loading():
            if self._worker is None or self._worker[0] != os.getpid():
                self._worker = os.getpid(), ThreadPoolExecutor(1, "underdrawing-generate")
            return self._worker[1]

    def _generate(self, embedder: Embedder, texts: list[str], references: list[Reference]) -> list[PseudoTargetOutcome]:
        try:
            generator = self.generator(embedder)
            options = self._options.over(generator.defaults)
            identity = generator.identity(options)
            keys = [key_of(each.digest, text, identity) for each, text in zip(references, texts, strict=True)]
            generated = self._ensure_generated(generator, options, keys, texts, references, embedder)
            return [self._settled(embedder, options, key, generated) for key in keys]
        except UnderdrawingError as error:
            return [PseudoTargetOutcome(None, note=f"No pseudo-target: {error}")] * len(texts)

    def _ensure_generated(
        self,
        generator: Generator,
        options: GenerateOptions,
        keys: list[str],
        texts: list[str],
        references: list[Reference],
        embedder: Embedder,
    ) -> dict[str, str | None]:
        """Generate what the cache lacks; returns its keys, each with the error if there was one."""
        outcome: dict[str, str | None] = {}
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        missing = [place for key, place in first.items() if self._regenerate or self._cache.get(key) is None]
        for start in range(0, len(missing), BATCH):
            places = missing[start : start + BATCH]
            chosen = [references[place] for place in places]
            models = [(self._embedder(model, embedder), unit) for model, unit in generator.feature_models]
            features = self._features_of_each(models, chosen, embedder)
            for place, each in zip(places, features, strict=True):
                if isinstance(each, UnderdrawingError):
                    outcome[keys[place]] = str(each)
            places = [place for place in places if keys[place] not in outcome]
            requests = [
                PseudoTargetRequest(texts[place], each)
                for place, each in zip(places, (each for each in features if isinstance(each, tuple)), strict=True)
            ]
            for place, made in zip(places, generate_each(generator, requests, options), strict=True):
                if isinstance(made, GeneratorError):  # it may succeed another time, so it is not cached
                    outcome[keys[place]] = str(made)
                    continue
                asked = {"text": texts[place], **generator.identity(options)}
                self._cache.put(keys[place], made.images, made.failed, asked)
                outcome[keys[place]] = None
        return outcome

    def _features_of_each(
        self, models: Sequence[tuple[Embedder, bool]], references: Sequence[Reference], own: Embedder
    ) -> list[tuple[Vector, ...] | UnderdrawingError]:
        """The features of each reference, one of each model; where the batch fails, of each alone, or its error."""
        try:
            rows = [self._features(model, references, unit=unit, own=own) for model, unit in models]
            return [tuple(each[row] for each in rows) for row in range(len(references))]
        except UnderdrawingError as error:
            if len(references) == 1:
                return [error]
        return [self._features_of_each(models, [each], own)[0] for each in references]

    def _settled(
        self, embedder: Embedder, options: GenerateOptions, key: str, generated: Mapping[str, str | None]
    ) -> PseudoTargetOutcome:
        """The outcome of a cached pseudo-target; its vector is computed once for each embedder."""
        error = generated.get(key)
        if error is not None:
            return PseudoTargetOutcome(None, note=f"No pseudo-target: {error}")
        entry = self._cache.get(key)
        if entry is None:
            raise StoreError(f"The pseudo-target {key} in {self._cache.folder} vanished.", "Ask again.")
        if not entry.images:
            return PseudoTargetOutcome(None, note=f"No pseudo-target: {entry.failed}.")
        artifact: dict[str, JsonValue] = {
            "path": str(entry.images[0]),
            "paths": [str(image) for image in entry.images],
            "seed": options.seed,
            "steps": options.steps,
            "guidance": options.guidance,
            "cached": key not in generated,
        }
        digest = embedder.fingerprint().digest
        if digest not in entry.features:
            rows = embedder.encode_query([Item(image=image) for image in entry.images])
            vector = unit_rows(rows.mean(0, keepdims=True))[0]
            self._cache.add_feature(key, digest, vector)
        else:
            vector = entry.features[digest]
        note = None if entry.failed is None else f"Of the pseudo-target, {entry.failed}."
        return PseudoTargetOutcome(Reference(entry.images, vector), artifact, note)

    def _features(
        self, embedder: Embedder, references: Sequence[Reference], *, unit: bool, own: Embedder | None = None
    ) -> Matrix:
        """The references' features in an embedder's space: their vectors, if these are of the same space."""
        if unit and (own is None or embedder is own):
            return np.stack([each.vector for each in references])
        images = [each.sources() for each in references]
        if not all(images):
            raise CallError(
                "A stored vector stands for the reference, and this inversion reads the image itself; the document has "
                "none.",
                "Give the image with `image` in place of `like`.",
            )
        items = [Item(image=image) for own_images in images for image in own_images]
        if unit:
            rows = embedder.encode_query(items)
        else:
            prepare = embedder.preparer()
            rows = self._reading(embedder).image_features([prepare(item) for item in items])
        ends = np.cumsum([len(each) for each in images])
        means = np.stack([own.mean(0) for own in np.split(rows, ends[:-1])])
        return unit_rows(means) if unit else means

    def _embedder(self, model: str, own: Embedder) -> Embedder:
        from indexer.embed import load_embedder

        if model == own.name:
            return own
        if self._models is not self:
            return self._models._embedder(model, own)
        with loading():
            if model not in self._loaded:
                self._loaded[model] = load_embedder(model, device=self._device)
            return self._loaded[model]

    @staticmethod
    def _reading(embedder: Embedder) -> PseudoWordEncoder:
        if not isinstance(embedder, PseudoWordEncoder):
            raise CallError(
                f"{embedder.name} has no text encoder that reads pseudo-words.",
                "Use a model of the CLIP family, or another method.",
            )
        return embedder


def _image_digest(image: ImageSource) -> str:
    if isinstance(image, Path):
        return file_digest(image)
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    shape = repr((image.mode, image.size, image.getpalette(), image.info.get("transparency")))
    return hashlib.sha256(shape.encode() + image.tobytes()).hexdigest()
