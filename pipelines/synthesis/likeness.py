"""Similarity of an image and a text, corrected for how similar each is to everything.

The cosine of an image and a text mixes two things: that they belong together, and that one of them goes with anything,
as "a photo of food" goes with every dish. The correction removes the second (the negCLIPLoss of Wang et al.,
arXiv:2405.19547): with a temperature t,

    corrected = cosine - t/2 * (log mean exp(cosine(image, texts) / t) + log mean exp(cosine(images, text) / t))

over samples of the corpus's texts and images. It is about 0 for a pair that is no better than random pairs with its
parts.

This module does not know where vectors come from.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from indexer.types import Scores, Vectors


def cosines(images: Vectors, texts: Vectors) -> Scores:
    """The cosine of each image with its text: (n,) float32.

    Args:
        images: (n, dim) unit rows.
        texts: (n, dim) unit rows.
    """
    return np.asarray((images * texts).sum(1), np.float32)


def corrected(images: Vectors, texts: Vectors, among: Vectors, between: Vectors, temperature: float) -> Scores:
    """The corrected cosines: (n,) float32, in [-2, 2].

    Args:
        images: (n, dim) unit rows.
        texts: (n, dim) unit rows, what the image of the same row should show.
        among: (m, dim) unit rows, images of the corpus.
        between: (k, dim) unit rows, texts of the corpus.
        temperature: The lower it is, the more the nearest few count.
    """
    generic = _soft_most(images @ between.T, temperature) + _soft_most(texts @ among.T, temperature)
    return np.asarray(cosines(images, texts) - generic / 2, np.float32)


def _soft_most(scores: Scores, temperature: float) -> npt.NDArray[np.float64]:
    """The log of the mean exponential of each row at a temperature: near its maximum if that is low."""
    most = scores.max(1, keepdims=True).astype(np.float64)
    return np.asarray(most[:, 0] + temperature * np.log(np.exp((scores - most) / temperature).mean(1)))
