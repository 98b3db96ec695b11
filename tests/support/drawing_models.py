"""A collection whose model reads words, an inversion for it, and a generator that paints one colour."""

from __future__ import annotations

from pathlib import Path

import tiny_models
from PIL import Image

from indexer import Collection, index_corpus
from retrieval.providers.generation.protocol import GenerateOptions, PseudoTarget

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "grey": (90, 90, 90)}


class Painter:
    """A generator: picture n of a request is a square whose red is the seed's and whose green is n's.

    `calls` holds for each call of `draw` the texts and the options; with `broken`, nothing can be drawn.
    """

    name = "painter"
    defaults = GenerateOptions(steps=2, guidance=1.5, size=16)

    def __init__(self, model: str, broken: Exception | None = None) -> None:
        self.feature_models = [(model, True)]
        self.broken = broken
        self.calls: list[tuple[list[str], GenerateOptions]] = []

    def identity(self, options):
        return {"generator": "painter", "seed": options.seed, "steps": options.steps, "images": options.images}

    def generate(self, requests, options):
        self.calls.append(([request.text for request in requests], options))
        if self.broken is not None:
            raise self.broken
        return [
            PseudoTarget(
                tuple(Image.new("RGB", (16, 16), (20 + options.seed, 20 + n, 200)) for n in range(options.images))
            )
            for _ in requests
        ]


def make(folder: Path) -> tuple[Path, str]:
    """`folder/photos`, `folder/shop` made of it, `folder/inversion`; returns the shop and its model's name."""
    (folder / "photos").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(folder / "photos" / f"{name}.png")
    model = f"open_clip:{tiny_models.tiny_clip(folder / 'clip')}"
    with Collection.open(folder / "shop", model) as shop:
        index_corpus(folder / "photos", shop)
    tiny_models.tiny_inversion().save(folder / "inversion")
    return folder / "shop", model
