"""What a synthesis is asked for, and the reasons for which a record is dropped.

What this module does not know: how any of it is done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import CallError
from indexer.types import HelpfulEnum
from pipelines.train.unified.synthesised import Finds

PROMPTS = Path(__file__).with_name("prompts")


class Drop(HelpfulEnum):
    """Why there is no record of a passage, in the order in which passages are looked at.

    `MEANINGS` in `sheet.py` says it in words.
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
    """The corpus's image that is most like the thing's name."""
    DRAWN = "drawn"
    """A generator draws the thing anew, from the image found."""


@dataclass(frozen=True)
class SynthesisRecipe:
    """Everything a synthesis depends on, besides the corpus and the model that writes.

    Attributes:
        passage: What the model reads of a document, such as `"{text}: {keywords}"`.
        split_field: The field that names a document's part, or None to use all.
        part: The part used: passages, and images.
        limit: So many passages, drawn by the seed; None for all.
        seed: Of the passages drawn, of what a record finds, and of drawings.
        prompts: The folder of `question.txt`, `rewrite.txt` and `deictic.txt`; None for those that come with this.
        tokens: Of an answer at most.
        model: The embedder that finds images for things, and tells how alike the two are.
        retriever: The embedder by which a question must find its passage; None for `model`.
        top: It must be among so many.
        pictures: Where images come from; one of `Pictures`.
        least: The least cosine of image and thing.
        least_corrected: The least of it when corrected for what is like everything; None for any. See `likeness.py`.
        temperature: Of that correction.
        sample: Texts and images of the corpus that the correction compares with, at most.
        finds: What a record's query should find: one of `Finds` for each record, drawn by the seed.
        device: Where models run.
        dtype: Of the model that writes, if it is a local one; None for float32 on a CPU and bfloat16 elsewhere.

    Raises:
        CallError: A number that is none or out of range, or nothing to find.
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
        """Where the prompts are."""
        return self.prompts or PROMPTS
