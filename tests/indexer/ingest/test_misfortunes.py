"""Problems that are not crashes: damaged files, a full disk, odd paths, writers beside a check."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from answers import contents, found, png

from indexer import Collection, Document
from indexer.errors import CorruptionError, StoreError, UnderdrawingError
from indexer.files import lock
from indexer.vectors.segments import write_segment

RED = png(200, 0, 0)


@pytest.mark.parametrize("rot", [lambda path: path.write_bytes(b"rotten"), lambda path: path.write_bytes(b"")])
def test_a_rotten_image_is_healed_by_the_same_bytes(shop, rot):
    shop.add([Document("red", image=RED)])
    [path] = shop.layout.media.glob("*/*.png")
    rot(path)
    assert not shop.check().clean
    shop.add([Document("again", image=RED)])
    assert path.read_bytes() == RED
    assert shop.check().findings == []


def test_tidying_leaves_no_connection_impatient(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:16") as shop:
        shop.add([Document("a", text="a")])
        shop.compact()
        with shop.database.read() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


def test_a_check_holds_no_transaction_while_it_reads_files(shop):
    shop.add([Document(f"d{number}", image=png(number, 0, 0)) for number in range(5)])
    held = []
    shop.check(lambda path: held.append(shop.database.engine.pool.checkedout()))
    assert len(held) >= 6
    assert set(held) == {0}


def test_a_check_beside_writers_begins_again(shop):
    shop.add([Document(f"d{number}", image=png(number, 0, 0)) for number in range(5)])
    came = []

    def compacted(path):
        if len(came) < 3:
            came.append(path)
            shop.add([Document(f"new{len(came)}", text="new")])
            shop.compact()

    report = shop.check(compacted)
    assert report.findings == []
    assert report.documents == 8


def test_compaction_says_what_it_needs_before_it_writes(shop, monkeypatch):
    shop.add([Document("a", text="a")])
    shop.add([Document("b", text="b")])
    before = contents(shop)
    usage = namedtuple("usage", "total used free")  # noqa: PYI024  # as shutil's
    monkeypatch.setattr("indexer.ingest.compaction.shutil.disk_usage", lambda folder: usage(100, 90, 10))
    with pytest.raises(StoreError, match=r"needs up to [\d,]+ bytes to compact, and 10 are free.*Nothing was changed"):
        shop.compact()
    assert contents(shop) == before


def test_a_lock_on_a_full_disk_is_held_and_names_nobody(shop, monkeypatch):
    shop.add([Document("a", text="a")])

    class Full(lock.FileIO):
        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock, "FileIO", Full)
    assert shop.delete(["a"]) == 1
    assert len(shop.snapshot()) == 0


@pytest.mark.parametrize("ids", [[-3, 1], [1, 1 << 40]])
def test_ids_that_were_never_given_out_are_damage(shop, ids):
    shop.add([Document("a", text="a"), Document("b", text="b")])
    [segment] = shop.catalog.segments(1)
    vectors = np.eye(2, 16, dtype=np.float32)
    (shop.layout.segments / segment.file).unlink()
    write_segment(shop.layout.segments, segment.file, vectors, np.array(ids), shop.space.digest)
    shop.snapshots.close()
    with pytest.raises(CorruptionError, match=rf"{segment.file} is damaged: its ids go from"):
        found(shop, "a")


def test_a_segment_that_may_not_be_read_is_named(shop, monkeypatch):
    shop.add([Document("a", text="a")])
    opened = Path.open

    def refused(self, *arguments, **options):
        if self.suffix == ".safetensors":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    shop.snapshots.close()
    with pytest.raises(StoreError, match=r"segments/.* cannot be read: Permission denied.*Check its permissions"):
        shop.snapshot()
    assert [finding.problem for finding in shop.check().findings] == ["it cannot be read: Permission denied"]


def test_a_path_that_is_not_utf_8_is_refused_in_a_line(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    with pytest.raises(StoreError, match="is not UTF-8"):
        Collection.open(folder, "fake:16")
    with Collection.open(tmp_path / "shop", "fake:16"):
        pass
    try:
        shutil.move(tmp_path / "shop", folder)
    except OSError:
        return  # a file system that has no such names
    with pytest.raises(StoreError, match="is not UTF-8"):
        Collection.open(folder)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000, '{"format": ' + "[" * 100_000, "{}", "[]", "null", "7", '{"format": "x"}', '{"format": [1]}',
        '{"format": 1, "metadata": {}, "schema": null}', '{"format": 1e999, "metadata": "sqlite", "schema": null}',
        '{"format": 1, "metadata": "sqlite", "schema": null, "id": {"a": 1}}', "", "\udcff",
    ],
)  # fmt: skip
def test_a_damaged_description_is_an_error_of_ours(tmp_path, content):
    with Collection.open(tmp_path / "shop", "fake:16"):
        pass
    (tmp_path / "shop" / "collection.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UnderdrawingError):
        Collection.open(tmp_path / "shop")


def test_a_lock_s_content_that_is_damaged_names_another_process(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:16") as shop, shop.writer():
        shop.layout.lock.write_text("[" * 100_000)
        with pytest.raises(StoreError, match="another process"):
            shop.delete(["a"])
    assert json.loads((tmp_path / "shop" / "collection.json").read_text())["format"] == 1
