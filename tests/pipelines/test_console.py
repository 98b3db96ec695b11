"""Console output never contains control sequences from data."""

from __future__ import annotations

import io
import json

import pytest
from rich.table import Table
from rich.text import Text

from pipelines.terminal.console import HarmlessConsole, harmless, harmless_json

ACTING = "\x1b[2J \x9b31m \u202e\u2066\u200f\u061c \x00\x07\x7f \u2028\ud800"


@pytest.mark.parametrize("shown", [ACTING, Text(ACTING, "bold")], ids=["text", "styled"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_console_prints_no_control_but_its_own(shown, soft):
    file = io.StringIO()
    console = HarmlessConsole(file=file, width=80, force_terminal=True, color_system="standard")
    table = Table(ACTING)
    table.add_row(shown)
    console.print(shown, table, soft_wrap=soft, markup=False)
    printed = file.getvalue()
    assert "31m" in printed
    own = printed.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x1b[3m", "").replace("\x1b[1;3m", "")
    assert not set(own) & set(ACTING) - set(" [2J31m")


def test_lines_tabs_and_joined_emoji_stay():
    text = "two\nlines\tand \U0001f469\u200d\U0001f4bb, \u05e9\u05dc\u05d5\u05dd"
    assert harmless(text) == text


def test_json_means_the_same():
    value = {ACTING: [ACTING, "\u05d0", "\\u202e"]}
    assert json.loads(harmless_json(json.dumps(value, ensure_ascii=False))) == value
