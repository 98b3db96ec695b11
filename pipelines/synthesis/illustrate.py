"""Retrieval in a synthesis: whether a question finds its passage, and which image shows a thing.

Passages and images are indexed into two collections in the run's folder, each named by the model that embeds it, and
searched like any collection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.corpus.records import Corpus
from indexer.errors import CallError
from indexer.files.atomic import atomic_write
from indexer.types import Center, Item, Modality, Parts, Vectors
from pipelines.synthesis.likeness import corrected, cosines
from pipelines.synthesis.passages import Passage, Texts
from pipelines.synthesis.recipe import SynthesisRecipe

if TYPE_CHECKING:
    from indexer.collection import Collection
    from indexer.embed.base import Embedder
    from retrieval.providers.pseudo_target import PseudoTargetProvider
    from retrieval.retriever import Retriever


@dataclass(frozen=True)
class Picture:
    """An image of a thing.

    Attributes:
        document: The image's document; for a generated image, the document of its reference.
        file: Its path.
        drawn: Its name within the run's folder, if it was generated.
        similarity: Its cosine with the text.
        corrected: The cosine without its generic part; see `likeness.py`.
    """

    document: str
    file: Path | None
    drawn: str | None
    similarity: float
    corrected: float


class Illustrator:
    """Passages and images of one part of a corpus, ready to be searched.

    Args:
        corpus: The part's documents.
        passages: Its passages.
        recipe: The settings.
        folder: Where the collections go; existing ones are continued.
        pseudo_targets: Generates images; None if they are retrieved.

    Raises:
        CallError: The model cannot read a needed modality, or no document has an image.
        ModelError: A model cannot be loaded.
        StoreError: A collection cannot be used.
    """

    def __init__(
        self,
        corpus: Corpus,
        passages: Sequence[Passage],
        recipe: SynthesisRecipe,
        folder: Path,
        pseudo_targets: PseudoTargetProvider | None,
    ) -> None:
        from indexer.embed import load_embedder

        self._recipe, self._folder, self._pseudo_targets = recipe, folder, pseudo_targets
        self.embedder = load_embedder(recipe.model, device=recipe.device)
        self.embedder.require({Modality.TEXT, Modality.IMAGE})
        own = recipe.retriever is None or recipe.retriever == recipe.model
        self.reader = self.embedder if own else load_embedder(str(recipe.retriever), device=recipe.device)
        self.reader.require({Modality.TEXT})
        if pseudo_targets is not None:  # report missing parts now, and not for each image
            pseudo_targets.inversion(self.embedder)
            pseudo_targets.generator(self.embedder)
        with ExitStack() as opened:
            texts = Texts(corpus.source, passages)
            self._passages = _indexed(texts, folder / "passages", self.reader, Parts.TEXT, opened)
            self._pictures = _indexed(corpus, folder / "pictures", self.embedder, Parts.IMAGE, opened)
            if not len(self._pictures.snapshot()):
                raise CallError(
                    "No document of the corpus has a usable image.",
                    "Images are taken from the corpus; underdrawing index CORPUS DIR says what is wrong with them.",
                )
            self._ask, self._show = _by_text(self._passages), _by_text(self._pictures)
            self._among, self._between = self._samples(passages)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close both collections."""
        self._opened.close()

    def ranks(self, queries: Sequence[str], passages: Sequence[Passage]) -> list[int | None]:
        """The rank at which each query finds its passage; None if it is not in the top-k."""
        from retrieval.query import Query

        if not queries:
            return []
        found = self._ask.search_batch([Query(text=each) for each in queries], k=self._recipe.top)
        return [
            next((hit.rank for hit in results if hit.id == passage.key), None)
            for results, passage in zip(found, passages, strict=True)
        ]

    def pictures(self, things: Sequence[str]) -> list[Picture | None]:
        """The image most similar to each thing, or one generated from it; None if there is none."""
        from retrieval.query import Query

        if not things:
            return []
        found = self._show.search_batch([Query(text=each) for each in things], k=1)
        hits = [results.hits[0] for results in found]
        snapshot = self._pictures.snapshot()
        vectors = snapshot.vectors(snapshot.vector_ids([hit.id for hit in hits]))
        files: list[Path | None] = [hit.image for hit in hits]
        drawn: list[str | None] = [None] * len(hits)
        if self._pseudo_targets is not None:
            vectors, files, drawn = self._drawn(self._pseudo_targets, things, vectors, files)
        texts = self.embedder.encode_query([Item(text=each) for each in things])
        raw = cosines(vectors, texts)
        less = corrected(vectors, texts, self._among, self._between, self._recipe.temperature)
        return [
            None if file is None else Picture(hit.id, file, name, round(float(one), 4), round(float(other), 4))
            for hit, file, name, one, other in zip(hits, files, drawn, raw, less, strict=True)
        ]

    def _drawn(
        self,
        pseudo_targets: PseudoTargetProvider,
        things: Sequence[str],
        vectors: Vectors,
        files: Sequence[Path | None],
    ) -> tuple[Vectors, list[Path | None], list[str | None]]:
        """Images of things generated from the images found: their vectors, files and names."""
        from retrieval.providers.pseudo_target import Reference

        places = [place for place, file in enumerate(files) if file is not None]
        references = [Reference((Path(str(files[place])),), vectors[place]) for place in places]
        targets = pseudo_targets.generate(self.embedder, [things[place] for place in places], references)
        own, kept = vectors.copy(), [None] * len(files)
        paths: list[Path | None] = list(kept)
        names: list[str | None] = list(kept)
        for place, target in zip(places, targets, strict=True):
            if target.reference is None:
                continue
            content = target.reference.sources()[0]
            assert isinstance(content, Path)
            picture = content.read_bytes()
            names[place] = f"drawn/{hashlib.sha256(picture).hexdigest()[:24]}{content.suffix}"
            paths[place] = self._folder / str(names[place])
            atomic_write(self._folder / str(names[place]), picture)
            own[place] = target.reference.vector
        return own, paths, names

    def _samples(self, passages: Sequence[Passage]) -> tuple[Vectors, Vectors]:
        """Vectors of images and of passages to compare with, sampled by the seed."""
        rng, most = np.random.default_rng(self._recipe.seed), self._recipe.sample
        snapshot = self._pictures.snapshot()
        ids, _ = snapshot.scan(np.zeros((1, snapshot.space.dim), np.float32))
        ids = np.sort(ids)
        pictures = snapshot.vectors(np.sort(rng.choice(ids, min(most, len(ids)), replace=False)))
        some = np.sort(rng.choice(len(passages), min(most, len(passages)), replace=False))
        return pictures, self.embedder.encode_query([Item(text=passages[place].text) for place in some])


def _indexed(corpus: Corpus, folder: Path, embedder: Embedder, parts: Parts, opened: ExitStack) -> Collection:
    from indexer.collection import Collection
    from indexer.ingest.job import index_corpus

    path = folder / embedder.fingerprint().digest
    collection = opened.enter_context(Collection.open(path, model=embedder, parts=parts))
    index_corpus(corpus, collection, prune=True, prune_most=1)  # the collection is the synthesis's own
    return collection


def _by_text(collection: Collection) -> Retriever:
    from retrieval.request import SearchOptions
    from retrieval.service import SearchService

    return SearchService(collection).retriever(SearchOptions(method="text", center=Center.OFF))
