"""Transforms change records, and a job with transforms resumes like one without."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from answers import contents
from typer.testing import CliRunner

from indexer import index_corpus, open_corpus
from indexer.corpus.records import Record
from indexer.corpus.transforms import TRANSFORMS, load_transform, transformed
from indexer.errors import CallError, ItemError, PluginError, UnknownNameError
from indexer.types import Document, PassedOver, Rejected
from pipelines.cli.app import app

ROWS = [
    {"id": "a", "text": "1", "title": "red cat", "tags": ["big", "old"], "price": 3},
    {"id": "b", "text": "2", "title": "", "price": 4},
    {"id": "c", "text": "3", "title": "blue dog", "year": 1999},
]


@pytest.fixture
def rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


class Listed:
    source = "/a/list"

    def __init__(self, *documents):
        self._records = [Record(each, "1") for each in documents]

    def __iter__(self):
        return iter([*self._records, Rejected("/bad", "damaged", "It is.")])


class Splitting:
    """Two records of each; `nothing` is left out, `bad` refused."""

    key = "splitting:1"

    def __call__(self, record):
        if record.document.text == "nothing":
            return []
        if record.document.text == "no":
            return Rejected("/no", "empty", "It says no.")
        return self._halves(record)

    def _halves(self, record):
        for number in (1, 2):
            if record.document.text == "bad":
                raise ItemError("empty", "It is bad.")
            yield replace(record, document=replace(record.document, id=f"{record.document.id}-{number}"))


def stored_texts(shop):
    return {id: stored[0] for id, stored in contents(shop).items()}


def test_the_text_is_made_of_fields_that_have_a_value(rows):
    changed = [entry.document.text for entry in transformed(open_corpus(rows), ["text-from:title, tags,year"])]
    assert changed == ["red cat\nbig, old", "2", "blue dog\n1999"]


def test_fields_are_dropped_renamed_and_set(rows):
    edits = {"drop": ["price", "missing"], "rename": {"title": "name"}, "set": {"shop": "north", "year": 2000}}
    changed = [entry.document.fields for entry in transformed(open_corpus(rows), [f"fields:{json.dumps(edits)}"])]
    assert changed == [
        {"name": "red cat", "tags": ["big", "old"], "shop": "north", "year": 2000},
        {"name": "", "shop": "north", "year": 2000},
        {"name": "blue dog", "shop": "north", "year": 2000},
    ]


def test_transforms_are_applied_in_turn(rows):
    names = ['fields:{"set": {"title": "x"}}', "text-from:title"]
    assert {entry.document.text for entry in transformed(open_corpus(rows), names)} == {"x"}


def test_one_record_becomes_several_none_or_a_reject():
    documents = [Document("a", "cat"), Document("b", "nothing"), Document("c", "bad"), Document("d", "no")]
    found = list(transformed(Listed(*documents), [Splitting()]))
    assert [each.document.id for each in found if isinstance(each, Record)] == ["a-1", "a-2"]
    assert found[2:] == [
        PassedOver("b", "left out by splitting"),
        Rejected("c", "empty", "It is bad.", hides="c"),
        Rejected("/no", "empty", "It says no."),
        Rejected("/bad", "damaged", "It is."),
    ]


def test_what_is_no_record_stops_the_job_by_the_transforms_name():
    class Wrong:
        key = "wrong:3"

        def __call__(self, record):
            return [record.document]

    with pytest.raises(CallError, match="The transform 'wrong:3' gave Document for a"):
        list(transformed(Listed(Document("a", "cat")), [Wrong()]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fields:price", "are not JSON"),
        ("fields:{}", "fields takes drop, rename and set, not {}"),
        ('fields:{"delete": []}', "fields takes drop, rename and set"),
        ('fields:{"drop": "price"}', "drop of fields is str 'price'; it must be a list"),
        ('fields:{"rename": {"a": 1}}', "int 1 is not the name of a field"),
        ("text-from:", "names no field"),
    ],
)
def test_arguments_that_do_not_parse_are_told(name, message):
    with pytest.raises(CallError, match=message):
        load_transform(name)


def test_wrong_names_are_told(monkeypatch):
    with pytest.raises(UnknownNameError, match="transform 'text-form' is not known. Did you mean 'text-from'"):
        load_transform("text-form:title")
    with pytest.raises(CallError, match=r"transforms is str 'text-from:a'; it must be a list of names"):
        transformed(Listed(), "text-from:a")
    monkeypatch.setitem(TRANSFORMS._imported, "theirs", lambda arguments: len)
    with pytest.raises(PluginError, match="The transform 'theirs' is builtin_function_or_method, which has no key"):
        load_transform("theirs")


def test_a_job_stores_what_transforms_make_and_a_second_run_does_nothing(shop, rows):
    first = index_corpus(rows, shop, transforms=["text-from:title"])
    assert (first.added, stored_texts(shop)) == (3, {"a": "red cat", "b": "2", "c": "blue dog"})
    again = index_corpus(rows, shop, transforms=["text-from:title"])
    assert (again.added, again.unchanged, again.generation) == (0, 3, first.generation)


def test_other_transforms_are_another_content(shop, open_shop, rows):
    index_corpus(rows, shop, transforms=["text-from:title"])
    assert index_corpus(rows, shop, transforms=["text-from:year"]).added == 3
    assert stored_texts(shop) == {"a": "1", "b": "2", "c": "1999"}
    assert index_corpus(rows, shop).added == 3
    plain = open_shop("plain")
    index_corpus(rows, plain)
    assert contents(shop) == contents(plain)


def test_what_a_transform_makes_is_checked_like_all_else(shop):
    class Spoiling:
        key = "spoiling"

        def __call__(self, record):
            return replace(record, document=replace(record.document, text=None, fields={}))

    summary = index_corpus(Listed(Document("a", "cat")), shop, transforms=[Spoiling()])
    assert (summary.added, dict(summary.reasons)) == (0, {"empty": 1, "damaged": 1})


def test_a_record_that_a_transform_cannot_use_is_not_pruned(shop):
    index_corpus(Listed(Document("a-1", "cat"), Document("bad-1", "bird"), Document("gone", "dog")), shop)

    class Failing:
        key = "failing"

        def __call__(self, record):
            if record.document.id == "bad-1":
                raise ItemError("damaged", "It cannot be read.")
            return record

    index_corpus(
        Listed(Document("a-1", "cat"), Document("bad-1", "bird")),
        shop,
        prune=True,
        prune_most=1,
        transforms=[Failing()],
    )
    assert stored_texts(shop).keys() == {"a-1", "bad-1"}


def test_index_takes_transforms_and_tells_of_a_wrong_one_before_a_collection_is_made(tmp_path, rows):
    runner = CliRunner()
    folder = tmp_path / "made"
    wrong = runner.invoke(app, ["index", str(rows), str(folder), "--model", "fake:8", "--transform", "no-such"])
    assert (wrong.exit_code, folder.exists()) == (2, False)
    call = ["index", str(rows), str(folder), "--model", "fake:8", "--json", "--transform", "text-from:title"]
    made = runner.invoke(app, [*call, "--transform", 'fields:{"drop": ["title"]}'])
    assert json.loads(made.stdout)["added"] == 3
