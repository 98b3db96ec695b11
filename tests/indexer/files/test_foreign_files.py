"""A collection from somebody else deletes, overwrites and shows nothing outside its own folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from pathlib import Path

import pytest
from answers import found, png
from sqlalchemy import text

from indexer import Collection, Document
from indexer.errors import CorruptionError, StoreError
from indexer.files.atomic import sweep_temporary
from indexer.files.layout import image_path, own_path
from indexer.files.media import recorded_image
from pipelines.pages.report import search_page
from retrieval import Query, Retriever

FOLDERS = ("segments", "media", "indexes")
FILES = ("writer.lock", "metadata.db", "metadata.db-wal", "metadata.db-shm", "metadata.db-journal", "collection.json")


@pytest.fixture
def victim(tmp_path):
    """What lies outside, in the same order as in a collection."""
    folder = tmp_path / "victim"
    content = png(1, 2, 3)
    name = hashlib.sha256(content).hexdigest()
    names = [
        "thesis.txt",
        ".tmp-notes",
        "000000000007-0123456789ab.safetensors",
        "exact-0123456789abcdef.faiss",
        "exact-0123456789abcdef.json",
        f"{name[:2]}/{name}.png",
        f"{name[:2]}/.tmp-secret.png",
    ]
    for each in names:
        (folder / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / each).write_bytes(content)
    return folder


@pytest.fixture
def received(tmp_path):
    """A whole collection as its maker handed it over: three segments, an image, one deleted."""
    with Collection.open(tmp_path / "received", "fake:16") as shop:
        shop.add([Document("red", image=png(200, 0, 0), text="red")])
        shop.add([Document("cat", text="cat")])
        shop.add([Document("dog", text="dog")])
        shop.delete(["dog"])
        shop.database.tidy()
    return tmp_path / "received"


def state(folder):
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def sql(folder, statement, **values):
    with Collection.open(folder) as shop, shop.database.write() as connection:
        connection.execute(text(statement), values)


def use(folder):
    """All that a user may do with it; each may be refused."""
    refused = []
    for act in (
        lambda shop: shop.check(),
        lambda shop: shop.repair(),
        lambda shop: shop.compact(),
        lambda shop: shop.add([Document("new", text="new", image=png(9, 9, 9))]),
        lambda shop: shop.delete(["cat"]),
        lambda shop: found(shop, "red"),
        lambda shop: search_page(Query(text="red"), Retriever(shop, "text").search(Query(text="red"))),
    ):
        try:
            with Collection.open(folder, "fake:16") as shop:
                act(shop)
        except StoreError as error:
            refused.append(str(error))
    return refused


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_are_links_are_refused_at_open(received, victim, name):
    shutil.rmtree(received / name, ignore_errors=True)
    (received / name).symlink_to(victim, target_is_directory=True)
    before = state(victim)
    with pytest.raises(StoreError, match=f"received/{name} is a link"):
        Collection.open(received)
    assert len(use(received)) == 7
    assert state(victim) == before


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_links_are_refused_at_open(received, victim, name):
    (received / name).unlink(missing_ok=True)
    (received / name).symlink_to(victim / "thesis.txt")
    before = state(victim)
    with pytest.raises(StoreError, match=f"received/{name} is a link"):
        Collection.open(received)
    assert len(use(received)) == 7
    assert state(victim) == before


@pytest.mark.parametrize("where", ["segments", "indexes", "media", "media/ab"])
def test_links_within_folders_lead_nowhere(received, victim, where):
    target = {"segments": "000000000007-0123456789ab.safetensors", "indexes": "exact-0123456789abcdef.json"}
    if where == "media/ab":
        name = next(victim.glob("??/*.png")).name
        (received / "media" / name[:2]).mkdir(exist_ok=True)
        (received / "media" / name[:2] / name).symlink_to(victim / name[:2] / name)
        sql(received, "UPDATE documents SET image = :uri, image_sha256 = :sha WHERE id = 'red'",
            uri=f"media:{name[:2]}/{name}", sha=name[:64])  # fmt: skip
    elif where == "media":
        shutil.rmtree(received / "media")
        (received / "media").mkdir()
        for folder in victim.glob("??"):
            (received / "media" / folder.name).symlink_to(folder, target_is_directory=True)
    else:
        (received / where).mkdir(exist_ok=True)
        (received / where / target[where]).symlink_to(victim / target[where])
    before = state(victim)
    refused = use(received)
    assert state(victim) == before
    if where == "media/ab":
        with Collection.open(received) as shop:
            assert [each.image for each in shop.snapshot().documents(shop.snapshot().vector_ids(["red"]))] == [None]
    else:
        assert len(refused) == 7
        assert all("is a link" in each for each in refused)


@pytest.mark.parametrize(
    "name",
    [
        "../victim/thesis.txt",
        "{victim}/thesis.txt",
        "../../{name}",
        "..",
        "",
        "a/../../victim/thesis.txt",
        "thesis.txt\0",
    ],
)
def test_segments_by_other_names_are_refused(received, victim, name):
    name = name.format(victim=victim, name="x")
    shutil.copy(victim / "thesis.txt", received / "segments" / "kept.txt")
    sql(received, "UPDATE segments SET file = :name WHERE id = 2", name=name)
    before = state(victim)
    with Collection.open(received) as shop:
        with pytest.raises(CorruptionError, match="is not a segment's name"):
            shop.snapshot()
        assert any("not named like a segment" in finding.problem for finding in shop.check().findings)
    use(received)
    assert state(victim) == before
    assert (received / "segments" / "kept.txt").exists()


def image_uris(victim):
    own = next(victim.glob("??/*.png"))
    return [
        "media:../../victim/thesis.txt",
        f"media:{victim}/thesis.txt",
        f"media:../../victim/{own.parent.name}/{own.name}",
        "media:",
        "media:..",
        f"media:ab/{'ab' * 32}.png/../../../../victim/thesis.txt",
        "http://example.org/x.png",
        "file://relative.png",
        "file:///with%00zero",
        "/etc/hostname",
    ]


@pytest.mark.parametrize("number", range(10))
def test_images_by_other_names_are_not_shown_and_not_deleted(received, victim, number):
    uri = image_uris(victim)[number]
    content = (victim / "thesis.txt").read_bytes()
    sql(received, "UPDATE documents SET image = :uri, image_sha256 = :sha WHERE id = 'red'",
        uri=uri, sha=hashlib.sha256(content).hexdigest())  # fmt: skip
    before = state(victim)
    with Collection.open(received) as shop:
        [document] = shop.snapshot().documents(shop.snapshot().vector_ids(["red"]))
        assert document.image is None
        assert any("'red'" in finding.what for finding in shop.check().findings)
        with pytest.raises(CorruptionError, match="names the image"):
            image_path(shop.layout.media, uri)
    assert use(received) == []
    assert state(victim) == before


def test_a_page_shows_a_file_of_the_machine_only_if_it_is_the_one_that_was_indexed(received, victim):
    secret = victim / "secret.png"
    secret.write_bytes(png(5, 6, 7, size=(32, 32)))
    page = {}
    for sha in ("0" * 64, None, hashlib.sha256(secret.read_bytes()).hexdigest()):
        sql(
            received,
            "UPDATE documents SET image = :uri, image_sha256 = :sha WHERE id = 'red'",
            uri=secret.as_uri(),
            sha=sha,
        )
        with Collection.open(received) as shop:
            results = Retriever(shop, "text").search(Query(text="red"), k=1)
            page[sha] = search_page(Query(text="red"), results)
            assert (recorded_image(secret, sha) is not None) == ("data:image" in page[sha])
    assert ["data:image" in each for each in page.values()] == [False, False, True]


def test_sweeps_remove_only_what_has_a_name_of_our_own(received):
    own = [
        "segments/000000000007-0123456789ab.safetensors",
        "segments/.tmpV1zCxM",
        "media/ab/.tmp-abcdefgh",
        f"media/ab/{'ab' * 32}.png",
        "indexes/hnsw-0123456789abcdef.faiss",
        "indexes/hnsw-0123456789abcdef.json",
    ]
    others = [
        "segments/notes.safetensors", "segments/7-0123456789ab.safetensors", "segments/.tmp notes", "media/README.md",
        "media/ab/holiday.png", f"media/cd/{'ab' * 32}.png", "indexes/readme.json", "indexes/old.faiss", "thesis.tex",
        "segments/000000000007-0123456789ab.safetensors.bak",
    ]  # fmt: skip
    for name in (*own, *others):
        (received / name).parent.mkdir(parents=True, exist_ok=True)
        (received / name).write_bytes(b"x")
    assert use(received) == []
    assert [name for name in own if (received / name).exists()] == []
    assert [name for name in others if not (received / name).exists()] == []


def test_a_collection_reached_through_a_link_is_used_as_any(received, tmp_path):
    (tmp_path / "link").symlink_to(received, target_is_directory=True)
    assert use(tmp_path / "link") == []


@pytest.mark.parametrize("name", ["writer.lock", "metadata.db", "segments/000000000007-0123456789ab.safetensors"])
@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_pipes_and_sockets_are_refused(received, name, kind, monkeypatch):
    (received / name).unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(received / name)
    else:
        monkeypatch.chdir((received / name).parent)  # a socket's name is short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(Path(name).name)
    with pytest.raises(StoreError, match=f"{name} is neither a file nor a folder"):
        Collection.open(received)


def test_a_start_writes_through_no_link(tmp_path, victim):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "writer.lock").symlink_to(victim / "thesis.txt")
    before = state(victim)
    with pytest.raises(StoreError, match="writer.lock is a link"):
        Collection.open(folder, "fake:16")
    assert state(victim) == before


@pytest.mark.parametrize(
    "schema", ["public", 'x" -c role=postgres', "underdrawing_0123456789ab -c log_statement=all", 7, None, ""]
)
def test_a_schema_by_another_name_is_refused(received, schema):
    (received / "collection.json").write_text(json.dumps({"format": 1, "metadata": "postgresql", "schema": schema}))
    with pytest.raises(CorruptionError, match="schema"):
        Collection.open(received, database="postgresql://localhost/x")


@pytest.mark.parametrize(
    "names", [("..",), ("a", ".."), ("a/b",), ("",), (".",), ("/etc",), ("a\\b",), ("c:",), ("a\0",)]
)
def test_names_are_plain(tmp_path, names):
    with pytest.raises(StoreError, match="is not the name of a file inside"):
        own_path(tmp_path, *names)


def test_temporary_files_are_swept_without_following_links(tmp_path, victim):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "elsewhere").symlink_to(victim, target_is_directory=True)
    (tmp_path / "own" / ".tmp-mine").write_bytes(b"")
    before = state(victim)
    assert sweep_temporary(tmp_path / "own") == [tmp_path / "own" / ".tmp-mine"]
    assert state(victim) == before
