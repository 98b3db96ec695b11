"""The transform `without`: leaves out the records whose text has a word."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.corpus.records import Record
from indexer.corpus.transforms import Outcome


@dataclass(frozen=True)
class Without:
    word: str

    @property
    def key(self) -> str:
        return f"without:{self.word}"

    def __call__(self, record: Record) -> Outcome:
        return [] if self.word in (record.document.text or "") else record


def without(arguments: str) -> Without:
    return Without(arguments)
