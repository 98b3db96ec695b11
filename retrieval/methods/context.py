"""The services that a method uses while it resolves a batch of queries, with as few model calls as possible.

Equal items are embedded once. For each instruction, a batch's texts go to the embedder in one call, its images in
another. The vector of a stored document is read, not computed; its image is opened only if something reads images.

What this module does not know: methods, weights, how the vectors are used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from indexer.corpus.paths import printable
from indexer.errors import CallError, ItemError, QueryError
from indexer.files.media import recorded_image
from indexer.types import Ids, ImageSource, Item, Modality, Role
from retrieval.methods.base import Resolved
from retrieval.providers.caption_rewrite import CaptionRewriter, RewriteRequest, Rewritten
from retrieval.providers.pseudo_target import PseudoTargetOutcome, PseudoTargetProvider, Reference
from retrieval.query import Query
from retrieval.scoring import Vector, unit

if TYPE_CHECKING:
    from indexer.embed.base import Embedder
    from indexer.snapshot import Snapshot

NOWHERE = "the model's vector of it is zero, or holds a value that is not a finite number; try dtype float32"
SMALLEST = 1e-6
"""A vector has no direction unless its largest absolute value is above this."""


class HasEmbedder(Protocol):
    """The source of the model: a `Collection` or anything like it."""

    @property
    def embedder(self) -> Embedder:
        """The model; loaded on first use."""
        ...


class Context:
    """The services of one batch on one snapshot.

    Args:
        snapshot: Holds stored vectors and documents.
        source: Has the model, which is loaded only if stored vectors do not suffice.
        pseudo_targets: Makes pseudo-words and pseudo-targets.
        captions: Captions references and rewrites captions.

    Attributes:
        took: Milliseconds of the methods' stages other than embedding, by name.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        source: HasEmbedder,
        pseudo_targets: PseudoTargetProvider,
        captions: CaptionRewriter,
    ) -> None:
        self.snapshot = snapshot
        self.took: dict[str, float] = {}
        self._source = source
        self._pseudo_targets = pseudo_targets
        self._captions = captions

    @property
    def embedder(self) -> Embedder:
        """The collection's model, loaded on first use."""
        return self._source.embedder

    def embed(
        self, queries: Sequence[Query], items: Sequence[Mapping[str, Sequence[Item]]] | None = None
    ) -> list[Resolved]:
        """A unit vector for each branch of each query: the mean of its items' vectors.

        Args:
            queries: A batch.
            items: For each query, its items by branch name; an empty branch has the vector of the stored reference.
                The queries' own `items` by default.

        Raises:
            QueryError: An item cannot be used, or a stored reference does not exist; the error names branch and query.
            CallError: The model has no encoder for an item, or reads no instructions and a query has one.
        """
        wanted = [query.items for query in queries] if items is None else items
        ids = self.references(queries)
        stored = [each for each in ids if each is not None]
        rows = dict(zip(stored, self.snapshot.vectors(np.array(stored, np.int64)), strict=True)) if stored else {}
        found: dict[tuple[str | None, object], Vector | str] = {}
        for instruction in dict.fromkeys(query.instruction for query in queries):
            distinct = {
                key_of(item): item
                for query, own in zip(queries, wanted, strict=True)
                if query.instruction == instruction
                for branch in own.values()
                for item in branch
            }
            if distinct:
                outcome = self._embedded(list(distinct.values()), instruction)
                found |= {(instruction, key): each for key, each in zip(distinct, outcome, strict=True)}
        answer = []
        for place, (query, own, reference) in enumerate(zip(queries, wanted, ids, strict=True)):
            vectors = {}
            for name, branch in own.items():
                if not branch:
                    assert reference is not None
                    vectors[name] = rows[reference]
                    continue
                made = []
                for item in branch:
                    vector = found[query.instruction, key_of(item)]
                    if isinstance(vector, str):
                        raise unusable(name, place, len(queries), vector)
                    made.append(vector)
                vectors[name] = mean_of_unit(made)
            answer.append(Resolved(query, vectors, reference))
        return answer

    def _embedded(self, items: Sequence[Item], instruction: str | None) -> list[Vector | str]:
        """For each item its vector, or the reason why there is none; texts in one call, images in another."""
        model = self.embedder
        kinds = [item.modality for item in items]
        if not model.modalities.issuperset(kinds):
            model.require(set(kinds))
        if instruction is not None and not model.reads_instructions:
            raise CallError(
                f"{model.name} reads no instructions, but this query has one: {instruction[:80]!r}.",
                "Leave it out, or use a model that reads them, such as mllm:NAME.",
            )
        found: list[Vector | str] = [""] * len(items)
        for modality in Modality:
            places = [place for place, kind in enumerate(kinds) if kind is modality]
            if not places:
                continue
            outcome = model.try_encode([items[place] for place in places], Role.QUERY, instruction)
            largest = np.abs(outcome.vectors).max(axis=1, initial=0)  # NaN compares as false
            sound = (largest > SMALLEST) & (largest < np.inf)
            for row, vector, points in zip(outcome.rows.tolist(), outcome.vectors, sound.tolist(), strict=True):
                found[places[row]] = vector if points else NOWHERE
            for row, error in outcome.errors.items():
                found[places[row]] = error.detail
        return found

    def references(self, queries: Sequence[Query]) -> list[int | None]:
        """For each query, the vector id of its stored reference.

        Raises:
            QueryError: A document does not exist.
        """
        likes = list(dict.fromkeys(query.like for query in queries if query.like is not None))
        if not likes:
            return [None] * len(queries)
        ids = dict(zip(likes, stored_references(self.snapshot, likes).tolist(), strict=True))
        return [None if query.like is None else ids[query.like] for query in queries]

    def stored_images(self, likes: Sequence[str]) -> dict[str, tuple[Path, ...]]:
        """The images of stored documents, in order, by id; empty for a document without images."""
        names = list(dict.fromkeys(likes))
        documents = self.snapshot.documents(stored_references(self.snapshot, names)) if names else []
        return {document.id: document.images for document in documents}

    def read(self, resolved: Sequence[Resolved], references: Sequence[Reference] | None = None) -> list[Vector]:
        """Each query's text, read with the pseudo-word of its reference: (dim,) float32 of unit length.

        Several wordings of a text are averaged. The inversion's template puts the pseudo-word beside the text.

        Args:
            resolved: Queries with the vector of the reference as the branch `image`.
            references: References to use in place of the queries' own.

        Raises:
            CallError: The model's text encoder reads no pseudo-words, or there is no inversion for it.
            ModelError: The inversion cannot be loaded, or does not fit.
        """
        if not resolved:
            return []
        chosen = self._references_of(resolved) if references is None else references
        distinct = {
            (text, id(own)): own for each, own in zip(resolved, chosen, strict=True) for text in each.query.sentences
        }
        rows = self._pseudo_targets.read(self.embedder, [text for text, _ in distinct], list(distinct.values()))
        vectors = dict(zip(distinct, rows, strict=True))
        return [
            mean_of_unit([vectors[text, id(own)] for text in each.query.sentences])
            for each, own in zip(resolved, chosen, strict=True)
        ]

    def generate(self, resolved: Sequence[Resolved]) -> list[PseudoTargetOutcome]:
        """The pseudo-target of each query, from the cache or generated; it never fails (see the provider).

        Args:
            resolved: Queries with a text, and the vector of the reference as the branch `image`.
        """
        if not resolved:
            return []
        texts = [str(each.query.text) for each in resolved]
        return self._pseudo_targets.generate(self.embedder, texts, self._references_of(resolved))

    def rewrite(self, queries: Sequence[Query | None]) -> list[Rewritten | None]:
        """For each query, one sentence that combines its reference and its text.

        Args:
            queries: A batch, with None in place of queries that need no sentence.

        Raises:
            QueryError: An image cannot be used, or a stored reference has none; the error names the query.
            CallError: A model is needed and was not given, or a document does not exist.
            ModelError: A model cannot be loaded.
        """
        wanted = {place: query for place, query in enumerate(queries) if query is not None}
        if not wanted:
            return [None] * len(queries)
        with self.stage("write"):
            stored = self._images_to_caption(list(wanted.values()))
            requests = [
                RewriteRequest(str(each.text), _to_caption(each, stored), each.caption) for each in wanted.values()
            ]
            written = self._captions.rewrite(requests)
        answer: list[Rewritten | None] = [None] * len(queries)
        for place, each in zip(wanted, written, strict=True):
            if isinstance(each, ItemError):
                raise unusable("image", place, len(queries), each.detail)
            answer[place] = each
        return answer

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note the milliseconds that the block takes in `took`."""
        start = time.perf_counter()
        yield
        self.took[name] = self.took.get(name, 0.0) + (time.perf_counter() - start) * 1000

    def _references_of(self, resolved: Sequence[Resolved]) -> list[Reference]:
        """One object for equal references."""
        known: dict[object, Reference] = {}
        answer = []
        for each in resolved:
            like, branch = each.query.like, each.query.items["image"]
            key = like if like is not None else key_of(branch[0])
            if key not in known:
                images = () if like is not None else tuple(branch[0].images)
                known[key] = Reference(images, each.vectors["image"], None if like is None else self._images_of(like))
            answer.append(known[key])
        return answer

    def _images_of(self, like: str) -> Callable[[], tuple[Path, ...]]:
        return lambda: self.stored_images([like])[like]

    def _images_to_caption(self, queries: Sequence[Query]) -> dict[str, ImageSource]:
        """The images of stored references that have no caption."""
        likes = sorted({query.like for query in queries if query.like is not None and query.caption is None})
        documents = self.snapshot.documents(stored_references(self.snapshot, likes)) if likes else []
        images: dict[str, ImageSource] = {}
        for name, document in zip(likes, documents, strict=True):
            if document.image is None:
                raise QueryError(
                    f"The stored document {name!r} has no image that could be captioned.",
                    "Say what it shows with `caption`, or give an image with `image` in place of `like`.",
                )
            # A caption is shown and may be sent to an endpoint. The code that opens the file reports a missing one.
            if document.image.exists() and recorded_image(document.image, document.image_sha256) is None:
                raise QueryError(
                    f"The image of the stored document {name!r}, {printable(document.image)}, is no longer the one "
                    "that was indexed.",
                    "Index its source again, say what it shows with `caption`, or give an image with `image`.",
                )
            images[name] = document.image
        return images


def stored_references(snapshot: Snapshot, likes: Sequence[str]) -> Ids:
    """The vector ids, (n,) int64, of the documents that queries name by `like`.

    Raises:
        QueryError: A document does not exist.
    """
    try:
        return snapshot.vector_ids(likes) if likes else np.empty(0, np.int64)
    except CallError as error:
        raise QueryError(
            error.message, "`like` is the id of a stored document, as results show it. For another image, use `image`."
        ) from error


def require_images(queries: Sequence[Query]) -> None:
    """Check that image files exist, before a model is loaded.

    Raises:
        QueryError: One does not; the error names the query.
    """
    for place, query in enumerate(queries):
        for name, branch in query.items.items():
            for item in branch:
                if isinstance(item.image, Path) and _missing(item.image):
                    raise unusable(name, place, len(queries), f"{printable(item.image)} does not exist.")


def _to_caption(query: Query, stored: Mapping[str, ImageSource]) -> ImageSource | None:
    if query.caption is not None:
        return None
    return query.items["image"][0].image if query.like is None else stored[query.like]


def key_of(item: Item) -> object:
    """A key that is equal only for items with the same vector. Decoded images are distinguished by identity."""
    if not item.images:
        return item.text
    return item.text, *(image if isinstance(image, Path | bytes) else id(image) for image in item.images)


def mean_of_unit(vectors: Sequence[Vector]) -> Vector:
    """A single vector as it is, or the mean of several at unit length."""
    return vectors[0] if len(vectors) == 1 else unit(np.mean(vectors, axis=0, dtype=np.float64))


def unusable(name: str, place: int, total: int, reason: str) -> QueryError:
    """The error of a branch that has no vector.

    Args:
        name: The branch.
        place: The position of its query in the batch.
        total: The number of queries in the batch.
        reason: The reason, as a sentence.
    """
    which = f"The query's {name}" if total == 1 else f"The {name} of query {place}"
    return QueryError(f"{which} cannot be used: {reason}", None if "text" in name else "Give another image.")


def _missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False  # decoding will report what is wrong
    return False
