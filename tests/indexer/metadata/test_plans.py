"""Statements for a few documents must not read all of them, as SQLite's query plans show.

A wrong index answers right, and a small test never notices: each commit would read the whole table once for every few
hundred documents, and each query with a reference would read all vectors' rows.
"""

from __future__ import annotations

import json
import shutil

import pytest
from sqlalchemy import event

from indexer import Collection, Document
from indexer.ingest.job import index_corpus
from retrieval import Query, Retriever

MANY = 600  # more than one IN list holds; short lists get the right index by themselves


@pytest.fixture
def plans(tmp_path):
    """A function that runs something and gives SQLite's plans of what it asks of documents and vectors.

    Of SQLite alone: PostgreSQL keeps statistics, and on tables of a test's size rightly reads all rows.
    """
    shop = Collection.open(tmp_path / "shop", "fake:16")
    source = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"id": f"thing {number}", "text": f"text {number}"}) for number in range(MANY)]
    source.write_text("\n".join(lines), encoding="utf-8")
    index_corpus(source, shop)
    asked = []

    def note(connection, cursor, statement, parameters, context, executemany):
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")) and not executemany:
            asked.append((statement, parameters))

    def run(work):
        asked.clear()
        event.listen(shop.database.engine, "before_cursor_execute", note)
        try:
            work(shop, source)
        finally:
            event.remove(shop.database.engine, "before_cursor_execute", note)
        told = []
        for statement, values in asked:
            rows = shop.database.read_directly(f"EXPLAIN QUERY PLAN {statement}", values)
            told += [(row[3], statement) for row in rows if any(name in row[3] for name in ("documents", "vectors"))]
        return told

    yield run
    shop.close()


def ids(start, stop):
    return [f"thing {number}" for number in range(start, stop)]


WORK = {
    "adding": lambda shop, _: shop.add([Document(f"new {number}", text="x") for number in range(MANY)]),
    "replacing": lambda shop, _: shop.add([Document(name, text="y") for name in ids(0, MANY)]),
    "deleting": lambda shop, _: shop.delete(ids(0, MANY)),
    "indexing again": lambda shop, source: index_corpus(source, shop),
    "indexing a copy": lambda shop, source: index_corpus(
        shutil.copy(source, source.with_name("copy.jsonl")), shop, replace=True
    ),
    "indexing what moved": lambda shop, source: index_corpus(source.rename(source.with_name("moved.jsonl")), shop),
    "finding vectors by id": lambda shop, _: shop.snapshot().vector_ids(ids(0, MANY)),
    "leaving documents out": lambda shop, _: shop.snapshot().search(
        shop.snapshot().vectors(shop.snapshot().vector_ids(["thing 1"])), 3, exclude=ids(0, MANY)
    ),
    "copies of a reference": lambda shop, _: shop.snapshot().with_images([f"{n:064x}" for n in range(MANY)]),
    "a reference": lambda shop, _: Retriever(shop, "sum").search(Query(text="blue", like="thing 5")),
}


@pytest.mark.parametrize("work", WORK)
def test_few_documents_are_found_through_an_index(plans, work):
    told = plans(WORK[work])
    assert told
    for plan, statement in told:
        assert plan.startswith("SEARCH"), statement
        assert not any(each in plan for each in ("ix_documents_source", "(died=?)")), statement


def test_documents_that_died_since_are_found_through_an_index(open_shop):
    shop = open_shop()
    shop.add([Document(name, text="x") for name in ids(0, 20)])
    old = shop.snapshot()
    shop.delete(ids(0, 5))
    shop.add([Document("thing 7", text="another"), Document("thing 20", text="x")])
    assert old.vector_ids(ids(0, 20)).tolist() == list(range(20))
    newest = shop.snapshot()
    known = shop.catalog.known_vector_ids(ids(0, 22), newest.generation, newest.space.id)
    assert known == {**{name: int(name.split()[1]) for name in ids(5, 20)}, "thing 7": 20, "thing 20": 21}
