"""The columns for id, text and image: one rule for all tables, by name, type and value."""

import base64
import csv
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from indexer.corpus.columns import IMAGE_NAMES, URL_NAMES, Columns, find_parts
from indexer.corpus.csv_table import CsvCorpus
from indexer.corpus.json_file import JsonCorpus
from indexer.corpus.jsonl import JsonlCorpus
from indexer.corpus.parquet import ParquetCorpus
from indexer.corpus.records import Record
from indexer.types import PassedOver, Rejected


def png(color="red"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "PNG")
    return file.getvalue()


PNG = png()
TEXT_DOORS = ("jsonl", "json", "csv", "tsv")
DOORS = (*TEXT_DOORS, "parquet")


@pytest.fixture
def door(tmp_path):
    """Write rows as a kind of table, and read them: records, rejects, and kinds that were passed over."""

    def through(kind, *rows, **columns):
        path = tmp_path / f"table.{kind}"
        named = Columns(**columns)
        names = list(dict.fromkeys(name for row in rows for name in row))
        match kind:
            case "jsonl":
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
                corpus = JsonlCorpus(path, columns=named)
            case "json":
                path.write_text(json.dumps(rows, indent=1))
                corpus = JsonCorpus(path, columns=named)
            case "csv" | "tsv":
                with path.open("w", newline="") as file:
                    writer = csv.DictWriter(file, names, delimiter="\t" if kind == "tsv" else ",")
                    writer.writeheader()
                    writer.writerows(rows)
                corpus = CsvCorpus(path, columns=named)
            case "parquet":
                pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
                corpus = ParquetCorpus([path], str(path), columns=named)
        entries = list(corpus)
        return (
            [each for each in entries if isinstance(each, Record)],
            [each for each in entries if isinstance(each, Rejected)],
            [each.kind for each in entries if isinstance(each, PassedOver)],
        )

    return through


