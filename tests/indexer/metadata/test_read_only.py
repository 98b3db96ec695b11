"""Readers without write access see one complete state while others write. See also the tests marked `crash`."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pytest
from answers import contents
from sqlalchemy import text

from indexer import Collection, Document
from indexer.errors import StoreError
from indexer.metadata import connections, database
from indexer.metadata.catalog import Catalog
from indexer.metadata.connections import DisturbedError, LonelyConnection
from indexer.metadata.filters import parse


def filled(name, count):
    return [Document(f"{name}{number}", text=f"{name} {number} " * 20, fields={"n": number}) for number in range(count)]


@pytest.fixture
def folder(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:16") as shop:
        shop.add(filled("a", 50))
    assert not (tmp_path / "shop" / "metadata.db-wal").exists()
    return tmp_path / "shop"


@pytest.fixture
def reader(folder, closing, monkeypatch):
    """The collection, opened as by who may not write; tests often run as somebody who may write everything."""
    with monkeypatch.context() as patch:
        patch.setattr(database, "only_readable", lambda url: True)
        return closing(Collection.open(folder))


def write(folder):
    """What a writer leaves when it is done: its log is in the file."""
    with Collection.open(folder) as shop:
        shop.add(filled("b", 500))


def test_a_writer_that_comes_meanwhile_is_noticed(reader, folder):
    def interrupted():
        with reader.database.read() as connection:
            assert connection.execute(text("SELECT max(number) FROM generations")).scalar() == 1
            write(folder)
            connection.execute(text("SELECT count(*), max(born) FROM documents")).all()

    with pytest.raises(DisturbedError, match=r"metadata\.db was written while it was read.*Try again"):
        interrupted()
    assert len(contents(reader)) == 550


@pytest.mark.parametrize(
    "method", ["generation", "spaces", "segments", "counts", "modalities", "matching", "documents"]
)
def test_what_was_disturbed_is_read_again(reader, folder, monkeypatch, method):
    reader.snapshot()
    come = []

    class Interrupted(LonelyConnection):
        def cursor(self, *arguments):
            if not come and self.before is not None:
                come.append(write(folder))
            return super().cursor(*arguments)

    monkeypatch.setattr(connections, "LonelyConnection", Interrupted)
    arguments = {
        "spaces": (1,), "segments": (1, 1), "counts": (1,), "modalities": (50,), "matching": (parse({"n": {"$lt": 3}}), 1, 1),
        "documents": ([0, 1, 2], 1),
    }.get(method, ())  # fmt: skip
    told = getattr(Catalog(reader.database), method)(*arguments)
    assert come
    with Collection.open(folder) as whole:
        expected = getattr(Catalog(whole.database), method)(*arguments)
        assert repr(told) == repr(expected)


def test_one_that_is_disturbed_for_ever_gives_up_in_one_sentence(reader, folder, monkeypatch):
    monkeypatch.setattr(connections, "TRIES", 3)
    monkeypatch.setattr(connections, "PAUSE", 0)
    versions = iter(range(100))
    monkeypatch.setattr(connections, "file_identity", lambda path: str(next(versions)))
    with pytest.raises(StoreError, match="written while it was read"):
        reader.snapshot()
    assert next(versions) == 6


def test_beside_a_writer_at_work_sqlite_locks_as_usual(reader, folder):
    with Collection.open(folder) as shop:
        for number in range(3):
            shop.add(filled(f"c{number}", 2))
            if number == 1:
                shop.database.tidy()  # the log is empty, but in use
            with reader.database.read() as connection:
                assert connection.connection.dbapi_connection.before is None
                seen = connection.execute(text("SELECT count(*) FROM documents")).scalar()
                shop.add(filled("later", 1))
                assert connection.execute(text("SELECT count(*) FROM documents")).scalar() == seen
            assert f"c{number}1" in contents(reader)
    with reader.database.read() as connection:
        assert connection.connection.dbapi_connection.before is not None


def test_nothing_is_written(reader):
    with reader.database.read() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.connection.dbapi_connection.execute("DELETE FROM documents")
    with pytest.raises(StoreError, match="readonly"):
        reader.delete(["a1"])


def test_a_log_without_its_index_is_read_from_a_copy(folder, monkeypatch):
    """As after a crash, on a mount where nothing can be made."""
    script = (
        "import os, sys\nfrom indexer import Collection, Document\n"
        "shop = Collection.open(sys.argv[1])\n"
        "shop.add([Document(f'b{n}', text='b') for n in range(5)])\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(folder)], check=False).returncode == 9
    (folder / "metadata.db-shm").unlink()
    assert (folder / "metadata.db-wal").stat().st_size
    before = {path.name for path in folder.iterdir()}
    monkeypatch.setattr(database, "only_readable", lambda url: str(url.database).startswith(str(folder)))
    with Collection.open(folder) as shop:
        assert len(contents(shop)) == 55
    assert {path.name for path in folder.iterdir()} == before
