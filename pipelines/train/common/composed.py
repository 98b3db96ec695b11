"""Composed queries to train on, made of captioned images alone, and the loss by which they find their answers.

    an image's word in a sentence with what only another image's caption says   ->   that other image
    an image's word alone                                                         ->   that image

What trains on them may be the network that makes the words (`train inversion`), or that network together with the
text encoder that reads them (`train clip`).

What this module does not know: models, steps, where pairs come from.
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
    """Some queries: first those that say a difference, then words alone.

    Attributes:
        texts: n texts in pieces; a word is read between any two.
        pictures: (n,) int64, the row of the image whose word is read.
        answers: (n,) int64, the row of the image to be found.
        differing: How many of the n say a difference.
    """

    texts: list[list[str]]
    pictures: Rows
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
        rows: The images whose words are read alone are drawn from these.
        count: Of queries.
        identity: The share of words alone.
        sentences: Texts around a word and what is said of it; each has `{word}` and `{text}`.
        prompts: Texts around a word alone; each has `{word}`.
        rng: Of the step.
    """
    alone = round(count * identity)
    before, after, said = pairs.draw(count - alone, rng)
    own = rng.choice(rows, alone, replace=len(rows) < alone)
    texts = [
        [piece.replace("{text}", each) for piece in str(rng.choice(sentences)).split("{word}")] for each in said
    ] + [str(rng.choice(prompts)).split("{word}") for _ in own]
    return ComposedBatch(texts, np.append(before, own), np.append(after, own), len(said))


def queries_of(said: Tensor, batch: ComposedBatch, read: Tensor, shares: Tensor) -> Tensor:
    """What searches: (n, dim) unit rows of the sentences, with a share of the images' own vectors.

    Args:
        said: (n, dim) unit vectors of the batch's texts, words read.
        batch: The queries.
        read: (n, dim) unit rows, the images' vectors as the words were made of them.
        shares: (n, 1), what the image counts beside the sentence, 0 to 1; a word alone has to do without.
    """
    import torch

    shares = shares.clone()
    shares[batch.differing :] = 0
    return torch.nn.functional.normalize(shares * read + (1 - shares) * said, dim=-1)


def composed_loss(
    said: Tensor, batch: ComposedBatch, read: Tensor, features: Tensor, image_share: float, scale: float
) -> Tensor:
    """Cross entropy of the queries against the batch's answers and its references.

    The references are among the wrong answers: finding the image itself again is the easy mistake.

    Args:
        said: As in `queries_of`.
        batch: The queries.
        read: As in `queries_of`.
        features: (rows, dim) unit rows of all images.
        image_share: What the image's own vector counts beside the sentence's, 0 to 1.
        scale: The inverse temperature.
    """
    import torch

    queries = queries_of(said, batch, read, torch.full((len(said), 1), image_share, device=said.device))
    gallery = np.concatenate([batch.answers, batch.pictures[: batch.differing]])
    same = torch.from_numpy(batch.answers[:, None] == gallery[None]).to(said.device)
    return match_many(queries, features[gallery], same, scale)