class TestImages:
    @pytest.mark.parametrize("kind", DOORS)
    @pytest.mark.parametrize(
        "name", [*IMAGE_NAMES, "file_name", "path", "filename", "Image", "IMAGE PATH", "File-Name"]
    )
    def test_paths_by_their_usual_names(self, door, tmp_path, kind, name):
        value = "a/b.png"
        if "64" in name:
            value = base64.b64encode(PNG).decode()
        [record], rejects, _ = door(kind, {name: value, "text": "t", "n": 5})
        assert record.document.image == (PNG if "64" in name else tmp_path / "a/b.png")
        assert (record.document.text, record.document.fields, rejects) == ("t", {"n": 5}, [])

    @pytest.mark.parametrize("kind", TEXT_DOORS)
    @pytest.mark.parametrize("name", ["image", "img", "picture", "jpg", "image_data"])
    @pytest.mark.parametrize("form", ["data:image/png;base64,{}", "DATA:image/png;charset=x;base64,{}", "{}"])
    def test_encoded_images(self, door, kind, name, form):
        content = png() + bytes(200)
        value = form.format(base64.b64encode(content).decode())
        [record], _, _ = door(kind, {"text": "t", name: value})
        assert (record.document.image, record.document.fields) == (content, {})

    @pytest.mark.parametrize("kind", DOORS)
    def test_a_file_url_is_a_path(self, door, tmp_path, kind):
        [record], _, _ = door(kind, {"image": (tmp_path / "a b.png").as_uri()})
        assert record.document.image == tmp_path / "a b.png"

    @pytest.mark.parametrize("kind", DOORS)
    @pytest.mark.parametrize(
        "row",
        [
            *({name: "https://example.org/1", "text": "t"} for name in URL_NAMES),
            {"url": "https://example.org/a.jpg?w=3", "text": "t"},
            {"URL": "https://example.org/1", "caption": "t"},
            {"url": "https://example.org/1"},
            {"image": "s3://bucket/a", "text": "t"},
            {"file_name": "http://[::1/a.png", "text": "t"},
        ],
    )
    def test_urls_are_refused_with_a_remedy(self, door, kind, row):
        records, [reject], _ = door(kind, row)
        assert (records, reject.reason) == ([], "remote-uri")
        assert "Download" in reject.detail

    @pytest.mark.parametrize("kind", DOORS)
    @pytest.mark.parametrize(
        "row",
        [
            {"url": "https://example.org/page", "text": "an article"},
            {"path": "src/main.py", "text": "code"},
            {"file_name": "song.mp3", "text": "lyrics"},
            {"photos": "12", "text": "a flat"},
            {"picture": "yes", "text": "t"},
            {"uri": "urn:isbn:1", "text": "a book"},
            {"title": "a.png", "text": "about a file"},
            {"note": "you can see it in the file called a.png", "text": "t"},
            {"source": "https://example.org/a.png", "text": "t"},
            {"suffix": ".png", "text": "t"},
        ],
    )
    def test_texts_about_other_things_stay_texts(self, door, kind, row):
        [record], rejects, _ = door(kind, row)
        assert (record.document.image, rejects) == (None, [])
        [name] = set(row) - {"text"}
        assert str(record.document.fields[name]) == row[name]

    @pytest.mark.parametrize("kind", DOORS)
    @pytest.mark.parametrize("name", ["image", "img", "images", "image_path", "file_name", "jpg"])
    def test_an_image_that_is_not_there_is_named(self, door, tmp_path, kind, name):
        """It is left to the decoder, which rejects it; no text document is made of the rest."""
        [record], _, _ = door(kind, {name: "gone.jpg", "text": "t"})
        assert record.document.image == tmp_path / "gone.jpg"

    @pytest.mark.parametrize("kind", DOORS)
    @pytest.mark.parametrize("name", ["shot", "front view", "src", "Bild"])
    @pytest.mark.parametrize("value", ["a.png", "d/my photo.JPEG", "../x.cr2", "a.svg"])
    def test_a_path_of_an_image_is_one_whatever_its_name(self, door, tmp_path, kind, name, value):
        [record], _, _ = door(kind, {"id": "i.png", name: value, "text": "t", "title": "t.png"})
        assert (record.document.id, record.document.image) == ("i.png", tmp_path / value)
        assert record.document.fields == {"title": "t.png"}

    @pytest.mark.parametrize("kind", DOORS)
    def test_of_two_the_choice_is_told(self, door, tmp_path, kind):
        records, _, passed_over = door(kind, *[{"img": "b.png", "image": "a.png"}] * 3)
        assert [each.document.image for each in records] == [tmp_path / "a.png"] * 3
        assert [each.document.fields for each in records] == [{"img": "b.png"}] * 3
        assert passed_over == ["column img beside image"]

    @pytest.mark.parametrize("kind", DOORS)
    def test_where_the_first_is_empty_the_other_counts(self, door, tmp_path, kind):
        rows = [{"image": value, "img": "b.png"} for value in ("a.png", None, "")]
        records, _, _ = door(kind, *rows)
        assert [each.document.image.name for each in records] == ["a.png", "b.png", "b.png"]

    @pytest.mark.parametrize("kind", DOORS)
    @pytest.mark.parametrize(("name", "image"), [("shot", "a.png"), ("image", "b.png"), ("", None)])
    def test_the_caller_may_name_the_column(self, door, tmp_path, kind, name, image):
        [record], _, _ = door(kind, {"shot": "a.png", "image": "b.png", "text": "t"}, image=name)
        assert record.document.image == (None if image is None else tmp_path / image)

    @pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
    def test_several_images(self, door, tmp_path, kind):
        [record], _, passed_over = door(kind, {"images": ["a.png", "b.png", "c.png"], "text": "t"})
        assert record.document.images == (tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png")
        assert (record.document.image, passed_over) == (tmp_path / "a.png", [])

    @pytest.mark.parametrize("kind", DOORS)
    @pytest.mark.parametrize("written", [json.dumps, str])
    def test_several_images_in_one_cell(self, door, tmp_path, kind, written):
        names = ["a.png", "b's.png"]
        records, rejects, _ = door(kind, {"images": written(names), "text": "t"}, {"images": "[]", "text": "t"})
        assert [each.document.images for each in records] == [tuple(tmp_path / name for name in names), ()]
        assert rejects == []

    @pytest.mark.parametrize("value", ["[a.png]", "[1, 2]", "[open('a.png')]", "[" * 60_000 + "]" * 5_000, "[1a.png]"])
    def test_what_is_no_list_is_a_name(self, door, tmp_path, value):
        [record], _, _ = door("jsonl", {"image": value, "text": "t"})
        assert record.document.image == tmp_path / value

    @pytest.mark.parametrize("kind", DOORS)
    @pytest.mark.parametrize("column", ["file_name", "image", "scan"])
    def test_paths_from_windows(self, door, tmp_path, kind, column):
        (tmp_path / "back\\slash.png").write_bytes(PNG)
        row = {column: "sub\\deep\\a.png", "text": "t"}
        records, _, _ = door(kind, row, row | {column: "back\\slash.png"})
        assert [each.document.image for each in records] == [tmp_path / "sub/deep/a.png", tmp_path / "back\\slash.png"]

    def test_each_image_counts_in_the_stamp(self, door):
        stamps = {door("jsonl", {"images": images, "text": "t"})[0][0].stamp for images in (["YQ=="], ["YQ==", "YQ=="])}
        assert len(stamps) == 2

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ([[["a.png"]]], None),
            ([[[[["a.png"]]]]], "bad-image"),
            ([5], "bad-image"),
            ({"a": 1}, "bad-image"),
            (5, "bad-image"),
        ],
    )
    def test_odd_values(self, door, value, reason):
        _, rejects, _ = door("jsonl", {"image": value, "text": "t"})
        assert [each.reason for each in rejects] == ([] if reason is None else [reason])

    def test_deep_values_are_a_reject(self, door):
        deep = json.loads("[" * 300 + "]" * 300)
        for name in "image", "images", "photos", "text", "caption", "fields", "file_name":
            records, rejects, _ = door("jsonl", {name: deep, "text" if name != "text" else "x": "t"})
            assert len(records) + len(rejects) == 1


