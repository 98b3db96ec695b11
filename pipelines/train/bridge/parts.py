"""Precomputed inputs of bridge training: features of the frozen image encoder, and vectors of texts alone.

Both are computed once, in parts, and read from the run's folder batch by batch: they are many times as large as the
images, and memory must not grow with them. Only the connector, and texts with images, are computed at every step.

Since features are stored, images cannot be augmented anew at every step; so a few augmented views of each are stored.

This module does not know losses or steps.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.embed.base import PatchEncoder, Prepared
from indexer.embed.bridge.text_model import TextModel
from indexer.errors import CallError, ItemError
from indexer.files.atomic import atomic_path
from indexer.types import Item, Modality
from pipelines.train.common.augment import augment
from pipelines.train.common.contrast import ContrastRecipe

if TYPE_CHECKING:
    from torch import Tensor

PART = 256
"""Images or texts per batch of a frozen model."""
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BridgeRecipe(ContrastRecipe):
    """Everything a run depends on besides the corpus: these fields, and those of `ContrastRecipe`.

    Attributes:
        tower: The embedder whose image encoder is used, a CLIP model.
        layer: Which of the encoder's layers to read; -1 is the last.
        text: The text model: a folder, hub id, GGUF file, or `package:NAME/PATH`.
        pooling: How its output is pooled, one of `Pooling`; None for the default of its kind.
        max_tokens: Tokens of an item's text.
        connector: One of `Connector`.
        queries: Number of queries of a Q-Former.
        qformer: Settings of a Q-Former: transformers' `Blip2QFormerConfig`.
        project: Whether the text model's output goes through a trained matrix.
        views: Augmented copies of each image; 0 for none.
        align_steps: Optimizer steps of the first phase, which matches images to the vectors of their captions.
        steps: Optimizer steps of the second phase, which trains the tasks.
        others: In the first phase, captions of other images besides those of the batch.
        align_peak: Peak learning rate of AdamW in the first phase: `--align-learning-rate`.
        peak: Peak learning rate in the second phase: `--learning-rate`, which leaves the first unchanged.
        weight_decay: AdamW's decay, for matrices except the projection, which should stay near its start.
        bf16: Run the frozen text model in bfloat16, and train with autocast to it.
    """

    tower: str = "bundled:emoji-clip"
    layer: int = -1
    text: str = "sentence-transformers/all-MiniLM-L6-v2"
    pooling: str | None = None
    max_tokens: int = 64
    connector: str = "mlp"
    queries: int = 32
    qformer: Mapping[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024,
            "cross_attention_frequency": 2,
        }
    )  # fmt: skip
    project: bool = True
    views: int = 3
    align_steps: int = 1000
    steps: int = 2000
    batch: int = 128
    others: int = 512
    align_peak: float = 1e-3
    peak: float = 5e-4
    warmup: int = 100


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, of which memory holds only what was read last.

    It is mapped anew for each reading: what was read through one mapping counts as the process's own memory until it is
    closed, and a run reads the whole file many times.

    Attributes:
        file: An .npy file.
    """

    file: Path

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return tuple(np.load(self.file, mmap_mode="r").shape)

    def __getitem__(self, place: Any) -> npt.NDArray[Any]:
        """A copy of the part at an index."""
        return np.array(np.load(self.file, mmap_mode="r")[place])


