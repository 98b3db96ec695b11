"""Digests of weights files, cached because the files are large."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from indexer.errors import StoreError
from indexer.files.atomic import atomic_write, file_digest


def weights_digest(file: Path) -> str:
    """sha256 of a weights file, cached by path, size and time in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "underdrawing" / "weights.json"
    stat = file.stat()
    key = hashlib.sha256(f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if key not in known:
        known[key] = file_digest(file)
        try:
            atomic_write(cache, json.dumps(known).encode())
        except StoreError:
            # With a read-only home, only the cache is lost, not the answer.
            return str(known[key])
    return str(known[key])
