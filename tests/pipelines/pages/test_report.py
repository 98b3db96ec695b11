"""Pages are self-contained, and users' texts are escaped."""

from __future__ import annotations

import io
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import drawing_models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_mllm
import tiny_models
from PIL import Image
from rich.console import Console

from indexer import Collection
from indexer.bundled import CORPUS, QUERIES
from indexer.corpus.images import image_digest
from indexer.corpus.readers import open_corpus
from indexer.types import Modality
from pipelines.demo import pages as demo_pages
from pipelines.demo import run as demo
from pipelines.evaluation.emojicir import Split, by_family, read_queries
from pipelines.evaluation.loop import JudgedQuery
from pipelines.pages.artifacts import shown_artifacts
from pipelines.pages.report import search_page, thumbnail
from retrieval.methods import Method
from retrieval.providers.pseudo_target import PseudoTargetProvider
from retrieval.query import Query
from retrieval.results import Hit, Results
from retrieval.service import SearchService


def results(*hits: Hit) -> Results:
    return Results(hits, "sum", "fake:8", 3, "cosine", notes=("a <note>",), took_ms={"encode": 1.0})


def test_a_search_page_inlines_pictures_and_escapes_texts(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.new("RGB", (400, 200), "red").save(picture)
    script = "<script>alert(1)</script>"
    fields = {"taken": "2021-05-03", "<i>": "x" * 500}
    hit = Hit(1, 0.5, "<img src=x>", script, None, picture, fields, {"not_text_1": 0.25}, image_digest(picture))
    page = search_page(Query(text="<b>bold</b>", image=str(picture), not_texts=("dogs",)), results(hit))
    assert "<script>" not in page
    assert "<b>bold</b>" not in page
    assert "&lt;script&gt;" in page
    assert "not dogs" in page
    assert "not text 1 0.25" in page
    assert "taken: 2021-05-03, &lt;i&gt;: xxx" in page
    assert "x" * 200 not in page
    assert "a &lt;note&gt;" in page
    assert page.count("data:image/webp;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_search_page_shows_what_was_drawn_beside_the_reference(tmp_path: Path) -> None:
    for name in ("stored", "one", "two"):
        Image.new("RGB", (20, 20), "blue").save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / "one.png"), str(tmp_path / "two.png")]
    drawn = {"path": paths[0], "paths": paths, "seed": 4, "steps": 8, "guidance": 1.5, "cached": False}
    found = replace(results(), artifacts={"pseudo_target": drawn}, took_ms={"draw": 1234.5})
    page = search_page(Query(text="x", like="a"), found, tmp_path / "stored.png")
    assert re.findall('alt="the ([a-z-]+)"', page) == ["reference", "pseudo-target", "pseudo-target"]
    assert page.count("data:image/webp;base64,") == 3
    assert "pseudo-target: generated in 1,234 ms, seed 4, 8 steps, guidance 1.5" in page
    assert "pseudo-target: from the cache, seed 4" in search_page(
        Query(text="x", like="a"), replace(found, artifacts={"pseudo_target": drawn | {"cached": True}})
    )
    assert 'alt="the' not in search_page(Query(text="x"), results())


def test_an_artifact_that_nobody_knows_is_shown_with_its_images_text_and_facts(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "blue").save(tmp_path / "map.png")
    artifacts = {
        "heat_map": {"paths": [str(tmp_path / "map.png")], "scale": 2},
        "roles": {"sentence": "<b> must", "n": 3},
    }
    found = replace(results(), artifacts=artifacts)
    assert [each.line for each in shown_artifacts(found)] == [
        f"heat map: scale 2: {tmp_path / 'map.png'}",
        "roles: <b> must (n 3)",
    ]
    page = search_page(Query(text="x"), found)
    assert 'alt="the heat map"' in page
    assert "heat map: scale 2" in page
    assert "Roles: <q>&lt;b&gt; must</q>" in page
    assert shown_artifacts(results()) == []


def test_a_page_of_nothing_says_so() -> None:
    assert "Nothing was found." in search_page(Query(text="x"), results())