class TestTypes:
    """Columns of Parquet that hold images under any name."""

    STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

    def read(self, path, columns, metadata=None):
        table = pa.table(columns)
        pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path)
        entries = list(ParquetCorpus([path], str(path)))
        return [e for e in entries if isinstance(e, Record)], [e.kind for e in entries if isinstance(e, PassedOver)]

    @pytest.mark.parametrize("name", ["photograph", "front", "data", "x.y"])
    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            ([PNG, PNG], pa.binary()),
            ([None, PNG], pa.large_binary()),
            ([{"bytes": PNG, "path": None}, None], STRUCT),
            ([{"bytes": None, "path": "a.jpg"}] * 2, STRUCT),
            ([[PNG], [PNG]], pa.list_(pa.binary())),
            ([[{"bytes": PNG, "path": "a"}], []], pa.list_(STRUCT)),
        ],
    )
    def test_by_type(self, tmp_path, name, values, kind):
        records, passed_over = self.read(tmp_path / "t.parquet", {name: pa.array(values, kind), "text": ["t", "u"]})
        assert any(each.document.image in (PNG, tmp_path / "a.jpg") for each in records)
        assert (len(records), passed_over) == (2, [])
        assert all(not each.document.fields for each in records)

    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            ([b"RIFF\0\0\0\0WAVE"], pa.binary()),
            ([{"bytes": b"ID3", "path": "a.mp3"}], STRUCT),
            ([{"bytes": None, "path": "a.mp3"}], STRUCT),
            ([{"key": b"1"}], pa.struct([("key", pa.binary())])),
            ([[("k", b"1")]], pa.map_(pa.string(), pa.binary())),
            ([None], pa.binary()),
        ],
    )
    def test_bytes_that_are_no_images_are_passed_over(self, tmp_path, values, kind):
        [record], passed_over = self.read(tmp_path / "t.parquet", {"x": pa.array(values, kind), "text": ["t"]})
        assert (record.document.text, record.document.image, passed_over) == ("t", None, ["column of bytes"])

    def test_a_name_goes_before_a_type(self, tmp_path):
        [record], passed_over = self.read(tmp_path / "t.parquet", {"shot": [png("blue")], "image": [PNG]})
        assert (record.document.image, passed_over) == (PNG, ["column shot beside image"])

    @pytest.mark.parametrize(("feature", "is_image"), [("Image", True), ("Audio", False)])
    def test_what_hugging_face_notes_counts(self, tmp_path, feature, is_image):
        noted = json.dumps({"info": {"features": {"x": {"_type": feature}}}})
        values = pa.array([{"bytes": b"?", "path": None}], self.STRUCT)
        [record], _ = self.read(tmp_path / "t.parquet", {"x": values, "text": ["t"]}, {"huggingface": noted})
        assert record.document.image == (b"?" if is_image else None)

    @pytest.mark.parametrize(
        "noted", ["", "[]", '{"info": 5}', '{"info": {"features": {"x": [[[[[1]]]]]}}}', "[" * 5_000]
    )
    def test_odd_notes_do_no_harm(self, tmp_path, noted):
        [record], _ = self.read(tmp_path / "t.parquet", {"x": [PNG]}, {"huggingface": noted})
        assert record.document.image == PNG


