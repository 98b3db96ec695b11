"""Training pairs of a query and its answer, for every direction of a search over texts, images and both.

All are made from captioned images alone. A query of image and sentence is an image and the words that only another
image's caption has (`Differences`), inside a sentence; its answer is that other image.

The pairs of all directions form one batch, and every document in it is a wrong answer to every other query, whatever
their modalities: so a text moves close to its image rather than to other texts. Other right answers are not counted as
wrong: a caption that describes the image, another image of the same thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.errors import CallError
from indexer.types import HelpfulEnum, Modality
from pipelines.train.common.captions import Captions
from pipelines.train.common.differences import Differences

Rows = npt.NDArray[np.int64]
NONE = -1


class Task(HelpfulEnum):
    """The modalities of a query and of what it finds."""

    TEXT_IMAGE = "text-image"
    IMAGE_TEXT = "image-text"
    IMAGE_IMAGE = "image-image"
    FUSED_IMAGE = "fused-image"
    IMAGE_FUSED = "image-fused"
    TEXT_FUSED = "text-fused"
    FUSED_FUSED = "fused-fused"

    @property
    def query(self) -> Modality:
        """The modality of its queries."""
        return _modality(self.value.partition("-")[0])

    @property
    def document(self) -> Modality:
        """The modality of its documents."""
        return _modality(self.value.partition("-")[2])


@dataclass(frozen=True)
class Reading:
    """One query or document.

    Attributes:
        instruction: Instruction of a query; None for a default.
        text: Its text, if any.
        row: The record that it is made from; for a query, the record of the right answer.
        image: The record of its image, or `NONE`.
        caption: The number of its text among the captions, or `NONE`: sentences are not captions.
        strict: For a query: whether only this very image is right, not another of the same thing.
    """

    instruction: str | None
    text: str | None
    row: int
    image: int = NONE
    caption: int = NONE
    strict: bool = False

    @property
    def modality(self) -> Modality:
        """Its modality."""
        if self.image == NONE:
            return Modality.TEXT
        return Modality.IMAGE if self.text is None else Modality.FUSED


@dataclass(frozen=True)
class Pairs:
    """A batch.

    Attributes:
        queries: n queries.
        documents: The right answer of each, in order, then others that are wrong for all.
        right: (n, documents) bool: all right answers, its own included.
    """

    queries: Sequence[Reading]
    documents: Sequence[Reading]
    right: npt.NDArray[np.bool_]


class TaskSampler:
    """Draws batches.

    Args:
        data: The captions.
        rows: The records to draw from.
        differences: Pairs of these; None if no task has queries with both parts.
        shares: By task, its share of a batch.
        instructions: Instructions by task, used for some of its queries.
        told: Share of queries that get one.
        sentences: Texts around the words that differ; each has `{text}`.
        looks: For a query with both parts, add another image of the same thing as its answer, as a wrong answer.

    Raises:
        UnknownNameError: No such task.
        CallError: No task has a share, or one needs differences and there are none.
    """

    def __init__(
        self,
        data: Captions,
        rows: Rows,
        differences: Differences | None,
        *,
        shares: Mapping[str, float],
        instructions: Mapping[str, Sequence[str]],
        told: float,
        sentences: Sequence[str],
        looks: bool = False,
    ) -> None:
        self._data, self._rows, self._differences = data, rows, differences
        self._shares = {Task(name): share for name, share in shares.items() if share > 0}
        self._instructions = {Task(name): list(each) for name, each in instructions.items()}
        self._told, self._sentences, self._looks = told, list(sentences), looks
        if not self._shares:
            raise CallError("No task has a share of the batch.", f"Known tasks: {', '.join(Task)}.")
        if differences is None and any(task.query is Modality.FUSED for task in self._shares):
            raise CallError(
                "Tasks whose queries have both parts need pairs of similar captions.",
                "Lower the recipe's `keep`, or leave the tasks that begin with fused out of its `tasks`.",
            )
        numbers = {name: number for number, name in enumerate(dict.fromkeys(data.names))}
        self._name = np.array([numbers[name] for name in data.names], np.int64)
        self._mates: dict[int, list[int]] = {}
        for row in rows.tolist():
            self._mates.setdefault(int(self._name[row]), []).append(row)

    def draw(self, count: int, rng: np.random.Generator, mined: Rows | None = None, hard: int = 0) -> Pairs:
        """A batch.

        Args:
            count: Number of pairs.
            rng: Random generator of the step.
            mined: (records, k) int64, for each record the records that are mistaken for it, or `NONE`.
            hard: How many of these are added as documents per pair.
        """
        counts = _spread(count, list(self._shares.values()))
        queries: list[Reading] = []
        documents: list[Reading] = []
        befores: list[int] = []
        # Queries with both parts first: their references are the images that texts should find.
        for task, own in sorted(
            zip(self._shares, counts, strict=True), key=lambda each: each[0].query is not Modality.FUSED
        ):
            if task.query is Modality.FUSED:
                before, after, asked = self._composed(task, own, rng)
                befores += before
            else:
                given = befores[:own] if task is Task.TEXT_IMAGE else []
                after = [*given, *rng.choice(self._rows, own - len(given)).tolist()]
                asked = self._simple(task, after, rng)
            queries += asked
            documents += self._documents(task.document, after, rng)
        if self._looks:
            strict = [each.row for each in queries if each.strict]
            mates = [mate for row in strict if (mate := self._mate(row, rng)) != row]
            documents += self._documents(Modality.IMAGE, mates, rng)
        if mined is not None and hard:
            documents += self._mined(documents[:count], mined, hard, rng)
        return Pairs(queries, documents, self._right(queries, documents))

    def joined(self, pairs: Pairs, queries: Sequence[Reading], documents: Sequence[Reading]) -> Pairs:
        """A batch extended by more queries and their answers, with right and wrong answers marked across both."""
        own = len(pairs.queries)
        asked = [*pairs.queries, *queries]
        given = [*pairs.documents[:own], *documents, *pairs.documents[own:]]
        return Pairs(asked, given, self._right(asked, given))

    def _composed(self, task: Task, count: int, rng: np.random.Generator) -> tuple[list[int], list[int], list[Reading]]:
        assert self._differences is not None
        before, after, said = self._differences.draw(count, rng)
        asked = [
            Reading(
                self._instruction(task, rng),
                str(rng.choice(self._sentences)).replace("{text}", words),
                row=int(target),
                image=int(image),
                strict=True,
            )
            for image, target, words in zip(before, after, said, strict=True)
        ]
        return before.tolist(), after.tolist(), asked

    def _simple(self, task: Task, rows: list[int], rng: np.random.Generator) -> list[Reading]:
        if task.query is Modality.TEXT:
            captions = self._data.draw(np.array(rows, np.int64), rng)
            texts = self._data.texts
            return [
                Reading(self._instruction(task, rng), texts[caption], row, caption=int(caption))
                for row, caption in zip(rows, captions, strict=True)
            ]
        images = rows if task is Task.IMAGE_TEXT else [self._mate(row, rng) for row in rows]
        return [
            Reading(self._instruction(task, rng), None, row, image=image)
            for row, image in zip(rows, images, strict=True)
        ]

    def _documents(self, modality: Modality, rows: list[int], rng: np.random.Generator) -> list[Reading]:
        if modality is Modality.IMAGE:
            return [Reading(None, None, row, image=row) for row in rows]
        captions = self._data.draw(np.array(rows, np.int64), rng).tolist()
        texts = self._data.texts
        fused = modality is Modality.FUSED
        return [
            Reading(None, texts[caption], row, image=row if fused else NONE, caption=caption)
            for row, caption in zip(rows, captions, strict=True)
        ]

    def _mined(self, right: Sequence[Reading], mined: Rows, hard: int, rng: np.random.Generator) -> list[Reading]:
        """Wrong answers that were mistaken for right ones, each of the same modality as the right one."""
        drawn: dict[Modality, list[int]] = {}
        for document in right:
            known = mined[document.row]
            known = known[known != NONE]
            if len(known):
                chosen = rng.choice(known, min(hard, len(known)), replace=False).tolist()
                drawn.setdefault(document.modality, []).extend(chosen)
        return [each for modality, rows in drawn.items() for each in self._documents(modality, rows, rng)]

    def _right(self, queries: Sequence[Reading], documents: Sequence[Reading]) -> npt.NDArray[np.bool_]:
        asked = np.array([each.row for each in queries], np.int64)
        given = np.array([each.row for each in documents], np.int64)
        strict = np.array([each.strict for each in queries])
        right: npt.NDArray[np.bool_] = (asked[:, None] == given) | (
            ~strict[:, None] & (self._name[asked][:, None] == self._name[given])
        )
        spoken = [place for place, each in enumerate(queries) if each.caption != NONE]
        if spoken:
            captions = np.array([queries[place].caption for place in spoken], np.int64)
            right[spoken] |= self._data.positives(given, captions).T
        written = [place for place, each in enumerate(documents) if each.modality is Modality.TEXT]
        if written:
            captions = np.array([documents[place].caption for place in written], np.int64)
            right[:, written] |= self._data.positives(asked, captions)
        return right

    def _instruction(self, task: Task, rng: np.random.Generator) -> str | None:
        known = self._instructions.get(task)
        return str(rng.choice(known)) if known and rng.random() < self._told else None

    def _mate(self, row: int, rng: np.random.Generator) -> int:
        """Another image of the same thing, or the image itself if there is no other."""
        others = [mate for mate in self._mates[int(self._name[row])] if mate != row]
        return int(rng.choice(others)) if others else row


def _modality(name: str) -> Modality:
    return Modality.FUSED if name == "fused" else Modality(name)


def _spread(count: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers proportional to shares that sum to `count`; the largest remainders are rounded up."""
    exact = np.array(shares) / sum(shares) * count
    counts = np.floor(exact).astype(int)
    for place in np.argsort(counts - exact, kind="stable")[: count - counts.sum()]:
        counts[place] += 1
    return [int(each) for each in counts]
