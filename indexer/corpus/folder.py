"""A folder of images and texts, read recursively.

* An image file is a document. Beside it, `name.txt` (or else `name.md`) gives its text, and `name.json` its
  `id`, `text` and `fields`; every other key there is one more field. A text in the JSON goes before the text
  file; a `caption` in the JSON is the text where there is no other.
* A `.txt` or `.md` file with no image of that name is a text document; it may have a `name.json` too.
* The id is the path below the folder, with slashes, made portable by `portable_name`.
* The stamp is made of the size and the time of change of the file and of its companions.
* The order is that of the bytes of the paths.

Everything else that is seen is passed over, by its suffix; so are hidden files and what file managers leave behind.
A link to a folder is followed, unless it leads back to a folder that it lies in.

What this module does not know: whether a file with an image's name is one. The decoder finds out, later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from indexer.corpus.paths import (
    MAX_BYTES,
    folder_identity,
    list_folder,
    portable_name,
    printable,
    read_file,
    stat_file,
)
from indexer.corpus.reasons import Reason
from indexer.corpus.records import (
    IMAGE_SUFFIXES,
    Entry,
    Record,
    decode_text,
    make_sample,
    parse_object,
    record_or_rejected,
)
from indexer.errors import ItemError
from indexer.types import PassedOver, Rejected
from indexer.validate import MAX_TEXT

_TEXT_SUFFIXES = (".txt", ".md")
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"})
NO_SUFFIX = "no suffix"
READ_ALREADY = "link to a folder read already"
_MAX_TEXT_BYTES = 4 * MAX_TEXT  # UTF-8 takes at most four for a character


class FolderCorpus:
    """The documents of a folder.

    Attributes:
        source: The folder's absolute path.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.source = portable_name(str(self._root))

    def __iter__(self) -> Iterator[Entry]:
        # A stack in place of recursion: folders nest deeper than Python's calls may.
        opened = [self._read(_Folder(self._root, "", frozenset()))]
        while opened:
            found = next(opened[-1], None)
            if found is None:
                opened.pop()
            elif isinstance(found, _Folder):
                opened.append(self._read(found))
            else:
                yield found

    def _read(self, folder: _Folder) -> Iterator[Entry | _Folder]:
        try:
            identity = folder_identity(folder.path)
            names = list_folder(folder.path)
        except ItemError as error:
            hidden = portable_name(folder.prefix)
            yield Rejected(folder.path.as_uri(), error.reason, error.detail, hides=hidden)
            return
        if identity in folder.above:
            yield PassedOver(folder.path.as_uri(), READ_ALREADY)
            return
        groups = _group_by_stem(name for name in names if _litter_kind(name) is None)
        for name in names:
            if (kind := _litter_kind(name)) is not None:
                yield PassedOver((folder.path / name).as_uri(), kind)
            elif name.endswith("/"):
                prefix = f"{folder.prefix}{name}"
                yield _Folder(folder.path / name, prefix, folder.above | {identity})
            else:
                stem, _ = _split(name)
                yield from _file(folder, name, groups[stem])


@dataclass(frozen=True)
class _Folder:
    path: Path
    prefix: str  # of the ids of what is in it
    above: frozenset[tuple[int, int]]  # device and inode of the folders it lies in


@dataclass(slots=True)
class _Group:
    """The files of one stem in one folder: which of them describe the documents among them."""

    has_image: bool = False
    text: str | None = None
    details: str | None = None

    def owns(self, name: str) -> bool:
        """Whether the file describes a document, and so is not ignored."""
        return name in (self.text, self.details) and (self.has_image or self.text is not None)


def _group_by_stem(names: Iterable[str]) -> Mapping[str, _Group]:
    groups: dict[str, _Group] = defaultdict(_Group)
    for name in names:
        stem, suffix = _split(name)
        group = groups[stem]
        if suffix in IMAGE_SUFFIXES or suffix == ".svg":
            group.has_image = True
        elif suffix == ".txt" or (suffix == ".md" and group.text is None):
            group.text = name
        elif suffix == ".json":
            group.details = name
    return groups


def _file(folder: _Folder, name: str, group: _Group) -> Iterator[Entry]:
    """The entry of a file; none for one that describes a document, for it is a part of that."""
    path, (_, suffix) = folder.path / name, _split(name)
    if suffix == ".svg":
        detail = f"{printable(name)} is a drawing; draw it to pixels first."
        yield Rejected(path.as_uri(), Reason.SVG.value, detail, hides=portable_name(folder.prefix + name))
    elif suffix in IMAGE_SUFFIXES or (suffix in _TEXT_SUFFIXES and not group.has_image):
        entry = record_or_rejected(path.as_uri(), partial(_read_document, folder, name, group))
        hidden = portable_name(folder.prefix + name)
        yield replace(entry, hides=hidden) if isinstance(entry, Rejected) else entry
    elif not group.owns(name):
        yield PassedOver(path.as_uri(), suffix or NO_SUFFIX)


def _read_document(folder: _Folder, name: str, group: _Group) -> Record:
    path = folder.path / name
    is_image = _split(name)[1] in IMAGE_SUFFIXES
    text = group.text if is_image else name
    companions = [folder.path / other for other in (text, group.details) if other not in (None, name)]
    states = [stat_file(file) for file in (path, *companions)]
    return make_sample(
        id=portable_name(folder.prefix + name),
        text=decode_text(read_file(folder.path / text, _MAX_TEXT_BYTES)).strip() if text else None,
        image=path if is_image else None,
        details=parse_object(read_file(folder.path / group.details, MAX_BYTES)) if group.details else {},
        uri=path.as_uri(),
        stamp=" ".join(f"{state.st_size}-{state.st_mtime_ns}" for state in states),
    )


def _split(name: str) -> tuple[str, str]:
    """The stem, and the suffix in lower case."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, f".{suffix.lower()}") if dot else (name, "")


def _litter_kind(name: str) -> str | None:
    """What a hidden file or a file manager's own counts under, and None for every other."""
    what = "folder" if name.endswith("/") else "file"
    if name.startswith("."):
        return f"hidden {what}"
    return f"system {what}" if name.removesuffix("/").lower() in _LITTER else None
