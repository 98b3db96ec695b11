"""The recipe fields, contrastive loss and recall that `train unified` and `train bridge` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.train.common.captions import Captions
from pipelines.train.common.differences import Differences
from pipelines.train.common.gradient_cache import backward
from pipelines.train.common.recipe import CorpusRecipe
from pipelines.train.common.tasks import NONE, Reading

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ContrastRecipe(CorpusRecipe):
    """Fields of both recipes: these, and those of `CorpusRecipe`.

    Attributes:
        tasks: Share of a batch by task; see `Task`.
        sentences: Texts around the words that differ; each has `{text}`.
        tokens: Items are read in parts of at most this many tokens, padding included.
        cache_gradients: Hold the activations of one part at a time; see `gradient_cache`.
        temperature: Temperature of the contrast.
        bf16: Autocast to bfloat16.
    """

    tasks: Mapping[str, float] = field(
        default_factory=lambda: {
            "text-image": 0.25, "image-text": 0.15, "image-image": 0.05, "fused-image": 0.35, "image-fused": 0.05,
            "text-fused": 0.05, "fused-fused": 0.1,
        }
    )  # fmt: skip
    sentences: Sequence[str] = ("{text}",)
    tokens: int = 4096
    cache_gradients: bool = False
    temperature: float = 0.03
    weight_decay: float = 0.05
    warmup: int = 200
    bf16: bool = False


def contrasted(
    encode: Callable[[int], Tensor],
    parts: Sequence[Sequence[int]],
    right: npt.NDArray[np.bool_],
    temperature: float,
    device: torch.device,
    *,
    cached: bool,
) -> float:
    """The loss of a batch that is encoded in parts; its gradients are added to the weights.

    Args:
        encode: The unit vectors of a part, by its number.
        parts: Positions in the batch by part, queries first and then documents.
        right: (queries, documents) bool: all right answers.
        temperature: See `contrast`.
        device: Where the vectors are.
        cached: Hold the activations of one part at a time.
    """
    import torch

    order = torch.from_numpy(np.argsort(np.concatenate([np.array(part, np.int64) for part in parts])))
    answers = torch.from_numpy(right).to(device)

    def loss(vectors: Tensor) -> Tensor:
        unsorted = vectors[order.to(vectors.device)]
        return contrast(unsorted[: len(right)], unsorted[len(right) :], answers, temperature)

    return backward(encode, range(len(parts)), loss, cached=cached)


def recalls(
    data: Captions,
    recipe: ContrastRecipe,
    sample: int,
    *,
    usable: Callable[[str | None], Rows],
    alike: Callable[[str, Rows], Differences | None],
    asking: Callable[[Sequence[Reading]], npt.NDArray[np.float32]],
    found: Callable[[Sequence[Reading]], npt.NDArray[np.float32]],
) -> dict[str, float]:
    """Recall of captions for images, and of images for images with words, in each part of a corpus.

    Args:
        data: The corpus's captions.
        recipe: Names the parts, the texts around words, and the seed.
        sample: Limit of images of a part, and of queries with both parts.
        usable: The records of a part, or of all parts.
        alike: Pairs of the records of a part, by its label; None if there are none.
        asking: Embeds queries.
        found: Embeds documents.

    Returns:
        By label of the part, `train` or `validation`: `_r10`, R@10 of an image's caption among all of the corpus, and
            `_fused_r1` and `_fused_r10`, of the other image among a sample of its part.
    """
    rng = np.random.default_rng(recipe.seed)
    names = list(dict.fromkeys(data.names))
    number = {name: place for place, name in enumerate(names)}
    gallery = found([Reading(None, name, NONE) for name in names])
    parts: dict[str, str | None] = {"train": None}
    if recipe.split_field:
        parts = {"train": recipe.train_part, "validation": recipe.validation_part}
    measured: dict[str, float] = {}
    for label, part in parts.items():
        rows = usable(part)
        if not len(rows):
            continue
        some = rng.choice(rows, min(sample, len(rows)), replace=False)
        asked = asking([Reading(None, None, int(row), image=int(row)) for row in some])
        right = np.array([number[data.names[row]] for row in some])
        measured[f"{label}_r10"] = _share_within(asked @ gallery.T, right, 10)
        pairs = alike(label, rows)
        if pairs is not None:
            scores, right = _composed(rows, pairs, recipe.sentences[0], rng, sample, asking, found)
            measured |= {f"{label}_fused_r{k}": _share_within(scores, right, k) for k in (1, 10)}
    return measured


def _composed(
    rows: Rows,
    pairs: Differences,
    sentence: str,
    rng: np.random.Generator,
    sample: int,
    asking: Callable[[Sequence[Reading]], npt.NDArray[np.float32]],
    found: Callable[[Sequence[Reading]], npt.NDArray[np.float32]],
) -> tuple[npt.NDArray[np.float32], Rows]:
    """Scores of images for an image and the words by which another differs, and the row of that one, by query."""
    before, after, said = pairs.draw(min(sample, 4 * len(rows)), rng)
    gallery = np.unique(np.concatenate([before, after, rng.choice(rows, min(sample, len(rows)), replace=False)]))
    asked = asking([
        Reading(None, sentence.replace("{text}", words), int(target), image=int(image))
        for image, target, words in zip(before, after, said, strict=True)
    ])  # fmt: skip
    scores = asked @ found([Reading(None, None, int(row), image=int(row)) for row in gallery]).T
    scores[np.arange(len(before)), np.searchsorted(gallery, before)] = -np.inf
    return scores, np.searchsorted(gallery, after)


def contrast(queries: Tensor, documents: Tensor, right: Tensor, temperature: float) -> Tensor:
    """InfoNCE both ways, mean over the pairs; other right answers count neither for nor against.

    Args:
        queries: (n, dim) unit rows.
        documents: (n or more, dim) unit rows; the first n are the right answers, in order.
        right: (n, documents) bool: all right answers.
        temperature: Cosines are divided by it.
    """
    import torch

    count = len(queries)
    own = torch.arange(count, device=queries.device)
    also = right.clone()
    also[own, own] = False
    logits = (queries @ documents.T / temperature).masked_fill(also, -torch.inf)
    forward = torch.nn.functional.cross_entropy(logits, own)
    back = torch.nn.functional.cross_entropy(logits[:, :count].T, own)
    return (forward + back) / 2


def _share_within(scores: npt.NDArray[np.float32], right: npt.NDArray[np.int64], k: int) -> float:
    """Share of rows whose right answer is in the top-k: scores (n, answers), right (n,)."""
    rank = (scores > scores[np.arange(len(right)), right][:, None]).sum(1)
    return float((rank < k).mean())
