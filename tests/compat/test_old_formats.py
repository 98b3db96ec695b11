"""A collection that an earlier release wrote is opened for ever: read, searched, checked, written to and compacted.

Each folder of `data/` was written once, by the release of its format, with the script `make_<name>.py`; it is test data
and never changes. The JSON beside it says what it must answer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from answers import contents

from indexer import Collection, Document, IndexKind, IndexSettings
from indexer.types import Item
from retrieval import Query, Retriever

pytestmark = pytest.mark.compat

DATA = Path(__file__).with_name("data")
FORMATS = sorted(path.name for path in DATA.iterdir() if path.is_dir())


@pytest.fixture(params=FORMATS)
def old(request, tmp_path):
    """A copy, since SQLite writes beside what it opens; and what it must answer."""
    told = json.loads((DATA / request.param).with_suffix(".json").read_text(encoding="utf-8"))
    return shutil.copytree(DATA / request.param, tmp_path / "old"), told


def test_there_are_some():
    assert "v1" in FORMATS


def test_all_that_was_stored_is_there(old):
    folder, told = old
    with Collection.open(folder) as shop:
        snapshot = shop.snapshot()
        assert snapshot.generation == told["generation"]
        assert set(contents(snapshot)) == set(told["documents"])
        for each in snapshot.documents(snapshot.vector_ids(list(told["documents"]))):
            wanted = told["documents"][each.id]
            assert (each.text, each.modality.value, each.fields) == (
                wanted["text"],
                wanted["modality"],
                wanted["fields"],
            )
            if wanted["image"]:
                assert each.image == folder / wanted["image"]
                assert each.image.exists()
            vector = snapshot.vectors(snapshot.vector_ids([each.id]))[0]
            np.testing.assert_array_equal(vector, np.array(wanted["vector"], np.float32))
        assert {key: shop.info()["jobs"][0][key] for key in told["job"]} == told["job"]
        assert shop.check().findings == []


@pytest.mark.parametrize("kind", [IndexKind.EXACT, IndexKind.HNSW])
def test_it_is_searched(old, kind):
    folder, told = old
    with Collection.open(folder, index=IndexSettings(kind=kind)) as shop:
        shop.build_index()
        for name, wanted in told["documents"].items():
            if wanted["modality"] == "text":
                assert Retriever(shop, "text").search(Query(text=wanted["text"]), k=1).hits[0].id == name
        found = Retriever(shop, "image").search(Query(like="red"), where={"n": {"$gte": 100}})
        assert [hit.id for hit in found] == ["word-1"]
        query = shop.embedder.encode_query([Item(text="a cat")])
        assert len(shop.snapshot().search(query, 99, modalities=["image+text"]).ids[0]) == 99


def test_it_is_written_to_and_compacted(old):
    folder, told = old
    with Collection.open(folder) as shop:
        shop.add([Document("new", text="new"), Document("red", text="no longer a picture")])
        shop.delete(["blue"])
        assert shop.compact()[1] == 1
        shop.repair()
        assert shop.check().findings == []
        assert set(contents(shop)) == (set(told["documents"]) | {"new"}) - {"blue"}
        assert shop.snapshot().vector_ids(["new"])[0] >= len(told["documents"])


def test_it_takes_another_model(old):
    folder, told = old
    with Collection.open(folder) as shop:
        before = contents(shop)
        assert [(each.name, each.model, each.documents) for each in shop.spaces] == [
            ("fake:16", "fake:16", len(before))
        ]
        assert shop.add_space("fake:32").embedded == len(before)
        assert set(contents(shop.snapshot("fake:32"))) == set(told["documents"])
        assert contents(shop) == before
        shop.set_default_space("fake:32")
        shop.drop_space("fake:16")
        shop.compact()
        assert shop.check().findings == []
    with Collection.open(folder, "fake:32") as shop:
        assert set(contents(shop)) == set(before)
