"""Prepare a document: check it, store its images, and make its parts ready for the models.

`Collection.add` and the batch job both use it, so that one document and a million get the same vectors. It runs in
worker processes and holds no model.

A collection may have several spaces, and a document may fit only some of them: an image has no vector in a space of
texts. It is stored if at least one space takes it; otherwise it is rejected for the reason of the first space.

What this module does not know: SQL, models, where documents come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from indexer.corpus.image_rules import ImageRules
from indexer.corpus.paths import printable
from indexer.embed.base import Embedder, Prepared
from indexer.embed.several import for_each
from indexer.errors import ItemError
from indexer.files.media import store_image
from indexer.metadata.holdings import content_of
from indexer.metadata.publish import NewDocument
from indexer.reasons import Reason, refusal
from indexer.types import Document, ImageSource, Item, Parts, Rejected, Role, Vectors
from indexer.validate import MAX_IMAGES, checked_fields, checked_id, checked_text, shown

_WITHOUT = {
    Parts.AUTO: "neither text nor image",
    Parts.IMAGE: "no image, and this collection embeds only images",
    Parts.TEXT: "no text, and this collection embeds only texts",
}


@dataclass(frozen=True)
class Ready:
    """A document ready to be embedded and stored, with its prepared input for each space's model, by the space's id."""

    document: NewDocument
    prepared: Mapping[int, Prepared]


@dataclass(frozen=True)
class Preparer:
    """How items of one space are prepared; picklable.

    Attributes:
        space: The space's id.
        prepare: The embedder's function.
        parts: Which parts of a document are embedded.
    """

    space: int
    prepare: Callable[[Item], Prepared]
    parts: Parts

    @property
    def reads_images(self) -> bool:
        """Whether a document's images are embedded."""
        return self.parts is not Parts.TEXT

    def __call__(self, text: str | None, images: Sequence[ImageSource]) -> tuple[Item, Prepared]:
        """The item of a document's parts, and its prepared input.

        Raises:
            ItemError: The document has none of the parts, or the model cannot read them.
        """
        item = embedded_item(text, images, self.parts)
        return item, self.prepare(item)


@dataclass(frozen=True)
class Ingest:
    """Turns a document into a `Ready`; picklable.

    Attributes:
        preparers: One for each space, the default first.
        media: The folder for images given as bytes.
        images: How images are read.
    """

    preparers: Sequence[Preparer]
    media: Path
    images: ImageRules = ImageRules()

    def __call__(self, document: Document, source: str | None = None, stamp: str | None = None) -> Ready | Rejected:
        """Check, store and prepare one document; a bad one becomes a reject with the reason."""
        try:
            identifier = checked_id(document.id)
            text = checked_text(document.text)
            fields = checked_fields(document.fields)
            images = checked_images(document.images)
            uri = checked_text(document.uri, "uri") if document.uri is not None else None
            with self.images.decoding():
                item, prepared = self._prepared(text, images)
            fields = {**self.images.fields(images[0] if images else None), **fields}
            # Last, so that a rejected document leaves no files.
            stored = for_each(images, partial(store_image, self.media))
        except ItemError as error:
            return Rejected(printable(named(document)), error.reason, error.detail)
        image = stored[0] if stored else None
        return Ready(
            NewDocument(
                id=identifier,
                text=text,
                uri=uri or (image.uri if image else None),
                image=image.uri if image else None,
                image_sha256=image.sha256 if image else None,
                modality=item.modality,
                content=self._content(item, image_key([each.sha256 for each in stored])),
                fields=fields,
                source=source,
                stamp=stamp,
                images=[(each.uri, each.sha256) for each in stored] if len(stored) > 1 else (),
            ),
            prepared,
        )

    def _prepared(self, text: str | None, images: Sequence[ImageSource]) -> tuple[Item, dict[int, Prepared]]:
        """The prepared inputs of a document by space, and the item of the first space that takes it.

        Raises:
            ItemError: No space takes it; the error of the first one.
        """
        items: list[Item] = []
        prepared: dict[int, Prepared] = {}
        refused: ItemError | None = None
        for preparer in self.preparers:
            try:
                item, prepared[preparer.space] = preparer(text, images)
            except ItemError as error:
                refused = refused or error
            else:
                items.append(item)
        if refused is not None and not items:
            raise refused
        return items[0], prepared

    def _content(self, item: Item, images: str | None) -> str | None:
        content = content_of(item.modality, item.text, images)
        # With another limit, the same bytes may give another vector.
        most = self.images.max_pixels
        return content if most is None or item.image is None or content is None else f"{content}@{most}"


def checked_images(images: Sequence[object]) -> list[ImageSource]:
    """The images of a document, with checked types.

    Raises:
        ItemError: `remote-uri`, `bad-image` or `too-many-images`.
    """
    if len(images) > MAX_IMAGES:
        raise refusal(Reason.TOO_MANY_IMAGES, f"The document has {len(images):,} images; allowed are {MAX_IMAGES}.")
    return for_each(images, checked_image)


def image_key(digests: Sequence[str]) -> str | None:
    """The digest of a document's images from the sha256 of each; for one image, its own."""
    if len(digests) < 2:
        return digests[0] if digests else None
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def checked_image(image: object) -> ImageSource:
    """An image with a checked type.

    Raises:
        ItemError: `remote-uri` or `bad-image`.
    """
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Path | bytes):
        return image
    if isinstance(image, str):  # `Document` has turned paths into `Path`
        raise refusal(Reason.REMOTE_URI, f"The image is {printable(image[:80])}; only paths are read, not URIs.")
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    kind = type(image).__name__
    remedy = " Write PIL.Image.fromarray(array)." if kind == "ndarray" else ""
    raise refusal(Reason.BAD_IMAGE, f"The image must be a path, encoded bytes or a PIL image, not {kind}.{remedy}")


def embedded_item(text: str | None, images: Sequence[ImageSource], parts: Parts) -> Item:
    """The parts of a document that are embedded.

    Raises:
        ItemError: It has none of them.
    """
    if parts is Parts.IMAGE:
        text = None
    if parts is Parts.TEXT:
        images = ()
    if text is None and not images:
        raise refusal(Reason.EMPTY, f"The document has {_WITHOUT[parts]}.")
    return Item(text, images=images)


def named(document: Document) -> str:
    """The name of a document in a reject: its source, or else its id."""
    name = document.uri if isinstance(document.uri, str) and document.uri else document.id
    return name[:200] if isinstance(name, str) else shown(name)


def embed(embedder: Embedder, prepared: Sequence[Prepared]) -> Vectors:
    """Document vectors, (len(prepared), dim) float32, computed in the model's batches."""
    vectors = np.empty((len(prepared), embedder.dim), np.float32)
    for start in range(0, len(prepared), embedder.batch_size):
        batch = prepared[start : start + embedder.batch_size]
        vectors[start : start + len(batch)] = embedder.forward(batch, Role.DOCUMENT)
    return vectors


def without_vector(vectors: Vectors, name: Callable[[int], str]) -> dict[int, Rejected]:
    """Rejects for the rows without a direction (zero or not finite), by position.

    Half precision may overflow on a single image; the others are valid.

    Args:
        vectors: (n, dim), from the model.
        name: Returns the name of a row's document.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=1)
    return {
        place: Rejected(
            printable(name(place)[:200]),
            Reason.NO_VECTOR.value,
            f"The model's vector has length {lengths[place]:.3g} instead of 1. Wider arithmetic "
            "(dtype 'float32') may help.",
        )
        for place in np.flatnonzero(~(lengths > 1e-6) | ~np.isfinite(lengths)).tolist()
    }
