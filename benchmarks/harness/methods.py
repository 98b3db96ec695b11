"""The methods that benchmarks run, by name, and the weights that a sweep tries."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from indexer.embed.base import Embedder
from retrieval import Weights
from retrieval.methods import Helper, SearchMethod, Selective, usable_methods, variant_of


def compared() -> dict[str, SearchMethod]:
    """Every method that a table compares, by name: the variants in place of their common base."""
    usable = usable_methods()
    bases = {variant_of(method) for method in usable.values()}
    return {name: method for name, method in usable.items() if name not in bases}


def possible(helpers: Collection[Helper], embedder: Embedder) -> list[str]:
    """The methods that can run with the available helper models and an embedder."""
    return [
        name
        for name, method in compared().items()
        if set(method.needs) <= set(helpers) and (not isinstance(method, Selective) or method.fits(embedder))
    ]


def grids() -> dict[str, list[Weights]]:
    """The weights that `--sweep` tries, by variant."""
    share = [n / 20 for n in range(21)]
    coarse = [n / 10 for n in range(3, 8)]  # outside, the image's share beside the sentence's was never best
    small = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
    # Of three terms of a sum, only the shares matter: they sum to one.
    thirds = [((1 - a) * (1 - b), a * (1 - b), b) for a in coarse for b in small]
    floors = (-0.2, -0.4, -0.8, -1.6, -3.2)
    return {
        "sum": [_weights(image=1 - a, text=a) for a in share],
        "slerp": [_weights(alpha=a) for a in share],
        "shift": [_weights(alpha=n / 4) for n in range(17)],
        "product": [
            _weights(penalty=a, text_floor=b, image_floor=c)
            for a, b, c in itertools.product((0.0, 0.025, 0.05, 0.1), floors, floors)
        ],
        "inversion": [_weights(inversion=1 - a, image=a) for a in share],
        "cig-reinvert": [_weights(inversion=a, image=b, pseudo_target=c) for a, b, c in thirds],
        "cig-embed": [_weights(inversion=a, image=b, pseudo_target=c) for a, b, c in thirds],
        "cig-product": [_weights(inversion=1 - a, image=a, pseudo_target=b) for a in coarse for b in small],
    }


def _weights(**point: float) -> Weights:
    """Rounded, so that no binary fractions are stored and shown."""
    return Weights(**{name: round(value, 4) for name, value in point.items()})
