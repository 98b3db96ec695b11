"""Texts and JSON files belong to images by stem or full name; the others are accounted for."""

import json
import unicodedata
from pathlib import Path

import pytest

from indexer.corpus import open_corpus
from indexer.corpus.records import Record
from indexer.types import PassedOver

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
def told(tmp_path):
    """The documents of a folder, as their text and fields by id, and the names that are passed over."""

    def read(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        entries = list(open_corpus(tmp_path))
        documents = [each.document for each in entries if isinstance(each, Record)]
        passed = {Path(each.uri).name for each in entries if isinstance(each, PassedOver)}
        assert len(documents) + len(passed) == len(entries)
        return {each.id: (each.text, dict(each.fields)) for each in documents}, passed

    return read


@pytest.mark.parametrize(
    ("files", "text", "fields", "passed"),
    [
        ({"dog.jpg.txt": "full"}, "full", {}, set()),
        ({"dog.jpg.md": "full"}, "full", {}, set()),
        ({"dog.jpg.json": '{"n": 1}'}, None, {"n": 1}, set()),
        ({"dog.jpg.JSON": '{"n": 1}'}, None, {"n": 1}, set()),
        ({"dog.jpg.txt": "full", "dog.txt": "stem"}, "full", {}, {"dog.txt"}),
        ({"dog.jpg.md": "full", "dog.txt": "stem"}, "full", {}, {"dog.txt"}),
        ({"dog.jpg.json": '{"n": 1, "m": 1}', "dog.json": '{"n": 2, "k": 2}'}, None, {"n": 1, "m": 1, "k": 2}, set()),
        ({"dog.jpg.json": '{"text": "json"}', "dog.jpg.txt": "file"}, "json", {}, set()),
        ({"dog.jpg.xmp": "<x/>", "dog.xmp": "<x/>"}, None, {}, {"dog.jpg.xmp", "dog.xmp"}),
        ({"cat.jpg.json": '{"n": 1}'}, None, {}, {"cat.jpg.json"}),
    ],
)
def test_by_full_name_and_by_stem(told, files, text, fields, passed):
    assert told({"dog.jpg": b"", **files}) == ({"dog.jpg": (text, fields)}, passed)


def test_two_images_of_one_stem_share_it_and_keep_their_own(told):
    files = {
        "x.jpg": b"",
        "x.png": b"",
        "x.txt": "both",
        "x.png.txt": "one",
        "x.json": '{"n": 1}',
        "x.jpg.json": '{"n": 2}',
    }
    assert told(files) == ({"x.jpg": ("both", {"n": 2}), "x.png": ("one", {"n": 1})}, set())


def test_a_text_may_have_its_json_by_full_name(told):
    files = {"page.md": "hello", "page.md.json": '{"n": 1}', "x.jpg": b"", "x.txt": "x", "x.txt.json": "{}"}
    assert told(files) == ({"page.md": ("hello", {"n": 1}), "x.jpg": ("x", {})}, {"x.txt.json"})


def test_a_text_named_like_a_file_that_is_no_image_is_a_document(told):
    assert told({"clip.mp4": b"", "clip.mp4.txt": "a film", "clip.mp4.json": '{"n": 1}'}) == (
        {"clip.mp4.txt": ("a film", {"n": 1})},
        {"clip.mp4"},
    )


@pytest.mark.parametrize(
    ("image", "details"),
    [
        ("dog.jpg", "dog.jpg.json"),
        ("dog.jpg", "dog.jpg.supplemental-metadata.json"),
        ("dog.jpg", "dog.jpg.supplemental-meta.json"),
        ("dog.jpg", "dog.jpg.s.json"),
        ("dog.jpg", "dog.jpg..json"),
        ("dog(1).jpg", "dog.jpg(1).json"),
        ("dog(1).jpg", "dog.jpg.supplemental-metadata(1).json"),
        ("d" * 43 + ".jpg", ("d" * 43 + ".jpg")[:46] + ".json"),
        ("d" * 60 + ".jpg", "d" * 46 + ".json"),
        ("dog", "dog.supplemental-metadata.json"),
    ],
)
def test_what_google_takeout_calls_its_json(told, image, details):
    taken = {"timestamp": "1432899863", "formatted": "29 May 2015"}
    sidecar = {"title": image, "description": "my dog", "photoTakenTime": taken, "geoData": {"latitude": 1.5}}
    documents, passed = told({image: PNG, "dog2.jpg": PNG, details: json.dumps(sidecar)})
    assert documents == {image: ("my dog", sidecar), "dog2.jpg": (None, {})}
    assert passed == set()


@pytest.mark.parametrize(
    ("sidecar", "text"),
    [
        ({"photoTakenTime": {}, "description": "a"}, "a"),
        ({"photoTakenTime": {}, "description": ""}, None),
        ({"photoTakenTime": {}, "description": 5}, None),
        ({"photoTakenTime": {}, "description": "a", "caption": "b"}, "b"),
        ({"description": "a"}, None),
    ],
)
def test_the_description_is_the_text_in_the_json_of_takeout_alone(told, sidecar, text):
    assert told({"x.jpg": b"", "x.jpg.json": json.dumps(sidecar)})[0]["x.jpg"] == (text, sidecar)


def test_a_text_file_goes_before_the_description(told):
    files = {"x.jpg": b"", "x.txt": "file", "x.jpg.json": '{"photoTakenTime": {}, "description": "a"}'}
    assert told(files)[0]["x.jpg"][0] == "file"


@pytest.mark.parametrize("sidecar", ["café.txt", "café.jpg.txt", "café.jpg.supplemental-metadata.json", "café.json"])
@pytest.mark.parametrize(("image_form", "sidecar_form"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_compared_in_one_normal_form(told, sidecar, image_form, sidecar_form):
    image = unicodedata.normalize(image_form, "café.jpg")
    sidecar = unicodedata.normalize(sidecar_form, sidecar)
    documents, passed = told({image: b"", sidecar: '{"text": "coffee"}' if sidecar.endswith("json") else "coffee"})
    assert ({id: text for id, (text, _) in documents.items()}, passed) == ({image: "coffee"}, set())


def test_two_names_that_differ_in_their_normal_forms_keep_their_own(told):
    forms = {form: unicodedata.normalize(form, "café") for form in ("NFC", "NFD")}
    files = {
        f"{name}{suffix}": b"" if suffix == ".jpg" else form
        for form, name in forms.items()
        for suffix in (".jpg", ".txt")
    }
    documents, passed = told(files)
    assert (documents, passed) == ({f"{name}.jpg": (form, {}) for form, name in forms.items()}, set())


def test_two_json_files_of_one_image_are_both_accounted_for(told):
    files = {"dog.jpg": b"", "dog.jpg.s.json": '{"n": 1}', "dog.jpg.supp.json": '{"n": 2}'}
    assert told(files) == ({"dog.jpg": (None, {"n": 2})}, {"dog.jpg.s.json"})


def test_images_without_an_image_suffix_have_their_sidecars(told):
    files = {"IMG_7": PNG, "IMG_7.txt": "seven", "b.photo": PNG, "b.photo.json": '{"n": 1}', "c": b"", "c.txt": "alone"}
    assert told(files) == ({"IMG_7": ("seven", {}), "b.photo": (None, {"n": 1}), "c.txt": ("alone", {})}, {"c"})


def test_many_files_of_one_stem_are_asked_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("indexer.corpus.folder.looks_like_image", lambda path: asked.append(path.name) or False)
    for number in range(200):
        (tmp_path / f"frame.{number:04}").touch()
    for name in "frame.txt", "frame.json", "frame.md":
        (tmp_path / name).write_text("{}")
    assert sum(isinstance(each, Record) for each in open_corpus(tmp_path)) == 2
    assert len(asked) == len(set(asked)) == 200
