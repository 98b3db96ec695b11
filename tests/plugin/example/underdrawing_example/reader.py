"""The reader `lines`: a document on each line of a text file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from indexer.corpus.columns import Columns
from indexer.corpus.records import Entry, make_record, record_or_rejected
from indexer.errors import CallError


class LinesCorpus:
    """The lines of a file that are not blank."""

    def __init__(self, path: Path) -> None:
        self.path, self.source = path, str(path)

    def __iter__(self) -> Iterator[Entry]:
        for number, line in enumerate(self.path.read_text("utf-8").splitlines(), 1):
            if line.strip():
                id, uri = f"{self.path.stem}-{number}", f"{self.path.as_uri()}#line={number}"
                yield record_or_rejected(
                    uri,
                    lambda id=id, line=line, uri=uri: make_record(id=id, text=line, fields={}, uri=uri, derived=True),
                )


def read_lines(rest: str, *, columns: Columns | None = None) -> LinesCorpus:
    path = Path(rest).absolute()
    if not path.is_file():
        raise CallError(f"{rest!r} is not a file.")
    return LinesCorpus(path)
