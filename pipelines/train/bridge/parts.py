"""What stands still while a bridge is trained: what its encoder sees, and what its text model makes of texts alone.

Both are computed once, a part at a time, and read from the run's folder a batch at a time: they are many times as large
as the images, and memory must not grow with them. Only the connector, and texts with images, are asked again.

Since the features are kept, images cannot be changed a little at every step; so a few changed views of each are kept.

What this module does not know: losses, steps.
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
"""Images, or texts, that go through a frozen model together."""
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BridgeRecipe(ContrastRecipe):
    """Everything a run depends on, besides the corpus: these, and what `ContrastRecipe` has.

    Attributes:
        tower: The embedder whose image encoder is used, of the CLIP family.
        layer: Which of the encoder's layers is read; -1 is the last.
        text: The text model: a folder, hub id, GGUF file, or `package:NAME/PATH`.
        pooling: How it is read, one of `Pooling`; None for what suits its kind.
        max_tokens: Of an item's text.
        connector: One of `Connector`.
        queries: Of a Q-Former.
        qformer: Of a Q-Former: transformers' `Blip2QFormerConfig`.
        project: Whether what the text model reads out goes through a trained matrix.
        views: Changed copies of each image; 0 for none.
        align_steps: Optimiser steps of the first phase: images to the vectors of their captions.
        steps: Of the second: the tasks.
        others: In the first phase, captions of other images beside those of the batch.
        align_peak: AdamW's largest learning rate in the first phase: `--align-learning-rate`.
        peak: The same in the second: `--learning-rate`, which leaves the first alone.
        weight_decay: AdamW's decay, on matrices but the projection, which starts at what it should stay near.
        bf16: The frozen text model, and what is trained by autocast, in bfloat16.
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
class Kept:
    """An array in a file, of which is in memory what was asked for last.

    It is mapped anew for each reading, since what has been read through one mapping counts as the process's own memory
    until that is given up, and a run reads all of the file many times.

    Attributes:
        file: An .npy file.
    """

    file: Path

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """As NumPy has it."""
        return tuple(np.load(self.file, mmap_mode="r").shape)

    def __getitem__(self, place: Any) -> npt.NDArray[Any]:
        """A copy of what NumPy has at that place."""
        return np.array(np.load(self.file, mmap_mode="r")[place])


