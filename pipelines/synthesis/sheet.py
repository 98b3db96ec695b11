"""The contact sheet of a synthesis: one page with samples of the records, and of what was dropped for each reason."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.pages.report import page, thumbnail
from pipelines.synthesis.recipe import Drop

if TYPE_CHECKING:
    from pipelines.synthesis.job import Outcome, Synthesis

KEPT = 24
"""Number of records shown."""
DROPPED = 6
"""Dropped passages shown for each reason."""

MEANINGS = {
    Drop.UNWRITTEN: "the model gave no answer, or did not finish it",
    Drop.UNREADABLE_QUESTION: "the answer is not a question with an answer",
    Drop.PARROTED: "the question is one of the prompt's examples",
    Drop.PASSAGE_NOT_FOUND: "the question does not find its passage in the top-k",
    Drop.UNREADABLE_REWRITE: "the answer is not a thing with a question about it",
    Drop.THING_NOT_IN_QUESTION: "the question does not name the thing",
    Drop.THING_STILL_NAMED: "the rewritten question still names the thing that the image should show",
    Drop.NOT_DEICTIC: "the rewritten question points at nothing",
    Drop.STRAYED: "the rewritten question asks something else",
    Drop.NO_PICTURE: "no image was found or generated, or only the passage's own",
    Drop.UNLIKE: "image and thing are not similar enough",
    Drop.GENERIC: "image and thing are no more similar than either is to anything",
    Drop.REPEATED: "another record asks the same about the same image and has another answer",
}
"""Explanations of the reasons, shown on the sheet."""


def sheet(found: Synthesis) -> str:
    """The page."""
    asked = len(found.outcomes)
    reasons = [
        {
            "name": name,
            "meaning": MEANINGS[Drop(name)],
            "count": count,
            "share": count / asked,
            "samples": [_shown(each) for each in _sample([one for one in found.outcomes if one.drop == name], DROPPED)],
        }
        for name, count in found.dropped.items()
    ]
    return page(
        "synthesis.html.j2",
        {
            "passages": found.passages,
            "asked": asked,
            "kept": len(found.kept),
            "skipped": sum(found.skipped.values()),
            "about": found.about,
            "reasons": reasons,
            "samples": [_shown(each) for each in _sample([one for one in found.outcomes if one.record], KEPT)],
        },
    )


def _sample(outcomes: Sequence[Outcome], most: int) -> list[Outcome]:
    """An evenly spaced sample, the same in every run."""
    return sorted(outcomes, key=lambda each: hashlib.sha256(each.passage.key.encode()).digest())[:most]


def _shown(outcome: Outcome) -> dict[str, Any]:
    picture, record = outcome.picture, outcome.record
    return {
        "picture": thumbnail(picture.file) if picture is not None else "",
        "drawn": picture is not None and picture.drawn is not None,
        "document": picture.document if picture is not None else "",
        "similarity": picture.similarity if picture is not None else None,
        "corrected": picture.corrected if picture is not None else None,
        "rank": outcome.rank,
        "question": outcome.asked.query if outcome.asked else "",
        "reply": outcome.asked.reply if outcome.asked else "",
        "thing": outcome.pointing.thing if outcome.pointing else "",
        "rewritten": outcome.pointing.query if outcome.pointing else "",
        "passage": outcome.passage.text,
        "finds": record.finds.value if record is not None else "",
        "answer": record.document if record is not None else "",
        "said": outcome.said,
    }