class TestTexts:
    @pytest.mark.parametrize("kind", DOORS)
    @pytest.mark.parametrize(
        ("row", "text", "fields"),
        [
            ({"text": "a"}, "a", {}),
            ({"Text": "a"}, "a", {}),
            ({"caption": "a"}, "a", {"caption": "a"}),
            ({"CAPTION": "a"}, "a", {"CAPTION": "a"}),
            ({"captions": "a"}, "a", {"captions": "a"}),
            ({"txt": "a"}, "a", {"txt": "a"}),
            ({"caption": "b", "text": "a"}, "a", {"caption": "b"}),
            ({"text": " ", "caption": "b"}, "b", {"caption": "b"}),
            ({"txt": "c", "caption": "b"}, "b", {"txt": "c", "caption": "b"}),
            ({"title": "a"}, None, {"title": "a"}),
        ],
    )
    def test_names(self, door, kind, row, text, fields):
        [record], _, _ = door(kind, {"image": "a.png"} | row)
        assert (record.document.text, record.document.fields) == (text, fields)

    @pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
    def test_a_list_is_joined(self, door, kind):
        [record], _, _ = door(kind, {"captions": ["a", "", "b"]})
        assert (record.document.text, record.document.fields) == ("a\nb", {"captions": ["a", "", "b"]})

    @pytest.mark.parametrize("kind", DOORS)
    def test_the_caller_may_name_the_column(self, door, kind):
        [record], _, _ = door(kind, {"title": "a", "text": "b"}, text="title")
        assert (record.document.text, record.document.fields) == ("a", {"text": "b"})

    @pytest.mark.parametrize("kind", DOORS)
    def test_a_row_with_neither_names_its_columns(self, door, kind):
        _, [reject], _ = door(kind, {"title": "a", "n": "5"})
        assert reject.reason == "empty"
        assert "'title', 'n'" in reject.detail
        assert "text_column" in reject.detail


class TestIds:
    @pytest.mark.parametrize("kind", DOORS)
    def test_by_name(self, door, kind):
        records, _, _ = door(kind, {"id": "a", "text": "t"}, {"id": None, "text": "t"})
        assert [each.derived for each in records] == [False, True]
        [record], _, _ = door(kind, {"sku": "x1", "id": "a", "text": "t"}, id="sku")
        assert (record.document.id, record.derived, record.document.fields) == ("x1", False, {"id": "a"})

    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    @pytest.mark.parametrize("part", ["id", "text", "image"])
    def test_a_column_that_is_not_there(self, door, kind, part):
        records, [reject], _ = door(kind, {"text": "t", "n": "5"}, **{part: "wrong"})
        assert (records, reject.reason) == ([], "no-column")
        assert "'wrong'" in reject.detail
        assert "'text', 'n'" in reject.detail
        assert reject.detail.count(f".{kind}") <= 1


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_key_that_no_object_has_is_told(door, kind):
    records, [reject], _ = door(kind, {"text": "t"}, {"text": "u", "shot": None}, image="wrong", text="text")
    assert (len(records), reject.reason, reject.hides) == (2, "no-column", None)
    assert "'wrong'" in reject.detail


