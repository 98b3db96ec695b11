"""A collection of an older schema is upgraded when it is opened, completely or not at all."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from answers import contents
from sqlalchemy import MetaData, Table, create_engine, inspect, select, text

from indexer import Collection, Document
from indexer.errors import CorruptionError, FormatError, LockedError, StoreError
from indexer.files.layout import Layout
from indexer.files.lock import WriterLock
from indexer.metadata import database, migrations, upgrading
from indexer.metadata.database import Database

V1 = Path(__file__).parents[2] / "compat" / "data" / "v1"
HEAD = migrations.newest()

STEP = """
import os
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "{name}", "{before}", None, None

def upgrade():
    {work}
"""
TABLE_ANEW = """
    with op.batch_alter_table("documents") as table:
        table.add_column(sa.Column("color", sa.Text))
        table.alter_column("uri", new_column_name="came_from")
"""


def add_steps(folder, *works):
    """Later migrations, each with its work."""
    folder.mkdir(exist_ok=True)
    before = HEAD
    for number, work in enumerate(works, 901):
        name = f"m{number}"
        (folder / f"{name}_step.py").write_text(STEP.format(name=name, before=before, work=work.strip()))
        before = name


@pytest.fixture
def later(tmp_path, monkeypatch):
    """Give this release later migrations."""

    def give(*works):
        add_steps(tmp_path / "later", *works)
        monkeypatch.setattr(migrations, "FOLDERS", [*migrations.FOLDERS[:1], tmp_path / "later"])

    return give


@pytest.fixture
def old(tmp_path, database_url):
    """A collection of the first schema, in either database."""
    folder = shutil.copytree(V1, tmp_path / "old")
    if database_url is not None:
        _into_postgres(folder, database_url)
    return folder


def _into_postgres(folder, url):
    layout = Layout.plan(folder.parent / "none", "postgresql")
    base = Database(url, layout.schema)
    with base.write() as connection:
        connection.execute(text(f'CREATE SCHEMA "{layout.schema}"'))
        migrations.upgrade(connection, "m001")
    source = create_engine(f"sqlite:///{folder / 'metadata.db'}")
    tables = MetaData()
    names = ("documents", "spaces", "means", "segments", "vectors", "generations", "jobs", "job_shards", "rejects")
    with source.connect() as reading, base.write() as writing:
        for name in names:
            table = Table(name, MetaData(), autoload_with=writing)
            for row in reading.execute(select(Table(name, tables, autoload_with=source))).mappings():
                writing.execute(table.insert().values(**row))
        for name, key in (
            ("documents", "key"),
            ("segments", "id"),
            ("jobs", "id"),
            ("rejects", "id"),
            ("spaces", "id"),
        ):
            writing.execute(
                text(f"SELECT setval(pg_get_serial_sequence('{name}', '{key}'), (SELECT max({key}) FROM {name}))")
            )
    base.close()
    source.dispose()
    (folder / "metadata.db").unlink()
    (folder / "collection.json").write_text(
        json.dumps({"format": 1, "metadata": "postgresql", "schema": layout.schema})
    )


def version(folder, url):
    layout = Layout.read(folder)
    base = Database.in_file(layout.database) if url is None else Database(url, layout.schema)
    try:
        return base.version()
    finally:
        base.close()


def test_the_steps_form_one_chain():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    steps = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
    assert steps == [f"m{number:03d}" for number in range(len(steps), 0, -1)]
    assert steps[0] == HEAD


def test_opening_upgrades(old, database_url, closing):
    assert version(old, database_url) == "m001"
    shop = closing(Collection.open(old, database=database_url))
    assert version(old, database_url) == HEAD
    assert set(contents(shop)) == set(json.loads(V1.with_suffix(".json").read_text())["documents"])
    shop.add([Document("new", text="new")])
    assert shop.compact()[1] == 1
    assert shop.check().findings == []


def test_several_steps_at_once_and_tables_made_anew(old, database_url, later, closing):
    later("op.create_table('colors', sa.Column('name', sa.Text))", TABLE_ANEW)
    whole = version(old, database_url), len(_rows(old, database_url, "documents"))
    assert whole[0] == "m001"
    with Collection.open(old, database=database_url):
        pass
    assert version(old, database_url) == "m902"
    rows = _rows(old, database_url, "documents")
    assert len(rows) == whole[1]
    assert {"color", "came_from"} <= set(rows[0])
    assert len(_rows(old, database_url, "vectors")) == len(rows)
    base = _base(old, database_url)
    assert {each["referred_table"] for each in inspect(base.engine).get_foreign_keys("vectors")} >= {"documents"}
    base.close()


def _base(folder, url):
    layout = Layout.read(folder)
    return Database.in_file(layout.database) if url is None else Database(url, layout.schema)


def _rows(folder, url, name):
    base = _base(folder, url)
    try:
        with base.read() as connection:
            return [dict(each) for each in connection.execute(text(f"SELECT * FROM {name}")).mappings()]
    finally:
        base.close()


@pytest.mark.parametrize("death", ["raise RuntimeError('broken off')", "os._exit(9)"])
def test_a_kill_on_the_way_leaves_the_old_schema(old, database_url, later, tmp_path, death, closing):
    later(TABLE_ANEW, death)
    script = (
        "import sys; from pathlib import Path; from indexer import Collection; from indexer.metadata import migrations\n"
        "migrations.FOLDERS.append(Path(sys.argv[3]))\n"
        "Collection.open(sys.argv[1], database=sys.argv[2] or None)"
    )
    arguments = [old, database_url or "", tmp_path / "later"]
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, timeout=300)
    assert done.returncode == (9 if "exit" in death else 1), done.stderr
    assert version(old, database_url) == "m001"
    later(TABLE_ANEW, "pass")
    with Collection.open(old, database=database_url):
        assert version(old, database_url) == "m902"


def test_threads_that_open_at_once_all_succeed(old, database_url):
    failures = []

    def work():
        try:
            with Collection.open(old, database=database_url) as shop:
                assert len(contents(shop))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []


def test_another_writer_is_waited_for_and_named(old, database_url, monkeypatch):
    monkeypatch.setattr(upgrading, "PATIENCE", 0.2)
    with WriterLock(Layout.read(old).lock):
        with pytest.raises(LockedError, match=rf"schema m001.*upgraded to {HEAD}.*written by.*Wait for it"):
            Collection.open(old, database=database_url)
    assert version(old, database_url) == "m001"


def test_who_may_only_read_is_answered_from_a_copy(tmp_path, monkeypatch):
    old = shutil.copytree(V1, tmp_path / "old")
    before = {path.name: path.read_bytes() for path in old.iterdir() if path.is_file()}
    monkeypatch.setattr(database, "only_readable", lambda url: str(url.database).startswith(str(old)))
    with Collection.open(old) as shop:
        assert set(contents(shop)) == set(json.loads(V1.with_suffix(".json").read_text())["documents"])
        assert shop.info()["metadata"].endswith("old/metadata.db")
        temporary = Path(str(shop.database.url.database))
        assert temporary.exists()
        with pytest.raises(StoreError, match="opened as a read-only, upgraded copy"):
            shop.add([Document("new", text="new")])
    assert {path.name: path.read_bytes() for path in old.iterdir() if path.is_file() and path.name in before} == before
    del shop
    assert not temporary.exists()


def test_who_may_write_neither_folder_nor_server_is_told_a_command_that_mends_it(old, postgres, monkeypatch, closing):
    if Layout.read(old).backend == "sqlite":
        _into_postgres(old, postgres)

    def refused(self):
        raise StoreError("permission denied.", "Ask.")

    with monkeypatch.context() as patch:
        patch.setattr(WriterLock, "__enter__", refused)
        with pytest.raises(FormatError, match=f"schema m001.*needs {HEAD}.*permission denied.*underdrawing info {old}"):
            Collection.open(old, database=postgres)
    with Collection.open(old, database=postgres) as shop:
        assert len(contents(shop))


def test_a_newer_schema_is_refused(old, database_url):
    base = _base(old, database_url)
    with base.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'm999'"))
    base.close()
    with pytest.raises(FormatError, match=rf"schema m999; this release knows up to {HEAD}"):
        Collection.open(old, database=database_url)


def test_a_step_that_loses_rows_others_refer_to_is_taken_back(tmp_path, later):
    old = shutil.copytree(V1, tmp_path / "old")
    later("op.execute('DELETE FROM documents WHERE key = 1')")
    with pytest.raises(CorruptionError, match="rows of vectors would refer to rows of documents that are not there"):
        Collection.open(old)
    assert version(old, None) == "m001"


def test_rows_that_refer_to_nothing_already_stop_no_upgrade(tmp_path):
    old = shutil.copytree(V1, tmp_path / "old")
    raw = sqlite3.connect(old / "metadata.db")
    raw.execute("DELETE FROM documents WHERE key = 1")
    raw.commit()
    raw.close()
    with Collection.open(old) as shop:
        assert shop.check().findings
