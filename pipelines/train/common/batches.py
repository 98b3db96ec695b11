"""Which records make a training batch: some at random, and some in families whose texts the model takes for alike.

In a random batch of 256 hardly two texts are near, and a model learns to tell cats from clocks long before it tells one
shade of skin from the next. Negatives that the model itself finds hard (Xiong et al. 2020, arXiv:2007.00808) are put
side by side: a record, and records of the texts nearest to its own.

What this module does not know: models, losses, images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

FAMILY = 4
"""Records of a family."""
NEAREST = 8
"""Texts that a family's other members are drawn from."""
BLOCK = 128
"""Texts that are compared with all others together: of 100,000 that takes some 150 MB."""


class Batches:
    """Draws rows, without families until `mine` has been called.

    Args:
        rows: (n,) int64, what may be drawn.
        texts: n texts, one of each row.
        share: The share of a batch that comes in families, 0 to 1.
    """

    def __init__(self, rows: Rows, texts: Sequence[str], share: float) -> None:
        self._rows, self._share = rows, share
        self.texts = sorted(set(texts))
        number = {text: place for place, text in enumerate(self.texts)}
        self._text_of = np.array([number[text] for text in texts], np.int64)
        by_text = np.argsort(self._text_of, kind="stable")
        self._holders = np.split(rows[by_text], np.cumsum(np.bincount(self._text_of))[:-1])
        self._near: npt.NDArray[np.int64] | None = None

    def mine(self, vectors: npt.NDArray[np.float32]) -> None:
        """Take the nearest texts by (len(texts), dim) unit rows, which are those of `texts` in order; ties by order."""
        nearest = min(NEAREST, len(self.texts) - 1)
        if not nearest:
            self._near = None
            return
        self._near = np.empty((len(self.texts), nearest), np.int64)
        for start in range(0, len(self.texts), BLOCK):
            likeness = vectors[start : start + BLOCK] @ vectors.T
            np.fill_diagonal(likeness[:, start:], -np.inf)
            least = np.partition(likeness, -nearest, axis=1)[:, -nearest]
            for place, row in enumerate(likeness):
                among = np.flatnonzero(row >= least[place])
                self._near[start + place] = among[np.argsort(-row[among], kind="stable")[:nearest]]

    def draw(self, count: int, rng: np.random.Generator) -> Rows:
        """Rows (count,) int64; the random ones are distinct where there are enough, a family's need not be."""
        families = 0 if self._near is None else int(count * self._share) // FAMILY
        alone = count - families * (FAMILY - 1)  # the first of each family among them
        places = rng.choice(len(self._rows), alone, replace=len(self._rows) < alone)
        drawn = [self._rows[places]]
        for place in places[:families]:
            assert self._near is not None
            near = self._near[self._text_of[place]]
            others = rng.choice(near, FAMILY - 1, replace=len(near) < FAMILY - 1)
            drawn.append(np.array([rng.choice(self._holders[other]) for other in others], np.int64))
        return np.concatenate(drawn)
