"""A cache of pseudo-targets on disk, so that none is generated twice.

    KEY-DIGEST.png ...   the images, each named by its content
    KEY.json             written last: the request, failures, and the images' features by embedder

A key is a digest of everything a pseudo-target depends on. Files are written under temporary names and renamed, and a
file that another entry names is never overwritten with other content. So an entry is whole or missing, even if a
process is killed at any moment.

What this module does not know: generators, embedders.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.files.atomic import atomic_write, file_digest
from indexer.types import JsonValue
from retrieval.providers.cache import Entries, cache_folder, digest_of, evened
from retrieval.scoring import Vector

if TYPE_CHECKING:
    from PIL.Image import Image


DIGITS = 16
"""How many digits of an image's digest its file name has."""


def default_folder() -> Path:
    """`underdrawing/drawings` in the user's cache folder."""
    return cache_folder("drawings")


def key_of(reference: str, text: str, identity: Mapping[str, JsonValue]) -> str:
    """The key of a pseudo-target.

    Args:
        reference: A digest of the reference.
        text: The sentence; white space is normalized.
        identity: Everything else that the generator's pseudo-targets depend on.
    """
    return digest_of([reference, evened(text), dict(identity)])


@dataclass(frozen=True)
class Entry:
    """A cached pseudo-target.

    Attributes:
        images: The files.
        failed: Why images are missing, or None.
        features: The mean feature of the images, by an embedder's digest.
    """

    images: tuple[Path, ...]
    failed: str | None
    features: Mapping[str, Vector]


class PseudoTargetCache:
    """One folder of pseudo-targets, shared by any number of processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manifests = Entries(folder)

    def get(self, key: str) -> Entry | None:
        """The entry of that key, or None if it is missing or damaged; then it is generated again."""
        found = self._manifests.get(key)
        if found is None:
            return None
        try:
            images = tuple(self._manifests.path(key).with_name(name) for name in found["pictures"])
            features = {digest: np.asarray(row, np.float32) for digest, row in found["features"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        if not all(_is_whole(image) for image in images):
            return None
        return Entry(images, found.get("failed"), features)

    def put(self, key: str, images: tuple[Image, ...], failed: str | None, asked: Mapping[str, Any]) -> Entry:
        """Cache a pseudo-target.

        Raises:
            StoreError: The folder cannot be written.
        """
        names = []
        for image in images:
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            name = f"{key}-{hashlib.sha256(buffer.getvalue()).hexdigest()[:DIGITS]}.png"
            atomic_write(self._manifests.path(key).with_name(name), buffer.getvalue())
            names.append(name)
        self._manifests.put(key, {"asked": asked, "pictures": names, "failed": failed, "features": {}})
        return Entry(tuple(self._manifests.path(key).with_name(name) for name in names), failed, {})

    def add_feature(self, key: str, digest: str, feature: Vector) -> None:
        """Cache the feature of an entry's images; does nothing if the entry is gone or damaged."""
        found = self._manifests.get(key)
        if found is not None and isinstance(found.get("features"), dict):
            found["features"][digest] = [float(value) for value in feature]
            self._manifests.put(key, found)


def _is_whole(image: Path) -> bool:
    try:
        return image.stem.endswith("-" + file_digest(image)[:DIGITS])
    except OSError:
        return False
