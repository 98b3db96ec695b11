"""A cache on disk for the outputs of models, keyed by a digest of everything that an output depends on.

    FOLDER/KE/KEY.json     one entry, written under a temporary name and renamed

Any number of threads and processes may read, write or be killed at any moment; an entry is either whole or missing. A
damaged entry counts as missing.

What this module does not know: what is cached, and which model made it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexer.files.atomic import atomic_write
from indexer.types import JsonValue


def cache_folder(name: str) -> Path:
    """`underdrawing/NAME` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "underdrawing" / name


def digest_of(content: JsonValue) -> str:
    """A digest of a JSON value, 32 hex digits; the order of an object's members does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:32]


def evened(text: str) -> str:
    """A text normalized for keys: single spaces, and none at its ends."""
    return " ".join(text.split())


class Entries:
    """JSON objects by key, in one folder shared by any number of processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """The path of the entry of that key, whether or not it exists."""
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> dict[str, Any] | None:
        """The entry, or None if it is missing or damaged."""
        try:
            found = json.loads(self.path(key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: str, content: Mapping[str, Any]) -> None:
        """Store an entry, replacing an existing one.

        Raises:
            StoreError: The folder cannot be written.
        """
        atomic_write(self.path(key), json.dumps(content).encode() + b"\n")
