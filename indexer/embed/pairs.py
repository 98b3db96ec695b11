"""A transformers model and its input processor, loaded from a folder or GGUF file without running any of its code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from indexer.embed.checkpoints import quietly
from indexer.embed.model_files import alone, closed_to_code, data_only, read_json
from indexer.errors import ModelError, first_line

ADAPTER = "adapter_config.json"


def load_pair(kind: Any, reader: Any, source: Path, **options: Any) -> tuple[Any, Any, Any]:
    """The input processor, the model, and transformers' report on its weights.

    The libraries see a copy of the folder with data files only, or the GGUF file only.

    Args:
        kind: The model's class, or an automatic one.
        reader: The processor's class.
        source: A folder of safetensors, or a GGUF file.
        options: Options of the model, such as `dtype`.

    Raises:
        ModelError: One of them cannot be loaded, or the folder is not supported.
    """
    from safetensors import SafetensorError

    single = source.is_file()
    if not single:
        _require_model(source)
    options |= {"trust_remote_code": False, "local_files_only": True}
    own = {"gguf_file": source.name} if single else {}
    try:
        with alone(source) if single else data_only(source) as copy, quietly(gguf=single), closed_to_code():
            read = reader.from_pretrained(str(copy), trust_remote_code=False, local_files_only=True, **own)
            model, report = kind.from_pretrained(
                str(copy), use_safetensors=None if single else True, output_loading_info=True, **own, **options
            )
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, ImportError, RuntimeError,
            AssertionError, ArithmeticError, json.JSONDecodeError, SafetensorError) as error:  # fmt: skip
        raise ModelError(
            f"The model in {source} cannot be loaded: {first_line(error)}.",
            "Is the checkpoint whole, and of a kind that the installed transformers knows?",
        ) from error
    return read, model, report


def _require_model(folder: Path) -> None:
    """Refuse a folder that is not a complete model.

    Raises:
        ModelError: It has no configuration, or holds an adapter of another model.
    """
    config = read_json(folder / "config.json", "configuration of a model")
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"{folder / 'config.json'} names no model_type.", "Copy the whole folder again.")
    if (folder / ADAPTER).exists():
        raise ModelError(
            f"{folder} holds an adapter ({ADAPTER}), which names another model to fetch; that is not supported.",
            "Merge it with peft (merge_and_unload) if you trust both, and name that folder; or delete the file.",
        )
