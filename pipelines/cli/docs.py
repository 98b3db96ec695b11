"""The documentation page of the command line: `python -m pipelines.cli.docs > docs/cli.md`.

What this module does not know: any command; it asks the program for its help.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from typing import Any

import typer

from pipelines.cli.app import app

WIDTH = 100
PROGRAM = "underdrawing"
HEAD = """# The command line

The help of every command, as `underdrawing COMMAND --help` prints it. This page is generated; to
renew it:

    python -m pipelines.cli.docs > docs/cli.md
"""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def page() -> str:
    """The whole page, as Markdown."""
    sections = [HEAD]
    for path in commands(typer.main.get_command(app)):
        sections.append(f"## {' '.join([PROGRAM, *path])}\n\n```text\n{help_of(path)}\n```\n")
    return "\n".join(sections)


def commands(command: Any, path: Sequence[str] = ()) -> Iterator[list[str]]:
    """The root and every command below it, in the order of the help."""
    yield list(path)
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, [*path, name])


def help_of(path: Sequence[str]) -> str:
    """What `--help` prints, `WIDTH` columns wide and without color."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with redirect_stdout(io.StringIO()) as shown:
            app([*path, "--help"], prog_name=PROGRAM, standalone_mode=False)
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    # Some build servers ask for color whether or not there is a terminal.
    lines = _COLOUR.sub("", shown.getvalue()).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip("\n")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(page())
