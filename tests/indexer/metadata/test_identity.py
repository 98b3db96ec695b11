"""A folder that is renamed, replaced, restored or deleted under an open collection is noticed, and nothing is lost."""

from __future__ import annotations

import json
import shutil

import pytest
from answers import contents, found, png
from sqlalchemy import text

from indexer import Collection, Document, index_corpus
from indexer.errors import CorruptionError, FormatError, StoreError
from indexer.files.layout import Layout


def documents(name, count=3):
    return [Document(f"{name}{number}", text=f"{name} {number}") for number in range(count)]


def state(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("metadata.db-")
    }


def replaced_by_another(shop, database):
    """Blue and green: another collection takes the folder's place."""
    other = shop.path.with_name("green")
    with Collection.open(other, "fake:16", database=database) as green:
        green.add(documents("green"))
        green.add([Document("image", image=png(1, 2, 3))])
        green.database.tidy()
    shop.path.rename(shop.path.with_name("blue"))
    other.rename(shop.path)


def replaced_by_its_copy(shop, database):
    shutil.copytree(shop.path, shop.path.with_name("copy"))
    shop.path.rename(shop.path.with_name("old"))
    shop.path.with_name("copy").rename(shop.path)


def restored(shop, database):
    """From a backup, into the same folder."""
    backup = shutil.copytree(shop.path, shop.path.with_name("backup"))
    for path in shop.path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(backup, shop.path, dirs_exist_ok=True)


def with_another_file(shop, database):
    """The database alone is put back."""
    copy = shop.path / "metadata.copy"
    shutil.copy(shop.layout.database, copy)
    copy.replace(shop.layout.database)


def with_the_content_of_another(shop, database):
    """In the same folder, `collection.json` names another collection."""
    told = json.loads(shop.layout.description.read_text())
    shop.layout.description.write_text(json.dumps({**told, "id": "0" * 32}))


def renamed(shop, database):
    shop.path.rename(shop.path.with_name("elsewhere"))


def deleted(shop, database):
    shutil.rmtree(shop.path)


SWAPS = {
    replaced_by_another: "another folder than the one that was opened",
    replaced_by_its_copy: "another folder than the one that was opened",
    restored: "another file than the one|another collection",
    with_another_file: r"metadata\.db is another file",
    with_the_content_of_another: "another collection",
    renamed: "is gone: it was renamed or deleted",
    deleted: "is gone: it was renamed or deleted",
}
ACTS = {
    "add": lambda shop: shop.add(documents("new")),
    "add an image": lambda shop: shop.add([Document("i", image=png(9, 9, 9))]),
    "delete": lambda shop: shop.delete(["cat0"]),
    "compact": lambda shop: shop.compact(),
    "repair": lambda shop: shop.repair(),
    "index": lambda shop: index_corpus(shop.path.parent / "words.jsonl", shop),
    "search": lambda shop: found(shop, "cat"),
    "info": lambda shop: shop.info(),
}


@pytest.fixture
def filled(shop, tmp_path):
    (tmp_path / "words.jsonl").write_text('{"text": "a"}\n')
    shop.add(documents("cat"))
    shop.add(documents("dog"))
    shop.delete(["dog1"])
    shop.snapshot()
    return shop


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("swap", SWAPS, ids=lambda swap: swap.__name__)
def test_what_took_its_place_is_noticed_and_not_touched(filled, database_url, swap, act):
    if database_url is not None and swap in (with_another_file, restored):
        return  # the rows are in a server: with the same files back in the same folder it is the same collection
    swap(filled, database_url)
    before = state(filled.path.parent)
    with pytest.raises(StoreError, match=SWAPS[swap]):
        ACTS[act](filled)
    assert state(filled.path.parent) == before


@pytest.mark.parametrize("swap", SWAPS, ids=lambda swap: swap.__name__)
def test_a_writer_at_work_notices_before_it_commits(filled, database_url, swap):
    if database_url is not None and swap in (with_another_file, restored):
        return
    vectors = filled.snapshot().vectors(filled.snapshot().vector_ids(["cat0"]))
    with pytest.raises(StoreError, match=f"{SWAPS[swap]}|was removed or replaced"), filled.writer() as writer:  # noqa: PT012
        swap(filled, database_url)
        if filled.path.exists():  # another writer's, in the other collection
            (filled.path / "media").mkdir(exist_ok=True)
            (filled.path / "media" / ".tmp-pending").write_bytes(b"x")
        before = state(filled.path.parent)
        writer.commit([_new()], vectors)
    assert {name: held for name, held in state(filled.path.parent).items() if "lock" not in name} == {
        name: held for name, held in before.items() if "lock" not in name
    }


