"""Records that `underdrawing synthesize` made, and the training pairs that `train unified` makes from them.

A record has an image and a question about it, and a passage that answers it: the query should find the passage (as in
GME), the image of its document, or both. The file has one JSON object per line.
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
"""Default share of a batch. GME's synthesized pairs are a seventh of its data."""


class Finds(HelpfulEnum):
    """What a record's query, an image and a sentence, should find."""

    TEXT = "text"
    IMAGE = "image"
    FUSED = "fused"


@dataclass(frozen=True)
class SynthesisedRecord:
    """One query and what it should find.

    Attributes:
        id: A digest of its content.
        finds: One of `Finds`.
        text: What the query says.
        picture: The document of its image; for a generated image, the document of its reference.
        drawn: The file of a generated image, beside the records; None for the document's own.
        document: What it should find.
        passage: That document's text, as the model read it.
        made: Its origin: models, prompts, seed, scores, and intermediate texts.
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
        """A line of the file."""
        return asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> SynthesisedRecord:
        """Read a line of the file.

        Raises:
            TypeError: A part is missing, unknown, or of the wrong type.
        """
        record = cls(**entry)
        strings = (record.id, record.finds, record.text, record.picture, record.document, record.passage)
        if not all(isinstance(each, str) for each in strings) or not isinstance(record.drawn, str | None):
            raise TypeError("a part is not a string")
        return cls(**{**entry, "finds": Finds(record.finds)})


class SynthesisedRecords:
    """The records of a file.

    Args:
        records: The records.
        folder: The folder of their generated images.
    """

    def __init__(self, records: Sequence[SynthesisedRecord], folder: Path) -> None:
        self.records, self._folder = list(records), folder

    @classmethod
    def read(cls, file: str | Path | None) -> SynthesisedRecords:
        """The records of a file; none without a file.

        Raises:
            CallError: It cannot be read, or a line is not a record.
        """
        return cls([], Path()) if file is None else cls(read_records(Path(file)), Path(file).parent)

    def texts(self) -> Iterator[str]:
        """All texts that a model reads of them, for its tokenizer to learn from."""
        for record in self.records:
            yield record.text
            yield record.passage

    def pairs(
        self, rows: Mapping[str, int], pictures: list[Pixels], shape: Callable[[Any], Pixels], share: float | None
    ) -> SynthesisedPairs:
        """The pairs of records whose documents may be trained on and whose images can be read.

        Args:
            rows: Document id to row, of documents that may be trained on.
            pictures: Images of the documents, by row; generated ones are appended.
            shape: Prepares an image.
            share: Share of a batch; None for `SHARE`.

        Raises:
            CallError: There are records, and none of them can be used.
        """
        from indexer.corpus.images import decode_image

        drawn: dict[str, int] = {}
        for name in dict.fromkeys(record.drawn for record in self.records if record.drawn is not None):
            try:
                pictures.append(shape(decode_image(self._folder / name)))
            except ItemError:
                continue  # this loses only the records with that image
            drawn[name] = len(pictures) - 1
        return SynthesisedPairs(self.records, rows, drawn, SHARE if share is None else share)


def read_records(file: Path) -> list[SynthesisedRecord]:
    """All records of a file.

    Raises:
        CallError: It cannot be read, or a line is not a record.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # str.splitlines would also split at Unicode's line ends
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
                f"Line {number} of {file} is not a record: {error}.", "Make them with underdrawing synthesize."
            ) from error
    return records


class SynthesisedPairs:
    """Draws queries and documents for a batch.

    Args:
        records: The records to draw from; if empty, batches get none.
        rows: Document id to row, of documents that may be trained on.
        drawn: File of a generated image to its position among the images.
        share: Share of a batch, 0 to 1.

    Raises:
        CallError: There are records, and none of them is about documents that may be trained on.
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
                "Check that they were made from this corpus's training part.",
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def count(self, batch: int) -> int:
        """How many of a batch's pairs to draw here."""
        return round(self._share * batch) if self._pairs else 0

    def draw(self, count: int, rng: np.random.Generator) -> tuple[list[Reading], list[Reading]]:
        """Queries with the right answer of each; distinct if there are enough."""
        places = rng.choice(len(self._pairs), count, replace=len(self._pairs) < count)
        own = [self._pairs[place] for place in places]
        queries = [Reading(None, record.text, row, image=picture) for record, picture, row in own]
        documents = [
            Reading(
                None,
                None if record.finds is Finds.IMAGE else record.passage,
                row,
                image=NONE if record.finds is Finds.TEXT else row,
            )
            for record, _, row in own
        ]
        return queries, documents
