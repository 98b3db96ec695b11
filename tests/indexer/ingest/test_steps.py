"""A process that dies at any step loses that step and nothing else.

The contract, after death at any step of a commit, a compaction or a start:

1. What was committed before is there, as it was.
2. A commit is there as a whole if it died after COMMIT, and not at all if it died before.
3. The lock is free. The next writer removes what the dead one left; images that no row names go with `--repair`.
4. `check` finds nothing harmful before that, and nothing at all after it.
5. The work can be done again, ends as if nothing had happened, and gives out no vector id twice.
"""

from __future__ import annotations

import doomed
import pytest
from answers import contents, found
from doomed import DIED, FIRST, After, Before, Half
from sqlalchemy import text

from indexer import Collection
from indexer.metadata.database import Database

pytestmark = pytest.mark.crash

COMMIT_STEPS = {
    "before the media": Before("indexer.files.media:write_pending"),
    "with the media aside": Before("indexer.ingest.writer:settle_images"),
    "half a media file": Half("media"),
    "after the media's sync, before its name": After("indexer.files.atomic:_sync_file"),
    "before the media's folder": Before("indexer.files.atomic:sync_folder", call=2),
    "after the media": After("indexer.ingest.writer:settle_images"),
    "before the segment": Before("indexer.ingest.writer:write_parts"),
    "half a segment": Half("segments"),
    "after the segment": Before("indexer.ingest.writer:publish"),
    "in the transaction, at its beginning": Before("indexer.metadata.publish:_bury"),
    "in the transaction, half way": Before("indexer.metadata.publish:_add_to_means"),
    "before COMMIT": After("indexer.metadata.publish:_publish"),
    "after COMMIT": After("indexer.ingest.writer:publish"),
}

COMPACT_STEPS = {
    "before the segment": Before("indexer.ingest.compaction:write_segment"),
    "half a segment": Half("segments"),
    "after the segment": After("indexer.ingest.compaction:write_segment"),
    "in the transaction": Before("indexer.ingest.compaction:_swap"),
    "before COMMIT": After("indexer.ingest.compaction:_swap"),
    "after COMMIT": Before("indexer.ingest.writer/Writer:sweep", call=2),
    "after the old segments": Before("indexer.ingest.writer:sweep_temporary", call=3),
    "after the old media": After("indexer.ingest.compaction:sweep_media"),
}

DELETE_STEPS = {
    "before the transaction": Before("indexer.ingest.writer:publish"),
    "in the transaction": After("indexer.metadata.publish:_bury"),
    "before COMMIT": After("indexer.metadata.publish:_publish"),
    "after COMMIT": After("indexer.ingest.writer:publish"),
}

INDEX_STEPS = {
    "before it is built": Before("indexer.vectors.local:build"),
    "before it is saved": Before("indexer.vectors.building:save_index"),
    "half the index": Half("indexes"),
    "after the index, before its sidecar": Before("indexer.vectors.cache:atomic_write"),
    "half the sidecar": Half("indexes", call=2),
    "after the sidecar": After("indexer.vectors.cache:atomic_write"),
}

START_STEPS = {
    "with the lock": Before("indexer.files.layout/Layout:clear"),
    "in the schema": After("indexer.metadata.database:upgrade"),
    "after the tables": After("indexer.metadata.database/Database:create"),
    "after generation 0": After("indexer.metadata.opening:create_first_generation"),
    "after the space": After("indexer.metadata.opening:create_space"),
    "half of collection.json": Half("shop"),
    "after collection.json": After("indexer.files.layout/Layout:publish"),
}