def _new():
    from indexer.metadata.publish import NewDocument
    from indexer.types import Modality

    return NewDocument("new", "new", None, None, None, Modality.TEXT, {})


def test_it_is_opened_again_where_it_is_now(filled, open_shop):
    renamed(filled, None)
    whole = open_shop("elsewhere", model=None)
    whole.add(documents("new", 1))
    assert {"cat0", "new0"} <= set(contents(whole))


def test_a_folder_reached_through_a_link_may_be_switched(tmp_path, closing):
    for name in ("blue", "green"):
        with Collection.open(tmp_path / name, "fake:16") as made:
            made.add(documents(name))
    (tmp_path / "shop").symlink_to(tmp_path / "blue", target_is_directory=True)
    shop = closing(Collection.open(tmp_path / "shop"))
    assert len(shop.snapshot()) == 3
    (tmp_path / "next").symlink_to(tmp_path / "green", target_is_directory=True)
    (tmp_path / "next").replace(tmp_path / "shop")
    before = state(tmp_path)
    for act in (lambda: shop.add(documents("new")), shop.compact, shop.snapshot):
        with pytest.raises(StoreError, match="another folder than the one"):
            act()
    assert state(tmp_path) == before


def test_a_pinned_snapshot_reads_no_other_database(filled, database_url, open_shop):
    if database_url is not None:
        return
    pinned = filled.snapshot()
    replaced_by_another(filled, None)
    filled.database.engine.dispose()  # as a fork does: the next question makes a new connection, by path
    with pytest.raises(StoreError, match="another file than the one that was opened"):
        pinned.documents(pinned.eligible())


def test_an_earlier_state_in_the_same_file_is_noticed(filled):
    with filled.database.write() as connection:
        connection.execute(text("DELETE FROM generations WHERE number > 1"))
    for act in (lambda: filled.add(documents("new")), filled.snapshot):
        with pytest.raises(StoreError, match="is at generation 1 and was at 3 before: it was restored"):
            act()


def test_a_schema_that_grew_meanwhile_is_noticed(filled):
    with filled.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'm999'"))
    with pytest.raises(FormatError, match="has schema m999 now"):
        filled.add(documents("new"))


def test_tables_of_another_collection_are_noticed(filled, open_shop):
    with filled.database.write() as connection:
        connection.execute(text("UPDATE identity SET id = 'other'"))
    with pytest.raises(StoreError, match="holds the collection other; opened was"):
        filled.add(documents("new"))
    with pytest.raises(CorruptionError, match=r"collection\.json is of the collection .* of other.*same backup"):
        open_shop(model=None)


def test_tables_without_an_id_are_refused(filled, open_shop):
    with filled.database.write() as connection:
        connection.execute(text("DELETE FROM identity"))
    with pytest.raises(CorruptionError, match="the table identity has no id"):
        open_shop(model=None)


def test_a_lock_that_somebody_removed_is_noticed(filled):
    with filled.writer() as writer:
        filled.layout.lock.unlink()
        with pytest.raises(StoreError, match=r"writer\.lock was removed or replaced while it was held"):
            writer.commit(deleted=["cat0"])
    assert len(filled.snapshot()) == 5


def test_every_collection_has_its_own_id(open_shop):
    one, other = open_shop("one"), open_shop("other")
    ids = [json.loads((each.path / "collection.json").read_text())["id"] for each in (one, other)]
    assert ids == [one.database.known_id(), other.database.known_id()]
    assert ids[0] != ids[1]


def test_an_earlier_release_s_collection_gets_its_id_written_down(filled, open_shop):
    told = json.loads(filled.layout.description.read_text())
    del told["id"]
    filled.layout.description.write_text(json.dumps(told))
    filled.add(documents("new", 1))  # whoever has it open goes on
    again = open_shop(model=None)
    assert Layout.read(again.path).id == filled.database.known_id()
    filled.add(documents("new", 2))
    assert "new1" in contents(again)
