"""Checkpoints as folders, local or fetched from the hub on first use, or as GGUF files; and quiet loading.

Folders have the layout of transformers or sentence-transformers. Only data files are fetched: safetensors,
configurations, tokenizers. No code is fetched or run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path

from indexer.embed.hub import absent, fetching
from indexer.embed.weights import weights_digest
from indexer.errors import MissingExtraError, ModelError, first_line

GGUF = ".gguf"
FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def checkpoint_folder(source: str | Path) -> Path:
    """The folder of a checkpoint.

    Args:
        source: A folder, or a hub id such as `Qwen/Qwen2.5-1.5B-Instruct`.

    Raises:
        ModelError: There is no such folder, and the hub does not have it or cannot be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ModelError(f"{name!r} is neither a folder nor a hub id such as Qwen/Qwen2.5-1.5B-Instruct.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with fetching() as reached:
            return Path(snapshot_download(name, allow_patterns=list(FETCHED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        if not reached:
            raise ModelError(*absent(name, "/path/to/folder")) from error
        reason = first_line(error, 200)
        raise ModelError(
            f"{name} is not on this machine and cannot be fetched: {reason}.",
            "Connect once so that it is cached, or copy its folder here and name that.",
        ) from error


def gguf_in(source: str | Path, extra: str) -> Path | None:
    """The GGUF file of a source: the file itself, or the only one in a folder without other weights.

    Args:
        source: Any model name.
        extra: The extra that installs the package that reads such a file.

    Raises:
        ModelError: The file does not exist, or the folder has several.
        MissingExtraError: There is one, and the package is not installed.
    """
    path = Path(source)
    found = [path] if path.suffix.lower() == GGUF else []
    if path.is_dir() and not (path / "config.json").exists():
        found = sorted(path.glob(f"*{GGUF}"))
    if not found:
        return None
    if len(found) > 1:
        raise ModelError(f"{path} has {len(found)} GGUF files.", f"Name one of them, such as {found[0]}.")
    if not found[0].is_file():
        raise ModelError(f"{found[0]} does not exist.", "Name an existing file, or a folder with one.")
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError("gguf", extra, "A model in a GGUF file")
    return found[0]


@contextmanager
def quietly(*, gguf: bool = False) -> Iterator[None]:
    """Suppress transformers' progress bars and reports: errors in a checkpoint are raised here.

    Args:
        gguf: Whether a GGUF file is read. Only redirecting standard error silences its reader's progress bar.
    """
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()) if gguf else nullcontext():
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def checkpoint_digest(folder: Path) -> str:
    """One sha256 over everything that a checkpoint's answers depend on: weights, configurations, tokenizers.

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
