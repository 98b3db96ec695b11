"""A table that names images of its folder gives them text and fields; each image is one document."""

import csv
import json
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.corpus import open_corpus
from indexer.corpus.named_files import NamedFiles
from indexer.corpus.records import Record
from indexer.types import PassedOver, Rejected

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
def told(tmp_path):
    """The documents of a folder by id, as text and fields, and its rejects; none of it is passed over."""

    def read(table, names=("a.png", "b.png"), table_name="metadata.jsonl"):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(PNG)
        (tmp_path / table_name).parent.mkdir(parents=True, exist_ok=True)
        if table_name.endswith(".parquet"):
            keys = dict.fromkeys(key for row in table for key in row)
            pq.write_table(pa.table({key: [row.get(key) for row in table] for key in keys}), tmp_path / table_name)
        elif table_name.endswith(".json"):
            (tmp_path / table_name).write_text(json.dumps(table))
        elif table_name.endswith(("csv", "tsv")):
            with (tmp_path / table_name).open("w", newline="") as file:
                writer = csv.DictWriter(file, list(table[0]), delimiter="\t" if table_name.endswith("tsv") else ",")
                writer.writeheader()
                writer.writerows(table)
        else:
            (tmp_path / table_name).write_text("".join(json.dumps(row) + "\n" for row in table))
        entries = list(open_corpus(tmp_path))
        documents = [each.document for each in entries if isinstance(each, Record)]
        assert len({each.id for each in documents}) == len(documents)
        assert all(each.image is not None for each in documents)
        return (
            {each.id: (each.text, dict(each.fields)) for each in documents},
            [each for each in entries if isinstance(each, Rejected)],
        )

    return read


@pytest.mark.parametrize("key", ["file_name", "image", "image_file_name", "File Name", "filename", "path"])
@pytest.mark.parametrize("stem", ["metadata", "captions"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "json", "parquet"])
def test_text_and_fields_reach_the_images(told, suffix, stem, key):
    table = [{key: "a.png", "text": "red", "n": 1}, {key: "b.png", "text": "blue", "n": 2}]
    found = told(table, table_name=f"{stem}.{suffix}")
    assert found == ({"a.png": ("red", {"n": 1}), "b.png": ("blue", {"n": 2})}, [])


def test_rows_without_text_reach_them_too(told):
    table = [
        {"file_name": "a.png", "label": 3, "objects": {"bbox": [[1, 2, 3, 4]]}},
        {"file_name": "b.png", "label": 4},
    ]
    assert told(table) == (
        {"a.png": (None, {"label": 3, "objects": {"bbox": [[1, 2, 3, 4]]}}), "b.png": (None, {"label": 4})},
        [],
    )


def test_a_caption_is_text_and_stays_a_field(told):
    documents, _ = told([{"file_name": "a.png", "caption": "red"}, {"file_name": "a.png", "caption": "round"}])
    assert documents["a.png"] == ("red\nround", {"caption": "red"})


def test_urls_in_place_of_names_are_rejects_and_the_images_documents(told):
    documents, rejects = told([{"file_name": "https://example.org/a.png", "text": "red"}] * 2)
    assert set(documents) == {"a.png", "b.png"}
    assert [each.reason for each in rejects] == ["remote-uri"] * 2


