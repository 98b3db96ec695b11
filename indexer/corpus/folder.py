"""A reader of folders, recursive: images, texts, tables and shards, each read as what it is.

* An image file is a document. `sidecars.py` decides which files beside it are its text and its JSON, which gives its
  `id`, `text` and `fields`; every other key becomes a field. A text in the JSON takes precedence over the text file.
  Without either, the text is a `caption` in the JSON, or the `description` in Google Takeout's JSON.
* A `.txt` or `.md` file that describes no image is a text document; it may have its own JSON. README.md, LICENSE.txt
  and similar files beside or above tables are passed over: they describe the data set.
* A file is an image if its suffix says so, or, if the suffix tells nothing, its first bytes do.
* The id is the path below the folder, with slashes, made portable by `portable_name`.
* The stamp is made from the size and modification time of the file and its sidecars.
* A table or shard (`tables.py`) gives its own documents; ids that it makes up begin with its path. If its records name
  image files of its folder, they describe these images instead (`named_files.py`). A record or a JSON file that names
  several images (`pages.py`) is one document of all of them, and they are not documents themselves.
* Entries come in the byte order of their paths.

A sidecar that cannot be used is rejected on its own; its image or text is still a document, without it.

Everything else is passed over and counted by suffix, including hidden files, files that file managers leave,
underdrawing's own collections, empty folders, and links to what is read anyway (`places.py`).

This module does not know whether a file named like an image is one; the decoder finds out later.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from indexer.corpus import tables
from indexer.corpus.columns import Columns
from indexer.corpus.content import begins_as_list, looks_like_image
from indexer.corpus.empty import EMPTY_FILE, is_empty
from indexer.corpus.named_files import FileTable, NamedFiles
from indexer.corpus.pages import PageCorpus, is_page
from indexer.corpus.paths import COLLECTION_FILE, Listing, is_collection, portable_name, printable, read_listing
from indexer.corpus.places import FILE_READ, FOLDER_READ, Place, Visited
from indexer.corpus.records import Corpus, Entry
from indexer.corpus.samples import read_sample
from indexer.corpus.selection import ALL, Selection
from indexer.corpus.sidecars import Sidecars
from indexer.corpus.suffixes import DETAILS, DRAWING, NO_SUFFIX, TEXTS, is_image_name, litter_kind, split_name
from indexer.errors import ItemError
from indexer.reasons import Reason
from indexer.types import PassedOver, Rejected

COLLECTION = "underdrawing collection"
EMPTY_FOLDER = "empty folder"
NOT_A_FILE = "no regular file"
CARD = "README beside tables"
PAGE_IMAGE = "image of a page"


class FolderCorpus:
    """The documents of a folder, or of the files in it that match a pattern.

    Args:
        root: The folder.
        meant: Which of its files to read.
        source: The name of the source; by default the folder's absolute path.
        columns: Which columns of its tables are the id, the text and the image; by default they are found by name.

    Attributes:
        source: As given.
    """

    def __init__(
        self, root: Path, meant: Selection = ALL, source: str | None = None, columns: Columns | None = None
    ) -> None:
        self._root = root.resolve()
        self._meant = meant
        self._columns = columns
        self.source = source or portable_name(str(self._root))

    def __iter__(self) -> Iterator[Entry]:
        walk = _Walk(self._root, Visited(self._root, self._meant), NamedFiles(), self._columns)
        # A stack instead of recursion: folders nest deeper than Python's calls may.
        opened = [walk.read(Place(self._root, "", self._meant))]
        try:
            while opened:
                found = next(opened[-1], None)
                if found is None:
                    opened.pop()
                elif isinstance(found, Place):
                    opened.append(walk.read(found))
                else:
                    yield found
        finally:
            while opened:
                opened.pop().close()
            walk.named.close()


@dataclass(frozen=True)
class _Walk:
    root: Path
    visited: Visited
    named: NamedFiles
    columns: Columns | None

    def read(self, place: Place) -> Generator[Entry | Place, None, None]:
        """The entries of a folder, and its subfolders, in order."""
        uri = place.path.as_uri()
        try:
            listing = read_listing(place.path)
        except ItemError as error:
            yield Rejected(uri, error.reason, error.detail, hides=portable_name(place.prefix))
            return
        if not self.visited.enter(listing.identity):
            yield PassedOver(uri, FOLDER_READ)
        elif COLLECTION_FILE in listing.names and is_collection(place.path):
            yield PassedOver(uri, COLLECTION)
        else:
            if all(litter_kind(name) is not None for name in listing.names):
                yield PassedOver(uri, EMPTY_FOLDER, hides=portable_name(place.prefix))
            with ExitStack() as stack:
                yield from _Reading(self, place, listing).entries(stack)


class _Reading:
    """One folder while it is being read."""

    def __init__(self, walk: _Walk, place: Place, listing: Listing) -> None:
        self._root, self._visited, self._named, self._columns = walk.root, walk.visited, walk.named, walk.columns
        self._place, self._names, self._links, self._broken = place, listing.names, listing.links, dict(listing.broken)
        files = (name for name in listing.names if not name.endswith("/") and litter_kind(name) is None)
        self._sidecars = Sidecars(files, self._looks_like_image)
        self._file_tables: dict[str, FileTable] = {}

    def entries(self, stack: ExitStack) -> Iterator[Entry | Place]:
        """The contents of the folder, in order; what `stack` closes is needed until all below it has been read."""
        for name in self._names:
            if self._may_name_files(name):
                table = self._table_of(name)
                if tables.names_files(table):
                    named = self._named.read(table, self._place.path / name, self._place.prefix)
                    self._file_tables[name] = stack.enter_context(named)
        whole = self._place.meant == ALL
        for name in self._names:
            if name.endswith("/"):
                yield from self._folder(name)
            elif whole or self._place.meant.has(name):
                yield from self._file(name)
        for name, named in self._file_tables.items():
            if self._place.meant.has(name):
                yield from named.unmet()

    def _folder(self, name: str) -> Iterator[Entry | Place]:
        path, meant = self._place.path / name, self._place.meant.below(name[:-1])
        if meant is None:
            return
        if (kind := litter_kind(name)) is not None:
            yield PassedOver(path.as_uri(), kind)
        elif name in self._links and self._visited.is_read_in_place(path, meant):
            yield PassedOver(path.as_uri(), FOLDER_READ)
        else:
            yield Place(path, self._place.prefix + name, meant, name in self._links or self._place.linked)

    def _file(self, name: str) -> Iterator[Entry]:
        """The entries of a file; none for a file that describes a document, since it is part of that."""
        path, suffix, id = self._place.path / name, split_name(name)[1], self._place.id_of(name)
        is_document = litter_kind(name) is None and self._sidecars.is_document(name)
        if (kind := litter_kind(name)) is not None:
            yield PassedOver(path.as_uri(), kind)
        elif not is_document and self._sidecars.describes(name):
            return
        elif suffix == DRAWING:
            detail = f"{printable(name)} is a vector graphic; convert it to pixels first."
            yield Rejected(path.as_uri(), Reason.SVG.value, detail, hides=id)
        elif is_document and self._is_read_elsewhere(name):
            yield PassedOver(path.as_uri(), FILE_READ)
        elif is_document and suffix in TEXTS and tables.is_card(name) and self._holds_tables:
            yield PassedOver(path.as_uri(), CARD)
        elif is_document:
            yield from self._sample(name)
        elif (error := self._broken.get(name)) is not None:
            if error.reason == Reason.NOT_A_FILE.value:
                yield PassedOver(path.as_uri(), NOT_A_FILE)
            else:
                # A table may have given images elsewhere ids of its own.
                is_table = tables.is_table(name) or suffix == DETAILS
                yield Rejected(path.as_uri(), error.reason, error.detail, hides="" if is_table else id)
        elif self._is_table(name):
            yield from self._table(name)
        elif suffix == DETAILS and is_empty(path):
            yield PassedOver(path.as_uri(), EMPTY_FILE, hides=f"{id}-")  # it may have been a table
        else:
            yield PassedOver(path.as_uri(), suffix or NO_SUFFIX)

    def _sample(self, name: str) -> Iterator[Entry]:
        row = self._named.take(self._place.prefix + name)
        if row is not None and row.part:
            yield PassedOver((self._place.path / name).as_uri(), PAGE_IMAGE)
        else:
            yield from read_sample(self._place, name, self._sidecars, row)

    def _table(self, name: str) -> Iterator[Entry]:
        path = self._place.path / name
        if name in self._file_tables:
            yield from self._file_tables[name].others()
        elif self._is_read_elsewhere(name):
            yield PassedOver(path.as_uri(), FILE_READ)
        elif tables.is_beside_its_shard(name, self._name_set):
            yield PassedOver(path.as_uri(), tables.TABLE_BESIDE)
        else:
            yield from tables.entries_of(self._table_of(name), path.as_uri())

    def _table_of(self, name: str) -> Corpus:
        if name in self._pages:
            return PageCorpus(self._place.path / name, self._place.id_of(name))
        return tables.open_in_folder(self._place, name, self._root, self._columns)

    def _is_table(self, name: str) -> bool:
        """Whether a file is a table or a shard by its name, or a standalone `.json` with a list or a page."""
        return tables.is_table(name) or name in self._json_lists or name in self._pages

    def _may_name_files(self, name: str) -> bool:
        """Whether a table should be scanned for names of files. Thousands of Parquet files are not."""
        if litter_kind(name) is not None or name in self._broken or not self._is_table(name):
            return False
        if tables.suffix_of(name) == tables.PARQUET:
            return name.startswith("metadata.") or self._has_images
        return tables.suffix_of(name) not in tables.SHARDS

    @cached_property
    def _lonely(self) -> list[Path]:
        """JSON files that describe no document."""
        details = (name for name in self._names if split_name(name)[1] == DETAILS and litter_kind(name) is None)
        lonely = (name for name in details if name not in self._broken and not self._sidecars.describes(name))
        return [self._place.path / name for name in lonely]

    @cached_property
    def _json_lists(self) -> frozenset[str]:
        return frozenset(path.name for path in self._lonely if begins_as_list(path))

    @cached_property
    def _pages(self) -> frozenset[str]:
        return frozenset(path.name for path in self._lonely if is_page(path))

    @cached_property
    def _name_set(self) -> frozenset[str]:
        return frozenset(self._names)

    @cached_property
    def _has_images(self) -> bool:
        return any(is_image_name(name) for name in self._names if not name.endswith("/"))

    @cached_property
    def _holds_tables(self) -> bool:
        return bool(self._json_lists) or tables.holds_tables(self._place.path, self._names)

    def _is_read_elsewhere(self, name: str) -> bool:
        """Whether the file is read under another name, through a link."""
        path, is_link = self._place.path / name, name in self._links
        if name in self._broken or not (is_link or self._place.linked):
            return False  # the reader reports a file that cannot be read
        try:
            alike = is_link and _reads_alike(name, path.resolve())
            if alike and self._visited.is_read_in_place(path):
                return True
            return not self._visited.take_file(path, is_link=is_link, alike=alike)
        except (OSError, ItemError):
            return False

    def _looks_like_image(self, name: str) -> bool:
        if name in self._broken:
            return False
        try:
            return looks_like_image(self._place.path / name)
        except ItemError as error:
            self._broken[name] = error
            return False


def _reads_alike(name: str, real: Path) -> bool:
    """Whether a file reads the same under its real name; caches store files under names that tell nothing."""
    if tables.is_table(name):
        return tables.is_table(real.name)
    if split_name(name)[1] in TEXTS:
        return split_name(real.name)[1] in TEXTS
    known = is_image_name(real.name)
    return looks_like_image(real) if known is None else known
