"""Pseudo-targets: images generated from a reference and a sentence, by any text-to-image pipeline of diffusers."""

from __future__ import annotations

from retrieval.providers.generation.protocol import GenerateOptions, Generator, PseudoTarget, PseudoTargetRequest

__all__ = ["GenerateOptions", "PseudoTarget", "Generator", "PseudoTargetRequest"]
