"""Safe loading of diffusers pipelines: only the libraries' own classes, and no code from the folder.

What this module does not know: pseudo-words, pseudo-targets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from indexer.embed import checkpoints
from indexer.embed.hub import absent, fetching
from indexer.embed.model_files import SPARE, closed_to_code, data_only, numbers_in, read_json
from indexer.errors import ModelError, first_line

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers", "stable_diffusion", "latent_consistency_models")
"""Packages that a pipeline's parts may come from; the last two are diffusers' folders of safety checkers."""


def load_pipeline(place: str | Path, diffusers: Any) -> Any:
    """A pipeline of diffusers' own classes, from a copy of its folder that holds only data.

    Raises:
        ModelError: There is none, it cannot be loaded, or it names classes that are not the libraries' own.
    """
    from safetensors import SafetensorError

    folder = Path(place) if Path(place).is_dir() else _fetched(str(place), diffusers)
    if not (folder / INDEX).exists():
        raise ModelError(
            f"{place} cannot be loaded as a diffusers pipeline: it has no {INDEX}.",
            f"Name a folder with {INDEX} and safetensors weights; offline, bundled:emoji-generator works.",
        )
    require_own_classes(folder / INDEX)
    try:
        with data_only(folder) as copy, quietly(), closed_to_code():
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                str(copy), use_safetensors=True, trust_remote_code=False, local_files_only=True
            )
            _require_weights(pipeline, folder)
            return pipeline
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, ImportError, RuntimeError,
            AssertionError, ArithmeticError, SyntaxError, SafetensorError) as error:  # fmt: skip
        raise ModelError(
            f"{place} cannot be loaded as a diffusers pipeline: {first_line(error)}.",
            "Name a folder with model_index.json and safetensors weights; offline, bundled:emoji-generator works.",
        ) from error


def _require_weights(pipeline: Any, folder: Path) -> None:
    """Check that no part of a pipeline lacks weights or was filled with random ones.

    Raises:
        ModelError: One was.
    """
    for name, part in pipeline.components.items():
        if not callable(getattr(part, "parameters", None)):
            continue
        asked, there = sum(each.numel() for each in part.parameters()), numbers_in(folder / name)
        if asked > SPARE * there or any(each.is_meta for each in part.parameters()):
            raise ModelError(
                f"The weights in {folder / name} are {there:,} numbers; its configuration asks for {asked:,}.",
                "Copy the whole folder again.",
            )


def _fetched(name: str, diffusers: Any) -> Path:
    """The local folder of a hub id, with the files that diffusers would fetch, without code."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with fetching() as reached, quietly():
            return Path(diffusers.DiffusionPipeline.download(name, use_safetensors=True, trust_remote_code=False))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError, RuntimeError) as error:
        if not reached:
            raise ModelError(*absent(name, "/path/to/folder")) from error
        raise ModelError(
            f"{name} is not a folder and could not be fetched: {first_line(error)}.",
            "Name a folder with model_index.json and safetensors weights; offline, bundled:emoji-generator works.",
        ) from error


def require_own_classes(file: Path) -> None:
    """Check that a `model_index.json` names only classes of diffusers and transformers.

    Raises:
        ModelError: It names others, as a folder with code of its own does; or it is missing or damaged.
    """
    values = read_json(file, "list of a pipeline's parts")
    kind = values.get("_class_name")
    if not isinstance(kind, str) or not re.fullmatch(r"\w+Pipeline", kind):
        raise ModelError(f"{file} names {str(kind)[:60]!r} as its pipeline; only diffusers' own are loaded.")
    for part, value in values.items():
        if isinstance(value, list) and value != [None, None]:
            own = len(value) == 2 and value[0] in LIBRARIES and re.fullmatch(r"[A-Za-z]\w*", str(value[1]))
            if not own:
                raise ModelError(
                    f"{file} makes its {str(part)[:40]} of {str(value)[:80]}; only classes of diffusers and "
                    "transformers are loaded, and a folder's own code is never run."
                )


@contextmanager
def quietly() -> Iterator[None]:
    """No progress bars, and no warnings about optional packages and unused configuration, which users cannot act on."""
    from diffusers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with checkpoints.quietly():
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
