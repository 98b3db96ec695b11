"""docs/cli.md equals the program's help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.cli.docs import WIDTH, page

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


@pytest.fixture(scope="module")
def told():
    """The page as it would be generated now."""
    return page()


def words(text):
    """The text without frames and line breaks: those differ between releases of typer."""
    return re.sub("[\u2500-\u257f\\s]+", " ", text).split()


def test_the_page_is_up_to_date(told):
    assert words(PAGE.read_text(encoding="utf-8")) == words(told), "run: python -m pipelines.cli.docs > docs/cli.md"


def test_the_page_is_the_same_in_every_terminal(told, monkeypatch):
    for name, value in (("COLUMNS", "60"), ("FORCE_COLOR", "1"), ("UNDERDRAWING_DATABASE", "postgresql://me@here/db")):
        monkeypatch.setenv(name, value)
    assert page() == told
    assert "\x1b" not in told
    assert max(map(len, told.splitlines())) <= WIDTH
