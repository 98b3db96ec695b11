"""Pseudo-targets: pictures drawn from a reference and a sentence, by any text-to-image pipeline of diffusers."""

from __future__ import annotations

from retrieval.providers.generation.protocol import Drawing, DrawOptions, Generator, Sketch

__all__ = ["DrawOptions", "Drawing", "Generator", "Sketch"]
