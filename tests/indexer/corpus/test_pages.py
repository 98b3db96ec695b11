"""Documents with several images keep their order through every way in."""

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from indexer import Collection, index_corpus
from indexer.corpus import open_corpus
from indexer.corpus.records import Record, make_record
from indexer.types import PassedOver, Rejected
from retrieval import Query, Retriever

COLORS = ("red", "green", "blue")


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (24, 16), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "src").mkdir()
    for color in COLORS:
        (tmp_path / f"src/{color}.png").write_bytes(png(color))
    return tmp_path / "src"


def jsonl(folder):
    (folder / "pages.jsonl").write_text(json.dumps({"id": "page", "text": "x", "images": [f"{c}.png" for c in COLORS]}))
    return folder / "pages.jsonl"


def json_list(folder):
    (folder / "pages.json").write_text(
        json.dumps([{"id": "page", "text": "x", "images": [f"{c}.png" for c in COLORS]}])
    )
    return folder / "pages.json"


def parquet(folder):
    table = pa.table({"id": ["page"], "text": ["x"], "images": [[png(color) for color in COLORS]]})
    pq.write_table(table, folder / "pages.parquet")
    return folder / "pages.parquet"


def parquet_structs(folder):
    images = [[{"bytes": png(color), "path": None} for color in COLORS]]
    kind = pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = pa.table({"id": ["page"], "text": ["x"], "images": pa.array(images, kind)})
    pq.write_table(table, folder / "pages.parquet")
    return folder / "pages.parquet"


def shard(folder):
    with tarfile.open(folder / "pages.tar", "w") as archive:
        members = [(f"page.{n}.png", png(color)) for n, color in enumerate(COLORS)]
        for name, content in [*members, ("page.txt", b"x")]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return folder / "pages.tar"


def page_in_a_folder(folder):
    (folder / "page.json").write_text(json.dumps({"id": "page", "text": "x", "images": [f"{c}.png" for c in COLORS]}))
    return folder


def table_in_a_folder(folder):
    jsonl(folder)
    return folder


DOORS = [jsonl, json_list, parquet, parquet_structs, shard, page_in_a_folder, table_in_a_folder]


@pytest.mark.parametrize("door", DOORS)
def test_by_every_door_a_page_is_one_document_of_all_its_images(folder, tmp_path, door):
    source = door(folder)
    with Collection.open(tmp_path / "shop", "fake:64") as shop:
        summary = index_corpus(source, shop)
        assert (summary.documents, summary.rejected) == (1, 0)
        [hit] = Retriever(shop, "text").search(Query(text="x"), k=9).hits
        assert (hit.id, hit.text) == ("page", "x")
        assert [Image.open(path).getpixel((0, 0)) for path in hit.images] == [(255, 0, 0), (0, 128, 0), (0, 0, 255)]
        again = index_corpus(source, shop)
        assert (again.added, again.unchanged) == (0, 1)


def test_images_of_a_page_in_a_folder_are_no_documents_beside_it(folder):
    page_in_a_folder(folder)
    (folder / "alone.png").write_bytes(png("yellow"))
    entries = list(open_corpus(folder))
    assert {each.document.id for each in entries if isinstance(each, Record)} == {"page", "alone.png"}
    over = {each.uri.rpartition("/")[2]: each.kind for each in entries if isinstance(each, PassedOver)}
    assert over == {f"{color}.png": "image of a page" for color in COLORS}


def test_a_page_without_an_id_has_its_path(folder):
    (folder / "deep").mkdir()
    (folder / "deep/page.json").write_text(json.dumps({"text": "x", "images": ["../red.png", "../green.png"], "n": 3}))
    records = {each.document.id: each for each in open_corpus(folder) if isinstance(each, Record)}
    page = records["deep/page.json"]
    assert page.derived
    assert page.document.fields == {"n": 3}
    assert len(page.document.images) == 2


def test_a_page_of_one_image_describes_it(folder):
    (folder / "page.json").write_text(json.dumps({"text": "x", "images": ["red.png"]}))
    records = {each.document.id: each.document for each in open_corpus(folder) if isinstance(each, Record)}
    assert set(records) == {f"{color}.png" for color in COLORS}
    assert records["red.png"].text == "x"


@pytest.mark.parametrize("content", [{"images": 3}, {"images": []}, {"images": [{"id": 1}]}, {"images": ["x"]}, [], {}])
def test_other_json_is_no_page(folder, content):
    (folder / "other.json").write_text(json.dumps(content))
    entries = list(open_corpus(folder))
    assert [each.kind for each in entries if isinstance(each, PassedOver)] == [".json"]
    assert len([each for each in entries if isinstance(each, Record)]) == 3


@pytest.mark.parametrize("named", ["https://example.com/a.jpg", "none.png"])
def test_a_page_that_names_an_image_which_is_not_read_is_a_reject_that_says_which(folder, tmp_path, named):
    (folder / "page.json").write_text(json.dumps({"id": "page", "text": "x", "images": ["red.png", named]}))
    with Collection.open(tmp_path / "shop", "fake:64") as shop:
        summary = index_corpus(folder, shop)
    assert summary.rejected == 1
    assert summary.rejects[0].reason in {"remote-uri", "missing"}


def test_stamps_follow_every_image_and_those_of_one_stay_as_they_were(folder):
    def stamp(*images):
        return make_record(id="a", text="x", images=images, fields={}, uri="u").stamp

    one = make_record(id="a", text="x", image=b"1", fields={}, uri="u").stamp
    assert stamp(b"1") == one
    assert (
        len({one, stamp(b"1", b"2"), stamp(b"1", b"3"), stamp(b"2", b"1"), stamp(b"12"), stamp(b"1", b"2", b"")}) == 6
    )
    before = stamp(folder / "red.png", folder / "green.png")
    (folder / "green.png").write_bytes(png("black") + b"x")
    assert stamp(folder / "red.png", folder / "green.png") != before


def test_too_many_images_are_refused(folder, tmp_path):
    entry = {"id": "page", "text": "x", "images": ["red.png"] * 101}
    (tmp_path / "many.jsonl").write_text(json.dumps(entry))
    with Collection.open(tmp_path / "shop", "fake:64") as shop:
        summary = index_corpus(tmp_path / "many.jsonl", shop)
    assert dict(summary.reasons) == {"too-many-images": 1}


def test_a_damaged_page_is_passed_over_as_what_it_is(folder):
    (folder / "page.json").write_text('{"images": ["red.png", "gre')
    entries = list(open_corpus(folder))
    assert not [each for each in entries if isinstance(each, Rejected)]
    assert [each.kind for each in entries if isinstance(each, PassedOver)] == [".json"]
