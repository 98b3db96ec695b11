"""Filters that parse but cannot match as intended get a note."""

from __future__ import annotations

import pytest

from indexer import Collection, Document
from retrieval import Query, Retriever

FIELDS = [
    {
        "title": "cats",
        "year": "2001",
        "price.usd": 5,
        "Color": "red",
        "taken": "2024-01-02",
        "tags": ["a"],
        "deep": {"size": 1},
    },
    {"title": "dogs", "year": "2002", "n": 1, "ok": True, "mixed": 1, "free": "soon"},
    {"mixed": "x", "gone": None},
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shop(request, tmp_path_factory):
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres")
    with Collection.open(tmp_path_factory.mktemp("notes") / "shop", "fake:16", database=url) as opened:
        opened.add([Document(str(n), text="x", fields=each) for n, each in enumerate(FIELDS)])
        opened.add([Document("late", text="x", fields={"perished": 1})])
        opened.delete(["late"])
        yield opened


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ({"tilte": "cats"}, "No document has a field 'tilte'. Did you mean 'title'?"),
        ({"color": "red"}, "No document has a field 'color'. Did you mean 'Color'?"),
        ({"tilte": {"$ne": "cats"}}, "No document has a field 'tilte'. Did you mean 'title'?"),
        ({"tilte": {"$exists": False}}, "No document has a field 'tilte'. Did you mean 'title'?"),
        ({"$not": {"$or": [{"title": "x"}, {"tilte": None}]}}, "No document has a field 'tilte'. Did you mean 'title'?"),
        ({"id": {"$in": ["1"]}}, 'No document has a field \'id\'. To filter by documents\' ids, write {"$id": ...}.'),
        ({"_id": "1"}, 'No document has a field \'_id\'. To filter by documents\' ids, write {"$id": ...}.'),
        ({"text": "x"}, 'No document has a field \'text\'. To filter by documents\' texts, write {"$text": ...}.'),
        ({"price_usd": 5}, "No document has a field 'price_usd'. Did you mean 'price\\.usd'?"),
        ({"price.eur": 5}, "No document has a field 'price.eur'. Did you mean 'price\\.usd'?"),
        ({"deep.sise": 1}, "No document has a field 'deep.sise'. Did you mean 'deep.size' or 'deep'?"),
        ({"gone": 1}, "No document has a field 'gone'."),
        ({"perished": 1}, "No document has a field 'perished'."),
        ({"zzzzzzzz": 1}, "No document has a field 'zzzzzzzz'."),
        (
            {"year": {"$gt": 2000}},
            "'year' is a text in every document that has it; $gt compares it with a number, and the two never match.",
        ),
        (
            {"year": {"$nin": [2001, True]}},
            "'year' is a text in every document that has it; $nin compares it with a boolean or a number, and the "
            "two never match.",
        ),
        (
            {"n": {"$contains": "1"}},
            "'n' is a number in every document that has it; $contains compares it with a text, and the two never match.",
        ),
        (
            {"title": {"$contains": 5}},
            "'title' is a text in every document that has it; $contains compares it with a list, and the two never match.",
        ),
        (
            {"deep": "x"},
            "'deep' is an object in every document that has it; $eq compares it with a text, and the two never match.",
        ),
        (
            {"free": {"$lt": {"$date": "2024-01-02"}}},
            "'free' is a text that is not an ISO 8601 time in every document that has it; $lt compares it with a time, and "
            "the two never match.",
        ),
    ],
)  # fmt: skip
def test_what_cannot_match_is_told(shop, where, told):
    asked = Retriever(shop, "text")
    for _ in range(2):  # also where it is remembered
        assert asked.search(Query(text="x"), where=where).notes == (told,)


@pytest.mark.parametrize(
    "where",
    [
        {"title": "none of these"}, {"title": {"$ne": "x"}}, {"price.usd": 7}, {"price\\.usd": {"$exists": False}}, {"deep.size": 2},
        {"mixed": {"$gt": 9}}, {"mixed": {"$gt": "y"}}, {"tags": "z"}, {"tags": 5}, {"ok": False}, {"taken": {"$lt": {"$date": "2000-01-01"}}},
        {"$id": "none"}, {"$text": {"$contains": "none"}}, {"title": None}, {},
    ],
)  # fmt: skip
def test_what_might_match_is_not(shop, where):
    assert Retriever(shop, "text").search(Query(text="x"), where=where).notes == ()


def test_a_field_that_comes_later_is_noticed(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:16") as shop:
        shop.add([Document("a", text="x")])
        asked = Retriever(shop, "text")
        assert asked.search(Query(text="x"), where={"n": 1}).notes == ("No document has a field 'n'.",)
        shop.add([Document("b", text="x", fields={"n": "1"})])
        assert "is a text in every document" in asked.search(Query(text="x"), where={"n": 1}).notes[0]
        shop.add([Document("c", text="x", fields={"n": 1})])
        assert asked.search(Query(text="x"), where={"n": 1}).notes == ()
