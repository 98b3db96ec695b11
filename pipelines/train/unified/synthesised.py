"""Records that `underdrawing synthesize` made, and the pairs that `train unified` makes of them.

A record has an image and a question about it, and a passage that answers it: what the query should find is the
passage (GME's own), the image of its document, or both. The file has one JSON object a line.

What this module does not know: how records are made; models, losses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.errors import CallError, ItemError
from indexer.types import HelpfulEnum, JsonValue
from pipelines.train.common.tasks import NONE, Reading

Pixels = npt.NDArray[np.uint8]
SHARE = 0.1
"""Of a batch, where none is told. GME's synthesised pairs are a seventh of its data."""


class Finds(HelpfulEnum):
    """What a record's query, an image and a sentence, should find."""

    TEXT = "text"
    IMAGE = "image"
    FUSED = "fused"


@dataclass(frozen=True)
class SynthesisedRecord:
    """One query and what it should find.

    Attributes:
        id: Of its content.
        finds: One of `Finds`.
        text: What the query says.
        picture: The document whose image it has; of a drawn one, that which it was drawn from.
        drawn: The file of a drawn image, beside the records; None for the document's own.
        document: What it should find.
        passage: That document's text, as the model read it.
        made: Where it comes from: models, prompts, seed, scores, and what was written on the way.
    """

    id: str
    finds: Finds
    text: str
    picture: str
    drawn: str | None
    document: str
    passage: str
    made: Mapping[str, JsonValue]

    def to_json(self) -> dict[str, Any]:
        """As a line of the file has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> SynthesisedRecord:
        """From a line of the file.

        Raises:
            TypeError: It lacks a part, or has one too many, or of another type.
        """
        record = cls(**entry)
        strings = (record.id, record.finds, record.text, record.picture, record.document, record.passage)
        if not all(isinstance(each, str) for each in strings) or not isinstance(record.drawn, str | None):
            raise TypeError("a part is no string")
        return cls(**{**entry, "finds": Finds(record.finds)})


class SynthesisedRecords:
    """The records of a file.

    Args:
        records: They.
        folder: Where their drawn images are.
    """

    def __init__(self, records: Sequence[SynthesisedRecord], folder: Path) -> None:
        self.records, self._folder = list(records), folder

    @classmethod
    def read(cls, file: str | Path | None) -> SynthesisedRecords:
        """Those of a file; none where there is no file.

        Raises:
            CallError: It cannot be read, or a line is no record.
        """
        return cls([], Path()) if file is None else cls(read_records(Path(file)), Path(file).parent)

    def texts(self) -> Iterator[str]:
        """All that a model reads of them, for its tokenizer to learn from."""
        for record in self.records:
            yield record.text
            yield record.passage

    def pairs(
        self, rows: Mapping[str, int], pictures: list[Pixels], shape: Callable[[Any], Pixels], share: float | None
    ) -> SynthesisedPairs:
        """The pairs of those whose documents may be trained on, and whose images can be read.

        Args:
            rows: Document id to row, of those that may be trained on.
            pictures: Those of the documents, by row; drawn ones are put behind them.
            shape: Prepares an image.
            share: Of a batch; None for `SHARE`.

        Raises:
            CallError: There are records, and none of them can be used.
        """
        from indexer.corpus.images import decode_image

        drawn: dict[str, int] = {}
        for name in dict.fromkeys(record.drawn for record in self.records if record.drawn is not None):
            try:
                pictures.append(shape(decode_image(self._folder / name)))
            except ItemError:
                continue  # it costs the records that have it
            drawn[name] = len(pictures) - 1
        return SynthesisedPairs(self.records, rows, drawn, SHARE if share is None else share)


def read_records(file: Path) -> list[SynthesisedRecord]:
    """All records of a file.

    Raises:
        CallError: It cannot be read, or a line is no record.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # not where Unicode, too, ends a line
    except (OSError, ValueError) as error:
        raise CallError(
            f"The records in {file} cannot be read: {error}.", "Name a file that underdrawing synthesize made."
        ) from error
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(SynthesisedRecord.from_json(json.loads(line)))
        except (ValueError, TypeError, CallError) as error:
            raise CallError(
                f"Line {number} of {file} is no record: {error}.", "Make them with underdrawing synthesize."
            ) from error
    return records


class SynthesisedPairs:
    """Draws queries and documents for a batch.

    Args:
        records: What to draw from; none for no share of any batch.
        rows: Document id to row, of those that may be trained on.
        drawn: File of a drawn image to where it lies among the images.
        share: Of a batch, 0 to 1.

    Raises:
        CallError: There are records, and none of them is of documents that may be trained on.
    """

    def __init__(
        self, records: Sequence[SynthesisedRecord], rows: Mapping[str, int], drawn: Mapping[str, int], share: float
    ) -> None:
        self._share = share
        self._pairs: list[tuple[SynthesisedRecord, int, int]] = []
        for record in records:
            picture = rows.get(record.picture) if record.drawn is None else drawn.get(record.drawn)
            row = rows.get(record.document)
            if picture is not None and row is not None:
                self._pairs.append((record, picture, row))
        if records and not self._pairs:
            raise CallError(
                f"None of the {len(records)} synthesised records is about documents that are trained on.",
                "Were they made of this corpus, and of its training part?",
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def count(self, batch: int) -> int:
        """How many of a batch's pairs should be drawn here."""
        return round(self._share * batch) if self._pairs else 0

    def draw(self, count: int, rng: np.random.Generator) -> tuple[list[Reading], list[Reading]]:
        """So many queries and the right answer of each; distinct where there are enough."""
        places = rng.choice(len(self._pairs), count, replace=len(self._pairs) < count)
        own = [self._pairs[place] for place in places]
        queries = [Reading(None, record.text, row, picture=picture) for record, picture, row in own]
        documents = [
            Reading(
                None,
                None if record.finds is Finds.IMAGE else record.passage,
                row,
                picture=NONE if record.finds is Finds.TEXT else row,
            )
            for record, _, row in own
        ]
        return queries, documents
