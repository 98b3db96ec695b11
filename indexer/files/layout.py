"""The layout of a collection's folder, the paths inside it, and `collection.json`, which identifies it.

    collection.json      format, location of the metadata, index settings; written last, it completes a new collection
    metadata.db          SQLite, unless the metadata is in PostgreSQL
    segments/            vectors, immutable
    media/               images given as bytes, by content
    indexes/             derived; may be deleted at any time
    writer.lock          held by the one writer

What this module does not know: the content of these files.
"""

from __future__ import annotations

import json
import os
import re
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from indexer.errors import CollectionNotFoundError, CorruptionError, FormatError, StoreError
from indexer.files.atomic import TEMPORARY_PREFIX, atomic_write, sweep_temporary
from indexer.types import JsonValue

FORMAT = 1
SEGMENT_NAME = re.compile(r"[0-9]{12,19}-[0-9a-f]{12}\.safetensors")
IMAGE_NAME = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62}\.[a-z0-9]{1,8})")
"""The name of a stored image, below `media/`: its sha256 in hex, with the suffix of its format."""
SCHEMA_NAME = re.compile(r"underdrawing_[0-9a-f]{12}")
MEDIA, FILE = "media:", "file://"
"""Prefixes of the URIs of stored images and of images referenced by path."""
STARTING = ".tmp-starting"
"""Names the PostgreSQL schema of a collection that is being created."""
_FILES = ("collection.json", "writer.lock", *(f"metadata.db{end}" for end in ("", "-wal", "-shm", "-journal")))
_FOLDERS = ("segments", "media", "indexes")
_UNFINISHED = frozenset({"writer.lock", "metadata.db", "metadata.db-wal", "metadata.db-shm", "metadata.db-journal"})
"""Files that an interrupted creation leaves, besides temporary files."""

NOT_OURS = "Do not use this collection, unless you know who changed it."
NOT_IN_NAMES = frozenset("/\\:\0")