class TestSamples:
    """The JSON of a member of an archive, by the same rule."""

    def read(self, path, members):
        with tarfile.open(path, "w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        from indexer.corpus.webdataset import WebDatasetCorpus

        entries = list(WebDatasetCorpus([path], str(path)))
        return [e for e in entries if isinstance(e, Record)], [e for e in entries if isinstance(e, Rejected)]

    @pytest.mark.parametrize(
        ("details", "id", "derived"),
        [
            ({"id": 0}, "0", False),
            ({"ID": "own"}, "own", False),
            ({"ID": "other", "id": "own"}, "own", False),
            ({"id": ""}, "x", True),
            ({"id": None}, "x", True),
        ],
    )
    def test_id(self, tmp_path, details, id, derived):
        [record], _ = self.read(tmp_path / "a.tar", {"x.png": PNG, "x.json": json.dumps(details).encode()})
        assert (record.document.id, record.derived) == (id, derived)

    def test_a_key_of_no_name_is_a_field(self, tmp_path):
        [record], _ = self.read(tmp_path / "a.tar", {"x.png": PNG, "x.json": b'{"": 3}'})
        assert (record.document.image, record.document.fields) == (PNG, {"": 3})

    @pytest.mark.parametrize("details", [{"text": "a"}, {"caption": "a"}, {"Caption": "a"}, {"captions": ["a"]}])
    def test_text(self, tmp_path, details):
        [record], _ = self.read(tmp_path / "a.tar", {"x.png": PNG, "x.json": json.dumps(details).encode()})
        assert record.document.text == "a"

    def test_a_url_beside_an_image_is_a_field(self, tmp_path):
        details = {"url": "https://example.org/a.jpg", "caption": "a", "image_path": "b.png", "jpg": "c.jpg"}
        [record], _ = self.read(tmp_path / "a.tar", {"x.png": PNG, "x.json": json.dumps(details).encode()})
        assert (record.document.image, record.document.fields) == (PNG, details)

    def test_an_encoded_image_is_one(self, tmp_path):
        details = {"image_base64": base64.b64encode(PNG).decode(), "text": "t"}
        [record], _ = self.read(tmp_path / "a.tar", {"x.json": json.dumps(details).encode()})
        assert (record.document.image, record.document.fields) == (PNG, {})

    @pytest.mark.parametrize(
        "details", [{"image": "b.png"}, {"file_name": "b.png"}, {"image_url": "https://example.org/a"}]
    )
    def test_an_image_that_is_not_there_is_a_reject(self, tmp_path, details):
        records, [reject] = self.read(tmp_path / "a.tar", {"x.txt": b"t", "x.json": json.dumps(details).encode()})
        assert (records, reject.reason) == ([], "bad-image" if "image_url" not in details else "remote-uri")


def test_wide_rows_are_read_by_the_same_rule(tmp_path):
    row = {f"c{n}": n for n in range(1_000)} | {"Image": "a.png", "Caption": "t"}
    parts = find_parts(row, Columns(), tmp_path)
    assert (parts.images, parts.text, len(parts.fields)) == ([tmp_path / "a.png"], "t", 1_001)


@pytest.mark.parametrize("kind", DOORS)
def test_names_of_files_by_the_end_of_their_columns_names(door, kind, tmp_path):
    row = {"input_file_name": "a.png", "output_file_name": "b.png", "text": "make it red"}
    [record], rejects, _ = door(kind, row)
    assert (record.document.image, record.document.text, rejects) == (tmp_path / "a.png", "make it red", [])
    assert record.document.fields == {"output_file_name": "b.png"}


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_lists_of_names_of_files(door, kind, tmp_path):
    [record], _, passed = door(kind, {"view_file_names": ["a.png", "b.png"], "file_name": None, "n": 1})
    assert (record.document.images, passed) == ((tmp_path / "a.png", tmp_path / "b.png"), [])


def test_other_files_named_by_such_columns_are_fields(door):
    [record], rejects, _ = door("jsonl", {"audio_file_name": "a.mp3", "text": "a song"})
    assert (record.document.image, record.document.fields, rejects) == (None, {"audio_file_name": "a.mp3"}, [])
