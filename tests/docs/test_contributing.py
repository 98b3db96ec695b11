"""CONTRIBUTING.md is true: its registries, files, targets and links are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_registry_is_in_the_table() -> None:
    rows = set(re.findall(r"\| `([A-Z]+)` in `([\w/.]+)` \|$", TEXT, re.MULTILINE))
    rows.add(("METHODS", "retrieval/methods/__init__.py"))  # found by itself
    there = {
        (name, path.relative_to(ROOT).as_posix())
        for package in ("indexer", "retrieval", "pipelines")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"^([A-Z]+)\b.*= Registry\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert there == rows


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
