"""Imports of a command: mistakes are reported before a model library loads; bundled models need only torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ZOO = ("open_clip", "timm", "torchvision", "transformers", "diffusers", "torch._dynamo", "sympy")
SHOWN = """
import sys
from pipelines.cli.app import app
try:
    app(prog_name="underdrawing", args=sys.argv[1:])
except SystemExit as done:
    code = done.code
print("code", code, *[name for name in ("torch", *{zoo}) if name in sys.modules])
"""


def imported(folder: Path, *arguments: str) -> tuple[int, set[str]]:
    """The exit code of a command, and which of the libraries it imported."""
    program = SHOWN.format(zoo=ZOO)
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=folder, check=True
    )
    _, code, *names = done.stdout.splitlines()[-1].split()
    return int(code), set(names)


@pytest.fixture(scope="module")
def torch_alone() -> set[str]:
    """torch, and what it imports itself to make weights without memory: sympy, in the oldest release."""
    made = (
        f"import sys, torch; torch.empty(2, device='meta').uniform_(); print(*{{'torch', *{ZOO}}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", made], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def shop(torch_alone: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    (folder / "texts").mkdir()
    for name in ("heart", "cat"):
        (folder / "texts" / f"{name}.txt").write_text(f"a {name}")
    code, names = imported(folder, "index", "texts", "shop", "--model", "bundled:emoji-clip", "--device", "cpu")
    assert (code, names) == (0, torch_alone)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "nowhere", "x"),
        ("search", "shop", "x", "--method", "magic"),
        ("search", "shop", "x", "--where", "{"),
        ("search", "shop", "x", "--image", "texts/heart.txt", "--where", '{"$magic": 1}'),
        ("search", "shop", "x", "--image", "none.png"),
        ("search", "shop", "x", "--image", "none.png", "--method", "cig"),
        ("search", "shop", "x", "--like", "nobody"),
        ("search", "shop", "x", "--not-image", "none.png"),
        ("search", "shop", "x", "--modality", "smell"),
        ("search", "shop", "x", "--device", "gpu"),
        ("search", "shop", "x", "--centre", "magic"),
        ("index", "none", "other"),
    ],
)
def test_a_mistake_is_told_before_a_model_is_loaded(shop: Path, arguments: tuple[str, ...]) -> None:
    assert imported(shop, *arguments) == (2, set())


@pytest.mark.parametrize("arguments", [("info", "shop"), ("--help",), ("--version",), ("check", "shop")])
def test_what_needs_no_model_imports_none(shop: Path, arguments: tuple[str, ...]) -> None:
    assert imported(shop, *arguments) == (0, set())


def test_a_search_with_a_bundled_model_imports_torch_alone(shop: Path, torch_alone: set[str]) -> None:
    assert imported(shop, "search", "shop", "a heart") == (0, torch_alone)
