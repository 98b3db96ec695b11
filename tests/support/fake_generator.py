"""A generator that draws noise, the same for the same question, and fails where it is told to."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict

import numpy as np
from PIL import Image

from indexer.errors import GeneratorError
from retrieval.providers.generation import GenerateOptions, PseudoTarget


class FakeGenerator:
    """See the module.

    Attributes:
        calls: The texts of each call of `generate` that drew.
        most: More requests than this do not fit.
        poison: A text that cannot be drawn.
        black: A text whose drawings come out black.
        held: Cleared, it makes `generate` wait.
    """

    name = "fake"

    def __init__(self, model, unit=True):
        self.feature_models = [(model, unit)]
        self.defaults = GenerateOptions(steps=1, guidance=1.0, size=16)
        self.version = "one"
        self.calls, self.features = [], []
        self.most, self.poison, self.black = 1000, None, None
        self.held = threading.Event()
        self.held.set()

    def identity(self, options):
        return {"generator": self.version, **asdict(options.over(self.defaults))}

    def generate(self, requests, options):
        self.held.wait()
        texts = [request.text for request in requests]
        if len(requests) > self.most or self.poison in texts:
            raise GeneratorError("The fake is full.", "Draw less.")
        self.calls.append(texts)
        self.features += [request.features[0] for request in requests]
        return [self._drawing(request, options.over(self.defaults)) for request in requests]

    def _drawing(self, request, options):
        if request.text == self.black:
            return PseudoTarget((), f"{options.images} of {options.images} images came out black")
        return PseudoTarget(tuple(picture_of(request, options, number) for number in range(options.images)))


def picture_of(request, options, number):
    """Noise that follows the text, the reference's strongest feature, the seed and the number."""
    told = f"{request.text}|{int(np.argmax(request.features[0]))}|{options.seed}|{number}"
    rng = np.random.default_rng(list(hashlib.sha256(told.encode()).digest()))
    return Image.fromarray(rng.integers(0, 256, (options.size, options.size, 3), np.uint8))
