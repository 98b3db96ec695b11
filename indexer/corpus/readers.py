"""The door to every kind of source: `open_corpus` looks at what is there and picks the reader.

    a folder                                     FolderCorpus      images, texts, sidecars
    .jsonl .ndjson, also compressed              JsonlCorpus       a document on each line
    .parquet, or a folder of nothing else        ParquetCorpus     a document in each row
    .tar .tar.gz .tgz, shards-{000..012}.tar,    WebDatasetCorpus  a document for each name in the archives
      or a folder of nothing else

Beside shards, a folder may hold the `.parquet` and `.json` files that img2dataset leaves there. Names that
begin with a dot or an underscore (Spark's `_SUCCESS`) do not count.

What this module does not know: how any of them is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from indexer.corpus.folder import FolderCorpus
from indexer.corpus.jsonl import JsonlCorpus
from indexer.corpus.parquet import ParquetCorpus
from indexer.corpus.paths import is_collection, list_folder, portable_name, printable, scan_folder
from indexer.corpus.records import Corpus, Record
from indexer.corpus.webdataset import WebDatasetCorpus
from indexer.errors import CallError, ItemError

__all__ = ["Corpus", "Record", "open_corpus"]

_SHARDS = frozenset({".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"})
_LINES = frozenset(f"{kind}{packed}" for kind in (".jsonl", ".ndjson") for packed in ("", ".gz", ".bz2", ".xz", ".zst"))
_TABLES = _SHARDS | {".parquet", ".json"}
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]+(?:,[^{},]+)*))\}")
_ACCEPTED = (
    "Accepted are a folder of images and texts, a .jsonl or .ndjson file, a .parquet file, a .tar shard of WebDataset "
    "(lines and shards also .gz, .bz2, .xz or .zst), a folder of either, or a pattern such as shards-{000..012}.tar."
)


def open_corpus(source: str | Path) -> Corpus:
    """Open a source of documents. Nothing is read of it before it is iterated over.

    Args:
        source: The path of a folder or file, or a brace pattern of shards.

    Raises:
        CallError: Nothing is there, or nothing that can be read, or it lies in a collection.
    """
    path = Path(source)
    try:
        if path.exists():
            _refuse_collections(path)
        if path.is_dir():
            return _open_folder(path.resolve())
        if path.is_file():
            return _open_file(path.resolve())
        if path.exists():
            raise CallError(f"{printable(path)} is neither a folder nor a regular file.", _ACCEPTED)
    except OSError as error:
        raise CallError(f"{printable(path)} cannot be read ({error.strerror}).", _ACCEPTED) from error
    if _BRACES.search(str(source)):
        return _open_pattern(str(source))
    raise CallError(f"{printable(path)} does not exist.", _ACCEPTED)


def _refuse_collections(source: Path) -> None:
    """Raise CallError if the source is a collection of underdrawing's own, or lies in one."""
    real = source.resolve()
    for folder in (real, *real.parents):
        if is_collection(folder):
            raise CallError(
                f"{printable(folder)} is an underdrawing collection, and no source of documents.",
                "Name the folder or file that the documents come from.",
            )


def _open_folder(path: Path) -> Corpus:
    kinds = set()
    try:
        for name in scan_folder(path):
            if not name.startswith((".", "_")):
                kinds.add(_suffix(name))
            if not kinds <= _TABLES:
                return FolderCorpus(path)  # told by one file, be there millions
        names = [name for name in list_folder(path) if not name.startswith((".", "_"))]
    except ItemError as error:
        raise CallError(error.detail, _ACCEPTED) from error
    source = portable_name(str(path))
    if not kinds.isdisjoint(_SHARDS):
        return WebDatasetCorpus([path / name for name in names if _suffix(name) in _SHARDS], source, path)
    if kinds == {".parquet"}:
        return ParquetCorpus([path / name for name in names if _suffix(name) == ".parquet"], source)
    return FolderCorpus(path)


def _open_file(path: Path) -> Corpus:
    source = portable_name(str(path))
    match _suffix(path.name):
        case suffix if suffix in _LINES:
            return JsonlCorpus(path)
        case ".parquet":
            return ParquetCorpus([path], source)
        case suffix if suffix in _SHARDS:
            return WebDatasetCorpus([path], source)
        case _:
            raise CallError(f"{printable(path.name)} is no source of documents.", _ACCEPTED)


def _open_pattern(pattern: str) -> Corpus:
    shards = []
    for name in _expand(pattern):
        shard = Path(name).absolute()
        if _suffix(shard.name) not in _SHARDS:
            raise CallError(f"{printable(shard)} is no shard, and only shards are named by a pattern.", _ACCEPTED)
        if not shard.is_file():
            raise CallError(f"{printable(shard)}, named by {printable(pattern)}, does not exist.", _ACCEPTED)
        shards.append(shard)
    if not shards:
        raise CallError(f"{printable(pattern)} names no shard: its range is empty.", _ACCEPTED)
    folder = Path(pattern[: pattern.index("{")] + "_").absolute().parent  # what stands before the first brace
    return WebDatasetCorpus(shards, portable_name(str(Path(pattern).absolute())), folder)


def _expand(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for: `{08..11}` counts in the width of its start, `{a,b}` lists."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    first, last, names = braces.groups()
    values = names.split(",") if names else (f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1))
    for value in values:
        yield from _expand(pattern[: braces.start()] + value + pattern[braces.end() :])


def _suffix(name: str) -> str:
    """The last suffix in lower case, with the one before that of a compression."""
    match = re.search(r"\.[^.]+(\.(gz|bz2|xz|zst))?$", name.lower())
    return match[0] if match else ""
