"""Direct reads from SQLite's driver equal SQLAlchemy's; connections are pooled and never cross a fork."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from indexer import Document
from indexer.errors import StoreError
from indexer.metadata.database import Database
from retrieval import Query, Retriever

OPENS = """
import sys
from indexer import Collection
with Collection.open(sys.argv[1]) as shop:
    print(len(shop.snapshot()))
"""


def words(*texts):
    return [Document(text, text=text, fields={"n": place}) for place, text in enumerate(texts)]


def through_sqlalchemy(monkeypatch):
    monkeypatch.setattr(Database, "read_directly", lambda *_: None)


def test_documents_and_the_newest_generation_are_the_same(shop, monkeypatch):
    shop.add(words("cat", "dog", "bird"))
    shop.delete(["dog"])
    shop.add(words("cat"))
    generations = range(1, shop.catalog.newest() + 1)
    directly = [shop.catalog.documents(range(-1, 600), each) for each in generations], shop.catalog.newest()
    through_sqlalchemy(monkeypatch)
    assert ([shop.catalog.documents(range(-1, 600), each) for each in generations], shop.catalog.newest()) == directly
    assert [len(each) for each in directly[0]] == [3, 2, 2]


def test_an_error_of_the_driver_is_ours(shop):
    if shop.database.engine.dialect.name != "sqlite":
        assert shop.database.read_directly("SELECT 1", ()) is None
        return
    with pytest.raises(StoreError, match="no such table: absent"):
        shop.database.read_directly("SELECT * FROM absent", ())
    assert shop.database.read_directly("SELECT 1 + ?", (1,)) == [(2,)]


def test_a_forked_child_opens_connections_of_its_own(tmp_path, open_shop):
    shop = open_shop()
    if shop.database.engine.dialect.name != "sqlite":
        return  # PostgreSQL's are SQLAlchemy's own affair
    shop.add(words("cat"))
    shop.catalog.newest()
    before = shop.database.engine.pool.checkedin()
    assert before >= 1
    child = os.fork()
    if child == 0:
        # In the child a test's failure must not run pytest's own end.
        code = 1
        try:
            with shop.database.read() as connection:
                mine = connection.connection._connection_record.info["pid"] == os.getpid()
            code = 0 if mine and shop.catalog.newest() == 1 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shop.add(words("dog"))
    assert shop.catalog.newest() == 2


def test_results_say_how_they_were_found(shop):
    shop.add(words("cat", "dog"))
    assert Retriever(shop, "text").search(Query(text="cat")).plan == "scan"
    assert Retriever(shop, "text").search(Query(text="cat"), where={"n": 1}).to_json()["plan"] == "pick"
    assert Retriever(shop, "product").search(Query(text="cat", like="dog")).plan == "scan"


def test_what_a_forked_child_commits_is_there_for_all(tmp_path, open_shop):
    shop = open_shop()
    if shop.database.engine.dialect.name != "sqlite":
        return  # PostgreSQL's are SQLAlchemy's own affair
    shop.add(words("cat"))
    with shop.database.read() as one, shop.database.read() as other:  # two idle connections, once these are back
        one.exec_driver_sql("SELECT 1")
        other.exec_driver_sql("SELECT 1")
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            inherited = shop.database.engine.pool.checkedin()
            os.read(ready, 1)
            code = 3 if inherited else 0 if shop.add(words("dog")).generation == 2 and shop.catalog.newest() == 2 else 2
        finally:
            os._exit(code)
    shop.close()
    # Another process opens and closes: the last one that SQLite knows of removes its log.
    assert subprocess.run([sys.executable, "-c", OPENS, str(shop.path)], capture_output=True, text=True).stdout == "1\n"
    os.write(told, b"!")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert subprocess.run([sys.executable, "-c", OPENS, str(shop.path)], capture_output=True, text=True).stdout == "2\n"
