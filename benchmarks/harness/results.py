"""Result files, `TASK/MODEL/METHOD.json`, and the environment that each was measured in."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.speed.timing import machine
from indexer.files.atomic import atomic_write

ROOT = Path(__file__).parents[2]
PACKAGES = ("underdrawing", "open-clip-torch", "transformers", "diffusers", "pillow")
"""Packages whose versions may change a measure, besides those in `machine`."""


def environment(device: str | None = None) -> dict[str, Any]:
    """What a measure may depend on besides its settings.

    Args:
        device: Where the models ran.

    Returns:
        `commit` of the checkout (with `+` if files have changed) or None, `device`, facts about the machine, and the
        versions of libraries.
    """
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"commit": commit(), "device": device, **machine(), **versions}


def commit() -> str | None:
    """The commit of this checkout, with `+` if tracked files differ; None without git."""
    try:
        told = [
            subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603, S607
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return told[0] + ("+" if told[1] else "")


def slug(name: str) -> str:
    """A model's name as a folder name: `open_clip:ViT-L-14/openai` becomes `open_clip-ViT-L-14-openai`."""
    return re.sub(r"[^\w.]+", "-", name).strip("-.")


def place_of(folder: Path, document: Mapping[str, Any]) -> Path:
    """The path of a result in a folder. A split other than the default is part of the task's name."""
    task, method = str(document["benchmark"]), str(document["method"])
    if document["split"] not in ("all", "test", "val"):
        task = f"{task}-{document['split']}"
    if document.get("center", "auto") != "auto":
        method = f"{method}-{document['center']}"
    return folder / task / slug(document["model"]) / f"{method}.json"


def write_result(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a result to its path in a folder."""
    file = place_of(folder, document)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
    return file


def markdown(documents: Sequence[Mapping[str, Any]]) -> str:
    """A table of methods, with measures in percent and half the width of their intervals."""
    names = list(documents[0]["measures"])
    lines = ["| method | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for document in documents:
        cells = [
            f"{100 * each['value']:.1f} ± {50 * (each['interval_95'][1] - each['interval_95'][0]):.1f}"
            for each in document["measures"].values()
        ]
        lines.append(f"| `{document['method']}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)
