"""A new method is one file: every program finds it by what the file says, and knows its name from nowhere else."""

from __future__ import annotations

import json
import sys
from importlib import invalidate_caches

import pytest
from PIL import Image

import retrieval.methods
from benchmarks.harness import run as harness
from benchmarks.harness.methods import compared, possible
from benchmarks.tasks import emojicir
from indexer import Collection, Document
from indexer.embed import load_embedder
from indexer.errors import RequestError
from retrieval import SearchOptions, SearchRequest, SearchService
from retrieval.methods import METHODS, Helper, weights

FILE = """
from typing import ClassVar

from retrieval.methods.base import Helper, TwoParts
from retrieval.query import Weights


class Farther(TwoParts):
    name = "farther"
    help = "the text, twice"
    tuned = "farther"
    reads = frozenset({"negative"})
    defaults = Weights(negative=0.5)
    reads_fields: ClassVar[frozenset[str]] = frozenset({"caption"})

    def terms(self, resolved, weights, space):
        return {"text": (2.0, resolved.vectors["text"]), "image": (1.0, resolved.vectors["image"])}, ()


class FartherWritten(Farther):
    name = "farther-written"
    help = "the text, twice, if a language model says so"
    tuned = "farther-written"
    variant_of = "farther"
    needs = (Helper.REWRITER,)
"""


@pytest.fixture(autouse=True)
def _file(tmp_path, monkeypatch):
    """The file in the folder of methods, whose names are looked up once more."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "farther.py").write_text(FILE)
    monkeypatch.setattr(retrieval.methods, "__path__", [*retrieval.methods.__path__, str(tmp_path / "methods")])
    invalidate_caches()
    for name, room in retrieval.methods._rooms():
        if name not in METHODS:
            monkeypatch.setitem(METHODS._builtin, name, room)
    yield
    for name in ("farther", "farther-written"):
        METHODS._imported.pop(name, None)
    sys.modules.pop("retrieval.methods.farther", None)


@pytest.fixture
def shop(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:16") as opened:
        opened.add([Document(name, text=name, image=Image.new("RGB", (8, 8), name)) for name in ("red", "blue")])
    return tmp_path / "shop"


def test_the_command_line_searches_by_it_and_lists_it(run, shop):
    done = run("search", shop, "dark", "--like", "red", "--method", "farther", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["method"], found["hits"][0]["branches"].keys()) == ("farther", {"text", "image"})
    listed = json.loads(run("doctor", "--methods", "--json").stdout)
    assert listed["farther"] == "the text, twice"


def test_a_service_knows_what_it_reads_and_needs(shop):
    with Collection.open(shop) as opened:
        service = SearchService(opened, defaults=SearchOptions(captioner="table:none.json", rewriter="join"))
        request = SearchRequest(text="dark", like="red", method="farther", caption="a lamp")
        settled = service.settled(request)
        assert (settled.captioner, settled.rewriter, service.needs(request)) == (None, None, ())
        written = SearchRequest(text="dark", like="red", method="farther-written")
        assert (service.settled(written).rewriter, service.needs(written)) == ("join", ("rewriter",))
        with pytest.raises(RequestError, match="farther-written needs a text and a reference"):
            service.settled(SearchRequest(text="dark", method="farther-written"))
        with pytest.raises(RequestError, match="choose `method=caption` or `method=shift` or `method=farther`"):
            service.settled(SearchRequest(text="dark", like="red", method="sum", caption="a lamp"))


def test_it_is_the_default_where_it_did_best(shop, monkeypatch):
    scores = {"sum": 0.1, "farther": 0.3, "farther-written": 0.9}
    tuned = {name: {"weights": {}, "source": "", "curve": [[{}, score]]} for name, score in scores.items()}
    monkeypatch.setattr(weights, "_table", lambda: {"fake:16": tuned, "default": {}})
    with Collection.open(shop) as opened:
        chosen = SearchService(opened).settled(SearchRequest(text="dark", like="red")).method
    assert chosen == "farther"  # the other needs a helper model


def test_a_benchmark_runs_it_by_name_and_its_table_has_its_variants(tmp_path, capsys):
    assert "farther-written" in compared()
    assert "farther" not in compared()  # what stands for its variants
    embedder = load_embedder("fake:16")
    assert "farther-written" in possible([Helper.REWRITER], embedder)
    assert "farther-written" not in possible([], embedder)
    call = ["--model", "fake:16", "--cache", str(tmp_path / "cache"), "--limit", "4", "--method", "farther"]
    assert harness.main(emojicir.BENCHMARK, [*call, "--weights", '{"negative": 0.5}']) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (document["method"], document["queries"]) == ("farther", 4)
