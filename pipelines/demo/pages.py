"""The demo's pages: one collection of texts, images and both, searched by texts, images and both with one model.

What this module does not know: how the page looks, and the rest of the demo.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from indexer.collection import Collection
from indexer.corpus.readers import open_corpus
from indexer.corpus.records import Corpus, Entry, Record
from indexer.ingest.job import Progress, Summary, index_corpus
from indexer.types import Document, Modality
from retrieval import Hit, SearchOptions, SearchRequest, SearchService

KINDS = (Modality.TEXT, Modality.IMAGE, Modality.FUSED)
SHOWN = 7


class Pages:
    """A corpus with one document for each concept: by turns a name, a drawing, or a drawing with its name.

    Args:
        corpus: Its records have the fields `concept` and `vendor`.
        vendors: By turns, whose drawing.
    """

    def __init__(self, corpus: Corpus, vendors: Sequence[str] = ("noto", "twemoji", "fluent")) -> None:
        self._corpus, self._vendors = corpus, vendors
        self.source = f"{corpus.source}#pages"

    def __iter__(self) -> Iterator[Entry]:
        """The records in the corpus's order; a concept that its turn's vendor does not draw is left out."""
        for record in self._corpus:
            if not isinstance(record, Record):
                yield record
                continue
            document = record.document
            # By turns, and yet the same in every run and for every part of the corpus.
            turn = zlib.crc32(str(document.fields["concept"]).encode())
            if document.fields["vendor"] != self._vendors[turn % len(self._vendors)]:
                continue
            match KINDS[turn // len(self._vendors) % len(KINDS)]:
                case Modality.TEXT:
                    document = replace(document, image=None, images=())
                case Modality.IMAGE:
                    document = replace(document, text=None)
            yield Record(document, record.stamp)


@dataclass(frozen=True)
class Question:
    """What the pages are asked: a text, a stored drawing's image, or both."""

    text: str | None = None
    drawing: str | None = None


QUESTIONS = (
    Question("someone who repairs cars"),
    Question("stormy weather"),
    Question(drawing="noto/1F3CB-1F3FE-200D-2642-FE0F"),
    Question("in blue", "twemoji/2764"),
    Question("with dark skin tone", "noto/1F9D1-200D-1F33E"),
)
"""Their drawings are of the corpus, and need not be on a page."""


@dataclass(frozen=True)
class Answered:
    """A question and the pages that were found.

    Attributes:
        question: What was asked.
        reference: The document of the question's drawing, or None.
        hits: The first few pages.
    """

    question: Question
    reference: Document | None
    hits: Sequence[Hit]


def index_pages(corpus: Path, pages: Collection, on_progress: Callable[[Progress], None] | None = None) -> Summary:
    """Fill a collection with pages of the bundled corpus; what is there is kept. Raises as `index_corpus`."""
    return index_corpus(Pages(open_corpus(corpus)), pages, on_progress=on_progress)


def ask_pages(corpus: Path, pages: Collection, questions: Sequence[Question] = QUESTIONS) -> list[Answered]:
    """Ask the pages by the method `joint`; a question whose drawing the corpus lacks is left out."""
    wanted = {question.drawing for question in questions}
    drawings = {
        record.document.id: record.document
        for record in open_corpus(corpus)
        if isinstance(record, Record) and record.document.id in wanted
    }
    service, answers = SearchService(pages, defaults=SearchOptions(method="joint")), []
    for question in questions:
        reference = drawings.get(question.drawing or "")
        if question.drawing is None or reference is not None:
            image = None if reference is None else reference.image
            found = service.search(SearchRequest(text=question.text, image=image, k=SHOWN))
            answers.append(Answered(question, reference, found.hits))
    return answers
