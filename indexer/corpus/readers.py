"""`open_corpus`, the entry to every kind of source: it looks at what is there and picks the reader.

a folder                                      FolderCorpus      images, texts, tables, shards
an image, or a pattern such as photos/**/*.jpg FolderCorpus     the matching files of a folder
a table or a shard                            see `tables.py`
shards-{000..012}.tar                         WebDatasetCorpus  shards named by braces
NAME:REST                                     the reader of that name; see `formats.py`
"""

from __future__ import annotations

from pathlib import Path

from indexer.corpus.columns import Columns
from indexer.corpus.content import looks_like_image
from indexer.corpus.folder import FolderCorpus
from indexer.corpus.formats import READERS, reader_in
from indexer.corpus.paths import is_collection, portable_name, printable, read_listing, scan_folder
from indexer.corpus.records import Corpus, Record
from indexer.corpus.selection import Selection, before_braces, expand, has_braces, has_wildcards, select
from indexer.corpus.suffixes import is_image_name
from indexer.corpus.tables import JSON_FILES, SHARDS, TABLES, open_table, suffix_of
from indexer.corpus.webdataset import WebDatasetCorpus
from indexer.errors import CallError, ItemError

__all__ = ["Corpus", "Record", "open_corpus"]

_ACCEPTED = (
    "Accepted are a folder of images, texts, tables and shards, an image, a .jsonl, .json, .csv, .tsv or .parquet "
    "file, a .tar shard of WebDataset (all but Parquet also .gz, .bz2, .xz or .zst), or a pattern such as "
    "'photos/**/*.jpg' or 'shards-{000..012}.tar'."
)


def open_corpus(source: str | Path, *, columns: Columns | None = None) -> Corpus:
    """Open a source of documents. Nothing is read until it is iterated over.

    Args:
        source: The path of a folder or file, a pattern of files, or `NAME:REST` with the name of a reader, such as
            `csv:export.txt`. An existing path takes precedence.
        columns: Which columns of a table are the id, the text and the image; by default they are found by name.

    Raises:
        CallError: Nothing is there, nothing can be read, or it lies in a collection; or columns are named for a source
            that has none.
        PluginError: The package that offers the reader cannot be imported.
    """
    corpus = _open(source, columns)
    if columns is not None and columns.named and isinstance(corpus, WebDatasetCorpus):
        named = ", ".join(repr(name) for name in columns.named.values())
        raise CallError(f"Columns are named ({named}), but {printable(corpus.source)} is a shard, which has none.")
    return corpus


def _open(source: str | Path, columns: Columns | None) -> Corpus:
    if (named := reader_in(source)) is not None:
        name, rest = named
        return READERS.get(name)(rest, columns=columns)
    path = Path(source)
    try:
        if path.exists():
            _refuse_collections(path)
        if path.is_dir():
            return _open_folder(path.resolve(), columns)
        if path.is_file():
            return _open_file(path.resolve(), columns)
        if path.exists():
            raise CallError(f"{printable(path)} is neither a folder nor a regular file.", _ACCEPTED)
    except OSError as error:
        raise CallError(f"{printable(path)} cannot be read ({error.strerror}).", _ACCEPTED) from error
    if has_wildcards(str(source)):
        return _open_wildcards(str(source), columns)
    if has_braces(str(source)):
        return _open_pattern(str(source))
    raise CallError(f"{printable(path)} does not exist.", _ACCEPTED)


def _refuse_collections(source: Path) -> None:
    """Raise CallError if the source is an underdrawing collection, or lies in one."""
    real = source.resolve()
    for folder in (real, *real.parents):
        if is_collection(folder):
            raise CallError(
                f"{printable(folder)} is an underdrawing collection, not a source of documents.",
                "Name the folder or file that the documents come from.",
            )


def _open_folder(path: Path, columns: Columns | None) -> Corpus:
    try:
        next(scan_folder(path), None)  # report a folder that cannot be listed at once
    except ItemError as error:
        raise CallError(error.detail, _ACCEPTED) from error
    return FolderCorpus(path, columns=columns)


def _open_file(path: Path, columns: Columns | None) -> Corpus:
    if suffix_of(path.name) in TABLES | SHARDS | JSON_FILES:
        return open_table(path, columns=columns)
    known = is_image_name(path.name)
    if not known and (suffix := suffix_of(path.name)[1:]) and suffix in READERS:
        return READERS.get(suffix)(str(path), columns=columns)
    try:
        if known or (known is None and looks_like_image(path)):
            return FolderCorpus(path.parent, Selection.named(path.name), portable_name(str(path)))
    except ItemError as error:
        raise CallError(error.detail, _ACCEPTED) from error
    raise CallError(f"{printable(path.name)} is not a source of documents.", _ACCEPTED)


def _open_wildcards(pattern: str, columns: Columns | None) -> Corpus:
    folder, meant = select(pattern)
    if not _finds_any(folder, meant):
        raise CallError(f"No file matches {printable(pattern)}.", _ACCEPTED)
    _refuse_collections(folder)
    return FolderCorpus(folder, meant, portable_name(str(Path(pattern).absolute())), columns)


def _finds_any(root: Path, meant: Selection) -> bool:
    """Whether a selection has any file; the walk ends at the first."""
    seen, folders = set(), [(root, meant)]
    while folders:
        path, here = folders.pop()
        try:
            listing = read_listing(path)
        except ItemError:
            continue  # reading the corpus reports it; if nothing else is there, nothing matches
        if listing.identity in seen:
            continue
        seen.add(listing.identity)
        for name in listing.names:
            if not name.endswith("/") and here.has(name):
                return True
            if name.endswith("/") and (below := here.below(name[:-1])) is not None:
                folders.append((path / name, below))
    return False


def _open_pattern(pattern: str) -> Corpus:
    shards = []
    for name in expand(pattern):
        shard = Path(name).absolute()
        if suffix_of(shard.name) not in SHARDS:
            raise CallError(f"{printable(shard)} is not a shard; only shards can be named by a pattern.", _ACCEPTED)
        if not shard.is_file():
            raise CallError(f"{printable(shard)}, named by {printable(pattern)}, does not exist.", _ACCEPTED)
        _refuse_collections(shard)
        shards.append(shard)
    if not shards:
        raise CallError(f"{printable(pattern)} names no shard: its range is empty.", _ACCEPTED)
    folder = Path(before_braces(pattern) + "_").absolute().parent
    return WebDatasetCorpus(shards, portable_name(str(Path(pattern).absolute())), folder)