def test_a_thumbnail_is_small_and_a_broken_picture_is_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1500), "blue").save(tmp_path / "big.png")
    (tmp_path / "broken.png").write_bytes(b"no")
    assert 100 < len(thumbnail(tmp_path / "big.png")) < 5000
    assert thumbnail(tmp_path / "broken.png") == ""
    assert thumbnail(None) == ""


def shrink(queries: list[JudgedQuery], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the demo know these queries and a corpus of just what they need; returns their ids."""
    needed = {id for query in queries for id in (*query.targets, *query.subset, *query.exclude)}
    table = pq.read_table(CORPUS)
    kept = table.filter(pa.compute.is_in(table["id"], pa.array(sorted(needed))))
    pq.write_table(kept, folder / "few.parquet")
    monkeypatch.setattr(demo, "CORPUS", folder / "few.parquet")
    monkeypatch.setattr(demo, "read_queries", lambda *_: queries)
    return [query.query_id for query in queries]


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two queries of every family."""
    return shrink(by_family(read_queries(QUERIES, Split.TEST), 2), tmp_path, monkeypatch)


@pytest.fixture
def fewest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three queries of each of two families."""
    queries = by_family(read_queries(QUERIES, Split.TEST), 3)
    return shrink(queries[:6], tmp_path, monkeypatch)


def whole(report: Path) -> str:
    """The page that has everything."""
    return report.with_name("all.html").read_text(encoding="utf-8")


def named(page: str) -> list[str]:
    """The methods of the table of measures."""
    return re.findall(r"<tr[^>]*><td><code>([a-z]+)</code></td>", page.split("How often")[1].split("<h2>")[0])


def test_the_demo_runs_twice_and_its_report_holds_every_question(few: list[str], tmp_path: Path) -> None:
    printed = io.StringIO()
    console = Console(file=printed, width=140)
    report = demo.run_demo(tmp_path / "out", console, model="fake:16", joint=None)
    again = demo.run_demo(tmp_path / "out", console, model="fake:16", joint=None)
    page, short = whole(report), report.read_text(encoding="utf-8")
    assert again == report
    assert len(few) >= 12
    assert page.count('<section class="card">') == len(few)
    assert page.count("<details open>") == 3  # the others are opened by who wants to see them: a page, not a scroll
    assert page.count("<details>") == len(few) - 3
    assert page.count('<div class="wide"><table>') == page.count("<table>")
    assert "<script" not in page
    assert page.count('class="hit right"') > 0
    for each, other in ((page, "report.html"), (short, "all.html")):
        assert set(re.findall(r'(?:src|href)="(?!data:)([^"]+)"', each)) == {other}
    assert short.count('<section class="card">') == 3
    assert len(set(re.findall(r'<span class="tag">([a-z ]+)</span>', short))) == 3
    assert short.count('<div class="row">') == 3 * 5
    assert f"All {len(few)} questions, 6 methods" in short
    assert "Indexed" in printed.getvalue()
    assert "were indexed before" in printed.getvalue()
    # A model without text tower: two methods are missing, which is said.
    missing = (Method.INVERSION, Method.CIG, Method.CAPTION, Method.JOINT)
    assert named(page) == [method.value for method in Method if method not in missing]
    for method in ("inversion", "cig"):
        remark = f"The method {method} is left out: No inversion comes with fake:16."
        assert remark in page
        assert remark in " ".join(printed.getvalue().split())
    assert "pseudo-target" not in page
    families = set(re.findall(r"<td>([a-z ]+)</td>", page))
    assert {query.family.replace("_", " ") for query in read_queries(QUERIES, Split.TEST)} <= families


@pytest.fixture
def made(tmp_path: Path) -> tuple[str, drawing_models.Painter, PseudoTargetProvider]:
    """A model that reads words, and a pseudo_targets for it."""
    model = f"open_clip:{tiny_models.tiny_clip(tmp_path / 'clip')}"
    painter = drawing_models.Painter(model)
    return model, painter, PseudoTargetProvider(tiny_models.tiny_inversion(), painter, cache=tmp_path / "drawings")


def test_the_demo_shows_pseudo_targets_and_draws_its_sample_in_batches(
    fewest: list[str],
    made: tuple[str, drawing_models.Painter, PseudoTargetProvider],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, painter, pseudo_targets = made
    monkeypatch.setattr(demo, "QUESTIONS_PER_FAMILY", 1)
    printed = io.StringIO()
    page = whole(demo.run_demo(tmp_path / "out", Console(file=printed, width=140), model, pseudo_targets, None))
    questions = page.count('<section class="card draws">')
    assert 0 < questions < len(fewest)
    assert page.count('alt="the pseudo-target"') == questions
    assert "seed 0, 2 steps, guidance 1.5" in page
    others = (Method.CAPTION, Method.JOINT)
    assert named(page) == [method.value for method in Method if method not in others]
    assert page.count("left out") == 1
    assert "The method joint and the pages are left out: no model that reads text and image at once was given" in page
    assert "pseudo-targets were in the cache" not in page
    assert [len(texts) for texts, _ in painter.calls] == [1] * questions + [len(fewest) - questions]
    again = whole(demo.run_demo(tmp_path / "out", Console(file=printed), model, pseudo_targets, None))
    assert f"{questions} pseudo-targets were in the cache" in again
    assert len(painter.calls) == questions + 1


def test_the_demo_asks_pages_and_joins_what_one_model_reads(fewest: list[str], tmp_path: Path) -> None:
    joint = f"mllm:{tiny_mllm.tiny_mllm(tmp_path / 'gme')}"
    printed = io.StringIO()
    console = Console(file=printed, width=140)
    page = whole(demo.run_demo(tmp_path / "out", console, "fake:16", joint=joint))
    assert "joint" in named(page)
    assert page.count('<section class="card pages">') == 2  # the questions whose drawings are in the corpus, or of text
    assert f"pages with {joint}" in " ".join(printed.getvalue().split())
    with Collection.open(tmp_path / "out" / "pages") as pages:
        assert set(pages.snapshot().living) == {Modality.TEXT, Modality.IMAGE, Modality.FUSED}
    missing = whole(demo.run_demo(tmp_path / "out", console, "fake:16", joint="mllm:gone"))
    assert "The method joint is left out: " in missing
    assert "joint" not in named(missing)
    assert '<section class="card pages">' not in missing


def test_pages_are_the_same_in_every_run_and_one_a_concept(few: list[str]) -> None:
    first, again = ([each.document for each in demo_pages.Pages(open_corpus(demo.CORPUS))] for _ in range(2))
    assert first == again
    concepts = [document.fields["concept"] for document in first]
    assert len(set(concepts)) == len(concepts)
    parts = Counter((document.text is None, document.image is None) for document in first)
    assert parts.keys() == {(False, False), (True, False), (False, True)}


def test_the_demo_without_diffusers_says_how_to_get_it(
    made: tuple[str, drawing_models.Painter, PseudoTargetProvider], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    pseudo_targets = PseudoTargetProvider(
        tiny_models.tiny_inversion(), "bundled:emoji-generator", cache=tmp_path / "drawings"
    )
    with Collection.open(tmp_path / "shop", made[0]) as shop:
        retrievers, [remark] = demo._retrievers(SearchService(shop, pseudo_targets=pseudo_targets))
    others = (Method.CIG, Method.CAPTION, Method.JOINT)
    assert list(retrievers) == [method.value for method in Method if method not in others]
    assert remark.startswith("The method cig is left out: ")
    assert "pip install 'underdrawing[generate]'" in remark


def test_a_sample_takes_evenly_from_every_family() -> None:
    queries = read_queries(QUERIES, Split.TEST)
    sample = by_family(queries, 30)
    counts = {query.family: 0 for query in queries}
    for query in sample:
        counts[query.family] += 1
    assert len({query.query_id for query in sample}) == len(sample)
    assert max(counts.values()) == 30
    assert min(counts.values()) == min(30, sum(query.family == "moon_phase" for query in queries))
