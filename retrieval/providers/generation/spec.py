"""The settings that make a diffusers pipeline a generator of pseudo-targets: `underdrawing.json` in its folder.

What this module does not know: diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.embed.model_files import read_json
from indexer.embed.textual_inversion import PUBLISHED_TEMPLATE, check_template
from indexer.errors import CallError, ModelError, UnknownNameError, first_line
from retrieval.providers.generation.presets import load_preset

SPEC = "underdrawing.json"
"""The file beside `model_index.json` with the inversions, template and defaults of a generator."""


@dataclass(frozen=True)
class WordSource:
    """The source of one text encoder's pseudo-words.

    Attributes:
        model: The embedder whose image feature is read, such as `open_clip:ViT-L-14/openai`.
        inversion: A name for `load_inversion`; relative to the generator's folder if it is a folder in it.
    """

    model: str
    inversion: str


@dataclass(frozen=True)
class GeneratorSpec:
    """The settings that a pipeline needs to generate pseudo-targets.

    Attributes:
        words: The source of pseudo-words for each text encoder, in the pipeline's order.
        template: The prompt; `{word}` once, and `{text}`.
        steps: Denoising steps.
        guidance: Classifier-free guidance scale.
        size: Pixels; None for the pipeline's own.
        negative: What the images should not show.
        pad_token: The id that pads prompts; None for each tokenizer's own.
        retries: How often an image that came out black is generated again, each time with the next seed.
    """

    words: tuple[WordSource, ...]
    template: str = PUBLISHED_TEMPLATE
    steps: int = 20
    guidance: float = 5.0
    size: int | None = None
    negative: str | None = None
    pad_token: int | None = None
    retries: int = 0

    def __post_init__(self) -> None:
        check_template(self.template)
        if self.retries < 0 or (self.pad_token is not None and self.pad_token < 0):
            raise CallError(f"retries is {self.retries} and pad_token {self.pad_token}; neither may be negative.")
        settled = tuple(each if isinstance(each, WordSource) else WordSource(**each) for each in self.words)
        object.__setattr__(self, "words", settled)

    @classmethod
    def from_preset(cls, name: str, words: Sequence[WordSource], **others: Any) -> GeneratorSpec:
        """A published generator's settings, with the inversions of its text encoders.

        Args:
            name: A preset in `retrieval.providers.generation.presets`, such as `cig-paper`.
            words: The source of pseudo-words for each text encoder.
            others: Fields that override the preset's.

        Raises:
            UnknownNameError: There is no such preset.
        """
        preset = load_preset(name)
        taken = ("template", "steps", "guidance", "size", "pad_token", "retries")
        return cls(tuple(words), **({each: getattr(preset, each) for each in taken} | others))

    @classmethod
    def read(cls, folder: Path) -> GeneratorSpec:
        """The spec in a generator's folder: its JSON fields, which override those of a `preset` if it names one.

        Raises:
            ModelError: There is none, or it does not parse.
            UnknownNameError: It names a preset that does not exist.
        """
        file = folder / SPEC
        if not file.exists():
            raise ModelError(
                f"{folder} has no {SPEC}: it does not say which inversion makes the pseudo-words of its text encoders.",
                'Write one: {"words": [{"model": "open_clip:ViT-L-14/openai", "inversion": "phi.pt"}]}.',
            )
        values = _checked(read_json(file, "description of a generator"), file)
        try:
            if "preset" in values:
                return cls.from_preset(values.pop("preset"), values.pop("words"), **values)
            return cls(**values)
        except UnknownNameError:
            raise
        except (ValueError, TypeError, KeyError, CallError) as error:
            raise ModelError(f"{file} cannot be used: {first_line(error)}.") from error


_TYPES: Mapping[str, tuple[type, ...]] = {
    "template": (str,), "steps": (int,), "guidance": (int, float), "size": (int, type(None)),
    "negative": (str, type(None)), "pad_token": (int, type(None)), "retries": (int,), "preset": (str,),
}  # fmt: skip


def _checked(values: dict[str, Any], file: Path) -> dict[str, Any]:
    """The values of a spec, checked.

    Raises:
        ModelError: A value has the wrong type, or a field is not known.
    """
    words = values.get("words")
    texts = {"model": str, "inversion": str}
    if not isinstance(words, list) or not all(
        isinstance(each, dict) and {key: type(value) for key, value in each.items()} == texts for each in words
    ):
        raise ModelError(f"{file} needs words: a list of objects with the texts model and inversion.")
    for key, value in values.items():
        if key != "words" and (key not in _TYPES or type(value) not in _TYPES[key]):
            raise ModelError(
                f"{file} has {str(key)[:40]} = {str(value)[:40]!r}, which is not valid.",
                f"Known: words, {', '.join(_TYPES)}.",
            )
    return {**values, "words": tuple(words)}
