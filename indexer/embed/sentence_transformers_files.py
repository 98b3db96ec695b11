"""Validation of sentence-transformers folders: only the library's own modules, with known arguments.

The library imports modules by the names that a folder gives, and passes a folder's arguments on to transformers. Here
names and arguments are checked against a list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from indexer.embed.model_files import read_json, read_list
from indexer.errors import ModelError

MODULES = frozenset({
    "Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "Dropout", "CLIPModel", "StaticEmbedding", "Router",
    "Asym", "WeightedLayerPooling",
})  # fmt: skip
"""Modules of the library that read only numbers and safetensors."""
_MODULE = re.compile(r"sentence_transformers(\.[a-z_]+)*\.([A-Za-z]+)")
_ACTIVATION = re.compile(r"torch\.nn\.modules\.(activation\.\w+|linear\.Identity)")
TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json",
    "sentence_camembert_config.json", "sentence_albert_config.json", "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)  # fmt: skip
ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
ALLOWED: Mapping[str, tuple[type, ...]] = {
    "padding_side": (str,), "truncation_side": (str,), "model_max_length": (int,), "max_length": (int,),
    "min_pixels": (int,), "max_pixels": (int,), "torch_dtype": (str,), "dtype": (str,), "use_fast": (bool,),
    "trust_remote_code": (bool,), "attn_implementation": (str,),
}  # fmt: skip
"""Arguments that a folder may pass to transformers. The last two are removed before the library sees them."""


def require_harmless(folder: Path) -> None:
    """Refuse a folder that names foreign modules, passes other arguments, or has pickled weights.

    Raises:
        ModelError: Names the file and its content.
    """
    for file in sorted(folder.rglob("*.bin")):
        if not list(file.parent.glob("*.safetensors")):
            raise ModelError(
                f"{file} is not a safetensors file, and other formats are not read: unpickling runs code.",
                "Load and save the model with sentence-transformers once, and name that folder.",
            )
    for module in read_list(folder / "modules.json") if (folder / "modules.json").exists() else []:
        _require_module(folder / "modules.json", module.get("type"))
        path = PurePosixPath(str(module.get("path", "")))
        if path.is_absolute() or ".." in path.parts:
            raise ModelError(f"{folder / 'modules.json'} names a folder outside: {str(path)[:60]!r}.")
    for file in sorted(folder.rglob("*.json")):
        if file.name in TRANSFORMER_CONFIGS:
            _require_arguments(file)
        elif file.name in ("config.json", "router_config.json"):
            values = read_json(file)
            kinds = values.get("types")
            if isinstance(kinds, dict) and "structure" in values:
                for kind in kinds.values():
                    _require_module(file, kind)
            activation = values.get("activation_function")
            dense = "in_features" in values
            if dense and activation is not None and not _ACTIVATION.fullmatch(str(activation)):
                raise ModelError(f"{file} names {str(activation)[:60]!r}, which is not a torch activation.")


def _require_module(file: Path, kind: Any) -> None:
    known = _MODULE.fullmatch(kind) if isinstance(kind, str) else None
    if known is None or known[2] not in MODULES:
        raise ModelError(
            f"{file} names the module {str(kind)[:80]!r}, which is not a known one; code of a folder's "
            "own is never run.",
            f"Known: {', '.join(sorted(MODULES))}.",
        )


def _require_arguments(file: Path) -> None:
    values = read_json(file)
    for part in ARGUMENTS:
        for key, value in (values.get(part) or {}).items() if isinstance(values.get(part) or {}, dict) else [(part, 0)]:
            if key not in ALLOWED or type(value) not in ALLOWED[key]:
                raise ModelError(
                    f"{file}: {part} has {str(key)[:40]} = {str(value)[:40]!r}, which is not passed on to a library.",
                    f"Take it out if you trust the folder. Known: {', '.join(ALLOWED)}.",
                )
