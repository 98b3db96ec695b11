"""Chat templates from untrusted models, rendered in a separate process within limits of time and memory.

What this module does not know: models.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from indexer.errors import ModelError

SECONDS, PATIENCE = 10, 60
"""Limits of rendering: processor time, and wall-clock time for a busy machine."""
MEMORY = 1 << 30
LONGEST = 1 << 20
"""How many characters rendered chats may have beyond twelve times those of their messages."""
REMEDY = "Use the checkpoint as its authors publish it."

Chat = Sequence[Mapping[str, Any]]


def render_chats(name: str, template: str, chats: Sequence[Chat], options: Mapping[str, Any]) -> list[str]:
    """Chats as a model reads them.

    Args:
        name: The model's name, for the error.
        template: A Jinja template.
        chats: Each a list of messages with `role` and `content`.
        options: Other variables that the template may read.

    Raises:
        ModelError: The template refuses the chats, is invalid, does not end in time, or writes too much.
    """
    told = {"tools": None, "documents": None, **options}
    said = [[dict(each) for each in chat] for chat in chats]
    asked = json.dumps({"template": template, "chats": said, "options": told})
    program = [sys.executable, "-P", str(Path(__file__).with_name("render.py")), str(SECONDS), str(MEMORY)]
    try:
        done = subprocess.run(  # noqa: S603  # our own file, by our own Python
            program, input=asked.encode(), capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise _endless(name) from None
    last = done.stderr[-1000:].decode("utf-8", "replace").strip().rpartition("\n")[2]
    if done.returncode < 0 or last.startswith("MemoryError"):
        raise _endless(name)
    if done.returncode != 0:
        raise ModelError(f"The chat template of {name} cannot be used: {last[:200].rstrip('.')}.", REMEDY)
    if len(done.stdout) > 12 * len(asked) + LONGEST:
        raise ModelError(f"The chat template of {name} makes {len(done.stdout):,} bytes of {len(asked):,}.", REMEDY)
    return [str(each) for each in json.loads(done.stdout)]


def _endless(name: str) -> ModelError:
    return ModelError(
        f"The chat template of {name} does not finish within {SECONDS} seconds and {MEMORY >> 30} GiB.", REMEDY
    )
