"""Published data sets in miniature: drawn pictures of a few pixels, in the exact layouts of their publishers.

Pictures come in pairs that `fake:64` cannot tell apart, so that the ranking of the method `image` is known: a
reference finds its twin first, and ties with it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def paint(path: Path, seed: int, size: tuple[int, int] = (24, 24)) -> None:
    """A picture of four by four colours; the same for the same seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = np.random.default_rng(seed).integers(0, 8, (4, 4, 3)) * 32 + 16
    Image.fromarray(grid.astype(np.uint8)).resize(size, Image.Resampling.NEAREST).save(path)


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def cirr(
    root: Path,
    split: str,
    *,
    pictures: int = 60,
    queries: int = 20,
    references: int = 20,
    suffix: str = ".png",
    draw: bool = True,
) -> Path:
    """CIRR as its repository has it; a query's target is its reference's twin, or its neighbour if all are asked."""
    names = [f"{split}-{number}-0-img{number % 2}" for number in range(pictures)]
    folder = {"val": "dev", "test1": "test1"}[split]
    write(root / f"image_splits/split.rc2.{split}.json", {name: f"./{folder}/{name}.png" for name in names})
    records = []
    for number in range(queries):
        place = number % references * (2 if 2 * references <= pictures else 1)
        one, twin = names[place], names[(place + 1) % pictures]
        if number % 2:
            one, twin = (twin, one) if 2 * references <= pictures else (one, twin)
        record = {
            "pairid": 12_063 + number,
            "reference": one,
            "caption": f"show number {number} at night",
            "img_set": {"id": number, "members": [names[(place + n) % pictures] for n in range(6)]},
        }
        if split == "val":
            record |= {"target_hard": twin, "target_soft": {twin: 1.0, names[(place + 2) % pictures]: 0.5}}
            record["img_set"] |= {"reference_rank": 0, "target_rank": 1}
        records.append(record)
    write(root / f"captions/cap.rc2.{split}.json", records)
    for number, name in enumerate(names if draw else ()):
        paint(root / "img_raw" / folder / f"{name}{suffix}", number // 2)
    return root
