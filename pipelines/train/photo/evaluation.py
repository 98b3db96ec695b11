"""Evaluation of a photo model in training: recall between photos and captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipelines.train.common.captions import Captions

if TYPE_CHECKING:
    from torch import Tensor

Rows = npt.NDArray[np.int64]
SAMPLE = 1000
"""Photos of a part and source that are evaluated."""


@dataclass(frozen=True)
class Found:
    """Photos of one part, by source, with their captions and functions that embed both."""

    data: Captions
    sources: Mapping[str, Rows]
    photos: Callable[[Rows], Tensor]
    texts: Callable[[Rows], Tensor]


def measured(label: str, found: Found, seed: int) -> dict[str, float]:
    """Recalls among at most `SAMPLE` photos of each source.

    Text to photo: one caption of each photo, and whether a photo that it describes is in the top 1 or 10. Photo to
    text: whether a caption that describes it is in the top 10 of those. With several sources, their names follow the
    part's, and the values without a name are the means.
    """
    import torch

    every: dict[str, list[float]] = {}
    values: dict[str, float] = {}
    for source, own in found.sources.items():
        rng = np.random.default_rng([seed, 3])
        rows = rng.choice(own, min(SAMPLE, len(own)), replace=False)
        captions = found.data.draw(rows, rng)
        right = torch.from_numpy(found.data.positives(rows, captions))
        scores = (found.photos(rows) @ found.texts(captions).T).cpu()
        for name, ranked, k in (
            ("text_photo_r1", scores.T, 1),
            ("text_photo_r10", scores.T, 10),
            ("photo_text_r10", scores, 10),
        ):
            true = right.T if name.startswith("text") else right
            best = ranked.masked_fill(~true, -torch.inf).amax(1, keepdim=True)
            value = float((((ranked > best) & ~true).sum(1) < k).float().mean())
            every.setdefault(name, []).append(value)
            if len(found.sources) > 1:
                values[f"{label}_{source}_{name}"] = value
    return {f"{label}_{name}": float(np.mean(own)) for name, own in every.items()} | values