@dataclass(frozen=True)
class Seen:
    """Images as the encoder sees them.

    Attributes:
        features: (1 + views, n, places, width) float16; the first is the image as it is.
        bad: Positions of images that cannot be used, whose features are zero.
    """

    features: Kept
    bad: Rows

    def means(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Unit rows, (len(rows), width): alike for images that look alike, all of them centered."""
        pooled = np.empty((len(rows), self.features.shape[3]), np.float32)
        for start in range(0, len(rows), PART):
            own = slice(start, start + PART)
            pooled[own] = self.features[0, rows[own]].astype(np.float32).mean(1)
        pooled -= pooled.mean(0)
        return np.asarray(pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-6), np.float32)


def see(tower: PatchEncoder, images: Callable[[], Iterable[Any]], recipe: BridgeRecipe, folder: Path) -> Seen:
    """The features of all images, computed once and then read from the folder.

    Args:
        tower: It.
        images: Gives the n image sources, the same ones each time: they are decoded once to know whether their
            features are there, and once more for those.
        recipe: Which layer, how many views.
        folder: Where the features are kept.

    Raises:
        CallError: No image can be used, or they are others the second time.
        StoreError: The disk refuses.
    """
    about = tower.fingerprint().digest, recipe.layer, recipe.views, recipe.seed
    first = _Prepared(tower, images(), about)
    good = sum(1 for _ in first)
    count = good + len(first.bad)
    if not good:
        raise CallError(
            f"None of the corpus's {count:,} images can be used.", "underdrawing index CORPUS DIR says why, for each."
        )
    file = folder / f"features-{first.key()}.npy"
    if not file.exists():
        with atomic_path(file) as temporary:
            again = _Prepared(tower, images(), about)
            left, start = iter(again), 0
            while part := list(islice(left, PART)):
                rows = [row for row, _ in part]
                found = tower.patch_features([each for _, each in part], recipe.layer)
                if start == 0:
                    _allocate(temporary, (1 + recipe.views, count, *found.shape[1:]), np.float16)
                _put(temporary, (0, rows), found)
                pixels = np.stack([each.arrays["image"] for _, each in part])
                for view in range(recipe.views):
                    changed = _changed(pixels, np.random.default_rng([recipe.seed, start, view]))
                    _put(temporary, (1 + view, rows), tower.patch_features(changed, recipe.layer))
                start += PART
            if again.key() != first.key():
                raise CallError("Images of the corpus changed while they were read.", "Run the same command again.")
    return Seen(Kept(file), np.array(first.bad, np.int64))


class _Prepared:
    """Images as an encoder reads them, one at a time; of those that went by, a key and which could not be used."""

    def __init__(self, tower: PatchEncoder, images: Iterable[Any], about: object) -> None:
        self.bad: list[int] = []
        self._images, self._prepare = images, tower.preparer()
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
        """Of the images, which of them can be used, and what else it was said to be about."""
        digest = self._digest.copy()
        digest.update(repr(self.bad).encode())
        return digest.hexdigest()[:16]


def _changed(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> list[Prepared]:
    import torch

    moved = augment(pixels, rng, torch.device("cpu")).add(1).mul(127.5).clamp(0, 255).round().byte()
    return [Prepared(Modality.IMAGE, {"image": each}) for each in moved.permute(0, 2, 3, 1).contiguous().numpy()]


def read_texts(text: TextModel, texts: Sequence[str], most: int, folder: Path) -> Kept:
    """What the text model reads out of each text alone, computed once and kept in the folder.

    Args:
        text: It.
        texts: n of them.
        most: Tokens of a text, as the finished bridge cuts it.
        folder: Where the vectors are kept.

    Returns:
        (n, width) float32.

    Raises:
        StoreError: The disk refuses.
    """
    import torch

    key = repr((text.digest, str(text.pooling), most, str(text.table().dtype), list(texts)))
    file = folder / f"texts-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if not file.exists():
        ids = [text.ids(each, most) for each in texts]
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))  # alike in length, so little padding
        with atomic_path(file) as temporary, torch.inference_mode():
            _allocate(temporary, (len(texts), text.width), np.float32)
            for start in range(0, len(order), PART):
                part = order[start : start + PART]
                read = text.read([ids[place] for place in part], None, [False] * len(part))
                _put(temporary, part, read.float().cpu().numpy())
    return Kept(file)


def _allocate(file: Path, shape: tuple[int, ...], dtype: type[np.floating[Any]]) -> None:
    """Let a file be an array of zeros, with room on the disk for all of it."""
    array = np.lib.format.open_memmap(file, "w+", dtype, shape)
    # Else a full disk would be found out by a write to memory, which ends the process without a word.
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), array.offset, array.nbytes)


def _put(file: Path, place: Any, values: npt.NDArray[Any]) -> None:
    """Write a part of an array; see `Kept` for why it is mapped anew."""
    np.lib.format.open_memmap(file, "r+")[place] = values


def whitening(rows: Kept | npt.NDArray[np.float32], count: int) -> tuple[Tensor, Tensor]:
    """The matrix and offset after which rows have mean zero and no correlations, (dim, dim) and (dim,) float32.

    The hidden states of a language model point nearly all one way; whitened, cosines tell texts apart. Directions that
    have hardly any variance, or none since there are too few rows, are not blown up like the others.

    Source: Su et al., "Whitening Sentence Representations for Better Semantics and Faster Retrieval", 2021,
    arXiv:2103.15316.

    Args:
        rows: (n, dim).
        count: The first so many rows are looked at, in two passes and a part at a time.
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
    # As long as what is read out, so that learning rates suit both.
    matrix *= length / len(mean) ** 0.5
    return matrix.float(), -(matrix @ mean).float()
