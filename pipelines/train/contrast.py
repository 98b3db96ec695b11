"""What `train unified` and `train bridge` learn by and are measured by alike: the contrast, and recall.

What this module does not know: models, how readings become vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.train.differences import Differences
from pipelines.train.gradient_cache import backward
from pipelines.train.unified_tasks import Reading

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def contrasted(
    encode: Callable[[int], Tensor],
    parts: Sequence[Sequence[int]],
    right: npt.NDArray[np.bool_],
    temperature: float,
    device: torch.device,
    *,
    cached: bool,
) -> float:
    """The loss of a batch that is encoded in parts, with its gradients left in the weights.

    Args:
        encode: The unit vectors of a part, by its number.
        parts: Places in the batch, its queries first and then its documents, each in one part.
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


def composed_recall(
    label: str,
    rows: npt.NDArray[np.int64],
    pairs: Differences,
    sentence: str,
    rng: np.random.Generator,
    sample: int,
    *,
    asking: Callable[[Sequence[Reading]], npt.NDArray[np.float32]],
    found: Callable[[Sequence[Reading]], npt.NDArray[np.float32]],
) -> dict[str, float]:
    """How often a picture and the words that differ find the other picture, R@1 and R@10.

    Args:
        label: What the measures are called by.
        rows: The records of a part.
        pairs: Pairs of these.
        sentence: What is said around the words; has `{text}`.
        rng: Draws.
        sample: At most so many queries, and so many pictures besides those of the pairs.
        asking: The vectors of queries.
        found: The vectors of documents.
    """
    before, after, said = pairs.draw(min(sample, 4 * len(rows)), rng)
    gallery = np.unique(np.concatenate([before, after, rng.choice(rows, min(sample, len(rows)), replace=False)]))
    asked = asking([
        Reading(None, sentence.replace("{text}", words), int(target), picture=int(picture))
        for picture, target, words in zip(before, after, said, strict=True)
    ])  # fmt: skip
    scores = asked @ found([Reading(None, None, int(row), picture=int(row)) for row in gallery]).T
    scores[np.arange(len(before)), np.searchsorted(gallery, before)] = -np.inf
    right = np.searchsorted(gallery, after)
    return {f"{label}_fused_r{k}": share_within(scores, right, k) for k in (1, 10)}


def contrast(queries: Tensor, documents: Tensor, right: Tensor, temperature: float) -> Tensor:
    """InfoNCE both ways, mean over the pairs; what would be right too counts neither for nor against.

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


def share_within(scores: npt.NDArray[np.float32], right: npt.NDArray[np.int64], k: int) -> float:
    """How often the right answer, one a row, is among the first k: scores (n, answers), right (n,)."""
    rank = (scores > scores[np.arange(len(right)), right][:, None]).sum(1)
    return float((rank < k).mean())
