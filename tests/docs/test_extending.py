"""The examples of docs/extending.md run as they stand, one after another, in one program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def test_the_examples_run(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    (tmp_path / "page.py").write_text("\n".join(blocks))
    # As a module, which worker processes can import, too.
    call = [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import page"]
    ended = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_the_table_names_every_group_and_registry():
    from pipelines.diagnostics.plugins import REGISTRIES

    table = PAGE.read_text("utf-8").partition("## ")[0]
    assert [each.group for each in REGISTRIES if f"`{each.group}`" not in table] == []
