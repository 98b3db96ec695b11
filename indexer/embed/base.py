"""The interface of every embedder, and the two steps that each one implements.

An embedder turns `Item`s into unit vectors in two steps, so that a batch job can run the first in worker processes
ahead of the model:

    prepare(item) -> Prepared     CPU only, picklable, no model: decode, resize, tokenize; raises ItemError
    forward(prepared, role) -> (n, dim) float32, rows of unit length

Everything else here is derived from these two steps. A single item is a batch of one, and
results do not depend on the batch or its padding.

This module does not know any model, files or SQL.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from indexer.arguments import described
from indexer.corpus.image_formats import DECODING
from indexer.errors import CallError, ItemError, ItemsError
from indexer.types import HelpfulEnum, Item, Modality, Role, Vectors

if TYPE_CHECKING:
    from indexer.embed.textual_inversion import PseudoWordReader


class Dtype(HelpfulEnum):
    """The arithmetic of a model's forward pass, part of the fingerprint."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@dataclass(frozen=True)
class Fingerprint:
    """Everything that a vector depends on. Two embedders with the same digest give the same vectors.

    Attributes:
        model: The name that the embedder was loaded by.
        weights: sha256 over the weights' content.
        preprocessing: How images and texts become model input.
        template: The text around a query or document, and how the parts of an item are fused.
        dtype: The arithmetic of the forward pass.
        dim: Length of a vector.
        decoding: How an image file becomes pixels.
    """

    model: str
    weights: str
    preprocessing: str
    template: str
    dtype: str
    dim: int
    decoding: str = DECODING

    @property
    def digest(self) -> str:
        """A short stable key. The name is left out: the same weights under another name are the same space.

        `decoding` is left out too: a release that decodes more images than the last must still open its collections.
        Their documents keep their vectors until they are indexed again.
        """
        content = [self.weights, self.preprocessing, self.template, self.dtype, self.dim]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Prepared:
    """One item, ready for the model: arrays by input name, without a batch axis."""

    modality: Modality
    arrays: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Embedded:
    """The outcome of `try_encode`.

    Attributes:
        vectors: (m, dim) float32, one row for each item that could be embedded.
        rows: (m,) int64, the position in the call of each row of `vectors`.
        errors: The reasons of all other items, by position.
    """

    vectors: Vectors
    rows: npt.NDArray[np.int64]
    errors: Mapping[int, ItemError]


class Embedder(ABC):
    """Base class of all embedders. A subclass provides the attributes, `preparer` and `forward`.

    Attributes:
        name: The name that it was loaded by.
        dim: Length of a vector.
        modalities: The kinds of items that it takes.
        batch_size: Items handed to `forward` at once.
        device: Where it runs, such as `cpu` or `cuda:1`; empty if it does not say.
        streams: Batches that a job embeds concurrently, each in one of the `threads`.
        fuses_natively: Whether one model reads a fused item as a whole, instead of summing the vectors of its parts.
        reads_instructions: Whether an instruction changes a query's vector.
    """

    name: str
    dim: int
    modalities: frozenset[Modality]
    device: str = ""
    batch_size: int = 64
    streams: int = 1
    fuses_natively: bool = False
    reads_instructions: bool = False

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of its vectors."""

    @abstractmethod
    def preparer(self) -> Callable[[Item], Prepared]:
        """A picklable callable for worker processes: it decodes and tokenizes, and never holds the model."""

    @abstractmethod
    def forward(self, prepared: Sequence[Prepared], role: Role, instruction: str | None = None) -> Vectors:
        """Embed one batch that fits the device.

        Args:
            prepared: Items in any mix of the supported modalities.
            role: Query or document.
            instruction: The task of the query, for models that read one; others ignore it.

        Returns:
            (n, dim) float32, rows of unit length, in the given order.
        """

    @contextmanager
    def threads(self, ready: Callable[[], object] | None = None) -> Iterator[Executor]:
        """Threads in which a job runs `forward`, one for each stream; on exit, batches still waiting are dropped.

        Args:
            ready: Called at the start of each thread.
        """
        pool = ThreadPoolExecutor(self.streams, "model", ready)
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def encode_query(self, items: Sequence[Item], instruction: str | None = None) -> Vectors:
        """Embed queries: (n, dim) float32, rows of unit length.

        Raises:
            ItemsError: Some items cannot be embedded; it names them all.
            CallError: An item's modality is not supported by this model.
        """
        return self._encode(items, Role.QUERY, instruction)

    def encode_document(self, items: Sequence[Item]) -> Vectors:
        """Embed documents. Differs from `encode_query` only in the role, and raises the same errors."""
        return self._encode(items, Role.DOCUMENT, None)

    def try_encode(self, items: Sequence[Item], role: Role, instruction: str | None = None) -> Embedded:
        """Embed all valid items; a bad item costs only its own row.

        Raises:
            CallError: An item's modality is not supported by this model.
        """
        items = _items(items)
        self.require({item.modality for item in items})
        prepare = self.preparer()
        prepared: list[Prepared] = []
        rows: list[int] = []
        errors: dict[int, ItemError] = {}
        for position, item in enumerate(items):
            try:
                prepared.append(prepare(item))
                rows.append(position)
            except ItemError as error:
                errors[position] = error
        vectors = np.empty((len(prepared), self.dim), np.float32)
        for start in range(0, len(prepared), self.batch_size):
            batch = prepared[start : start + self.batch_size]
            vectors[start : start + len(batch)] = self.forward(batch, role, instruction)
        return Embedded(vectors, np.asarray(rows, np.int64), errors)

    def require(self, modalities: set[Modality]) -> None:
        """Refuse items of a modality that this model has no encoder for.

        Raises:
            CallError: Names the modality, the model and what it takes.
        """
        for modality in sorted(modalities - self.modalities):
            known = ", ".join(sorted(m.value for m in self.modalities))
            raise CallError(f"{self.name} does not embed {modality.value!r} items; it takes {known}.")

    def _encode(self, items: Sequence[Item], role: Role, instruction: str | None) -> Vectors:
        items = _items(items)
        embedded = self.try_encode(items, role, instruction)
        if embedded.errors:
            raise ItemsError(embedded.errors, len(items))
        return embedded.vectors


class EmbedderFamily(Protocol):
    """A loader of one family of models, the part of a model's name before the colon."""

    def __call__(self, rest: str, *, name: str, dtype: Dtype, device: str) -> Embedder:
        """A model.

        Args:
            rest: The part after the colon.
            name: The full name, which becomes the embedder's.
            dtype: Arithmetic of the forward pass.
            device: Where it runs: `cpu`, `cuda`, `cuda:1` or `mps`.

        Raises:
            CallError: The rest does not parse, or the device does not support the dtype.
            ModelError: The weights cannot be found, fetched or read.
            MissingExtraError: A package is missing.
        """
        ...