@dataclass(frozen=True)
class Layout:
    """One collection's folder."""

    folder: Path
    backend: str
    schema: str | None
    id: str | None = None
    """A random id, which the tables also hold; None if an earlier release made the collection."""
    vector_store: str = "local"
    """The name of its vector store (`indexer/vectors/stores.py`)."""
    index: Mapping[str, JsonValue] | None = None
    """Its index settings in the form of `IndexSettings.to_json`; None for the defaults."""

    @property
    def description(self) -> Path:
        """The file `collection.json`."""
        return self.folder / "collection.json"

    @property
    def segments(self) -> Path:
        """Vectors."""
        return self.folder / "segments"

    @property
    def media(self) -> Path:
        """Stored images."""
        return self.folder / "media"

    @property
    def indexes(self) -> Path:
        """Derived index files."""
        return self.folder / "indexes"

    @property
    def lock(self) -> Path:
        """The writer's lock."""
        return self.folder / "writer.lock"

    @property
    def database(self) -> Path:
        """SQLite's file."""
        return self.folder / "metadata.db"

    def require_own(self) -> None:
        """Refuse a folder in which a link leads elsewhere.

        Stored images, of which there may be millions, are checked one by one when used.

        Raises:
            StoreError: It names the link.
        """
        require_own(self.folder)

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether the folder is a collection."""
        return (folder / "collection.json").is_file()

    @classmethod
    def plan(cls, folder: Path, backend: str) -> Layout:
        """The layout of a new collection; nothing is written.

        Raises:
            StoreError: The folder holds other files; a collection needs its own folder.
        """
        require_own(folder)
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{folder} is a file, not a collection.", "Name a new or an empty folder.")
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        ours = {name for name in names if name in _UNFINISHED or name.startswith(TEMPORARY_PREFIX)}
        if names and (names != ours or "writer.lock" not in names):
            raise StoreError(
                f"{folder} is a folder with other files in it, not a collection.", "Name a new or an empty folder."
            )
        schema = f"underdrawing_{uuid.uuid4().hex[:12]}" if backend == "postgresql" else None
        return cls(folder, backend, schema)

    def clear(self) -> None:
        """Remove what an interrupted creation left; call it only while holding the writer's lock."""
        for name in _UNFINISHED - {self.lock.name}:
            (self.folder / name).unlink(missing_ok=True)
        sweep_temporary(self.folder)

    def publish(self) -> None:
        """Write `collection.json`, which makes the folder a collection."""
        content: dict[str, JsonValue] = {
            "format": FORMAT, "metadata": self.backend, "schema": self.schema, "id": self.id,
        }  # fmt: skip
        if self.vector_store != "local":
            content["vector_store"] = self.vector_store
        if self.index is not None:
            content["index"] = dict(self.index)
        atomic_write(self.description, json.dumps(content, indent=2).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> Layout:
        """Read a folder's layout.

        Raises:
            CollectionNotFoundError: There is no collection.
            FormatError: A newer release made it.
            CorruptionError: Its `collection.json` cannot be read.
            StoreError: A file or folder of it is a link.
        """
        require_own(folder)
        file = folder / "collection.json"
        if not file.is_file():
            raise CollectionNotFoundError(
                f"There is no collection at {folder}.",
                f"It holds other files. Index it into a new folder: underdrawing index {folder} NEW_FOLDER"
                if _holds_other_things(folder)
                else f"Make one: underdrawing index SOURCE {folder}",
            )
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found, backend, schema = int(content["format"]), str(content["metadata"]), content["schema"]
            identity, store, index = content.get("id"), str(content.get("vector_store", "local")), content.get("index")
            if index is not None and not isinstance(index, dict):
                raise TypeError(f"its index settings are {str(index)[:80]!r}")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CorruptionError(f"{file} is damaged: {error}.", "Restore it from a backup.") from error
        except OSError as error:
            raise StoreError(f"{file} cannot be read: {error.strerror or error}.", "Check its permissions.") from error
        if found > FORMAT:
            raise FormatError(
                f"{folder} has format {found}; this release reads up to {FORMAT}.",
                "Upgrade: pip install -U underdrawing",
            )
        # The schema's name becomes part of PostgreSQL's connection options.
        fits = backend == "sqlite" or (
            backend == "postgresql" and isinstance(schema, str) and SCHEMA_NAME.fullmatch(schema) is not None
        )
        if not fits:
            raise CorruptionError(
                f"{file} is damaged: it names the database {backend[:80]!r} with the schema {str(schema)[:80]!r}.",
                "Restore it from a backup.",
            )
        return cls(folder, backend, schema, None if identity is None else str(identity)[:80], store, index)


def require_own(folder: Path) -> None:
    """Refuse a folder in which a link leads elsewhere; see `Layout.require_own`."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise StoreError(
            f"The path {os.fsencode(folder)!r} is not UTF-8, which SQLite needs.", "Rename the folder."
        ) from None
    for name in (*_FILES, *_FOLDERS):
        own_path(folder, name)
    for name in _FOLDERS:
        try:
            entries = list(os.scandir(folder / name))
        except OSError:
            continue  # missing or unreadable: whoever needs it reports it
        for entry in entries:
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                require_plain(Path(entry.path))


def own_path(folder: Path, *names: str) -> Path:
    """The path of a file or folder, which need not exist, inside a collection's folder.

    Whoever made a collection chose the names in its tables and the content of its folder. So names must be plain, and
    must not be links, pipes or devices. The collection's folder itself may be reached through links.

    Args:
        folder: The collection's folder.
        names: Each one below the one before.

    Raises:
        StoreError: A name leads out of the folder.
    """
    path = folder
    for name in names:
        if name in ("", ".", "..") or not NOT_IN_NAMES.isdisjoint(name):
            raise StoreError(f"{name!r} is not the name of a file inside the collection {folder}.", NOT_OURS)
        path = path / name
        require_plain(path)
    return path


def require_plain(path: Path) -> None:
    """Refuse a link, a pipe or a device in place of a collection's file or folder.

    Raises:
        StoreError: It is one.
    """
    try:
        state = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from error
    if stat.S_ISLNK(state.st_mode) or getattr(state, "st_reparse_tag", False):
        raise StoreError(
            f"{path} is a link; a collection's files must be in its own folder.",
            "Replace the link by what it points to. The collection's folder itself may be a link.",
        )
    if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
        raise StoreError(f"{path} is neither a file nor a folder.", NOT_OURS)


def image_path(folder: Path, uri: str) -> Path:
    """The file of an image's URI; it may no longer exist.

    Args:
        folder: The collection's `media` folder.
        uri: As recorded.

    Raises:
        CorruptionError: It is neither a stored image's URI nor the URI of an absolute path.
        StoreError: A stored image, or its folder, is a link.
    """
    if uri.startswith(MEDIA):
        if (name := IMAGE_NAME.fullmatch(uri.removeprefix(MEDIA))) is None:
            raise _no_image(folder, uri)
        return own_path(folder.parent, folder.name, *name.groups())
    path = Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE))))
    if not uri.startswith(FILE) or not path.is_absolute() or "\0" in str(path):
        raise _no_image(folder, uri)
    return path


def _holds_other_things(folder: Path) -> bool:
    try:
        return folder.is_dir() and any(folder.iterdir())
    except OSError:
        return False


def _no_image(folder: Path, uri: str) -> CorruptionError:
    return CorruptionError(
        f"A document of {folder.parent} names the image {uri[:200]!r}, neither a file's URI nor one under media/.",
        "Run `underdrawing check`, which names the document.",
    )
