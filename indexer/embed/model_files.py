"""Model folders read as data: a folder from anyone must never run code.

A folder may come from anyone, so it must not decide what a library does with its configuration:

* `read_json` reads a configuration with limits on size and depth;
* `harmless` drops the keys by which a configuration points to code, kernels or files elsewhere, and refuses those that
  change how weights are made;
* `data_only` gives the libraries a copy of the folder with data only: cleaned configurations, tokenizers and
  safetensors. It has no Python file, adapter, pickle or shared library, so none can run;
* `closed_to_code` makes transformers refuse code where it would ask on standard input.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from indexer.errors import ModelError, first_line

AGAIN = "Is the folder whole? If not, copy the whole folder again."
SPARE = 1.05
"""Parameters that a model may have, relative to its weights: an unused pooler may be missing."""
LARGEST = 16 << 20
"""Bytes of a configuration."""
DATA = ("*.safetensors", "*.safetensors.index.json", "*.txt", "*.model", "*.jinja", "tokenizer.json", "vocab.json")
"""Files that libraries read unchanged."""
CONFIGURATIONS = frozenset({
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "chat_template.json",
    "model_index.json", "scheduler_config.json", "modules.json", "config_sentence_transformers.json",
    "sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_camembert_config.json", "sentence_albert_config.json", "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json", "router_config.json",
})  # fmt: skip
"""Files that libraries read after harmful keys were removed."""
LARGEST_TEMPLATE = 256 << 10
"""Bytes of a chat template."""

IGNORED = frozenset({
    "auto_map", "custom_pipelines", "custom_pipeline", "trust_remote_code", "custom_generate",
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation",
    "_experts_implementation", "use_kernels", "kernel_config", "kernels", "_name_or_path", "name_or_path",
    "tokenizer_file", "vocab_file", "merges_file", "spm_file", "pretrained_model_name_or_path", "cache_dir",
    "base_model_name_or_path", "local_files_only", "_commit_hash",
})  # fmt: skip
"""Keys that name code, kernels or files; a model is the same without them."""
REFUSED = frozenset({"quantization_config", "compression_config", "backbone", "use_timm_backbone", "timm_model_name"})
"""Keys that make a library fetch or build something other than the folder's weights."""
CLASSES: Mapping[str, re.Pattern[str]] = {
    "tokenizer_class": re.compile(r"^(?!Rag)\w*(Tokenizer(Fast)?|TokenizersBackend)$"),
    "processor_class": re.compile(r"^\w*Processor(Fast)?$"),
    "image_processor_type": re.compile(r"^\w*ImageProcessor(Fast|Pil)?$"),
    "video_processor_type": re.compile(r"^\w*VideoProcessor$"),
    "feature_extractor_type": re.compile(r"^\w*(FeatureExtractor|ImageProcessor(Fast)?)$"),
}
"""Valid names of classes; the libraries look for them among their own."""


def read_json(file: Path, what: str = "configuration") -> dict[str, Any]:
    """A JSON object from a model's folder.

    Args:
        file: Where it is.
        what: What it should be, for the error.

    Raises:
        ModelError: It is missing, unreadable, larger than 16 MiB, nested too deeply, or not an object.
    """
    found = _json(file, what)
    if not isinstance(found, dict):
        raise ModelError(f"{file}, the {what}, is a {type(found).__name__}, not an object.", AGAIN)
    return found


def read_list(file: Path, what: str = "list of modules") -> list[dict[str, Any]]:
    """A JSON list of objects from a model's folder; raises as `read_json`."""
    found = _json(file, what)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ModelError(f"{file}, the {what}, is not a list of objects.", AGAIN)
    return found


def _json(file: Path, what: str) -> Any:
    try:
        size = file.stat().st_size
        if size > LARGEST:
            raise ModelError(f"{file} has {size:,} bytes; a {what} has at most {LARGEST:,}.")
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{file} is missing, the {what}.", AGAIN) from None
    except RecursionError:
        raise ModelError(f"{file} is nested too deeply for a {what}.") from None
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # JSON and UTF-8
        raise ModelError(f"{file}, the {what}, is not JSON: {first_line(error)}.", AGAIN) from error


def harmless(values: Any, file: Path) -> Any:
    """A JSON value without the keys that could point to code.

    Raises:
        ModelError: It has a key that cannot be dropped, or an invalid class name.
    """
    if isinstance(values, list):
        return [harmless(each, file) for each in values]
    if not isinstance(values, dict):
        return values
    for key in sorted(REFUSED & values.keys()):
        if values[key]:
            raise ModelError(
                f"{file} has {key!r}: {str(values[key])[:60]}, which is not read.",
                "Use a checkpoint of plain safetensors weights in float32, bfloat16 or float16.",
            )
    for key, pattern in CLASSES.items():
        named = values.get(key)
        if named is not None and not (isinstance(named, str) and pattern.fullmatch(named)):
            raise ModelError(f"{file} names {str(named)[:60]!r} as its {key}, which is not a class of the library.")
    if len(str(values.get("chat_template") or "")) > LARGEST_TEMPLATE:
        raise ModelError(f"{file} has a chat template of more than {LARGEST_TEMPLATE >> 10} KiB.")
    return {key: harmless(value, file) for key, value in values.items() if key not in IGNORED}


def numbers_in(folder: Path) -> int:
    """Numbers in all safetensors files of a folder: a library fills missing weights at random.

    Raises:
        ModelError: One of them cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    for file in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(file, "numpy") as opened:
                total += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} cannot be read as weights: {first_line(error)}.") from error
    return total


@contextmanager
def data_only(folder: Path) -> Iterator[Path]:
    """A temporary copy of a model's folder with data files only; large files are links.

    Args:
        folder: In any library's layout.

    Raises:
        ModelError: A configuration cannot be read, or asks for something unsupported.
    """
    with tempfile.TemporaryDirectory(prefix="underdrawing-model-") as made:
        copy = Path(made)
        for file in sorted(folder.rglob("*")):
            own = file.relative_to(folder)
            if not file.is_file() or any(part.startswith(".") for part in own.parts):
                continue
            if any(file.match(pattern) for pattern in DATA):
                if file.suffix == ".jinja" and file.stat().st_size > LARGEST_TEMPLATE:
                    raise ModelError(f"{file} has {file.stat().st_size:,} bytes; a chat template has at most 256 KiB.")
                _link(file, copy / own)
            elif file.name in CONFIGURATIONS:
                _write(copy / own, harmless(read_list(file) if file.name == "modules.json" else read_json(file), file))
        yield copy


@contextmanager
def alone(file: Path) -> Iterator[Path]:
    """A temporary folder that holds only that file, as a link."""
    with tempfile.TemporaryDirectory(prefix="underdrawing-model-") as made:
        _link(file, Path(made) / file.name)
        yield Path(made)


@contextmanager
def closed_to_code() -> Iterator[None]:
    """Within this block transformers refuses code without asking for permission."""
    from transformers import dynamic_module_utils as asking

    before = getattr(asking, "TIME_OUT_REMOTE_CODE", 15)
    asking.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        asking.TIME_OUT_REMOTE_CODE = before


def _write(file: Path, values: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values), encoding="utf-8")


def _link(file: Path, at: Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    target = file.resolve()
    try:
        at.symlink_to(target)
    except OSError:  # a system without links, or without permission to make them
        try:
            os.link(target, at)
        except OSError:
            shutil.copyfile(target, at)
