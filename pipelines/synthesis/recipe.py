"""The settings of a synthesis, and the reasons for which records are dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import CallError
from indexer.types import HelpfulEnum
from pipelines.train.unified.synthesised import Finds

PROMPTS = Path(__file__).with_name("prompts")


class Drop(HelpfulEnum):
    """Why there is no record of a passage, in the order of the checks.

    `MEANINGS` in `sheet.py` explains them.
    """

    UNWRITTEN = "unwritten"
    UNREADABLE_QUESTION = "unreadable-question"
    PARROTED = "parroted"
    PASSAGE_NOT_FOUND = "passage-not-found"
    UNREADABLE_REWRITE = "unreadable-rewrite"
    THING_NOT_IN_QUESTION = "thing-not-in-question"
    THING_STILL_NAMED = "thing-still-named"
    NOT_DEICTIC = "not-deictic"
    STRAYED = "strayed"
    NO_PICTURE = "no-picture"
    UNLIKE = "unlike"
    GENERIC = "generic"
    REPEATED = "repeated"


class Pictures(HelpfulEnum):
    """Where the image of a thing comes from."""

    FOUND = "found"
    """Retrieve the corpus's image that is most similar to the thing's name."""
    DRAWN = "drawn"
    """Generate an image of the thing from the one retrieved."""


@dataclass(frozen=True)
class SynthesisRecipe:
    """Everything a synthesis depends on, besides the corpus and the language model.

    Attributes:
        passage: Template of the text that the model reads, such as `"{text}: {keywords}"`.
        split_field: The field that names a document's part, or None to use all.
        part: The part used: passages, and images.
        limit: Number of passages, sampled by the seed; None for all.
        seed: Seed for the sample of passages, for what a record finds, and for generated images.
        prompts: Folder of `question.txt`, `rewrite.txt` and `deictic.txt`; None for the bundled ones.
        tokens: Limit of an answer.
        model: The embedder that finds images for things and measures their similarity.
        retriever: The embedder by which a question must find its passage; None for `model`.
        top: Largest rank at which it must be found.
        pictures: Where images come from; one of `Pictures`.
        least: Least cosine of image and thing.
        least_corrected: Least corrected cosine; None for no limit. See `likeness.py`.
        temperature: Temperature of that correction.
        sample: Limit of the corpus's texts and images that the correction compares with.
        finds: What a record's query should find: one of `Finds` for each record, chosen by the seed.
        device: Where models run.
        dtype: Arithmetic of the language model, if it is local; None for float32 on a CPU and bfloat16 elsewhere.

    Raises:
        CallError: A number is invalid or out of range, or there is nothing to find.
    """

    passage: str = "{text}"
    split_field: str | None = None
    part: str = "train"
    limit: int | None = None
    seed: int = 0
    prompts: Path | None = None
    tokens: int = 128
    model: str = "bundled:emoji-clip"
    retriever: str | None = None
    top: int = 20
    pictures: Pictures = Pictures.FOUND
    least: float = 0.2
    least_corrected: float | None = None
    temperature: float = 0.01
    sample: int = 512
    finds: tuple[Finds, ...] = (Finds.TEXT,)
    device: str = "cpu"
    dtype: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("tokens", 1), ("top", 1), ("sample", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise CallError(f"{name} is {value}; it must be at least {least}.")
        for name in ("temperature", "least", "least_corrected"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise CallError(f"{name} is {value}; it must be a finite number.")
        if self.temperature <= 0:
            raise CallError(f"temperature is {self.temperature}; it must be above 0.")
        if not self.finds:
            raise CallError("A record finds nothing.", f"Known: {', '.join(Finds)}.")

    @property
    def prompt_folder(self) -> Path:
        """The folder of the prompts."""
        return self.prompts or PROMPTS
