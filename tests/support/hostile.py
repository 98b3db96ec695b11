"""Somebody else's model folder, with code in every place where a library might look for some."""

from __future__ import annotations

import json
from pathlib import Path

MODULES = (
    "configuration_own", "modeling_own", "tokenization_own", "processing_own", "image_processing_own", "pipeline",
    "own", "custom_generate/generate", "unet/own", "vae/own", "scheduler/own", "text_encoder/own", "__init__", "conftest",
)  # fmt: skip
AUTO_MAP = {
    "AutoConfig": "configuration_own.Own",
    "AutoModel": "modeling_own.Own",
    "AutoModelForCausalLM": "modeling_own.Own",
    "AutoTokenizer": ["tokenization_own.Own", "tokenization_own.Own"],
    "AutoProcessor": "processing_own.Own",
    "AutoImageProcessor": "image_processing_own.Own",
}


def with_code(folder: Path, mark: Path) -> Path:
    """Put Python files everywhere that leave a mark when they are run, and an `auto_map` in every configuration."""
    for name in MODULES:
        file = folder / f"{name}.py"
        if file.parent == folder or file.parent.is_dir() or name.startswith("custom_generate"):
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"open({str(mark)!r}, 'w').write({name!r})\nclass Own: pass\ndef generate(*a, **k): pass\n")
    for file in folder.rglob("*config.json"):
        edit(file, auto_map=AUTO_MAP, trust_remote_code=True)
    return folder


def edit(file: Path, *path: str, **values: object) -> None:
    """Set values of an object in a JSON file."""
    whole = json.loads(file.read_text()) if file.exists() else {}
    part = whole
    for name in path:
        part = part.setdefault(name, {})
    part.update(values)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(whole))
