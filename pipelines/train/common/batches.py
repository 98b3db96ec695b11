"""Training batches: some records at random, and some in families whose texts the model finds similar.

A random batch of 256 has hardly two similar texts, and a model learns to distinguish cats from clocks long before it
distinguishes two skin tones. So hard negatives for the model itself (Xiong et al. 2020, arXiv:2007.00808) are put
together: a record, and records of the texts nearest to its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

FAMILY = 4
"""Records of a family."""
NEAREST = 8
"""Texts from which a family's other members are chosen."""
BLOCK = 128
"""Texts compared with all others at once: with 100,000 texts that takes some 150 MB."""


class Batches:
    """Draws rows; it makes no families until `mine` has been called.

    Args:
        rows: (n,) int64, the rows to draw from.
        texts: n texts, one of each row.
        share: Share of a batch made of families, 0 to 1.
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
        """Find the nearest texts by (len(texts), dim) unit rows, in the order of `texts`; ties by order."""
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
        """Rows (count,) int64; the random ones are distinct if there are enough, a family's need not be."""
        families = 0 if self._near is None else int(count * self._share) // FAMILY
        alone = count - families * (FAMILY - 1)  # including the first of each family
        places = rng.choice(len(self._rows), alone, replace=len(self._rows) < alone)
        drawn = [self._rows[places]]
        for place in places[:families]:
            assert self._near is not None
            near = self._near[self._text_of[place]]
            others = rng.choice(near, FAMILY - 1, replace=len(near) < FAMILY - 1)
            drawn.append(np.array([rng.choice(self._holders[other]) for other in others], np.int64))
        return np.concatenate(drawn)