def test_images_below_are_reached_and_the_nearest_table_counts(told, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/metadata.jsonl").write_text('{"image": "b.png", "text": "near"}\n')
    table = [{"image": "sub/a.png", "text": "far"}, {"image": "./c/../c/x.png", "text": "deep"}]
    documents, rejects = told(table, ["sub/a.png", "sub/b.png", "c/x.png"])
    assert (documents, rejects) == (
        {"c/x.png": ("deep", {}), "sub/a.png": ("far", {}), "sub/b.png": ("near", {})},
        [],
    )


def test_images_that_it_does_not_name_are_documents(told):
    assert told([{"image": "a.png", "text": "red"}]) == ({"a.png": ("red", {}), "b.png": (None, {})}, [])


def test_files_that_are_missing_are_rejects(told):
    documents, [first, second] = told(
        [
            {"image": "gone.png", "text": "x"},
            {"image": "a.png", "text": "red"},
            {"id": "own", "image": "sub/gone.png", "text": "y"},
        ]
    )
    assert documents == {"a.png": ("red", {}), "b.png": (None, {})}
    assert [(each.reason, each.hides) for each in (first, second)] == [("missing", "gone.png"), ("missing", "own")]
    assert first.uri.endswith("metadata.jsonl#line=1")
    assert "gone.png" in first.detail


def test_ids_of_the_table_are_kept(told, tmp_path):
    documents, _ = told([{"id": "cat-7", "image": "a.png", "text": "red"}])
    assert documents == {"cat-7": ("red", {}), "b.png": (None, {})}
    assert [each.derived for each in open_corpus(tmp_path) if isinstance(each, Record)] == [False, True]


def test_sidecars_go_before_the_table(told, tmp_path):
    (tmp_path / "a.txt").write_text("file")
    (tmp_path / "b.json").write_text('{"n": 5, "m": 6}')
    table = [{"image": name, "text": "table", "n": 1, "k": 2} for name in ("a.png", "b.png")]
    assert told(table)[0] == {"a.png": ("file", {"n": 1, "k": 2}), "b.png": ("table", {"n": 5, "m": 6, "k": 2})}


def test_texts_of_one_image_are_joined_and_other_rows_for_it_are_rejects(told):
    documents, rejects = told(
        [
            {"image": "a.png", "text": "one", "n": 1},
            {"image": "a.png", "text": "two", "n": 1},
            {"image": "./a.png", "text": "three", "n": 2},
            {"image": "a.png", "n": 1},
        ]
    )
    assert documents["a.png"] == ("one\ntwo", {"n": 1})
    assert [(each.reason, each.uri.rpartition("#")[2]) for each in rejects] == [
        ("duplicate-id", "line=3"),
        ("duplicate-id", "line=4"),
    ]


def test_hidden_images_that_it_names_are_documents(told):
    documents, rejects = told([{"image": ".store/a.png", "text": "hidden"}], [".store/a.png", "b.png"])
    assert (documents, rejects) == ({".store/a.png": ("hidden", {}), "b.png": (None, {})}, [])


def test_images_elsewhere_are_documents_of_the_table(tmp_path, told):
    (tmp_path.parent / f"{tmp_path.name}-elsewhere.png").write_bytes(PNG)
    try:
        documents, rejects = told([{"image": f"../{tmp_path.name}-elsewhere.png", "text": "far"}], ["b.png"])
    finally:
        (tmp_path.parent / f"{tmp_path.name}-elsewhere.png").unlink()
    assert (documents, rejects) == ({"metadata.jsonl-1": ("far", {}), "b.png": (None, {})}, [])


def test_broken_rows_are_rejects_and_their_images_documents(told):
    documents, [reject] = told([{"image": "a.png", "text": 5}, {"image": "b.png", "text": "blue"}])
    assert documents == {"a.png": (None, {}), "b.png": ("blue", {})}
    assert reject.reason == "bad-text"


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_are_compared_in_one_normal_form(told, on_disk, in_table):
    on_disk, in_table = (unicodedata.normalize(form, "café.png") for form in (on_disk, in_table))
    documents, rejects = told([{"image": in_table, "text": "coffee"}], [on_disk])
    assert (documents, rejects) == ({on_disk: ("coffee", {})}, [])


def test_the_stamp_changes_with_its_row_alone(told, tmp_path):
    def stamps():
        return {each.document.id: each.stamp for each in open_corpus(tmp_path) if isinstance(each, Record)}

    told([{"image": "a.png", "text": "red"}, {"image": "b.png", "text": "blue"}])
    before = stamps()
    told([{"image": "a.png", "text": "RED"}, {"image": "b.png", "text": "blue"}], names=())
    after = stamps()
    assert before["a.png"] != after["a.png"]
    assert before["b.png"] == after["b.png"]


def test_a_readme_beside_it_is_passed_over(told, tmp_path):
    (tmp_path / "README.md").write_text("# A card")
    assert set(told([{"image": "a.png", "text": "red"}])[0]) == {"a.png", "b.png"}
    assert [each.kind for each in open_corpus(tmp_path) if isinstance(each, PassedOver)] == ["README beside tables"]


def test_it_reaches_images_that_a_pattern_names(told, tmp_path):
    told([{"image": "a.png", "text": "red"}, {"image": "gone.png", "text": "x"}])
    [record] = open_corpus(tmp_path / "a*.png")
    assert record.document.text == "red"
    [alone] = open_corpus(tmp_path / "a.png")
    assert alone.document.text == "red"


def test_the_temporary_file_is_closed_with_the_walk(told, tmp_path, monkeypatch):
    closed = []
    close = NamedFiles.close
    monkeypatch.setattr(NamedFiles, "close", lambda self: closed.append(self) or close(self))
    told([{"image": "a.png", "text": "red"}])
    entries = iter(open_corpus(tmp_path))
    next(entries)
    entries.close()
    assert len(closed) == 2


def test_a_table_is_in_force_in_its_own_folder_alone(told, tmp_path):
    for name in "one", "two":
        (tmp_path / name).mkdir()
        row = {"image": "../two/a.png" if name == "one" else "b.png", "text": name}
        (tmp_path / name / "metadata.jsonl").write_text(json.dumps(row) + "\n")
        (tmp_path / name / "metadata2.jsonl").write_text(json.dumps({"image": "a.png", "text": name}) + "\n")
        (tmp_path / name / "a.png").write_bytes(PNG)
    (tmp_path / "two/b.png").write_bytes(PNG)
    entries = [each.document for each in open_corpus(tmp_path) if isinstance(each, Record)]
    assert [(each.id, each.text) for each in entries] == [
        ("one/a.png", "one"),
        ("one/metadata.jsonl-1", "one"),
        ("two/a.png", "two"),
        ("two/b.png", "two"),
    ]


def test_several_tables_may_tell_of_one_image(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    for name, n in ("one", 1), ("two", 2):
        row = {"image": "a.png", "text": name, "n": n, name: True}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    [entry] = open_corpus(tmp_path)
    assert (entry.document.id, entry.document.text) == ("a.png", "one\ntwo")
    assert entry.document.fields == {"n": 1, "one": True, "two": True}


def test_of_several_tables_the_nearest_goes_before(told, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/z.jsonl").write_text('{"image": "a.png", "text": "near", "n": 2}\n')
    documents, _ = told([{"image": "sub/a.png", "text": "far", "n": 1, "m": 1}], ["sub/a.png"], "a.jsonl")
    assert documents == {"sub/a.png": ("near\nfar", {"n": 2, "m": 1})}
