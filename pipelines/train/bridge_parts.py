"""What stands still while a bridge is trained: what its tower sees, and what its text model makes of texts alone.

Both are computed once and kept in the run's folder; only the connector, and texts with pictures, are asked again.

Since the features are kept, pictures cannot be changed a little at every step; so a few changed views of each are kept.

What this module does not know: losses, steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from indexer.embed.bridge import PictureTower
from indexer.embed.protocol import Prepared
from indexer.embed.text_model import TextModel
from indexer.errors import ItemError
from indexer.files import atomic_path
from indexer.types import Item, Modality
from pipelines.train.augment import augment

if TYPE_CHECKING:
    from torch import Tensor

PART = 256
"""Pictures, or texts, that go through a frozen model together."""
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BridgeRecipe:
    """Everything a run depends on, besides the corpus.

    Attributes:
        tower: The embedder whose picture tower is used, of the CLIP family.
        layer: Which of the tower's layers is read; -1 is the last.
        text: The text model: a folder, hub id, GGUF file, or `package:NAME/PATH`.
        pooling: How it is read, one of `Pooling`; None for what suits its kind.
        max_tokens: Of an item's text.
        connector: One of `Connector`.
        queries: Of a Q-Former.
        qformer: Of a Q-Former: transformers' `Blip2QFormerConfig`.
        project: Whether what the text model reads out goes through a trained matrix.
        views: Changed copies of each picture; 0 for none.
        tasks: By task, its share of a batch of the second phase; see `Task`.
        sentences: What is said around the words that differ; each has `{text}`.
        templates: Caption template to its share; see `Templates`.
        values: Field to raw value to the words said for it.
        split_field: The field that names a record's part, or None to train on all.
        train_part: The part trained on.
        validation_part: The part that progress is measured on.
        keep: The least share of words that two captions have in common to make a query with both parts.
        look: The field that tells pictures of one text apart, or None; see `Differences`.
        align_steps: Optimiser steps of the first phase: pictures to the vectors of their captions.
        steps: Of the second: the tasks.
        batch: Pairs in a step.
        others: In the first phase, captions of other pictures beside those of the batch.
        tokens: Items are read in parts of at most so many tokens, padding included.
        cache_gradients: Hold the activations of one part at a time; see `gradient_cache`.
        temperature: Of the contrast.
        align_peak: AdamW's largest learning rate in the first phase.
        peak: The same in the second.
        weight_decay: AdamW's decay, on matrices but the projection, which starts at what it should stay near.
        warmup: Steps of linear warm-up of each phase.
        bf16: The frozen text model, and what is trained by autocast, in bfloat16.
        seed: Of everything random.
        evaluate_every: Steps between evaluations and checkpoints.
        device: `cpu` or `cuda`.
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
    tasks: Mapping[str, float] = field(
        default_factory=lambda: {
            "text-image": 0.25, "image-text": 0.15, "image-image": 0.05, "fused-image": 0.35, "image-fused": 0.05,
            "text-fused": 0.05, "fused-fused": 0.1,
        }
    )  # fmt: skip
    sentences: Sequence[str] = ("{text}",)
    templates: Mapping[str, float] = field(default_factory=lambda: {"{text}": 1.0})
    values: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    split_field: str | None = None
    train_part: str = "train"
    validation_part: str = "validation"
    keep: float = 0.4
    look: str | None = None
    align_steps: int = 1000
    steps: int = 2000
    batch: int = 128
    others: int = 512
    tokens: int = 4096
    cache_gradients: bool = False
    temperature: float = 0.03
    align_peak: float = 1e-3
    peak: float = 5e-4
    weight_decay: float = 0.05
    warmup: int = 100
    bf16: bool = False
    seed: int = 0
    evaluate_every: int = 250
    device: str = "cpu"


