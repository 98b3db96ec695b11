"""The reader of a table or shard by its file name, and which files beside tables are not documents.

.jsonl .ndjson, also compressed    JsonlCorpus       a document per line
.csv .tsv, also compressed         CsvCorpus         a document per row
.json, also compressed             JsonCorpus        a document per object of a list; in a folder, only if it
                                                     describes nothing
.parquet                           ParquetCorpus     a document per row
.tar .tgz .txz, also compressed    WebDatasetCorpus  a document per key in the archive
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from indexer.corpus.columns import Columns
from indexer.corpus.csv_table import CsvCorpus
from indexer.corpus.json_file import JsonCorpus
from indexer.corpus.jsonl import JsonlCorpus
from indexer.corpus.parquet import ParquetCorpus
from indexer.corpus.paths import portable_name, scan_folder
from indexer.corpus.places import Place
from indexer.corpus.records import Corpus, Entry, Record
from indexer.corpus.webdataset import WebDatasetCorpus
from indexer.errors import ItemError
from indexer.reasons import Reason
from indexer.types import PassedOver, Rejected

_PACKED = ("", ".gz", ".bz2", ".xz", ".zst")
JSON_LINES = frozenset(f"{kind}{packed}" for kind in (".jsonl", ".ndjson") for packed in _PACKED)
PARQUET = ".parquet"
SHARDS = frozenset({".tgz", ".tbz", ".tbz2", ".txz", ".tzst", *(f".tar{packed}" for packed in _PACKED)})
SEPARATED = frozenset(f"{kind}{packed}" for kind in (".csv", ".tsv") for packed in _PACKED)
JSON_FILES = frozenset(f".json{packed}" for packed in _PACKED)
TABLES = JSON_LINES | SEPARATED | {PARQUET}

TABLE_WITHOUT = "table without text or image"
TABLE_BESIDE = "table beside its shard"

_CARD = re.compile(
    r"(readme|licen[cs]e|copying|notice|citation|changelog|authors|contribut(ors|ing)|code_of_conduct|security|"
    r"(model|data(set)?)_?card)([-_.].*)?"
)
_LOOK = 10
"""Entries of a table that are read to recognize its kind."""
_MOST_LEVELS = 2
_MOST_NAMES = 10_000
"""Names below a folder that are searched for tables."""


def suffix_of(name: str) -> str:
    """The last suffix in lower case, including the one before a compression suffix."""
    match = re.search(r"\.[^.]+(\.(gz|bz2|xz|zst))?$", name.lower())
    return match[0] if match else ""


def is_table(name: str) -> bool:
    """Whether a file is a table or a shard by its name. Spark's `_metadata.parquet` and similar files are not."""
    return suffix_of(name) in TABLES | SHARDS and not name.startswith("_")


def open_table(
    path: Path, name: str | None = None, folder: Path | None = None, columns: Columns | None = None
) -> Corpus:
    """The reader of a table or shard.

    Args:
        path: Its absolute path.
        name: Prefix of the ids of rows without one; by default the stem of the file.
        folder: The folder that a shard's name in its ids is relative to; None leaves the name out.
        columns: Which columns of a table are the id, the text and the image; by default they are found by name.
    """
    suffix, source = suffix_of(path.name), portable_name(str(path))
    if suffix in SHARDS:
        return WebDatasetCorpus([path], source, folder)
    if suffix == PARQUET:
        return ParquetCorpus([path], source, name, columns)
    if suffix in SEPARATED:
        return CsvCorpus(path, name=name, columns=columns)
    if suffix in JSON_FILES:
        return JsonCorpus(path, name=name, columns=columns)
    return JsonlCorpus(path, name=name, columns=columns)


def open_in_folder(place: Place, name: str, root: Path, columns: Columns | None = None) -> Corpus:
    """The reader of a table or shard in a folder; ids that it makes up begin with its path below the root.

    Parquet ids omit the file's suffix, as elsewhere; other tables include it, since two may share a stem.
    """
    stem = name[: -len(PARQUET)] if suffix_of(name) == PARQUET else name
    return open_table(place.path / name, place.id_of(stem), root, columns)


def is_beside_its_shard(name: str, names: frozenset[str]) -> bool:
    """Whether a Parquet file is the one that img2dataset writes beside a shard of the same stem."""
    stem = name[: -len(PARQUET)]
    return suffix_of(name) == PARQUET and any(f"{stem}{suffix}" in names for suffix in SHARDS)


def names_files(table: Corpus) -> bool:
    """Whether a table describes files: its records name images by their paths."""
    records = (each for each in islice(table, _LOOK) if isinstance(each, Record))
    return any(isinstance(each.document.image, Path) for each in records)


def entries_of(table: Corpus, uri: str) -> Iterator[Entry]:
    """The entries of a table in a folder; it is passed over entirely if no row has a text or an image."""
    entries = iter(table)
    first = list(islice(entries, _LOOK))
    if any(isinstance(each, Rejected) for each in first) and all(map(_is_empty, first)) and all(map(_is_empty, table)):
        yield PassedOver(uri, TABLE_WITHOUT)
    else:
        yield from chain(first, entries)


def _is_empty(entry: Entry) -> bool:
    return isinstance(entry, PassedOver) or (isinstance(entry, Rejected) and entry.reason == Reason.EMPTY.value)


def is_card(name: str) -> bool:
    """Whether a text describes a data set and is not part of it: README.md, LICENSE.txt and similar files."""
    return _CARD.fullmatch(name.lower()) is not None


def holds_tables(folder: Path, names: list[str]) -> bool:
    """Whether a folder has tables or shards, in it or up to two levels below; links are not followed.

    Args:
        folder: Its path.
        names: Its contents, folders with a slash. Below it, 10,000 names are examined, the upper levels first.
    """
    if any(map(_is_seen_table, names)):
        return True
    folders = deque((folder / name, 1) for name in names if name.endswith("/") and not name.startswith("."))
    looked = 0
    while folders and looked < _MOST_NAMES:
        path, depth = folders.popleft()
        try:
            names = list(islice(scan_folder(path), _MOST_NAMES))
        except ItemError:
            continue
        looked += len(names)
        if any(map(_is_seen_table, names)):
            return True
        if depth < _MOST_LEVELS:
            below = sorted(name for name in names if name.endswith("/") and not name.startswith("."))
            folders.extend((path / name, depth + 1) for name in below)
    return False


def _is_seen_table(name: str) -> bool:
    return not name.startswith(".") and is_table(name)
