"""A collection behaves like a container, results like a sequence of hits, and both have a useful repr."""

from __future__ import annotations

import pytest

from indexer import Collection, Document
from indexer.errors import UnknownNameError
from indexer.snapshot import READ_AHEAD
from retrieval import Query, Retriever
from retrieval.methods import Method


@pytest.fixture
def filled(open_shop):
    shop = open_shop()
    shop.add([Document(name, text=f"text of {name}", fields={"n": n}) for n, name in enumerate(("a", "b/é", "5"))])
    return shop


def test_a_collection_counts_finds_and_gives_its_documents(filled):
    assert len(filled) == 3
    assert "a" in filled
    assert 5 in filled  # a whole number is its decimal text, as where it was stored
    assert "z" not in filled
    assert None not in filled
    assert ["a"] not in filled
    assert "\0" not in filled
    assert filled.get("b/é").text == "text of b/é"
    assert filled.get(5).fields == {"n": 2}
    assert filled.get("z") is None
    assert [each.id for each in filled] == ["a", "b/é", "5"]


def test_what_is_deleted_or_replaced_is_gone(filled):
    pinned = filled.snapshot()
    filled.delete(["a"])
    filled.add([Document("5", text="new")])
    assert "a" not in filled
    assert filled.get("a") is None
    assert filled.get("5").text == "new"
    assert [each.id for each in filled] == ["b/é", "5"]
    assert "a" in pinned
    assert pinned.get("5").text == "text of 5"
    assert [each.id for each in pinned] == ["a", "b/é", "5"]


def test_going_through_documents_is_pinned_and_reads_as_it_goes(filled, monkeypatch):
    import indexer.snapshot

    monkeypatch.setattr(indexer.snapshot, "READ_AHEAD", 1)
    asked, documents = [], type(filled.snapshot()).documents
    monkeypatch.setattr(
        type(filled.snapshot()), "documents", lambda own, ids: asked.append(len(ids)) or documents(own, ids)
    )
    going = iter(filled)
    assert next(going).id == "a"
    filled.delete(["5"])
    assert asked == [1]
    assert [each.id for each in going] == ["b/é", "5"]
    assert asked == [1, 1, 1]
    assert READ_AHEAD > 1


def test_an_empty_collection_is_a_collection(open_shop):
    shop = open_shop()
    assert shop
    assert len(shop) == 0
    assert list(shop) == []
    assert bool(shop.snapshot())


def test_what_they_say_of_themselves(filled):
    assert repr(filled) == f"Collection({str(filled.path)!r}: 3 documents, fake:16, generation 1)"
    results = Retriever(filled, "text").search(Query("x"), k=2, where={"m": {"$exists": False}})
    lines = repr(results).splitlines()
    assert lines[0] == "Results(2 hits, method text, fake:16, generation 1)"
    assert lines[1].split() == ["1", f"{results[0].score:.4f}", repr(results[0].id), "text", "of", results[0].id]
    assert lines[-1] == "note: No document has a field 'm'."
    assert repr(results[1]) == f"Hit(2, {results[1].id!r}, score {results[1].score:.4f})"


def test_results_are_a_sequence(filled):
    results = Retriever(filled, "text").search(Query("x"))
    assert results[0] is results.hits[0]
    assert results[-1] is results.hits[-1]
    assert [hit.rank for hit in results[1:]] == [2, 3]
    assert (results[:1].model, results[:1].method) == (results.model, results.method)
    assert [hit.id for hit in reversed(results)] == [hit.id for hit in results.hits[::-1]]
    with pytest.raises(IndexError):
        results[3]


def test_nothing_that_was_stored_acts_where_results_are_shown(open_shop):
    shop = open_shop()
    evil = "<script>alert(1)</script>\x1b[2J\x9b2J\u202egpj.exe"
    shop.add([Document(evil, text=evil, fields={evil: evil})])
    results = Retriever(shop, "text").search(Query("x"))
    assert results.hits
    told = repr(results) + repr(results[0])
    assert not any(character in told for character in "\x1b\x9b\u202e")
    page = results._repr_html_()
    assert "<script" not in page
    assert "&lt;script" in page


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: Method("jiont"), "Did you mean 'joint'? Known: text, image"),
        (lambda: Method("SUM"), "Did you mean 'sum'?"),
        (lambda: Method("zzzzz"), "is not known. Known: text, image"),
        (lambda: Collection.open("none", "fkae:16"), "Did you mean 'fake'?"),
        (lambda: Collection.open("none", "bundled:emoji_clip"), "Did you mean 'emoji-clip'"),
        (lambda: Method("x" * 100_000), "Known: text"),
    ],
)
def test_the_nearest_name_is_told(call, meant):
    with pytest.raises(UnknownNameError) as caught:
        call()
    assert meant in str(caught.value)
    assert len(str(caught.value)) < 600
