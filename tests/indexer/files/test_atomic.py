"""Writes are complete and durable: sync, rename, sync the folder, in this order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from indexer.errors import CorruptionError
from indexer.files import atomic as files
from indexer.files.atomic import atomic_path, atomic_write, file_digest, make_folder, require_digest, sweep_temporary


@pytest.fixture
def log(monkeypatch):
    """What reaches the disk, in order: ("sync", name) and ("rename", name)."""
    told, synced = [], []
    replace = Path.replace

    def logged(sync):
        def logging(path):
            synced.clear()
            sync(path)
            assert synced == [path.stat().st_ino]
            told.append(("sync", path.name))

        return logging

    def logged_replace(path, target):
        told.append(("rename", Path(target).name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    monkeypatch.setattr(files, "_sync_file", logged(files._sync_file))
    monkeypatch.setattr(files, "sync_folder", logged(files.sync_folder))
    monkeypatch.setattr(Path, "replace", logged_replace)
    return told


def test_the_content_is_durable_before_its_name_is(tmp_path, log):
    (tmp_path / "folder").mkdir()
    atomic_write(tmp_path / "folder" / "file.txt", b"content")
    assert (tmp_path / "folder" / "file.txt").read_bytes() == b"content"
    (first, temporary), *rest = log
    assert first == "sync"
    assert temporary.startswith(files.TEMPORARY_PREFIX)
    assert rest == [("rename", "file.txt"), ("sync", "folder")]


def test_so_are_the_folders_it_lies_in(tmp_path, log):
    atomic_write(tmp_path / "a" / "b" / "file", b"")
    assert [name for what, name in log if what == "sync"][:2] == [tmp_path.name, "a"]
    assert log[-1] == ("sync", "b")
    log.clear()
    make_folder(tmp_path / "a" / "b")
    assert log == []


def test_a_failure_leaves_what_was_there(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), atomic_path(file) as temporary:  # noqa: PT012  (leaving the block early is the point)
        temporary.write_bytes(b"half")
        1 / 0  # noqa: B018
    assert file.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_crash_left_is_swept_and_nothing_else(tmp_path):
    (tmp_path / "in").mkdir()
    for name in (".tmp-a", "in/.tmp-b.png", "in/.tmpV1zCxM", "in/file", "tmp-c"):
        (tmp_path / name).write_bytes(b"x")
    assert {path.name for path in sweep_temporary(tmp_path)} == {".tmp-a", ".tmp-b.png", ".tmpV1zCxM"}
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"file", "tmp-c"}
    assert sweep_temporary(tmp_path / "not there") == []


def test_a_digest_is_of_the_whole_content(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * ((1 << 20) + 1))
    seen = []
    digest = file_digest(file, seen.append)
    assert seen == [1 << 20, 1]
    require_digest(file, digest)
    file.write_bytes(b"x" * (1 << 20) + b"y")
    with pytest.raises(CorruptionError, match="is damaged: its sha256 is"):
        require_digest(file, digest)
    file.unlink()
    with pytest.raises(CorruptionError, match="is missing"):
        require_digest(file, digest)
