"""CLIP models as embedders, through open_clip: a published checkpoint by name and tag, or a folder in its layout.

A fused document is the equally weighted sum of its unit parts, normalized; the fingerprint says so. For several images,
the image part is the normalized mean of their unit vectors.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.embed.base import Dtype, Embedder, Fingerprint, Prepared
from indexer.embed.clip.loading import load_folder, load_published
from indexer.embed.clip.tokenizer import FolderTokenizer
from indexer.embed.drafts import with_draft
from indexer.embed.preprocess import TARGET_RATIO, ImagePreprocess
from indexer.embed.several import image_arrays, mean_of_several
from indexer.embed.textual_inversion import PseudoWordReader
from indexer.embed.weights import weights_digest
from indexer.errors import CallError, ModelError
from indexer.forks import Lock, in_child
from indexer.types import ImageSource, Item, Modality, Role, Vectors
from indexer.vectors.unit import unit_rows

if TYPE_CHECKING:
    import torch

FUSED_IMAGE_WEIGHT = 0.5
MOST_STREAMS = 4
"""Concurrent batches; each holds its input and the model's activations."""
CHARACTERS_READ = 20_000
"""Characters of a text; every open_clip tokenizer truncates its tokens long before."""


def load(rest: str, *, name: str, dtype: Dtype, device: str) -> Embedder:
    """`open_clip:ARCHITECTURE/TAG` or `open_clip:FOLDER`, each with or without `?draft=N`.

    Raises:
        CallError: Another option follows the name, or the device does not support the dtype.
        UnknownNameError: open_clip has no such architecture or no such weights for it.
        ModelError: The weights cannot be found, fetched or read.
    """

    def loaded(plain: str, name: str) -> ClipEmbedder:
        if Path(plain).is_dir():
            return ClipEmbedder.from_folder(Path(plain), name=name, dtype=dtype, device=device)
        architecture, slash, tag = plain.rpartition("/")
        if not slash or plain.startswith((".", "/", "~")):
            raise ModelError(
                f"{name!r} names neither a folder nor an architecture with its weights.",
                "Write open_clip:FOLDER, or open_clip:ARCHITECTURE/TAG, such as "
                "open_clip:ViT-B-32/laion2b_s34b_b79k. `underdrawing doctor --models` lists what open_clip knows.",
            )
        return ClipEmbedder.from_pretrained(architecture, tag, name=name, dtype=dtype, device=device)

    return with_draft(rest, name, loaded)


