"""A document with several images is stored, embedded, found, shown and repaired like one with a single image."""

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import Collection, Document, Item
from indexer.errors import CallError, ItemError
from indexer.ingest.prepare import MAX_IMAGES
from indexer.types import Modality
from pipelines.pages.report import search_page
from retrieval import Query, Retriever

COLORS = ["red", "green", "blue", "yellow"]


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (24, 16), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shop(open_shop):
    return open_shop(model="fake:64")


def page(id="page", colors=COLORS[:3], text="three colors"):
    return Document(id, text=text, images=[png(color) for color in colors])


def stored(shop, id="page"):
    snapshot = shop.snapshot()
    return snapshot.documents(snapshot.vector_ids([id]))[0]


class TestTheRecord:
    def test_image_is_the_first_of_images_whichever_is_given(self):
        one = Document("a", image="a.png")
        assert (one.image, one.images) == (Path("a.png"), (Path("a.png"),))
        several = Document("a", images=["a.png", b"b"])
        assert (several.image, several.images) == (Path("a.png"), (Path("a.png"), b"b"))
        assert Document("a", text="x").images == ()
        assert Item(images=[b"a", b"b"]).image == b"a"
        assert Item("x", b"a").images == (b"a",)
        assert Document("a", images=[b"a"]) == Document("a", image=b"a")

    def test_replacing_the_image_of_a_document_of_one(self):
        one = pickle.loads(pickle.dumps(Document("a", text="x", image="a.png")))  # noqa: S301
        assert replace(one, image=None).images == ()
        assert replace(one, image=b"b").images == (b"b",)
        several = replace(one, images=["a.png", "b.png"])
        assert several.images == (Path("a.png"), Path("b.png"))
        assert replace(several, text="y").images == several.images
        assert replace(several, image=None, images=()).image is None
        assert Document("b", images=one.images).image == Item("x", images=one.images).image == Path("a.png")
        assert repr(Document("b", text="x")) == "Document(id='b', text='x', image=None, fields={}, uri=None, images=())"

    def test_two_that_do_not_agree_are_refused(self):
        with pytest.raises(CallError, match="a different image"):
            Document("a", image=b"a", images=[b"b", b"a"])
        assert Document("a", image=b"a", images=[b"a", b"b"]).images == (b"a", b"b")

    @pytest.mark.parametrize("wrong", ["a.png", b"bytes", Path("a.png"), 5, {"a": 1}])
    def test_images_are_a_list(self, wrong):
        with pytest.raises(CallError, match=r"images is one .*a list of images"):
            Document("a", images=wrong)
        with pytest.raises(CallError, match="a list of images"):
            Item(images=wrong)

    def test_none_among_them(self):
        with pytest.raises(CallError, match="holds None"):
            Document("a", images=[b"a", None])

    def test_an_item_takes_no_string_for_a_path(self):
        with pytest.raises(CallError, match="never taken for a path"):
            Item(images=[b"a", "b.png"])

    def test_modalities(self):
        assert Item(images=[b"a", b"b"]).modality is Modality.IMAGE
        assert Item("x", images=[b"a", b"b"]).modality is Modality.FUSED


class TestTheVector:
    def test_of_images_alone_it_is_their_mean_made_unit(self, shop):
        shop.add([page(text=None)])
        snapshot = shop.snapshot()
        rows = shop.embedder.encode_document([Item(image=png(color)) for color in COLORS[:3]])
        mean = rows.mean(0) / np.linalg.norm(rows.mean(0))
        np.testing.assert_allclose(snapshot.vectors(snapshot.vector_ids(["page"]))[0], mean, atol=1e-6)

    def test_each_of_its_images_finds_it(self, shop):
        shop.add([page(text=None), *(Document(f"other {n}", text=f"word{n}") for n in range(20))])
        for color in COLORS[:3]:
            assert Retriever(shop, "image").search(Query(image=png(color)), k=1).hits[0].id == "page"

    def test_a_bad_one_costs_the_document_and_is_named(self, shop):
        added = shop.add([Document("a", images=[png("red"), b"nothing", png("blue")]), page()])
        assert [(each.uri, each.reason) for each in added.rejected] == [("a", "not-an-image")]
        assert added.rejected[0].detail.startswith("Image 2 of 3: ")
        with pytest.raises(ItemError, match="Image 3 of 3"):
            shop.embedder.preparer()(Item(images=[png("red"), png("blue"), b""]))

    def test_a_missing_file_is_named(self, shop, tmp_path):
        (tmp_path / "a.png").write_bytes(png("red"))
        rejected = shop.add([Document("a", images=[tmp_path / "a.png", tmp_path / "none.png"]), page()]).rejected
        assert rejected[0].reason == "missing"
        assert "Image 2 of 2" in rejected[0].detail

    def test_too_many(self, shop):
        rejected = shop.add([Document("a", images=[b"x"] * (MAX_IMAGES + 1)), page()]).rejected
        assert [each.reason for each in rejected] == ["too-many-images"]
        assert f"{MAX_IMAGES + 1} images" in rejected[0].detail


