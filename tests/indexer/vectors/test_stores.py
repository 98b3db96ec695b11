"""Vector stores by name, stored index settings, and the calls of a snapshot to its view."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from indexer import Collection, Document, IndexKind, IndexSettings, index_corpus
from indexer.errors import CallError, CorruptionError, UnknownNameError
from indexer.metadata.publish import NewDocument
from indexer.types import Center, Modality
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_index import FaissIndex
from indexer.vectors.protocol import Neighbors, Plan
from indexer.vectors.stores import STORES
from indexer.vectors.unit import unit_rows
from pipelines.cli.app import app

RNG = np.random.default_rng(4)
DIM, ROWS = 16, 300
VECTORS = unit_rows(RNG.standard_normal((ROWS, DIM)))
QUERIES = unit_rows(RNG.standard_normal((7, DIM)))
SAMPLES = {"texts": RNG.standard_normal((30, DIM))}
EXAMPLE = Path(__file__).parents[2] / "plugin/example/underdrawing_example/vector_store.py"


@pytest.fixture
def database_url():
    """SQLite: what is looked at here are files and views."""
    return None


def fill(shop, rows=range(ROWS)):
    kinds = [Modality.TEXT, Modality.IMAGE]
    documents = [NewDocument(f"d{n:03}", f"text {n}", None, None, None, kinds[n % 2], {"n": n}) for n in rows]
    with shop.writer() as writer:
        writer.commit(documents, VECTORS[list(rows)])
    return shop


def kept(shop):
    return json.loads(shop.layout.description.read_text()).get("index")


class TestSettings:
    def test_those_that_an_index_is_built_with_win_when_it_is_opened_again(self, shop, open_shop):
        fill(shop)
        assert kept(shop) is None
        shop.build_index(SAMPLES, settings=IndexSettings(kind="hnsw", recall=0.9))
        assert shop.snapshot().search(QUERIES, 3).plans == (Plan.HNSW,)
        again = open_shop()
        assert again.settings == IndexSettings(kind=IndexKind.HNSW, recall=0.9)
        assert again.snapshot().search(QUERIES, 3).plans == (Plan.HNSW,)
        assert again.snapshot().notes == ()

    def test_those_given_at_opening_hold_for_that_handle_until_it_builds(self, shop, open_shop):
        fill(shop).build_index(SAMPLES, settings="hnsw")
        other = open_shop(index="exact")
        assert other.snapshot().search(QUERIES, 3).plans == (Plan.SCAN,)
        assert kept(other)["kind"] == "hnsw"
        assert open_shop().settings.kind is IndexKind.HNSW
        other.build_index()
        assert open_shop().settings.kind is IndexKind.EXACT

    def test_a_change_leaves_the_others_as_they_are(self, shop, open_shop):
        shop.build_index(settings=IndexSettings(kind="ivf", memory_budget="2GB", recall=0.8, half=True))
        given = {"recall": 0.7}
        for index, kind, recall in ((None, "ivf", 0.8), (given, "ivf", 0.7), ("hnsw", "hnsw", 0.8)):
            assert open_shop(index=index).settings == IndexSettings(kind, 2 * 10**9, recall, half=True)
        assert open_shop(index=IndexSettings()).settings == IndexSettings()

    def test_a_new_collection_keeps_what_it_is_started_with_and_no_defaults(self, open_shop):
        open_shop("graph", index="hnsw")
        assert open_shop("graph", None).settings.kind is IndexKind.HNSW
        plain = open_shop("plain")
        plain.build_index()
        assert set(json.loads(plain.layout.description.read_text())) == {"format", "metadata", "schema", "id"}

    @pytest.mark.parametrize(
        ("given", "error", "says"),
        [
            ("hsnw", UnknownNameError, "hnsw"),
            ({"knd": "hnsw"}, UnknownNameError, "kind"),
            ({"recall": 2}, CallError, "at most 1"),
        ],
    )
    def test_what_makes_no_sense_is_refused_at_every_door(self, shop, open_shop, tmp_path, given, error, says):
        for name in ("shop", "new"):
            with pytest.raises(error, match=says):
                open_shop(name, index=given)
        assert not (tmp_path / "new").exists()
        with pytest.raises(error, match=says):
            shop.build_index(settings=given)
        assert kept(shop) is None

    def test_what_another_release_kept_is_told_of_and_replaced(self, shop, open_shop):
        content = json.loads(shop.layout.description.read_text())
        shop.layout.description.write_text(json.dumps(content | {"index": {"kind": "annoy"}}))
        with pytest.raises(CorruptionError, match=r"collection\.json has index settings that cannot be used.*annoy"):
            open_shop()
        other = open_shop(index=IndexSettings())
        other.build_index()
        assert open_shop().settings == IndexSettings()

    def test_index_keeps_them_and_shows_progress_and_search_uses_them(self, tmp_path):
        (tmp_path / "texts.jsonl").write_text("".join(f'{{"id": "d{n}", "text": "word{n}"}}\n' for n in range(300)))
        call = ["index", tmp_path / "texts.jsonl", tmp_path / "shop", "--model", "fake:16", "--index", "ivf", "--json"]
        assert CliRunner().invoke(app, list(map(str, call))).exit_code == 0
        search = ["search", str(tmp_path / "shop"), "word3", "-k", "1", "--json"]
        told = json.loads(CliRunner().invoke(app, search).stdout)
        assert (told["hits"][0]["id"], told["plan"], told["notes"]) == ("d3", "ivf", [])
        other = json.loads(CliRunner().invoke(app, [*search, "--index", "exact"]).stdout)
        assert (other["hits"][0]["id"], other["plan"]) == ("d3", "scan")
        steps = []
        with Collection.open(tmp_path / "other", "fake:16", index={"kind": "hnsw"}) as shop:
            index_corpus(tmp_path / "texts.jsonl", shop, on_index=lambda what, done, total: steps.append((what, total)))
        assert steps == [("adding vectors", 300), ("tuning", 300)]
        with Collection.open(tmp_path / "other") as shop:
            assert shop.settings.kind is IndexKind.HNSW
            assert shop.build_index() == []


@pytest.fixture(scope="module")
def matrix():
    """The name of a store that is not ours: the example's."""
    spec = spec_from_file_location("example_vector_store", EXAMPLE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    STORES.register("matrix in a test", help="for a test")(module.MatrixStore)
    return "matrix in a test"


class TestStores:
    def test_one_is_kept_with_the_collection(self, open_shop, matrix):
        shop = fill(open_shop("other", vector_store=matrix))
        assert type(shop.snapshot().view).__name__ == "MatrixView"
        assert type(open_shop("other", None).snapshot().view).__name__ == "MatrixView"
        assert type(open_shop("other", None, vector_store="local").snapshot().view).__name__ == "LocalView"
        assert open_shop("other", None).build_index() == []
        assert shop.explain()["reason"] == "One matrix; there is nothing to build."
        assert shop.info()["index"] == "One matrix; there is nothing to build."

    def test_an_unknown_one_is_refused_before_anything_is_made(self, open_shop, tmp_path):
        with pytest.raises(UnknownNameError, match="vector store 'lokal'.*local"):
            open_shop("new", vector_store="lokal")
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("center", [Center.OFF, Center.ON])
    def test_a_snapshot_asks_nothing_of_a_view_but_the_protocol(self, shop, open_shop, matrix, center):
        fill(shop, range(200))
        fill(shop, range(150, ROWS))
        shop.delete([f"d{n:03}" for n in range(0, ROWS, 7)])
        ours, theirs = (each.snapshot().centered(center) for each in (shop, open_shop(vector_store=matrix)))
        assert len(ours) == len(theirs) == ROWS - 43
        for asked in ({}, {"where": {"n": {"$lt": 90}}}, {"exclude": ["d001"]}, {"modalities": ["image"]}):
            one, other = ours.search(QUERIES, 10, **asked), theirs.search(QUERIES, 10, **asked)
            np.testing.assert_array_equal(one.ids, other.ids)
            np.testing.assert_array_equal(one.scores, other.scores)
            for ours_too, theirs_too in zip(ours.scan(QUERIES, **asked), theirs.scan(QUERIES, **asked), strict=True):
                np.testing.assert_allclose(ours_too, theirs_too, atol=1e-6)
        assert [each.id for each in ours] == [each.id for each in theirs]
        assert ours.living == theirs.living


class TestBound:
    """No row that was not returned scores above it."""

    PARTS = ((VECTORS[:200], np.arange(200)), (VECTORS[200:], np.arange(200, 300)))

    def test_exact_search_bounds_by_the_last_and_knows_when_all_came_back(self):
        truth = QUERIES @ VECTORS.T
        index = ExactIndex(self.PARTS)
        found = index.search(QUERIES, 10)
        np.testing.assert_array_equal(found.bound, found.scores[:, -1])
        for row, ids, bound in zip(truth, found.ids, found.bound, strict=True):
            assert np.delete(row, ids).max() <= bound + 1e-6
        assert (index.search(QUERIES, 301).bound == -np.inf).all()
        assert (index.search(QUERIES, 10, np.arange(9)).bound == -np.inf).all()

    def test_an_approximate_index_bounds_nothing_it_has_not_looked_at(self):
        graph = FaissIndex.build(IndexKind.HNSW, self.PARTS, IndexSettings())
        graph.metadata.pop("sure_above", None)
        assert (graph.search(QUERIES, 10).bound == np.inf).all()
        assert (graph.search(QUERIES, 10, np.arange(0, 300, 50)).bound == -np.inf).all()  # all six came back
        flat = FaissIndex.build(IndexKind.EXACT, self.PARTS, IndexSettings())
        np.testing.assert_array_equal(flat.search(QUERIES, 10).bound, ExactIndex(self.PARTS).search(QUERIES, 10).bound)

    def test_a_root_of_shards_stops_exactly(self):
        shards = [ExactIndex([part]).search(QUERIES, 10) for part in self.PARTS]
        merged, whole = Neighbors.merged(shards, 10), ExactIndex(self.PARTS).search(QUERIES, 10)
        np.testing.assert_array_equal(merged.ids, whole.ids)
        assert (merged.scores[:, -1] >= np.maximum.reduce([each.bound for each in shards])).all()
        graph = FaissIndex.build(IndexKind.HNSW, self.PARTS[:1], IndexSettings()).search(QUERIES, 10)
        assert (Neighbors.merged([graph, shards[1]], 10).bound == np.inf).all()

    def test_it_is_there_however_a_view_finds_its_answer(self, shop, open_shop):
        fill(shop).delete(["d004"])
        shop.build_index(SAMPLES, settings="hnsw")
        exact, graph = open_shop(index="exact").snapshot(), shop.snapshot()
        np.testing.assert_array_equal(exact.search(QUERIES, 5).bound, exact.search(QUERIES, 5).scores[:, -1])
        assert (graph.search(QUERIES, 5).bound == np.inf).all()
        assert (graph.search(QUERIES, 5, exclude=[f"d{n:03}" for n in range(297)]).bound == -np.inf).all()
        centered = exact.centered(Center.ON).search(QUERIES, 5)
        np.testing.assert_array_equal(centered.bound, centered.scores[:, -1])


def test_an_added_document_is_found_at_once_and_nothing_is_kept_by_adding(shop, open_shop):
    fill(shop).build_index(SAMPLES, settings="hnsw")
    other = open_shop(index="ivf")
    other.add([Document("new", text="something new")])
    assert kept(other)["kind"] == "hnsw"
    assert "new" in shop.snapshot()