def on_disk(shop):
    """The files of a collection that are not the database's."""
    return {
        path for folder in (shop.layout.segments, shop.layout.media) for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """What there is after a commit that nothing disturbs."""
    with Collection.open(tmp_path_factory.mktemp("undisturbed") / "shop", "fake:16") as shop:
        shop.add(FIRST)
        doomed.commit(shop)
        told = contents(shop)
    assert set(told) == {"a", "b", "d"}
    return told


@pytest.fixture
def stocked(shop):
    """Two segments, with a dead row in one."""
    shop.add(FIRST)
    shop.add(FIRST[:1])
    return shop


@pytest.mark.parametrize("step", COMMIT_STEPS)
def test_commit(stocked, after, database_url, step):
    before, files = contents(stocked), on_disk(stocked)
    generation, used = stocked.info()["generation"], stocked.catalog.generation().next_vector
    assert doomed.run(doomed.doomed_work, doomed.commit, COMMIT_STEPS[step], stocked.path, database_url) == DIED

    done = step == "after COMMIT"
    assert contents(stocked) == (after if done else before)
    assert stocked.info()["generation"] == generation + done
    assert stocked.check().clean
    left = on_disk(stocked) - files
    stocked.repair()
    assert stocked.check().findings == []
    assert done or on_disk(stocked) == files
    assert bool(left) == (step != "before the media")

    doomed.commit(stocked)
    assert contents(stocked) == after
    fresh = stocked.snapshot().vector_ids(["a", "d"])
    assert min(fresh) >= used + (2 if done else 0)
    assert stocked.check().findings == []


@pytest.mark.parametrize("step", DELETE_STEPS)
def test_delete(stocked, database_url, step):
    before = contents(stocked)
    assert doomed.run(doomed.doomed_work, doomed.delete, DELETE_STEPS[step], stocked.path, database_url) == DIED
    gone = {"a", "c"} if step == "after COMMIT" else set()
    assert contents(stocked) == {name: told for name, told in before.items() if name not in gone}
    assert stocked.check().findings == []
    stocked.delete(["a", "c"])
    stocked.compact()
    assert set(contents(stocked)) == {"b"}
    assert stocked.check().findings == []


@pytest.mark.parametrize("step", INDEX_STEPS)
def test_index(stocked, database_url, open_shop, step):
    before, layout = contents(stocked), stocked.layout
    assert doomed.run(doomed.doomed_work, doomed.build_index, INDEX_STEPS[step], stocked.path, database_url) == DIED
    assert contents(stocked) == before
    assert stocked.check().clean
    left = {path.name for path in layout.indexes.rglob("*") if path.name != ".lock"}
    assert len(left) == {
        "before it is built": 0,
        "before it is saved": 0,
        "half the sidecar": 2,
        "after the sidecar": 2,
    }.get(step, 1)
    with stocked.writer():
        assert not list(stocked.path.rglob(".tmp-*"))
        assert all(path.with_suffix(".json").exists() for path in layout.indexes.glob("*.faiss"))
    graph = open_shop(index=doomed.GRAPH)
    assert contents(graph) == before
    graph.build_index()
    assert sorted(path.suffix for path in layout.indexes.iterdir() if path.suffix) == [".faiss", ".json"]
    assert found(graph, "cat") == found(stocked, "cat")
    assert stocked.check().findings == []


@pytest.mark.parametrize("step", COMPACT_STEPS)
def test_compact(stocked, database_url, step):
    stocked.delete(["b"])
    told, means = contents(stocked), {key: mean.count for key, mean in stocked.space.means.items()}
    pinned = stocked.snapshot()

    assert doomed.run(doomed.doomed_work, doomed.compact, COMPACT_STEPS[step], stocked.path, database_url) == DIED

    assert contents(stocked) == contents(pinned) == told
    assert stocked.check().clean
    with stocked.writer():
        assert not list(stocked.path.rglob(".tmp-*"))
    stocked.compact()
    assert contents(stocked) == told
    assert {key: mean.count for key, mean in stocked.space.means.items()} == means
    assert stocked.check().findings == []
    assert len(on_disk(stocked)) == 1


@pytest.mark.parametrize("step", START_STEPS)
def test_start(tmp_path, database_url, closing, step):
    schemas = schemas_of(database_url)
    assert doomed.run(doomed.doomed_start, START_STEPS[step], tmp_path / "shop", database_url) == DIED
    for model in ("fake:16", None):
        shop = closing(Collection.open(tmp_path / "shop", model, database=database_url))
        shop.add(FIRST)
        assert set(contents(shop)) == {"a", "b", "c"}
    assert shop.check().findings == []
    assert {path.name for path in shop.path.iterdir() if not path.name.startswith("metadata.db")} == {
        "collection.json", "writer.lock", "segments", "media",
    }  # fmt: skip
    assert len(schemas_of(database_url) - schemas) == (0 if database_url is None else 1)


def schemas_of(url):
    """Those of collections, in PostgreSQL."""
    if url is None:
        return set()
    base = Database(url)
    with base.read() as connection:
        rows = connection.execute(text("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'underdrawing%'"))
        names = set(rows.scalars())
    base.close()
    return names
