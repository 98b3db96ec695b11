"""The site is built without a warning, whole, and fetches nothing where it is read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import underdrawing as ud

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site's folder; what MkDocs warns of is an error."""
    folder = tmp_path_factory.mktemp("site")
    # Not with --quiet: a warning that is not logged is not counted.
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    ended = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return folder


def test_the_reference_has_every_public_name(site):
    pages = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    headings = set(re.findall(r'<h2 id="[\w.]*?(\w+)" class="doc doc-heading">', pages))
    assert {name for name in ud.__all__ if not name.startswith("_")} - headings == set()


def test_every_page_and_every_example_is_there(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {name for name in pages if not (site / f"{name}.html").exists()} == set()
    examples = (site / "examples.html").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "examples").glob("*.py") if f"examples/{path.name}" not in examples] == []


def test_links_to_pages_of_the_root_are_links_to_pages_of_the_site(site):
    _, text = (site / "models.html").read_text(encoding="utf-8").split("<article", 1)
    assert '<a href="project/security.html">' in text
    assert (site / "project" / "security.html").exists()


def test_nothing_is_fetched_from_elsewhere(site):
    fetched = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"' >]+)")
    found = {path.name: hits for path in site.rglob("*.html") if (hits := fetched.findall(path.read_text("utf-8")))}
    styles = {
        path.name: hits
        for path in site.rglob("*.css")
        if (hits := re.findall(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')]+)", path.read_text("utf-8")))
    }
    assert (found, styles) == ({}, {})
