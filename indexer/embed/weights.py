"""Weights files: digests, cached because the files are large, and the weights of trained modules."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from indexer.errors import ModelError, StoreError, first_line
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


def load_trained(file: Path, build: Callable[[], Any], config: str, remedy: str) -> Any:
    """The module that `build` makes with the weights of a safetensors file, in evaluation mode and float32, on the CPU.

    Args:
        file: Its names and shapes must be those of the module.
        build: Makes the untrained module.
        config: The name of the file that describes the module, for errors.
        remedy: Of weights that do not fit.

    Raises:
        ModelError: The weights are missing, damaged, or do not fit the module.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is missing or cannot be read: {first_line(error)}.") from error
    import torch

    # The sizes in the description are untrusted: nothing is allocated before they are compared.
    with torch.device("meta"):
        shaped = build()
    wanted = {name: tuple(each.shape) for name, each in shaped.state_dict().items()}
    found = {name: tuple(each.shape) for name, each in weights.items()}
    if strange := sorted(wanted.items() ^ found.items()):
        name, shape = strange[0]
        raise ModelError(
            f"{file} does not fit {config}: {len({each for each, _ in strange})} weights are missing, unexpected or of "
            f"another shape, such as {name}, {shape}.",
            remedy,
        )
    module = build()
    module.load_state_dict({name: each.float() for name, each in weights.items()})
    return module.eval()
