"""Sources and a model for tests of the batch job."""

from __future__ import annotations

from indexer import Document
from indexer.corpus.records import Record
from indexer.embed.fake import FakeEmbedder
from indexer.types import Role


class Counting(FakeEmbedder):
    """Counts the documents it embeds."""

    def __init__(self):
        super().__init__(16)
        self.embedded = 0

    def forward(self, prepared, role, instruction=None):
        if role is Role.DOCUMENT:
            self.embedded += len(prepared)
        return super().forward(prepared, role, instruction)


class Listed:
    """A corpus of entries at hand; an exception among them is raised."""

    def __init__(self, *entries, source="/a/list"):
        self.entries, self.source = list(entries), source

    def __iter__(self):
        for entry in self.entries:
            if isinstance(entry, Exception):
                raise entry
            yield entry


def made(name, text="cat", stamp="1", **more):
    """A record whose id was made from a place."""
    return Record(Document(name, text, **more), stamp, derived=True)


def written(name, text="cat", stamp="1", **more):
    """A record whose id a user wrote."""
    return Record(Document(name, text, **more), stamp)
