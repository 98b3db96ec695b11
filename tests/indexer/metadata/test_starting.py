"""A failed creation leaves nothing behind, and processes that create one collection at once all succeed."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from answers import contents
from sqlalchemy import text

from indexer import Collection, Document
from indexer.errors import CorruptionError, LockedError, StoreError
from indexer.files.layout import STARTING, Layout
from indexer.files.lock import WriterLock
from indexer.metadata import opening
from indexer.metadata.database import Database


def schemas(url):
    base = Database(url)
    with base.read() as connection:
        rows = connection.execute(text("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'underdrawing%'"))
        names = set(rows.scalars())
    base.close()
    return names


@pytest.mark.parametrize("where", ["create_first_generation", "create_space"])
def test_a_start_that_fails_leaves_no_schema(postgres, tmp_path, monkeypatch, where):
    def fail(*_):
        raise CorruptionError("no.")

    before = schemas(postgres)
    with monkeypatch.context() as patch:
        patch.setattr(opening, where, fail)
        with pytest.raises(CorruptionError, match="no"):
            Collection.open(tmp_path / "shop", "fake:16", database=postgres)
    assert schemas(postgres) == before
    with Collection.open(tmp_path / "shop", "fake:16", database=postgres) as shop:
        shop.add([Document("a", text="a")])
    assert len(schemas(postgres) - before) == 1


def test_a_record_of_a_start_drops_nothing_that_holds_documents(postgres, tmp_path):
    with Collection.open(tmp_path / "full", "fake:16", database=postgres) as full:
        full.add([Document("a", text="a")])
        with WriterLock(tmp_path / "shop" / "writer.lock"):
            pass
        (tmp_path / "shop" / STARTING).write_text(full.layout.schema)
        with Collection.open(tmp_path / "shop", "fake:16", database=postgres):
            assert set(contents(full)) == {"a"}


def test_threads_that_start_one_at_once_all_open_it(tmp_path, database_url):
    failures, opened = [], []
    gate = threading.Barrier(6)

    def work():
        gate.wait()
        try:
            with Collection.open(tmp_path / "shop", "fake:16", database=database_url) as shop:
                opened.append(shop.database.known_id())
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    assert len(opened) == 6
    assert len(set(opened)) == 1


def test_processes_that_start_one_at_once_all_open_it(tmp_path, database_url):
    script = (
        "import sys\nfrom indexer import Collection\nsys.stdin.read(1)\n"
        "with Collection.open(sys.argv[1], 'fake:16', database=sys.argv[2] or None) as shop:\n"
        "    print(shop.database.known_id())"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "shop"), database_url or ""]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(arguments, **pipes) for _ in range(6)]
    for each in processes:
        each.stdin.write("x")
        each.stdin.flush()
    told = [each.communicate(timeout=300) for each in processes]
    assert [(each.returncode, err) for each, (_, err) in zip(processes, told, strict=True)] == [(0, "")] * 6
    assert len({out for out, _ in told}) == 1


def test_another_start_that_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "PATIENCE", 0.2)
    with WriterLock(tmp_path / "shop" / "writer.lock"), pytest.raises(LockedError, match="is being written by"):
        Collection.open(tmp_path / "shop", "fake:16")
    assert not Layout.exists(tmp_path / "shop")


def test_other_things_in_the_folder_stop_a_start_at_once(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="a folder with other files in it"):
        Collection.open(tmp_path / "shop", "fake:16")
