"""The job takes rules for reading images, and retries rejected images when the rules change."""

import io
import json

import pytest
from PIL import ExifTags, Image
from typer.testing import CliRunner

from indexer import Collection, Document, index_corpus
from indexer.corpus.image_rules import ImageRules
from indexer.errors import CallError
from pipelines.cli.app import app
from retrieval import Query, Retriever


def jpeg(size=(40, 30), year=None):
    exif = Image.Exif()
    if year is not None:
        exif[ExifTags.Base.Model] = "X100"
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"{year}:06:01 12:00:00"
    file = io.BytesIO()
    Image.new("RGB", size, "olive").save(file, "JPEG", exif=exif.tobytes() if year else b"")
    return file.getvalue()


@pytest.fixture
def shop(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:16") as collection:
        yield collection


def fields(collection):
    hits = Retriever(collection, "text").search(Query(text="x"), k=100)
    return {hit.id: dict(hit.fields) for hit in hits}


def test_photographs_of_a_folder_are_found_by_year(tmp_path, shop):
    (tmp_path / "photos").mkdir()
    for year in 2018, 2021, 2024:
        (tmp_path / f"photos/{year}.jpg").write_bytes(jpeg(year=year))
    index_corpus(tmp_path / "photos", shop)
    hits = Retriever(shop, "text").search(Query(text="x"), k=9, where={"year": {"$gte": 2020}})
    assert {hit.id for hit in hits} == {"2021.jpg", "2024.jpg"}
    assert fields(shop)["2021.jpg"] == {
        "taken": "2021-06-01T12:00:00", "year": 2021, "camera": "X100", "width": 40, "height": 30
    }  # fmt: skip


@pytest.mark.parametrize("door", ["add", "index"])
def test_own_fields_win_and_the_rest_can_be_left_out(tmp_path, shop, door):
    def store(exif):
        if door == "add":
            shop.add([Document("a.jpg", image=jpeg(year=2021), fields={"year": 1900, "own": 1})], exif=exif)
        else:
            (tmp_path / "photos").mkdir(exist_ok=True)
            (tmp_path / "photos/a.jpg").write_bytes(jpeg(year=2021))
            (tmp_path / "photos/a.json").write_text(json.dumps({"year": 1900, "own": 1, "try": exif}))
            index_corpus(tmp_path / "photos", shop, exif=exif)
        return fields(shop)["a.jpg"]

    told = store(True)
    assert (told["year"], told["own"], told["camera"]) == (1900, 1, "X100")
    assert set(store(False)) <= {"year", "own", "try"}


@pytest.mark.parametrize("workers", [0, 1])
def test_what_was_too_large_is_read_when_the_limit_is_raised(tmp_path, shop, workers):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (100, 100)).save(tmp_path / "photos/a.png")
    (tmp_path / "photos/b.jpg").write_bytes(jpeg((100, 100)))
    first = index_corpus(tmp_path / "photos", shop, max_pixels=5_000, workers=workers)
    assert (first.documents, dict(first.reasons)) == (1, {"too-many-pixels": 1})
    assert "`max_pixels`" in first.rejects[0].detail
    again = index_corpus(tmp_path / "photos", shop, max_pixels=5_000, workers=workers)
    assert (again.added, again.rejected) == (0, 1)
    raised = index_corpus(tmp_path / "photos", shop, max_pixels=10_000, workers=workers)
    assert (raised.documents, raised.added, raised.unchanged, dict(raised.reasons)) == (2, 1, 1, {})


def test_what_a_missing_package_refused_is_read_when_it_is_there(tmp_path, shop, monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="pip install 'underdrawing[heif]' reads HEIF")
    (tmp_path / "photos").mkdir()
    for name in "a.heic", "b.HEIC":
        heif.from_pillow(Image.new("RGB", (30, 20))).save(tmp_path / "photos" / name)
    with monkeypatch.context() as without:
        without.setitem(__import__("sys").modules, "pillow_heif", None)
        without.setattr("importlib.util.find_spec", lambda name: None)
        first = index_corpus(tmp_path / "photos", shop)
    assert (first.documents, dict(first.reasons)) == (0, {"missing-package": 2})
    assert index_corpus(tmp_path / "photos", shop).documents == 2


def test_add_takes_the_limit(shop):
    file = io.BytesIO()
    Image.new("RGB", (100, 100)).save(file, "PNG")
    documents = [Document("a", image=file.getvalue()), Document("b", text="b")]
    assert [each.reason for each in shop.add(documents, max_pixels=9_999, skip_rejected=True).rejected] == [
        "too-many-pixels"
    ]
    assert not shop.add(documents, max_pixels=10_000).rejected


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "many"])
def test_a_limit_that_makes_no_sense(wrong):
    with pytest.raises(CallError, match="max_pixels"):
        ImageRules(wrong)


def test_the_command_line(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(jpeg(year=2021))
    Image.new("RGB", (100, 100)).save(tmp_path / "photos/b.png")
    call = [
        "index",
        str(tmp_path / "photos"),
        str(tmp_path / "c"),
        "--model",
        "fake:8",
        "--max-pixels",
        "5000",
        "--no-exif",
        "--json",
    ]
    done = CliRunner().invoke(app, call)
    told = json.loads(done.stdout)
    assert (told["documents"], told["reasons"]) == (1, {"too-many-pixels": 1})
    with Collection.open(tmp_path / "c") as collection:
        assert fields(collection) == {"a.jpg": {}}