@dataclass(frozen=True)
class Seen:
    """Images as features of the encoder.

    Attributes:
        features: (1 + views, n, places, width) float16; the first view is the unchanged image.
        bad: Positions of unusable images, whose features are zero.
    """

    features: StoredArray
    bad: Rows

    def means(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Unit rows, (len(rows), width): similar for images that look alike, and centered."""
        pooled = np.empty((len(rows), self.features.shape[3]), np.float32)
        for start in range(0, len(rows), PART):
            own = slice(start, start + PART)
            pooled[own] = self.features[0, rows[own]].astype(np.float32).mean(1)
        pooled -= pooled.mean(0)
        return np.asarray(pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-6), np.float32)


def see(encoder: PatchEncoder, images: Callable[[], Iterable[Any]], recipe: BridgeRecipe, folder: Path) -> Seen:
    """The features of all images, computed once and then read from the folder.

    Args:
        encoder: The image encoder.
        images: Gives the n image sources, the same ones each time: they are decoded once to check whether their
            features exist, and once more to compute them.
        recipe: Selects the layer and the number of views.
        folder: Where the features are stored.

    Raises:
        CallError: No image can be used, or the second pass gives other images.
        StoreError: The disk cannot be written.
    """
    about = encoder.fingerprint().digest, recipe.layer, recipe.views, recipe.seed
    first = _Prepared(encoder, images(), about)
    good = sum(1 for _ in first)
    count = good + len(first.bad)
    if not good:
        raise CallError(
            f"None of the corpus's {count:,} images can be used.", "underdrawing index CORPUS DIR says why for each."
        )
    file = folder / f"features-{first.key()}.npy"
    if not file.exists():
        with atomic_path(file) as temporary:
            again = _Prepared(encoder, images(), about)
            left, start = iter(again), 0
            while part := list(islice(left, PART)):
                rows = [row for row, _ in part]
                found = encoder.patch_features([each for _, each in part], recipe.layer)
                if start == 0:
                    _allocate(temporary, (1 + recipe.views, count, *found.shape[1:]), np.float16)
                _put(temporary, (0, rows), found)
                pixels = np.stack([each.arrays["image"] for _, each in part])
                for view in range(recipe.views):
                    changed = _changed(pixels, np.random.default_rng([recipe.seed, start, view]))
                    _put(temporary, (1 + view, rows), encoder.patch_features(changed, recipe.layer))
                start += PART
            if again.key() != first.key():
                raise CallError("Images of the corpus changed while they were read.", "Run the same command again.")
    return Seen(StoredArray(file), np.array(first.bad, np.int64))


class _Prepared:
    """Preprocessed images, one at a time; collects a key of those seen, and which could not be used."""

    def __init__(self, encoder: PatchEncoder, images: Iterable[Any], about: object) -> None:
        self.bad: list[int] = []
        self._images, self._prepare = images, encoder.preparer()
        self._digest = hashlib.sha256(repr(about).encode())

    def __iter__(self) -> Iterator[tuple[int, Prepared]]:
        for row, image in enumerate(self._images):
            try:
                prepared = self._prepare(Item(image=image))
            except ItemError:
                self.bad.append(row)
                continue
            self._digest.update(f"{row} ".encode() + prepared.arrays["image"].tobytes())
            yield row, prepared

    def key(self) -> str:
        """Which of the images can be used, and what else the cached features describe."""
        digest = self._digest.copy()
        digest.update(repr(self.bad).encode())
        return digest.hexdigest()[:16]


def _changed(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> list[Prepared]:
    import torch

    moved = augment(pixels, rng, torch.device("cpu")).add(1).mul(127.5).clamp(0, 255).round().byte()
    return [Prepared(Modality.IMAGE, {"image": each}) for each in moved.permute(0, 2, 3, 1).contiguous().numpy()]


def read_texts(text: TextModel, texts: Sequence[str], most: int, folder: Path) -> StoredArray:
    """The text model's output for each text alone, computed once and stored in the folder.

    Args:
        text: The text model.
        texts: n of them.
        most: Tokens of a text, as in the finished bridge.
        folder: Where the vectors are stored.

    Returns:
        (n, width) float32.

    Raises:
        StoreError: The disk cannot be written.
    """
    import torch

    key = repr((text.digest, str(text.pooling), most, str(text.table().dtype), list(texts)))
    file = folder / f"texts-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if not file.exists():
        ids = [text.ids(each, most) for each in texts]
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))  # similar lengths need little padding
        with atomic_path(file) as temporary, torch.inference_mode():
            _allocate(temporary, (len(texts), text.width), np.float32)
            for start in range(0, len(order), PART):
                part = order[start : start + PART]
                read = text.read([ids[place] for place in part], None, [False] * len(part))
                _put(temporary, part, read.float().cpu().numpy())
    return StoredArray(file)


def _allocate(file: Path, shape: tuple[int, ...], dtype: type[np.floating[Any]]) -> None:
    """Make a file an array of zeros, with disk space reserved for all of it."""
    array = np.lib.format.open_memmap(file, "w+", dtype, shape)
    # Otherwise a full disk would surface as a write to mapped memory, which kills the process silently.
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), array.offset, array.nbytes)


def _put(file: Path, place: Any, values: npt.NDArray[Any]) -> None:
    """Write a part of an array, through a new mapping as in reading."""
    np.lib.format.open_memmap(file, "r+")[place] = values


def whitening(rows: StoredArray | npt.NDArray[np.float32], count: int) -> tuple[Tensor, Tensor]:
    """The matrix and offset that make rows uncorrelated with mean zero, (dim, dim) and (dim,) float32.

    The hidden states of a language model nearly all point one way; after whitening, cosines distinguish texts.
    Directions with hardly any variance, or none because there are too few rows, are not scaled up like the others.

    Source: Su et al., "Whitening Sentence Representations for Better Semantics and Faster Retrieval", 2021,
    arXiv:2103.15316.

    Args:
        rows: (n, dim).
        count: Rows to use, from the first; they are read in two passes, part by part.
    """
    import torch

    def parts() -> Iterator[Tensor]:
        for start in range(0, count, PART):
            yield torch.from_numpy(np.array(rows[start : min(start + PART, count)], np.float64))

    sums = [(part.sum(0), part.norm(dim=1).sum().item()) for part in parts()]
    mean, length = torch.stack([each for each, _ in sums]).sum(0) / count, sum(each for _, each in sums) / count
    spread = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in parts():
        spread += (part - mean).T @ (part - mean)
    values, directions = torch.linalg.eigh(spread / count)
    values = values.clamp(min=max(values.median().item() / 100, values.mean().item() / 1000, 1e-12))
    matrix = directions @ torch.diag(values**-0.5) @ directions.T
    # As long as the text model's output, so that one learning rate suits both.
    matrix *= length / len(mean) ** 0.5
    return matrix.float(), -(matrix @ mean).float()
