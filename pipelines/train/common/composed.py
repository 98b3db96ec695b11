"""Composed queries for training, made from captioned images alone, and their loss.

    an image's pseudo-word in a sentence with what only another caption says   ->   that other image
    an image's pseudo-word alone                                               ->   that image

They train the network that makes pseudo-words (`train inversion`), or that network together with the text encoder that
reads them (`train clip`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.train.common.differences import Differences
from pipelines.train.common.losses import match_many

if TYPE_CHECKING:
    from torch import Tensor

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ComposedBatch:
    """A batch of queries: first those with a difference, then pseudo-words alone.

    Attributes:
        texts: n texts in pieces; a pseudo-word is read between any two.
        images: (n,) int64, the row of the image whose pseudo-word is read.
        answers: (n,) int64, the row of the image to find.
        differing: How many of the n have a difference.
    """

    texts: list[list[str]]
    images: Rows
    answers: Rows
    differing: int


def draw_composed(
    pairs: Differences,
    rows: Rows,
    count: int,
    identity: float,
    sentences: Sequence[str],
    prompts: Sequence[str],
    rng: np.random.Generator,
) -> ComposedBatch:
    """Draw a batch.

    Args:
        pairs: Where differences come from.
        rows: Images whose pseudo-words are read alone are drawn from these.
        count: Number of queries.
        identity: Share of pseudo-words alone.
        sentences: Texts around a pseudo-word and the change; each has `{word}` and `{text}`.
        prompts: Texts around a pseudo-word alone; each has `{word}`.
        rng: Random generator of the step.
    """
    alone = round(count * identity)
    before, after, said = pairs.draw(count - alone, rng)
    own = rng.choice(rows, alone, replace=len(rows) < alone)
    texts = [
        [piece.replace("{text}", each) for piece in str(rng.choice(sentences)).split("{word}")] for each in said
    ] + [str(rng.choice(prompts)).split("{word}") for _ in own]
    return ComposedBatch(texts, np.append(before, own), np.append(after, own), len(said))


def queries_of(said: Tensor, batch: ComposedBatch, read: Tensor, shares: Tensor) -> Tensor:
    """The query vectors: (n, dim) unit rows of the sentences, with a share of the images' own vectors.

    Args:
        said: (n, dim) unit vectors of the batch's texts, pseudo-words included.
        batch: The queries.
        read: (n, dim) unit rows, the image vectors that the pseudo-words were made from.
        shares: (n, 1), weight of the image beside the sentence, 0 to 1; a pseudo-word alone gets none.
    """
    import torch

    shares = shares.clone()
    shares[batch.differing :] = 0
    return torch.nn.functional.normalize(shares * read + (1 - shares) * said, dim=-1)


def composed_loss(
    said: Tensor, batch: ComposedBatch, read: Tensor, features: Tensor, image_share: float, scale: float
) -> Tensor:
    """Cross entropy of the queries against the batch's answers and its references.

    The references are among the wrong answers: finding the reference itself is the easy mistake.

    Args:
        said: As in `queries_of`.
        batch: The queries.
        read: As in `queries_of`.
        features: (rows, dim) unit rows of all images.
        image_share: Weight of the image's own vector beside the sentence's, 0 to 1.
        scale: The inverse temperature.
    """
    import torch

    queries = queries_of(said, batch, read, torch.full((len(said), 1), image_share, device=said.device))
    gallery = np.concatenate([batch.answers, batch.images[: batch.differing]])
    same = torch.from_numpy(batch.answers[:, None] == gallery[None]).to(said.device)
    return match_many(queries, features[gallery], same, scale)