class ClipEmbedder(Embedder):
    """An image encoder and a text encoder of one space."""

    modalities = frozenset(Modality)

    def __init__(self, model: Any, tokenizer: Any, weights: Path, *, name: str, dtype: Dtype, device: str) -> None:
        import torch

        if dtype is Dtype.FLOAT16 and device == "cpu":
            raise CallError("float16 is slow and imprecise on a CPU.", "Use float32 or bfloat16, or a GPU.")
        self.name = name
        self._dtype = dtype
        self.device = device
        self._torch_dtype = getattr(torch, dtype.value)
        self._model = model.to(device=device, dtype=self._torch_dtype).eval()
        self._tokenizer = tokenizer
        # A transformers tokenizer changes its state when called, so two threads at once fail.
        self._reading: AbstractContextManager[Any] = nullcontext() if isinstance(tokenizer, FolderTokenizer) else Lock()
        self._weights = weights
        self._preprocess = ImagePreprocess.from_config(model.visual.preprocess_cfg)
        self.dim = int(self._text_vectors(["a"]).shape[1])
        # One batch on all cores waits at every layer for the core that decodes the next images; concurrent batches
        # do not wait.
        self._cores = torch.get_num_threads()
        self.streams = min(self._cores, MOST_STREAMS) if device == "cpu" else 1

    @classmethod
    def from_folder(cls, folder: Path, *, name: str, dtype: Dtype, device: str) -> ClipEmbedder:
        """Load `open_clip_config.json` and the weights beside it. No code of the folder runs.

        Raises:
            ModelError: The folder lacks one of them, they do not match, or it asks for something unsupported.
        """
        model, tokenizer, weights = load_folder(folder, name)
        return cls(model, tokenizer, weights, name=name, dtype=dtype, device=device)

    @classmethod
    def from_pretrained(cls, architecture: str, tag: str, *, name: str, dtype: Dtype, device: str) -> ClipEmbedder:
        """Load a published checkpoint, fetched on first use and stored in open_clip's cache.

        Raises:
            UnknownNameError: open_clip has no such architecture or no such weights for it.
            ModelError: The weights cannot be fetched.
        """
        model, tokenizer, weights = load_published(architecture, tag, name)
        return cls(model, tokenizer, weights, name=name, dtype=dtype, device=device)

    @functools.cached_property
    def _fingerprint(self) -> Fingerprint:
        return Fingerprint(
            model=self.name,
            weights=weights_digest(self._weights),
            preprocessing=self._preprocess.describe(),
            template=f"text as is; fused = {FUSED_IMAGE_WEIGHT} image + {1 - FUSED_IMAGE_WEIGHT} text of unit parts",
            dtype=self._dtype.value,
            dim=self.dim,
        )

    def fingerprint(self) -> Fingerprint:
        """Digest of the weights; the first call reads them, later ones use a cache by (path, size, time)."""
        return self._fingerprint

    def preparer(self) -> ClipPrepare:
        """Decoding and resizing, without torch; texts are tokenized in `forward`, which has the tokenizer."""
        return ClipPrepare(self._preprocess)

    def forward(self, prepared: Sequence[Prepared], role: Role, instruction: str | None = None) -> Vectors:
        """Images in one batch, texts in another; a fused item is in both."""
        with_image = [row for row, each in enumerate(prepared) if "image" in each.arrays]
        with_text = [row for row, each in enumerate(prepared) if "text" in each.arrays]
        vectors = np.zeros((len(prepared), self.dim), np.float32)
        fused = set(with_image) & set(with_text)
        for rows, encode, share in (
            (with_image, self._images, FUSED_IMAGE_WEIGHT),
            (with_text, self._texts, 1 - FUSED_IMAGE_WEIGHT),
        ):
            if rows:
                shares = np.array([share if row in fused else 1.0 for row in rows], np.float32)
                vectors[rows] += shares[:, None] * encode([prepared[row] for row in rows])
        return unit_rows(vectors)

    @contextmanager
    def threads(self, ready: Callable[[], object] | None = None) -> Iterator[Executor]:
        """As in the base class; each thread gets its share of the cores. So do threads that start torch meanwhile."""
        import torch

        cores = 1 if in_child() else self._cores
        shares = iter([max(1, len(range(place, cores, self.streams))) for place in range(self.streams)])
        try:
            with super().threads(ready or (lambda: torch.set_num_threads(next(shares)))) as pool:
                yield pool
        finally:
            torch.set_num_threads(cores)  # this thread is unchanged, but new threads would get a share

    def image_features(self, prepared: Sequence[Prepared]) -> Vectors:
        """The raw output of the image encoder, (n, dim) float32, not normalized; published inversions read it.

        For an item of several images, the first counts.
        """
        return self._features([each.arrays["image"] for each in prepared])

    def _features(self, pixels: Sequence[npt.NDArray[Any]]) -> Vectors:
        import torch

        stacked = torch.from_numpy(self._preprocess.normalize(np.stack(pixels)))
        with torch.inference_mode():
            features: torch.Tensor = self._model.encode_image(stacked.to(self.device, self._torch_dtype))
        return np.asarray(features.float().cpu().numpy())

    def patch_features(self, prepared: Sequence[Prepared], layer: int = -1) -> npt.NDArray[np.float32]:
        """The image encoder's features at every place of its grid, before pooling: (n, places, width) float32.

        Args:
            prepared: n items with an image.
            layer: Which of the encoder's layers, or of the stages of a convolutional one; -1 is the last.

        Raises:
            CallError: The encoder has no such layer, or does not expose its layers.
        """
        import torch

        encoder = self._model.visual
        if not hasattr(encoder, "forward_intermediates"):
            raise CallError(
                f"The image encoder of {self.name}, a {type(encoder).__name__}, does not expose its layers."
            )
        stacked = torch.from_numpy(self._preprocess.normalize(np.stack([each.arrays["image"] for each in prepared])))
        try:
            with torch.inference_mode():
                found = encoder.forward_intermediates(
                    stacked.to(self.device, self._torch_dtype), indices=[layer], stop_early=True,
                    intermediates_only=True, output_fmt="NCHW",
                )  # fmt: skip
        except AssertionError:  # both libraries raise it for an index out of range
            raise CallError(f"The image encoder of {self.name} has no layer {layer}; -1 is its last.") from None
        grid = found["image_intermediates"][0]
        return np.asarray(grid.flatten(2).transpose(1, 2).float().cpu().numpy(), np.float32)

    @functools.cached_property
    def pseudo_word_reader(self) -> PseudoWordReader:
        """The text encoder, as one that reads words given as vectors.

        Raises:
            CallError: The encoder has no token embedding of its own (it belongs to another library).
        """
        encoder = getattr(self._model, "text", self._model)
        embedding = getattr(encoder, "token_embedding", None)
        if embedding is None:
            raise CallError(
                f"The text encoder of {self.name} is a {type(encoder).__name__}; only open_clip's reads pseudo-words.",
                "Use a model whose text encoder is open_clip's.",
            )
        return PseudoWordReader(embedding, self._tokenizer, int(encoder.context_length))

    def encode_pseudo_words(self, template: str, texts: Sequence[str], words: Vectors) -> Vectors:
        """Encode texts, each with a pseudo-word: (n, dim) float32, rows of unit length.

        Args:
            template: With `{word}` and `{text}`; see `PseudoWordReader.tokenize`.
            texts: n texts.
            words: (n, word_dim) float32.
        """
        import torch

        cut = [text[:CHARACTERS_READ].replace("\0", " ") for text in texts]
        tokens, places = self.pseudo_word_reader.tokenize(template, cut)
        with torch.inference_mode(), self.pseudo_word_reader.reading(places.to(self.device), torch.from_numpy(words)):
            return self._rows(self._model.encode_text(tokens.to(self.device)))

    def target_padded(self) -> ClipEmbedder:
        """The same model with images padded first; see `Preprocessing`. It is another space."""
        padded = copy.copy(self)
        padded.__dict__.pop("_fingerprint", None)
        padded._preprocess = replace(self._preprocess, target_ratio=TARGET_RATIO)
        return padded

    def with_draft(self, times: int) -> ClipEmbedder:
        """The same model with JPEGs decoded no larger than needed; see `ImagePreprocess.draft`.

        It is another space: the pixels differ slightly.
        """
        drafted = copy.copy(self)
        drafted.__dict__.pop("_fingerprint", None)
        drafted._preprocess = replace(self._preprocess, draft=times)
        return drafted

    @property
    def model(self) -> Any:
        """The open_clip model itself, for training."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The open_clip tokenizer, for training."""
        return self._tokenizer

    def _images(self, prepared: Sequence[Prepared]) -> Vectors:
        return mean_of_several(prepared, self._features, max(self.batch_size, len(prepared)))

    def _texts(self, prepared: Sequence[Prepared]) -> Vectors:
        return self._text_vectors([str(each.arrays["text"]) for each in prepared])

    def _text_vectors(self, texts: list[str]) -> Vectors:
        import torch

        with self._reading:
            tokens = self._tokenizer(texts)
        with torch.inference_mode():
            return self._rows(self._model.encode_text(tokens.to(self.device)))

    def _rows(self, features: torch.Tensor) -> Vectors:
        return unit_rows(features.float().cpu().numpy())


@dataclass(frozen=True)
class ClipPrepare:
    """Converts items to arrays, in any process."""

    preprocess: ImagePreprocess

    def __call__(self, item: Item) -> Prepared:
        """Decode and resize the image; truncate the text to what a tokenizer can use.

        Raises:
            ItemError: The image cannot be decoded.
        """
        # As bytes, a quarter of the model's input, which `image_features` computes.
        arrays: dict[str, Any] = image_arrays(item, self._pixels)
        if item.text is not None:
            # NumPy drops trailing NULs of its strings, and tokenizers ignore them.
            arrays["text"] = np.array(item.text[:CHARACTERS_READ].replace("\0", " "))
        return Prepared(item.modality, arrays)

    def _pixels(self, image: ImageSource) -> npt.NDArray[np.uint8]:
        from indexer.corpus.images import decode_image

        return self.preprocess.pixels(decode_image(image, hint=self.preprocess.hint))
