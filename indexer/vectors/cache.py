"""The cache of index files: each is named by what it was built from, and used only if its checksum matches.

    hnsw-0123456789abcdef.faiss     what FAISS wrote
    hnsw-0123456789abcdef.json      its sidecar: segments, settings, how it was made, sha256 of the file

The sidecar ends in its own sha256, over all its other bytes. A collection compares the sha256 of an index file each
time it opens the file, so that damage is noticed even where size and time are unchanged. Files of approximate indexes
above `COMPARED_ALWAYS` bytes are the exception: they are compared once after each write (the sidecar records inode,
size and time) and by `check`. Their candidates are scored again from the segments in any case.

The folder has its own lock, for builders and for the sweep; readers take no lock.

What this module does not know: how an index is built or searched, which segments are in use.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.errors import CorruptionError, StoreError
from indexer.files.atomic import atomic_path, atomic_write, file_digest, file_identity, sweep_temporary
from indexer.files.lock import WriterLock
from indexer.vectors.protocol import IndexKind

COMPARED_ALWAYS = 1 << 30
"""Bytes up to which a file of an approximate index is compared with its checksum at every opening: half a second."""
LARGEST_SIDECAR = 1 << 24
FORMAT = 2
REMEDY = "Delete the file; Collection.build_index() or `underdrawing index` makes it again from the segments."

_NAME = re.compile(r"(?:exact|hnsw|ivf)-[0-9a-f]{16}")
_BEFORE_DIGEST, _AFTER_DIGEST = b',\n  "digest": "', b'"\n}\n'
_WITHOUT_DIGEST = {"space", "segments", "settings", "sha256", "metadata", "checked"}
"""The keys of sidecars from releases that wrote no checksum into them."""


@dataclass(frozen=True)
class CachedIndex:
    """An index file, as its sidecar describes it.

    Attributes:
        file: Where it is.
        space: The space's digest.
        segments: The sha256 of each segment that it holds.
        settings: The kind, the codes, and the recall that it was tuned to.
        sha256: The file's sha256.
        metadata: How it was made; `load` of its class takes this.
        checked: The file's identity when its content was last compared; None if that is not known.
    """

    file: Path
    space: str
    segments: tuple[str, ...]
    settings: Mapping[str, str | float]
    sha256: str
    metadata: Mapping[str, Any]
    checked: str | None = None

    @property
    def kind(self) -> IndexKind:
        """The kind of the index."""
        return IndexKind(str(self.settings["kind"]))

    def require_whole(self) -> None:
        """Verify the file's checksum.

        Raises:
            CorruptionError: It is missing, or its content has changed.
        """
        try:
            identity = file_identity(self.file)
            trusted = self.kind is not IndexKind.EXACT and self.file.stat().st_size > COMPARED_ALWAYS
            if trusted and self.checked == identity:
                return
            found = file_digest(self.file)
        except OSError as error:
            raise CorruptionError(f"The index file {self.file} cannot be read: {error.strerror}.", REMEDY) from error
        if found != self.sha256:
            raise CorruptionError(
                f"The index file {self.file} is damaged: its sha256 is {found[:12]}…, not {self.sha256[:12]}….",
                REMEDY,
            )
        if trusted:
            with suppress(StoreError):  # on a read-only disk, it is compared every time
                _write_sidecar(self, identity)


def index_name(space: str, segments: Iterable[str], settings: Mapping[str, str | float]) -> str:
    """The file name, without suffix, of an index of these segments with these settings."""
    key = json.dumps([space, sorted(segments), settings], sort_keys=True)
    return f"{settings['kind']}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def read_sidecar(path: Path) -> CachedIndex:
    """Read a sidecar.

    Raises:
        CorruptionError: It cannot be read, is damaged, or has no checksum since an older release wrote it.
    """
    try:
        if path.stat().st_size > LARGEST_SIDECAR:
            raise CorruptionError(f"The sidecar {path} has more than {LARGEST_SIDECAR:,} bytes.", REMEDY)
        content = path.read_bytes()
    except OSError as error:
        raise CorruptionError(f"The sidecar {path} cannot be read: {error.strerror}.", REMEDY) from error
    body, cut, tail = content.rpartition(_BEFORE_DIGEST)
    if not cut or tail != hashlib.sha256(body).hexdigest().encode() + _AFTER_DIGEST:
        if unprotected(content):
            raise CorruptionError(f"An older release made the sidecar {path}, without a checksum.", REMEDY)
        raise CorruptionError(f"The sidecar {path} is damaged: its checksum does not match.", REMEDY)
    try:
        record = json.loads(content)
        cached = CachedIndex(
            file=path.with_suffix(".faiss"),
            space=str(record["space"]),
            segments=tuple(record["segments"]),
            settings=dict(record["settings"]),
            sha256=str(record["sha256"]),
            metadata=dict(record["metadata"]),
            checked=record["checked"],
        )
        expected = index_name(cached.space, cached.segments, cached.settings)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptionError(f"The sidecar {path} cannot be understood: {error!r}.", REMEDY) from error
    if record["format"] != FORMAT or path.stem != expected:
        raise CorruptionError(f"The sidecar {path} belongs to another file, or a newer release made it.", REMEDY)
    return cached


def unprotected(content: bytes) -> bool:
    """Whether an older release wrote this sidecar, without a checksum: it can be neither trusted nor called damaged."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and set(record) in (_WITHOUT_DIGEST, _WITHOUT_DIGEST - {"checked"})