@dataclass(frozen=True)
class Seen:
    """Pictures as the tower sees them.

    Attributes:
        features: (1 + views, n, places, width) float16; the first is the picture as it is.
        bad: Positions of pictures that cannot be used, whose features are zero.
    """

    features: npt.NDArray[np.float16]
    bad: Rows

    def means(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Unit rows, (len(rows), width): alike for pictures that look alike, all of them centred."""
        pooled = self.features[0, rows].astype(np.float32).mean(1)
        pooled -= pooled.mean(0)
        return np.asarray(pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-6), np.float32)


def see(tower: PictureTower, images: Sequence[Any], recipe: BridgeRecipe, folder: Path) -> Seen:
    """The features of all pictures, computed once and then read from the folder.

    Args:
        tower: It.
        images: n image sources.
        recipe: Which layer, how many views.
        folder: Where the features are kept.
    """
    prepare = tower.preparer()
    prepared: list[Prepared | None] = []
    for image in images:
        try:
            prepared.append(prepare(Item(image=image)))
        except ItemError:
            prepared.append(None)
    bad = np.array([row for row, each in enumerate(prepared) if each is None], np.int64)
    good = [(row, each) for row, each in enumerate(prepared) if each is not None]
    if not good:
        return Seen(np.zeros((1, len(images), 1, 1), np.float16), bad)
    digest = hashlib.sha256(repr((tower.fingerprint().digest, recipe.layer, recipe.views, recipe.seed)).encode())
    digest.update(repr((len(images), [row for row, _ in good])).encode())
    for _, each in good:
        digest.update(each.arrays["image"].tobytes())
    file = folder / f"features-{digest.hexdigest()[:16]}.npy"
    if not file.exists():
        first = tower.picture_tokens([good[0][1]], recipe.layer)
        features = np.zeros((1 + recipe.views, len(images), *first.shape[1:]), np.float16)
        for start in range(0, len(good), PART):
            part = good[start : start + PART]
            rows = [row for row, _ in part]
            features[0, rows] = tower.picture_tokens([each for _, each in part], recipe.layer)
            pixels = np.stack([each.arrays["image"] for _, each in part])
            for view in range(recipe.views):
                changed = _changed(pixels, np.random.default_rng([recipe.seed, start, view]))
                features[1 + view, rows] = tower.picture_tokens(changed, recipe.layer)
        _keep(file, features)
    return Seen(cast("npt.NDArray[np.float16]", np.load(file, mmap_mode="r")), bad)


def _changed(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> list[Prepared]:
    import torch

    moved = augment(pixels, rng, torch.device("cpu")).add(1).mul(127.5).clamp(0, 255).round().byte()
    return [Prepared(Modality.IMAGE, {"image": each}) for each in moved.permute(0, 2, 3, 1).contiguous().numpy()]


def read_texts(text: TextModel, texts: Sequence[str], most: int, folder: Path) -> npt.NDArray[np.float32]:
    """What the text model reads out of each text alone, computed once and kept in the folder.

    Args:
        text: It.
        texts: n of them.
        most: Tokens of a text, as the finished bridge cuts it.
        folder: Where the vectors are kept.

    Returns:
        (n, width) float32.
    """
    import torch

    key = repr((text.digest, str(text.pooling), most, str(text.table().dtype), list(texts)))
    file = folder / f"texts-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if not file.exists():
        found = np.empty((len(texts), text.width), np.float32)
        ids = [text.ids(each, most) for each in texts]
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))  # alike in length, so little padding
        with torch.inference_mode():
            for start in range(0, len(order), PART):
                part = order[start : start + PART]
                read = text.read([ids[place] for place in part], None, [False] * len(part))
                found[part] = read.float().cpu().numpy()
        _keep(file, found)
    return cast("npt.NDArray[np.float32]", np.load(file, mmap_mode="r"))


def whitening(rows: npt.NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """The matrix and offset after which rows have mean zero and no correlations, (dim, dim) and (dim,) float32.

    The hidden states of a language model point nearly all one way; whitened, cosines tell texts apart. Directions that
    have hardly any variance, or none since there are too few rows, are not blown up like the others.

    Source: Su et al., "Whitening Sentence Representations for Better Semantics and Faster Retrieval", 2021,
    arXiv:2103.15316.

    Args:
        rows: (n, dim).
    """
    import torch

    given = torch.from_numpy(np.array(rows, np.float64))
    mean = given.mean(0)
    values, directions = torch.linalg.eigh((given - mean).T @ (given - mean) / len(given))
    values = values.clamp(min=max(values.median().item() / 100, values.mean().item() / 1000, 1e-12))
    matrix = directions @ torch.diag(values**-0.5) @ directions.T
    # As long as what is read out, so that learning rates suit both.
    matrix *= given.norm(dim=1).mean() / len(mean) ** 0.5
    return matrix.float(), -(matrix @ mean).float()


def _keep(file: Path, values: npt.NDArray[Any]) -> None:
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, values)
