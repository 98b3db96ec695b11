"""Presets of published generators: the settings their authors generate with, and the weights they search with.

What this module does not know: pipelines, benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from indexer.errors import UnknownNameError
from retrieval.query import Weights


@dataclass(frozen=True)
class Preset:
    """The settings of a published generator.

    Attributes:
        steps: Denoising steps.
        guidance: Classifier-free guidance scale.
        size: Pixels of a side.
        retries: How often an image that came out black is generated again, each time with the next seed.
        pad_token: The id that pads prompts; None for each tokenizer's own.
        template: The prompt.
        weights: Weights of `cig` with the merge `reinvert`, by benchmark and split.
        source: Where all of this was published.
    """

    steps: int
    guidance: float
    size: int
    retries: int
    pad_token: int | None
    template: str
    weights: Mapping[tuple[str, str], Weights]
    source: str


def _reinvert(reference: float, pseudo_target: float) -> Weights:
    return Weights(inversion=reference, pseudo_target=pseudo_target, image=0.0)


PRESETS: Mapping[str, Preset] = {
    "cig-paper": Preset(
        steps=50,
        guidance=5.0,
        size=512,
        retries=5,
        # The released UNet was trained on prompts of OpenAI's `clip.tokenize`, which pads with 0. Stock SDXL pads its
        # first encoder with the end token, 49407.
        pad_token=0,
        template="a photo of {word} that {text}",
        weights={
            ("cirr", "test1"): _reinvert(0.5, 0.5),
            ("cirr", "val"): _reinvert(0.85, 0.15),
            ("circo", "test"): _reinvert(0.7, 0.3),
            ("fashioniq", "val"): _reinvert(0.9, 0.1),
        },
        source="the code released with Wang et al., CVPR 2025 (lan-lw/ComposedImageGen)",
    )
}


def load_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, sorted(PRESETS))
    return PRESETS[name]