def cached_indexes(folder: Path) -> Iterator[CachedIndex | CorruptionError]:
    """All index files of a folder that have a valid sidecar, and what is wrong with each of the others."""
    for path in sorted(folder.glob("[!.]*.json")):
        if _NAME.fullmatch(path.stem):
            try:
                yield read_sidecar(path)
            except CorruptionError as error:
                yield error


def save_index(folder: Path, cached: CachedIndex, save: Any) -> CachedIndex:
    """Write an index file durably, then its sidecar. An index file without a sidecar is ignored.

    Args:
        folder: The collection's `indexes` folder; the caller holds its lock.
        cached: The sidecar's content; file and checksum are filled in.
        save: Writes the index to a path.

    Raises:
        StoreError: The files cannot be written.
    """
    file = folder / f"{index_name(cached.space, cached.segments, cached.settings)}.faiss"
    with atomic_path(file) as temporary:
        save(temporary)
        digest = file_digest(temporary)
    whole = CachedIndex(file, cached.space, cached.segments, cached.settings, digest, cached.metadata)
    _write_sidecar(whole, file_identity(file))
    return whole


def _write_sidecar(cached: CachedIndex, identity: str) -> None:
    record = {
        "format": FORMAT,
        "space": cached.space,
        "segments": list(cached.segments),
        "settings": dict(cached.settings),
        "sha256": cached.sha256,
        "metadata": dict(cached.metadata),
        "checked": identity,
    }
    body = json.dumps(record, indent=2).removesuffix("\n}").encode()
    digest = hashlib.sha256(body).hexdigest().encode()
    atomic_write(cached.file.with_suffix(".json"), body + _BEFORE_DIGEST + digest + _AFTER_DIGEST)


def index_lock(folder: Path) -> WriterLock:
    """The lock for building an index or sweeping the folder; entering it may raise `LockedError`."""
    return WriterLock(folder / ".lock")


@dataclass(frozen=True)
class Problem:
    """A problem with a file of the folder.

    Attributes:
        path: The file.
        what: What is wrong.
        damaged: Whether its content changed; otherwise it only takes up space.
        index: Whether it is named like an index file, and so may be removed.
    """

    path: Path
    what: str
    damaged: bool
    index: bool = True


def problems(folder: Path, living: Iterable[str]) -> Iterator[Problem]:
    """Compare every byte of a folder of index files with its checksums.

    Args:
        folder: The collection's `indexes` folder.
        living: The sha256 of every segment in use.
    """
    alive = set(living)
    for path in sorted(folder.glob("[!.]*")):
        if _NAME.fullmatch(path.stem) is None or path.suffix not in (".json", ".faiss"):
            yield Problem(path, "no index has this name", damaged=False, index=False)
        elif path.suffix == ".faiss":
            if not path.with_suffix(".json").exists():
                yield Problem(path, "it has no sidecar, so nothing uses it", damaged=False)
        else:
            yield from _problems_of(path, alive)


def _problems_of(sidecar: Path, alive: set[str]) -> Iterator[Problem]:
    try:
        cached = read_sidecar(sidecar)
    except CorruptionError as error:
        old = sidecar.is_file() and sidecar.stat().st_size <= LARGEST_SIDECAR and unprotected(sidecar.read_bytes())
        yield Problem(sidecar, error.message, damaged=not old)
        return
    try:
        found = file_digest(cached.file)
    except OSError as error:
        yield Problem(cached.file, f"it cannot be read: {error.strerror}", damaged=False)
        return
    if found != cached.sha256:
        what = f"its sha256 is {found[:12]}…, recorded was {cached.sha256[:12]}…"
        yield Problem(cached.file, what, damaged=True)
    if not alive.issuperset(cached.segments):
        yield Problem(cached.file, "its segments are gone, and the next writer removes it", damaged=False)


def sweep_indexes(folder: Path, living: Iterable[str]) -> list[Path]:
    """Remove index files that nothing can use and incomplete files; returns what it removed.

    The caller holds the writer's lock and the folder's. Files that are not named like index files are left alone.
    """
    alive, removed = set(living), []
    for sidecar in folder.glob("[!.]*.json"):
        if _NAME.fullmatch(sidecar.stem) is None:
            continue
        try:
            stale = not alive.issuperset(read_sidecar(sidecar).segments)
        except CorruptionError:
            stale = True
        if stale:
            removed += [sidecar, sidecar.with_suffix(".faiss")]
    orphans = (file for file in folder.glob("[!.]*.faiss") if not file.with_suffix(".json").exists())
    removed += [file for file in orphans if _NAME.fullmatch(file.stem)]
    removed = [path for path in removed if path.exists()]
    for path in removed:
        path.unlink(missing_ok=True)
    return removed + sweep_temporary(folder)


def remove_index(file: Path) -> None:
    """Remove an index file and its sidecar, given either path."""
    for suffix in (".json", ".faiss"):
        file.with_suffix(suffix).unlink(missing_ok=True)


def newest_change(folder: Path) -> int:
    """A number that changes when files are added to the folder or removed; 0 if there is no folder."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def fits(cached: CachedIndex, kinds: Sequence[IndexKind], recall: float) -> bool:
    """Whether an index is of one of these kinds and, if approximate, tuned to at least this recall."""
    tuned = cached.kind is IndexKind.EXACT or float(cached.settings["recall"]) >= recall
    return cached.kind in kinds and tuned
