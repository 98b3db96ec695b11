"""The passages of a corpus: the text of each document as a model reads it, each distinct text once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from indexer.corpus.records import Corpus, Entry, Record
from indexer.errors import CallError
from indexer.types import Document, PassedOver, Rejected
from pipelines.synthesis.recipe import SynthesisRecipe
from pipelines.train.common.captions import fields_in, filled_with


@dataclass(frozen=True)
class Passage:
    """A text and its document.

    Attributes:
        text: What the model reads.
        document: The id of the first document with that text.
        illustrated: The ids of documents with that text and an image, in corpus order.
    """

    text: str
    document: str
    illustrated: tuple[str, ...]

    @property
    def key(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]


class Part:
    """The documents of one part of a corpus, as a `Corpus`.

    Args:
        corpus: The whole corpus.
        field: The field that names a document's part; None for all documents.
        name: Name of the part.
    """

    def __init__(self, corpus: Corpus, field: str | None, name: str) -> None:
        self.source = corpus.source
        self._corpus, self._field, self._name = corpus, field, name

    def __iter__(self) -> Iterator[Entry]:
        for record in self._corpus:
            if not isinstance(record, Record) or self._field is None or self._is_in(record.document, self._field):
                yield record

    def _is_in(self, document: Document, field: str) -> bool:
        return str(document.fields.get(field)) == self._name


class Texts:
    """Passages as a corpus, for indexing."""

    def __init__(self, source: str, passages: Iterable[Passage]) -> None:
        self.source, self._passages = source, passages

    def __iter__(self) -> Iterator[Entry]:
        for each in self._passages:
            yield Record(Document(each.key, each.text), each.key)


def read_passages(corpus: Iterable[Entry], template: str, skipped: Counter[str]) -> list[Passage]:
    """The distinct passages, in corpus order.

    Args:
        corpus: The documents.
        template: The passage of a document, with fields in braces; a list is joined with commas.
        skipped: Counts the documents without a passage, by reason: that of a reject, or `lacks-FIELD`.

    Raises:
        CallError: There are none.
    """
    names = fields_in(template)
    found: dict[str, Passage] = {}
    for record in corpus:
        if isinstance(record, PassedOver):
            continue
        if isinstance(record, Rejected):
            skipped[record.reason] += 1
            continue
        document = record.document
        values = {"text": document.text, **document.fields}
        lacking = next((name for name in names if not values.get(name)), None)
        if lacking is not None:
            skipped[f"lacks-{lacking}"] += 1
            continue
        text = " ".join(filled_with(template, values).split())
        before = found.get(text, Passage(text, document.id, ()))
        pictured = (*before.illustrated, document.id) if document.image is not None else before.illustrated
        found[text] = Passage(text, before.document, pictured)
    if not found:
        told = ", ".join(f"{reason} {count:,}" for reason, count in skipped.most_common())
        raise CallError(
            f"The corpus has no passage of the form {template!r}{f': {told}' if told else ''}.",
            "Use fields that its documents have, and an existing part.",
        )
    return list(found.values())


def chosen(passages: Iterable[Passage], recipe: SynthesisRecipe) -> list[Passage]:
    """The passages to ask about: a sample by the seed, contained in any larger sample; shortest first.

    Passages of equal length are asked about together, which is faster; see `retrieval/providers/language/models.py`.
    """
    drawn = sorted(passages, key=lambda each: hashlib.sha256(f"{recipe.seed} {each.key}".encode()).digest())
    return sorted(drawn[: recipe.limit], key=lambda each: (len(each.text), each.key))
