"""A folder of images and texts, read recursively.

* An image file is a document. `sidecars.py` says which files beside it are its text and its JSON, which gives its
  `id`, `text` and `fields`; every other key there is one more field. A text in the JSON goes before the text file; a
  `caption` in the JSON is the text where there is no other, and of Google Takeout's JSON the `description`.
* A `.txt` or `.md` file that describes no image is a text document; it may have its JSON, too.
* A file is an image if its suffix says so; where the suffix tells nothing, if its first bytes do.
* The id is the path below the folder, with slashes, made portable by `portable_name`.
* The stamp is made of the size and the time of change of the file and of its sidecars.
* The order is that of the bytes of the paths.

A sidecar that cannot be used is a reject of its own; its image or text is a document all the same, without it.

Everything else that is seen is passed over, by its suffix; so are hidden files and what file managers leave behind,
underdrawing's own collections, empty folders, and links to what is read without them (`places.py`).

What this module does not know: whether a file with an image's name is one. The decoder finds out, later.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from indexer.corpus.content import looks_like_image
from indexer.corpus.paths import COLLECTION_FILE, Listing, is_collection, portable_name, printable, read_listing
from indexer.corpus.places import FILE_READ, FOLDER_READ, Place, Visited
from indexer.corpus.reasons import Reason
from indexer.corpus.records import Entry
from indexer.corpus.samples import read_sample
from indexer.corpus.sidecars import Sidecars
from indexer.corpus.suffixes import DRAWING, NO_SUFFIX, litter_kind, split_name
from indexer.errors import ItemError
from indexer.types import PassedOver, Rejected

COLLECTION = "underdrawing collection"
EMPTY_FOLDER = "empty folder"
NOT_A_FILE = "no regular file"


class FolderCorpus:
    """The documents of a folder.

    Attributes:
        source: The folder's absolute path.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.source = portable_name(str(self._root))

    def __iter__(self) -> Iterator[Entry]:
        visited = Visited(self._root)
        # A stack in place of recursion: folders nest deeper than Python's calls may.
        opened = [_read(Place(self._root, ""), visited)]
        while opened:
            found = next(opened[-1], None)
            if found is None:
                opened.pop()
            elif isinstance(found, Place):
                opened.append(_read(found, visited))
            else:
                yield found


def _read(place: Place, visited: Visited) -> Iterator[Entry | Place]:
    """The entries of a folder, and the folders in it to read, in their order."""
    uri = place.path.as_uri()
    try:
        listing = read_listing(place.path)
    except ItemError as error:
        yield Rejected(uri, error.reason, error.detail, hides=portable_name(place.prefix))
        return
    if not visited.enter(listing.identity):
        yield PassedOver(uri, FOLDER_READ)
    elif COLLECTION_FILE in listing.names and is_collection(place.path):
        yield PassedOver(uri, COLLECTION)
    else:
        if all(litter_kind(name) is not None for name in listing.names):
            yield PassedOver(uri, EMPTY_FOLDER, hides=portable_name(place.prefix))
        yield from _Reading(place, listing, visited).entries()


class _Reading:
    """One folder while it is read."""

    def __init__(self, place: Place, listing: Listing, visited: Visited) -> None:
        self._place, self._links, self._visited = place, listing.links, visited
        self._names = listing.names
        self._broken = dict(listing.broken)
        files = (name for name in listing.names if not name.endswith("/") and litter_kind(name) is None)
        self._sidecars = Sidecars(files, self._looks_like_image)

    def entries(self) -> Iterator[Entry | Place]:
        for name in self._names:
            path = self._place.path / name
            if (kind := litter_kind(name)) is not None:
                yield PassedOver(path.as_uri(), kind)
            elif name.endswith("/"):
                linked = name in self._links
                if linked and self._visited.is_read_in_place(path):
                    yield PassedOver(path.as_uri(), FOLDER_READ)
                else:
                    yield Place(path, self._place.prefix + name, linked or self._place.linked)
            else:
                yield from self._file(name)

    def _file(self, name: str) -> Iterator[Entry]:
        """The entries of a file; none for one that describes a document, for it is a part of that."""
        path, suffix, id = self._place.path / name, split_name(name)[1], self._place.id_of(name)
        is_document = self._sidecars.is_document(name)
        if not is_document and self._sidecars.describes(name):
            return
        if suffix == DRAWING:
            detail = f"{printable(name)} is a drawing; draw it to pixels first."
            yield Rejected(path.as_uri(), Reason.SVG.value, detail, hides=id)
        elif is_document and self._is_read_elsewhere(name):
            yield PassedOver(path.as_uri(), FILE_READ)
        elif is_document:
            yield from read_sample(self._place, name, self._sidecars)
        elif (error := self._broken.get(name)) is not None:
            if error.reason == Reason.NOT_A_FILE.value:
                yield PassedOver(path.as_uri(), NOT_A_FILE)
            else:
                yield Rejected(path.as_uri(), error.reason, error.detail, hides=id)
        else:
            yield PassedOver(path.as_uri(), suffix or NO_SUFFIX)

    def _is_read_elsewhere(self, name: str) -> bool:
        """Whether the file is a document under another name, which a link gives it."""
        path, is_link = self._place.path / name, name in self._links
        if name in self._broken:
            return False  # it cannot be read at all, and whoever tries will say so
        if is_link and self._visited.is_read_in_place(path):
            return True
        try:
            return (is_link or self._place.linked) and not self._visited.take_file(path, is_link=is_link)
        except OSError:
            return False

    def _looks_like_image(self, name: str) -> bool:
        if name in self._broken:
            return False
        try:
            return looks_like_image(self._place.path / name)
        except ItemError as error:
            self._broken[name] = error
            return False
