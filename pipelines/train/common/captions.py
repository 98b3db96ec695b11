"""A captioned corpus in memory, for training: pixels at the model's size, and every caption that a record can have.

Captions come from templates over a document's text and fields, such as `"{text}, drawn by {vendor}"`; if a field is a
list, one element is chosen. Two records of a batch may share a caption (two images of a cat; all with the keyword
"animal"), and then each is a right answer for both: `positives` says so, and no true pair counts as a negative.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.corpus.images import decode_image
from indexer.corpus.records import Entry
from indexer.errors import CallError, ItemError
from indexer.types import Document, PassedOver, Rejected

_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Templates:
    """How captions are made.

    Attributes:
        weights: Template to its share; a template is skipped for records that lack one of its fields.
        values: Field to raw value to the words for it, such as `{"vendor": {"fluent": ["Fluent", "3D"]}}`.
    """

    weights: Mapping[str, float]
    values: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    def captions(self, record: Mapping[str, Any]) -> dict[str, list[str]]:
        """Every caption of a record, by template."""
        made = {}
        for template in self.weights:
            names = _FIELD.findall(template)
            choices = [self.said(name, record) for name in names]
            if all(choices):
                made[template] = [
                    template.format(**dict(zip(names, chosen, strict=True))) for chosen in itertools.product(*choices)
                ]
        return made

    def said(self, name: str, record: Mapping[str, Any]) -> list[str]:
        """The words for a field's value or values; empty if it has none."""
        value = record.get(name)
        raw = value if isinstance(value, list | tuple) else [] if value in (None, "") else [value]
        return [word for each in raw for word in self.values.get(name, {}).get(str(each), [str(each)])]


def fields_in(template: str) -> list[str]:
    """The fields that a template names."""
    return _FIELD.findall(template)


def filled_with(template: str, values: Mapping[str, Any]) -> str:
    """The template with values in place of its fields; lists are joined with commas."""
    return _FIELD.sub(lambda found: _listed(values.get(found[1])), template)


def _listed(value: object) -> str:
    return ", ".join(str(each) for each in value) if isinstance(value, list | tuple) else str(value)


class Captions:
    """Every caption of the documents of one corpus.

    Args:
        templates: How captions are made.
        split_field: The field that names a record's part, or None.
        look: The field that distinguishes images of one text, for `Differences`, or None.

    Attributes:
        names: n texts of the documents.
        looks: n lists of words for the field `look`, empty if it is None.
        part: n values of the split field.
    """

    def __init__(self, templates: Templates, split_field: str | None, look: str | None = None) -> None:
        self.names: list[str] = []
        self.looks: list[list[str]] = []
        self.part: list[str] = []
        self._templates = templates
        self._split_field = split_field
        self._look = look
        self._captions: list[dict[str, npt.NDArray[np.int64]]] = []
        self._owned: list[frozenset[int]] = []
        self._numbers: dict[str, int] = {}
        self._texts: list[str] = []

    def __len__(self) -> int:
        return len(self.names)

    @property
    def texts(self) -> list[str]:
        """All distinct captions."""
        if len(self._texts) < len(self._numbers):
            self._texts = list(self._numbers)
        return self._texts

    def add(self, document: Document) -> None:
        """Add a document that has a text."""
        assert document.text is not None
        record = {"text": document.text, **document.fields}
        made = self._templates.captions(record)
        by_template = {
            template: np.array([self._numbers.setdefault(text, len(self._numbers)) for text in texts], np.int64)
            for template, texts in made.items()
        }
        self._captions.append(by_template)
        self._owned.append(frozenset(int(number) for numbers in by_template.values() for number in numbers))
        self.names.append(document.text)
        if self._look is not None:
            self.looks.append(self._templates.said(self._look, record))
        self.part.append(str(document.fields.get(self._split_field, "")) if self._split_field else "")

    def rows(self, part: str | None) -> npt.NDArray[np.int64]:
        """Positions of the records of one part of the split, or of all."""
        return np.array([row for row, name in enumerate(self.part) if part in (None, name)], np.int64)

    def captions_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Every caption (as positions in `texts`) that the given records can have."""
        return np.unique(np.fromiter((number for row in rows for number in self._owned[row]), np.int64))

    def draw(self, rows: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """One caption for each row: positions in `texts`, (len(rows),) int64."""
        drawn = np.empty(len(rows), np.int64)
        for slot, row in enumerate(rows):
            options = self._captions[row]
            weights = np.array([self._templates.weights[template] for template in options])
            template = list(options)[rng.choice(len(options), p=weights / weights.sum())]
            drawn[slot] = rng.choice(options[template])
        return drawn

    def tags(self, row: int) -> frozenset[str]:
        """The captions of a record that do not contain its own text: keywords, properties."""
        texts = self.texts
        return frozenset(texts[number] for number in self._owned[row] if self.names[row] not in texts[number])

    def true_of(self, rows: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
        """For each caption that the given records can have, the places in `rows` of the records it describes."""
        places: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            for number in self._owned[row]:
                places.setdefault(number, []).append(place)
        return {number: np.array(own, np.int64) for number, own in places.items()}

    def positives(self, rows: npt.NDArray[np.int64], captions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which chosen captions describe which images: (len(rows), len(captions)) bool."""
        return np.array([[int(caption) in self._owned[row] for caption in captions] for row in rows])


class CaptionedImages(Captions):
    """Pixels and captions of the records of one corpus.

    Attributes:
        pixels: (n, size, size, 3) uint8.
        rejected: Records that cannot be used.

    Raises:
        CallError: No record has both a text and an image.
    """

    def __init__(
        self,
        records: Iterable[Entry],
        size: int,
        templates: Templates,
        split_field: str | None,
        look: str | None = None,
    ) -> None:
        super().__init__(templates, split_field, look)
        self.rejected: list[Rejected] = []
        pixels: list[npt.NDArray[np.uint8]] = []
        for document in documents_with_both(records, self.rejected):
            try:
                assert document.image is not None
                pixels.append(square(decode_image(document.image), size))
            except ItemError as error:
                self.rejected.append(Rejected(document.id, error.reason, error.detail))
                continue
            self.add(document)
        if not pixels:
            raise nothing_to_train_on()
        self.pixels = np.stack(pixels)


def nothing_to_train_on() -> CallError:
    """The error for a corpus without captioned images, or without any in the training part."""
    return CallError(
        "The corpus has no document with both a text and an image to train on.",
        "Put a text beside each image, as photo.txt beside photo.jpg or in the rows of a table; if there is a split "
        "field, check that it names the part to train on.",
    )


def documents_with_both(records: Iterable[Entry], rejected: list[Rejected]) -> Iterator[Document]:
    """The documents that have a text and an image; the others go to `rejected`."""
    for record in records:
        if isinstance(record, PassedOver):
            continue
        if isinstance(record, Rejected):
            rejected.append(record)
        elif record.document.text is None or record.document.image is None:
            rejected.append(Rejected(record.document.id, "no-pair", "training needs both a text and an image"))
        else:
            yield record.document


def square(image: Any, size: int) -> npt.NDArray[np.uint8]:
    """The whole image in a white square: (size, size, 3) uint8.

    This is open_clip's resize mode `longest` with white fill, so that training and use see the same pixels.
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(size=size, mean=(0, 0, 0), std=(1, 1, 1), resize_mode="longest", fill_color=255)
    tensor = image_transform_v2(config, is_train=False)(image)
    return np.ascontiguousarray((tensor.numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0))
