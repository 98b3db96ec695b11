"""The choices in which published numbers differ, each with a name: a protocol is one of each.

    python -m benchmarks.cirr --protocol      every choice, its meaning, and the benchmark's default

Results store their protocol, and tables refuse to mix two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from indexer.embed.preprocess import Preprocessing
from indexer.errors import CallError
from indexer.types import HelpfulEnum
from pipelines.evaluation.qrels import Average, Precision, Reference, Ties


class Gallery(HelpfulEnum):
    """The gallery that queries search."""

    SPLIT = "split"
    ORIGINAL = "original"
    VAL = "val"
    LISTED = "listed"
    WHOLE = "whole"


class Captions(HelpfulEnum):
    """How several captions of a query are combined."""

    SINGLE = "single"
    BOTH_ORDERS = "both-orders"
    FORWARD = "forward"
    REVERSED = "reversed"


class SharedConcept(HelpfulEnum):
    """Whether the query names what reference and target have in common."""

    ABSENT = "absent"
    LEFT_OUT = "left-out"
    BEFORE = "before"


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is run. Two results are comparable if all of this agrees.

    Attributes:
        gallery: The gallery that queries search.
        reference: Whether a query may find its own reference.
        captions: How captions are combined.
        shared_concept: Whether it is part of the sentence.
        preprocessing: What is done to images before the model sees them.
        precision: Which definition of average precision.
        ties: Which of equal scores ranks first.
        average: The groups that the main number averages over.
    """

    gallery: Gallery
    reference: Reference
    captions: Captions = Captions.SINGLE
    shared_concept: SharedConcept = SharedConcept.ABSENT
    preprocessing: Preprocessing = Preprocessing.OWN
    precision: Precision = Precision.NONE
    ties: Ties = Ties.AGAINST_TARGET
    average: Average = Average.QUERIES

    def to_json(self) -> dict[str, str]:
        """Field to value."""
        return {name: str(value) for name, value in asdict(self).items()}


MEANINGS: Mapping[str, Mapping[HelpfulEnum, str]] = {
    "gallery": {
        Gallery.SPLIT: "all images of the split",
        Gallery.ORIGINAL: "FashionIQ's own split files, one gallery per category: what zero-shot papers report",
        Gallery.VAL: "only references and targets of the category's queries: smaller, higher numbers",
        Gallery.LISTED: "each query names its own candidates",
        Gallery.WHOLE: "all images of the data set, whatever the split",
    },
    "reference": {
        Reference.REMOVED: "a query cannot find its own reference",
        Reference.KEPT: "the reference stays in the gallery, a distractor that is hard to beat",
    },
    "captions": {
        Captions.SINGLE: "there is one caption, used unchanged",
        Captions.BOTH_ORDERS: "'A and B' and 'B and A', their vectors averaged (SEARLE, LinCIR)",
        Captions.FORWARD: "only 'A and B'",
        Captions.REVERSED: "only 'B and A' (Pic2Word)",
    },
    "shared_concept": {
        SharedConcept.ABSENT: "the data set has none",
        SharedConcept.LEFT_OUT: "left out (SEARLE, LinCIR, CIG, CIReVL)",
        SharedConcept.BEFORE: "'CONCEPT, CAPTION': some papers include it, with higher numbers",
    },
    "preprocessing": {
        Preprocessing.OWN: "the checkpoint's own; for CLIP, resize the short side and crop the center (LinCIR)",
        Preprocessing.TARGET_PAD: "pad to at most 1.25 : 1 with black first (SEARLE, CIG)",
    },
    "precision": {
        Precision.NONE: "none is measured",
        Precision.TRUNCATED: "P@i over the first K, divided by the smaller of K and the number of targets (CIRCO)",
        Precision.STANDARD: "P at each target of the whole ranking",
        Precision.TRAPEZOID: "the mean of P just before and at each target of the whole ranking (i-CIR)",
    },
    "ties": {
        Ties.AGAINST_TARGET: "documents that tie with a target rank before it",
        Ties.BY_ID: "by document id",
    },
    "average": {
        Average.QUERIES: "every query has equal weight",
        Average.FAMILIES: "every category, task or attribute has equal weight",
    },
}
"""The meaning of each choice, by field of `Protocol`."""


@dataclass(frozen=True)
class Choices:
    """The protocol of a benchmark and its open choices.

    Attributes:
        default: The papers' protocol.
        open: Other choices on offer, by field; the rest is fixed by the data set.
    """

    default: Protocol
    open: Mapping[str, Sequence[HelpfulEnum]]

    def with_given(self, given: Mapping[str, str | None]) -> Protocol:
        """The default with the given choices.

        Raises:
            UnknownNameError: No such choice.
            CallError: A choice that this benchmark does not offer.
        """
        chosen: dict[str, Any] = {}
        for name, value in given.items():
            if value is None:
                continue
            mine = getattr(self.default, name)
            wanted = type(mine)(value)
            offered = [mine, *self.open.get(name, ())]
            if wanted not in offered:
                known = ", ".join(str(each) for each in offered)
                raise CallError(f"This benchmark cannot be run with {name} {value}.", f"It offers: {known}.")
            chosen[name] = wanted
        return replace(self.default, **chosen)

    def told(self) -> str:
        """Every choice, one per line, with the default marked."""
        lines = []
        for field in fields(Protocol):
            mine = getattr(self.default, field.name)
            offered = [mine, *(each for each in self.open.get(field.name, ()) if each is not mine)]
            lines.append(f"{field.name.replace('_', ' ')}" + ("" if len(offered) > 1 else "   (fixed)"))
            for each in offered:
                mark = "*" if each is mine else " "
                lines.append(f"  {mark} {each:16} {MEANINGS[field.name][each]}")
        return "\n".join([*lines, "", "* the default"])
