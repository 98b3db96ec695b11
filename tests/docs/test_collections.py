"""The examples of docs/collections.md run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from indexer import Collection, Document
from pipelines.cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "collections.md").read_text("utf-8")


def test_the_lines_in_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    exec("\n".join(blocks), {})
    with Collection.open("shop") as shop:
        assert [(each.name, each.documents, each.missing) for each in shop.spaces] == [
            ("large", 4, 0),
            ("fake:32", 4, 0),
        ]


def test_the_command_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Collection.open("shop", "fake:64") as shop:
        shop.add(Document("cat", text="a cat"))
    [lines] = [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)]
    for line in lines:
        done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
        assert done.exit_code == 0, (line, done.output)
    with Collection.open("shop") as shop:
        assert [(each.name, each.model, each.documents) for each in shop.spaces] == [("large", "fake:128", 1)]
