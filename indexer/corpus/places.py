"""The position of a walk through folders, and its history: links are followed once, and only out of the root folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from indexer.corpus.paths import Identity, identity_of, is_collection, portable_name
from indexer.corpus.selection import ALL, Selection
from indexer.corpus.suffixes import litter_kind

FOLDER_READ = "link to a folder already read"
FILE_READ = "link to a file already read"


@dataclass(frozen=True)
class Place:
    """A folder on the walk.

    Attributes:
        path: With the names that links gave it.
        prefix: Prefix of its ids: its path below the root with a trailing slash, empty for the root.
        meant: Which of its files to read.
        linked: Whether a link led here.
    """

    path: Path
    prefix: str
    meant: Selection = ALL
    linked: bool = False

    def id_of(self, name: str) -> str:
        """The id of the document in a file of this folder."""
        return portable_name(self.prefix + name)


@dataclass
class Visited:
    """The files and folders that a walk has visited, so that it reads each file once, whatever links name it.

    A file or folder below the root is read at its real place, and links to it are passed over. One elsewhere is read at
    the first link, in the order of the walk. Memory grows with the folders, not with the files.
    """

    root: Path
    meant: Selection = ALL
    _folders: set[Identity] = field(default_factory=set)
    _collections: dict[Path, bool] = field(default_factory=dict)
    _files: set[Identity] = field(default_factory=set)  # reached through links

    def enter(self, identity: Identity) -> bool:
        """Remember a folder; False if it was read before."""
        if identity in self._folders:
            return False
        self._folders.add(identity)
        return True

    def is_read_in_place(self, link: Path, meant: Selection | None = None) -> bool:
        """Whether the target of a link lies below the root, where the walk reaches it without the link.

        Args:
            link: To a file or folder.
            meant: Which files of the folder to read; None for a file.
        """
        real = Path(os.path.realpath(link))
        if not real.is_relative_to(self.root):
            return False
        path, there = self.root, self.meant
        *above, name = real.relative_to(self.root).parts or (".",)
        for folder in above:
            path /= folder
            below = there.below(folder)
            if below is None or litter_kind(folder) is not None or self._is_collection(path):
                return False
            there = below
        if real == self.root:
            return meant == self.meant
        if litter_kind(name) is not None or (meant is not None and self._is_collection(real)):
            return False
        return there.has(name) if meant is None else there.below(name) == meant

    def _is_collection(self, folder: Path) -> bool:
        if folder not in self._collections:
            self._collections[folder] = is_collection(folder)
        return self._collections[folder]

    def take_file(self, path: Path, *, is_link: bool, alike: bool) -> bool:
        """Remember a file outside the root, reached by a link to it or its folder; False if it was read before.

        Args:
            path: The file.
            is_link: Whether it is a link itself.
            alike: Whether the target reads the same under its own name, where the walk reaches it.

        Raises:
            OSError: The file cannot be examined.
        """
        if not (is_link or self._files):
            return True
        identity = identity_of(path, path.stat())
        if identity in self._files:
            return False
        if is_link:
            real = Path(os.path.realpath(path))
            elsewhere = alike and not real.is_relative_to(self.root) and litter_kind(real.name) is None
            if elsewhere and identity_of(real.parent, real.parent.stat()) in self._folders:
                return False
            self._files.add(identity)
        return True