class TestStoring:
    def test_all_come_back_in_order(self, shop, tmp_path):
        (tmp_path / "a b.png").write_bytes(png("yellow"))
        images = [png("red"), tmp_path / "a b.png", Image.new("RGB", (9, 9), "blue"), png("red")]
        shop.add([Document("page", images=images), Document("one", image=png("green")), Document("none", text="x")])
        found = stored(shop)
        assert [Image.open(path).getpixel((0, 0)) for path in found.images] == [
            (255, 0, 0), (255, 255, 0), (0, 0, 255), (255, 0, 0)
        ]  # fmt: skip
        assert found.image == found.images[0] == found.images[3]
        assert found.images[1] == tmp_path / "a b.png"
        assert len(found.images_sha256) == 4
        assert found.image_sha256 == found.images_sha256[0] == found.images_sha256[3]
        assert stored(shop, "one").images == (stored(shop, "one").image,)
        assert stored(shop, "none").images == ()

    def test_hits_and_json_have_all(self, shop):
        shop.add([page(), Document("one", image=png("yellow"))])
        results = Retriever(shop, "text").search(Query(text="three colors"), k=2)
        hit = results.hits[0]
        assert (hit.id, hit.images, hit.images_sha256) == (
            "page", stored(shop).images, stored(shop).images_sha256
        )  # fmt: skip
        told = json.loads(json.dumps(results.to_json()))["hits"]
        assert told[0]["images"] == [str(path) for path in stored(shop).images]
        assert "images" not in told[1]

    def test_the_page_shows_all_that_are_what_was_indexed(self, shop, tmp_path):
        (tmp_path / "a.png").write_bytes(png("yellow"))
        shop.add([Document("page", text="x", images=[png("red"), tmp_path / "a.png", png("blue")])])
        query = Query(text="x")
        results = Retriever(shop, "text").search(query, k=1)
        assert search_page(query, results).count("data:image/webp") == 3
        (tmp_path / "a.png").write_bytes(png("green"))
        assert search_page(query, results).count("data:image/webp") == 2

    def test_check_knows_all(self, shop, tmp_path):
        (tmp_path / "a.png").write_bytes(png("yellow"))
        shop.add([Document("page", images=[png("red"), png("blue"), tmp_path / "a.png"])])
        assert shop.check().findings == []
        (tmp_path / "a.png").write_bytes(png("green"))
        stored(shop).images[1].write_bytes(b"rotten")
        found = {finding.what: finding.harmful for finding in shop.check().findings}
        assert found == {str(tmp_path / "a.png"): False, str(stored(shop).images[1]): True}

    def test_repair_drops_a_rotten_one_and_its_document_is_indexed_anew(self, shop, tmp_path):
        shop.add([page(), page("other", COLORS[1:3], "x")])
        rotten = stored(shop).images[2]
        rotten.write_bytes(b"rotten")
        done = shop.repair()
        assert any("of 2 documents" in each for each in done), done
        assert not rotten.exists()
        shop.add([page()])
        assert rotten.exists()

    def test_no_image_in_use_is_an_orphan_and_all_others_are(self, shop):
        shop.add([page(), page("other", COLORS[2:], "x")])
        shop.compact()
        assert all(path.exists() for id in ("page", "other") for path in stored(shop, id).images)
        shared, gone = stored(shop).images[2], stored(shop).images[1]
        shop.delete(["page"])
        shop.compact()
        assert shared.exists()
        assert not gone.exists()
        assert shop.check().findings == []

    def test_a_row_that_is_damaged_is_told(self, shop):
        from sqlalchemy import text

        from indexer.errors import CorruptionError

        shop.add([page()])
        with shop.database.write() as connection:
            connection.execute(text("UPDATE documents SET images = '[1]'"))
        with pytest.raises(CorruptionError, match="images of a document"):
            stored(shop)


def test_a_page_is_no_copy_of_its_first_image(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:64") as shop:
        shop.add([page(), Document("copy", image=png("red"))])
        found = Retriever(shop, "sum").search(Query(text="three colors", image=png("red")), k=9)
        assert "page" in [hit.id for hit in found]


def test_more_like_a_page_uses_its_vector(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:64") as shop:
        shop.add([page("a"), page("b"), Document("c", text="word")])
        assert Retriever(shop, "image").search(Query(like="a"), k=1).hits[0].id == "b"
