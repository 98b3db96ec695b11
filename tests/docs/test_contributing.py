"""CONTRIBUTING.md is true: its registries, files, targets and links are there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from indexer.registry import Registry

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"^\| .* \| `(underdrawing\.\w+)` \| `([\w.]+:[A-Z]+)` \|$", TEXT, re.MULTILINE))


def of_the_project() -> dict[str, str]:
    """The entry-point group of every registry, and where the registry is."""
    found = {}
    for package in ("indexer", "retrieval", "pipelines"):
        for path in (ROOT / package).rglob("*.py"):
            for name in re.findall(r"^([A-Z]+)\b.* = Registry\b", path.read_text(encoding="utf-8"), re.MULTILINE):
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                found[getattr(importlib.import_module(module), name).group] = f"{module}:{name}"
    return found


def test_every_registry_is_in_the_table() -> None:
    assert set(of_the_project()) <= set(PARTS)


@pytest.mark.parametrize("group", sorted(of_the_project()))
def test_the_table_says_where_the_registry_is(group: str) -> None:
    module, _, name = PARTS[group].partition(":")
    registry = getattr(importlib.import_module(module), name)
    assert isinstance(registry, Registry)
    assert registry.group == group


def test_the_embedder_of_the_example_is_loaded_by_its_name() -> None:
    from indexer.embed import EMBEDDERS, load_embedder
    from indexer.embed.base import Dtype

    (shown,) = (block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "def load" in block)
    names: dict[str, object] = {"__name__": "example", "Dtype": Dtype}
    example = (ROOT / "examples" / "custom_embedder.py").read_text(encoding="utf-8")
    exec(compile(example, "custom_embedder", "exec"), names)
    exec(compile(shown, "contributing", "exec"), names)
    EMBEDDERS.register("colors-of-the-example")(names["load"])
    assert load_embedder("colors-of-the-example:any").dim == 64


def test_every_target_and_every_file_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", TEXT)) <= targets
    files = set(re.findall(r"`((?:indexer|retrieval|pipelines|benchmarks|docs|tests|examples)/[\w./-]*)`", TEXT))
    files |= {link for link in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)}
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []


def test_the_markers_it_names_exist(request: pytest.FixtureRequest) -> None:
    known = {line.split(":")[0] for line in request.config.getini("markers")}
    expressions = re.findall(r"python -m pytest -m \"?([a-z ]+)", TEXT)
    assert len(expressions) == 3
    assert set(" ".join(expressions).split()) - {"and", "not"} <= known
