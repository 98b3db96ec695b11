"""Readers by name, for a source written as `NAME:REST`: other packages' formats, and files with a misleading suffix.

    csv:export.txt        a CSV file, whatever its name
    mine:anything         what the reader `mine` of an installed package makes of `anything`

A file whose suffix is the name of such a reader, and of no built-in format, is read by it without a prefix.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from indexer.corpus.columns import Columns
from indexer.corpus.csv_table import CsvCorpus
from indexer.corpus.json_file import JsonCorpus
from indexer.corpus.jsonl import JsonlCorpus
from indexer.corpus.parquet import ParquetCorpus
from indexer.corpus.paths import portable_name
from indexer.corpus.records import Corpus
from indexer.corpus.webdataset import WebDatasetCorpus
from indexer.errors import CallError
from indexer.registry import Builtin, Registry


class Reader(Protocol):
    """Opens sources of one format."""

    def __call__(self, rest: str, *, columns: Columns | None = None) -> Corpus:
        """A corpus; nothing is read until it is iterated over.

        Args:
            rest: The part of the source after the colon, or the path of a file with the format's suffix.
            columns: Which columns are the id, the text and the image, if the user named them.

        Raises:
            CallError: There is no such source, or columns are named for a source that has none.
        """
        ...


READERS = Registry[Reader](
    "reader",
    "underdrawing.readers",
    {
        "csv": Builtin("indexer.corpus.formats:read_csv", "comma- or tab-separated values, one document per row"),
        "json": Builtin("indexer.corpus.formats:read_json", "a list of objects, one document each"),
        "jsonl": Builtin("indexer.corpus.formats:read_jsonl", "JSON lines, one document per line"),
        "parquet": Builtin("indexer.corpus.formats:read_parquet", "a Parquet file, one document per row"),
        "tar": Builtin("indexer.corpus.formats:read_tar", "a WebDataset shard"),
    },
)
"""Readers by name. A package adds one by an entry point of the group `underdrawing.readers`."""


def reader_in(source: str | Path) -> tuple[str, str] | None:
    """The reader that a source names, and the rest; None if it names none. An existing path counts as a path."""
    if "\0" in str(source):
        return None  # no path; lexists would raise
    name, colon, rest = str(source).partition(":")
    if not colon or not rest or os.path.lexists(source) or name not in READERS:
        return None
    return name, rest


def read_csv(rest: str, *, columns: Columns | None = None) -> Corpus:
    """`csv:FILE`."""
    return CsvCorpus(_file(rest), columns=columns)


def read_json(rest: str, *, columns: Columns | None = None) -> Corpus:
    """`json:FILE`."""
    return JsonCorpus(_file(rest), columns=columns)


def read_jsonl(rest: str, *, columns: Columns | None = None) -> Corpus:
    """`jsonl:FILE`."""
    return JsonlCorpus(_file(rest), columns=columns)


def read_parquet(rest: str, *, columns: Columns | None = None) -> Corpus:
    """`parquet:FILE`."""
    path = _file(rest)
    return ParquetCorpus([path], portable_name(str(path)), columns=columns)


def read_tar(rest: str, *, columns: Columns | None = None) -> Corpus:
    """`tar:FILE`; `open_corpus` refuses columns for it."""
    path = _file(rest)
    return WebDatasetCorpus([path], portable_name(str(path)))


def _file(rest: str) -> Path:
    path = Path(rest).absolute()
    if not path.is_file():
        raise CallError(f"{rest!r} is not a file that can be read.", "Write NAME:FILE, such as csv:export.txt.")
    return path
