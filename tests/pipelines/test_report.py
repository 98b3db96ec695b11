"""Pages are self-contained, and what users wrote cannot break out of the text."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from indexer.bundled import CORPUS, QUERIES
from pipelines import demo
from pipelines.emojicir import Split, by_family, read_queries
from pipelines.report import search_page, thumbnail
from retrieval.query import Query
from retrieval.results import Hit, Results


def results(*hits: Hit) -> Results:
    return Results(hits, "sum", "fake:8", 3, "cosine", notes=("a <note>",), took_ms={"encode": 1.0})


def test_a_search_page_inlines_pictures_and_escapes_texts(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.new("RGB", (400, 200), "red").save(picture)
    hit = Hit(1, 0.5, "<img src=x>", "<script>alert(1)</script>", None, picture, {}, {"text": 0.25})
    page = search_page(Query(text="<b>bold</b>", image=str(picture), not_texts=("dogs",)), results(hit))
    assert "<script>" not in page
    assert "<b>bold</b>" not in page
    assert "&lt;script&gt;" in page
    assert "not dogs" in page
    assert "a &lt;note&gt;" in page
    assert page.count("data:image/webp;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_page_of_nothing_says_so() -> None:
    assert "Nothing was found." in search_page(Query(text="x"), results())


def test_a_thumbnail_is_small_and_a_broken_picture_is_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1500), "blue").save(tmp_path / "big.png")
    (tmp_path / "broken.png").write_bytes(b"no")
    assert 100 < len(thumbnail(tmp_path / "big.png")) < 5000
    assert thumbnail(tmp_path / "broken.png") == ""
    assert thumbnail(None) == ""


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A corpus of just what twenty queries need; returns their ids."""
    queries = by_family(read_queries(QUERIES, Split.TEST), 2)
    needed = {id for query in queries for id in (*query.targets, *query.subset, *query.exclude)}
    table = pq.read_table(CORPUS)
    kept = table.filter(pa.compute.is_in(table["id"], pa.array(sorted(needed))))
    pq.write_table(kept, tmp_path / "few.parquet")
    monkeypatch.setattr(demo, "CORPUS", tmp_path / "few.parquet")
    monkeypatch.setattr(demo, "read_queries", lambda *_: queries)
    return [query.query_id for query in queries]


def test_the_demo_runs_twice_and_its_report_holds_every_question(few: list[str], tmp_path: Path) -> None:
    printed = io.StringIO()
    console = Console(file=printed, width=140)
    report = demo.run_demo(tmp_path / "out", console, model="fake:16")
    again = demo.run_demo(tmp_path / "out", console, model="fake:16")
    page = report.read_text(encoding="utf-8")
    assert again == report
    assert len(few) >= 12
    assert page.count('<section class="card">') == len(few)
    assert page.count('class="hit right"') > 0
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "Indexed" in printed.getvalue()
    assert "were indexed before" in printed.getvalue()
    families = set(re.findall(r"<td>([a-z ]+)</td>", page))
    assert {query.family.replace("_", " ") for query in read_queries(QUERIES, Split.TEST)} <= families


def test_a_sample_takes_evenly_from_every_family() -> None:
    queries = read_queries(QUERIES, Split.TEST)
    sample = by_family(queries, 30)
    counts = {query.family: 0 for query in queries}
    for query in sample:
        counts[query.family] += 1
    assert len({query.query_id for query in sample}) == len(sample)
    assert max(counts.values()) == 30
    assert min(counts.values()) == min(30, sum(query.family == "moon_phase" for query in queries))