@runtime_checkable
class PseudoWordEncoder(Protocol):
    """A capability: the text encoder reads pseudo-words, vectors in place of words (textual inversion)."""

    @property
    def pseudo_word_reader(self) -> PseudoWordReader:
        """The token input of the text encoder.

        Raises:
            CallError: This text encoder has no accessible token input.
        """
        ...

    def image_features(self, prepared: Sequence[Prepared]) -> Vectors:
        """The raw output of the image encoder, (n, dim) float32, not normalized; published inversions read it."""
        ...

    def encode_pseudo_words(self, template: str, texts: Sequence[str], words: Vectors) -> Vectors:
        """Encode texts, each with a pseudo-word: (n, dim) float32, rows of unit length.

        Args:
            template: With `{word}` and `{text}`.
            texts: n texts.
            words: (n, word_dim) float32.
        """
        ...


@runtime_checkable
class PatchEncoder(Protocol):
    """A capability: the image encoder exposes the features of every place of its grid, before pooling."""

    def fingerprint(self) -> Fingerprint:
        """Everything that its features depend on."""
        ...

    def preparer(self) -> Callable[[Item], Prepared]:
        """See `Embedder.preparer`."""
        ...

    def patch_features(self, prepared: Sequence[Prepared], layer: int = -1) -> npt.NDArray[np.float32]:
        """The features of n items with an image: (n, places, width) float32; layer -1 is the last."""
        ...


@runtime_checkable
class AdjustableImages(Protocol):
    """A capability: images can be prepared in other ways than the model's default. Each way is another space."""

    def target_padded(self) -> Embedder:
        """The same model with images padded first; see `Preprocessing`."""
        ...

    def with_draft(self, times: int) -> Embedder:
        """The same model with JPEGs decoded no larger than `times` its input; see `ImagePreprocess.draft`."""
        ...


@runtime_checkable
class TrainableEncoder(PseudoWordEncoder, Protocol):
    """A capability: the model and its tokenizer are accessible, for training."""

    name: str
    dim: int

    def fingerprint(self) -> Fingerprint:
        """See `Embedder.fingerprint`."""
        ...

    def encode_query(self, items: Sequence[Item]) -> Vectors:
        """See `Embedder.encode_query`."""
        ...

    def encode_document(self, items: Sequence[Item]) -> Vectors:
        """See `Embedder.encode_document`."""
        ...

    def try_encode(self, items: Sequence[Item], role: Role) -> Embedded:
        """See `Embedder.try_encode`."""
        ...

    @property
    def model(self) -> Any:
        """The model, with open_clip's interface."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, with open_clip's interface."""
        ...


def without_options(name: str) -> str:
    """The model that a name names, without what may follow: `bundled:emoji-clip` of `bundled:emoji-clip?draft=2`."""
    return name.partition("?")[0]


def _items(items: object) -> Sequence[Item]:
    """Check the items of a call.

    Raises:
        CallError: They are not items.
    """
    if isinstance(items, str | bytes | Item | Mapping) or not isinstance(items, Iterable):
        raise CallError(f"An embedder takes a list of Items, not {described(items)}.", "Write [Item(text='...')].")
    found = items if isinstance(items, list | tuple) else list(items)
    for place, each in enumerate(found):
        if not isinstance(each, Item):
            raise CallError(f"items[{place}] is {described(each)}; it must be an Item.", "Write Item(text='...').")
    return found
