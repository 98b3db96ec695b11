"""A checkpoint of transformers or sentence-transformers as a folder: named, or fetched from the hub on first use.

Only what is read as data is fetched: safetensors, configurations, tokenizers; no code is, and none is run.

What this module does not know: any model.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from indexer.embed.weights import weights_digest
from indexer.errors import ModelError

FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def checkpoint_folder(source: str | Path) -> Path:
    """The folder of a checkpoint.

    Args:
        source: A folder, or a hub id such as `Qwen/Qwen2.5-1.5B-Instruct`.

    Raises:
        ModelError: There is no such folder, and the hub has it not or cannot be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ModelError(f"{name!r} is neither a folder nor a hub id such as Qwen/Qwen2.5-1.5B-Instruct.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(FETCHED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(
            f"{name} is not on this machine and could not be fetched: {reason}",
            "Connect once so that it is cached, or copy its folder here and name that.",
        ) from error


def checkpoint_digest(folder: Path) -> str:
    """One sha256 over all that a checkpoint's answers depend on: weights, configurations, tokenizers.

    Raises:
        ModelError: There are no safetensors weights; other formats are not read.
    """
    total, weights = hashlib.sha256(), 0
    for file in sorted(folder.rglob("*")):
        if any(file.match(pattern) for pattern in FETCHED) and file.is_file():
            total.update(f"{file.relative_to(folder).as_posix()} {weights_digest(file)}\n".encode())
            weights += file.suffix == ".safetensors"
    if not weights:
        raise ModelError(
            f"{folder} has no safetensors weights.", "Weights in other formats are not read: unpickling runs code."
        )
    return total.hexdigest()
