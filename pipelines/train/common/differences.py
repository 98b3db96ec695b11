"""Pairs of images whose captions differ in a few words: composed queries from captions alone.

    "man firefighter: dark skin tone"  ->  "woman firefighter: dark skin tone"     said: "woman"

Of several images with the other caption, the one most similar to the first is meant, since everything that the words do
not mention should stay the same: the artist, the style, the direction. If a field distinguishes artists, some pairs
have one caption and two artists, and the words for the second are used. Some pairs use another caption, such as a
keyword, that describes only the second image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from indexer.errors import CallError

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.train.common.captions import Captions

Rows = npt.NDArray[np.int64]

_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")


class Differences:
    """All pairs of similar captions, and the images of each.

    Args:
        captions: n texts, one of each image.
        rows: (n,) int64, the caller's number of each image.
        features: (n, dim) float32 unit rows of the images.
        keep: Least share of the longer caption's words that both have, 0 to 1.
        looks: n lists of words for how each image looks, besides its caption; or none.
        look_share: Share of pairs that differ in looks alone, if images of one caption do.
        most: Limit of words in a difference.
        tags: n sets of shorter texts that describe each image; or none.
        tag_share: Share of pairs described by a tag that only the second image has, if there is one.

    Raises:
        CallError: No two captions are similar enough.
    """

    def __init__(
        self,
        captions: Sequence[str],
        rows: Rows,
        features: npt.NDArray[np.float32],
        keep: float,
        looks: Sequence[Sequence[str]] = (),
        look_share: float = 0.15,
        most: int = 4,
        tags: Sequence[frozenset[str]] = (),
        tag_share: float = 0.0,
    ) -> None:
        self._rows, self._features, self._looks = rows, features, looks
        self._tags, self._tag_share = tags, tag_share if tags else 0.0
        distinct = list(dict.fromkeys(captions))
        number = {text: place for place, text in enumerate(distinct)}
        self._images: list[list[int]] = [[] for _ in distinct]
        for image, text in enumerate(captions):
            self._images[number[text]].append(image)
        self._before, self._after, self._said = _pairs(distinct, keep, most)
        if not len(self._before):
            raise CallError(
                f"No two of the {len(distinct)} captions have {keep:.0%} of their words in common.",
                "Lower `keep`, or use another recipe.",
            )
        # Frequent phrases, such as a skin tone, would dominate: each counts by its square root.
        _, phrase, times = np.unique(self._said, return_inverse=True, return_counts=True)
        share = np.cumsum(times[phrase] ** -0.5)
        self._share = share / share[-1]

        self._varied = [own for own in self._images if looks and len({tuple(looks[image]) for image in own}) > 1]
        self._look_share = look_share if self._varied else 0.0

    def __len__(self) -> int:
        return len(self._before)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Rows, Rows, list[str]]:
        """Some pairs: the rows before, the rows after, and the words that only the second caption or look has."""
        pairs = np.searchsorted(self._share, rng.random(count))
        before, after, said = np.empty(count, np.int64), np.empty(count, np.int64), []
        for slot, pair in enumerate(pairs):
            if rng.random() < self._look_share:
                before[slot], after[slot] = self._other_look(rng)
                said.append(str(rng.choice(self._looks[after[slot]])))
                continue
            before[slot] = rng.choice(self._images[self._before[pair]])
            candidates = self._images[self._after[pair]]
            likeness = self._features[candidates] @ self._features[before[slot]]
            after[slot] = candidates[int(np.argmax(likeness))]
            said.append(self._tag(before[slot], after[slot], rng) or self._said[pair])
        return self._rows[before], self._rows[after], said

    def _tag(self, before: int, after: int, rng: np.random.Generator) -> str | None:
        if rng.random() >= self._tag_share:
            return None
        only = sorted(self._tags[after] - self._tags[before])
        return str(rng.choice(only)) if only else None

    def _other_look(self, rng: np.random.Generator) -> tuple[int, int]:
        own = self._varied[rng.integers(len(self._varied))]
        before = int(rng.choice(own))
        others = [image for image in own if tuple(self._looks[image]) != tuple(self._looks[before])]
        return before, int(rng.choice(others))


def differences(data: Captions, rows: Rows, features: Tensor, keep: float, tag_share: float = 0.0) -> Differences:
    """The pairs among some rows of a corpus.

    `features` belong to all its images; tags are the captions that do not contain the name.
    """
    return Differences(
        [data.names[row] for row in rows],
        rows,
        features[rows].cpu().numpy(),
        keep,
        [data.looks[row] for row in rows] if data.looks else (),
        tags=[data.tags(row) for row in rows] if tag_share else (),
        tag_share=tag_share,
    )


def _pairs(captions: Sequence[str], keep: float, most: int) -> tuple[Rows, Rows, list[str]]:
    """The numbers of similar captions, in both orders, and the words that only the second has."""
    words = [tuple(dict.fromkeys(_WORD.findall(text.lower()))) for text in captions]
    vocabulary = {word: place for place, word in enumerate(dict.fromkeys(word for own in words for word in own))}
    holds = np.zeros((len(captions), len(vocabulary)), np.float32)
    for place, own in enumerate(words):
        holds[place, [vocabulary[word] for word in own]] = 1
    sizes = holds.sum(1)
    before, after, said = [], [], []
    for place, own in enumerate(words):
        shared = holds @ holds[place]
        near = (shared >= keep * np.maximum(sizes, sizes[place])) & (sizes - shared >= 1) & (sizes - shared <= most)
        for other in np.flatnonzero(near & (shared > 0)):
            before.append(place)
            after.append(int(other))
            said.append(" ".join(word for word in words[other] if word not in own))
    return np.array(before, np.int64), np.array(after, np.int64), said
