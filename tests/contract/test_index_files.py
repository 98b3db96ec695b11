"""Index files are derived: whatever happens to them, a search answers the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from answers import asked, contents

from indexer import IndexKind, IndexSettings, searcher
from indexer.errors import StoreError
from indexer.files import file_digest
from indexer.searcher import remove_stale
from indexer.store.publish import NewDocument
from indexer.types import Modality
from indexer.vectors import unit_rows

HNSW = IndexSettings(kind=IndexKind.HNSW, recall=1.0)
RNG = np.random.default_rng(0)
VECTORS = unit_rows(RNG.standard_normal((620, 16)))
QUERIES = unit_rows(RNG.standard_normal((20, 16)))


def commit(shop, rows):
    documents = [NewDocument(str(row), None, None, None, None, Modality.TEXT, {"n": row}) for row in rows]
    with shop.writer() as writer:
        writer.commit(documents, VECTORS[list(rows)])


def files(shop):
    return sorted(path.name for path in shop.layout.indexes.iterdir() if not path.name.startswith("."))


def recall(shop, exact, k=10, **options):
    """How many of the true neighbours come back; their scores must be true as well."""
    answer = shop.snapshot().search(QUERIES, k, **options)
    truth = exact.snapshot().search(QUERIES, k, **options)
    for ids, scores in zip(answer.ids, answer.scores, strict=True):
        assert np.all(np.diff(scores[ids >= 0]) <= 0)
    assert np.array_equal(answer.ids >= 0, truth.ids >= 0)
    same = [np.isin(one, other).mean() for one, other in zip(answer.ids, truth.ids, strict=True)]
    return float(np.mean(same))


@pytest.fixture(autouse=True)
def one_thread():
    """FAISS's threads would spin for what one does in milliseconds."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture
def exact(open_shop):
    """The collection, searched exactly, with 500 vectors in two segments."""
    shop = open_shop()
    commit(shop, range(300))
    commit(shop, range(300, 500))
    return shop


@pytest.fixture
def shop(exact, open_shop):
    """The same, searched through a graph, whose file exists."""
    shop = open_shop(index=HNSW)
    assert recall(shop, exact) >= 0.95
    assert [name.partition("-")[0] for name in files(shop)] == ["hnsw", "hnsw"]
    return shop


DAMAGE = {
    "no file": lambda index, sidecar: index.unlink(),
    "truncated": lambda index, sidecar: index.write_bytes(index.read_bytes()[:-10]),
    "flipped": lambda index, sidecar: index.write_bytes(index.read_bytes()[:-2000] + b"!" + index.read_bytes()[-1999:]),
    "no sidecar": lambda index, sidecar: sidecar.unlink(),
    "bad sidecar": lambda index, sidecar: sidecar.write_text("{"),
    "odd sidecar": lambda index, sidecar: sidecar.write_text(
        json.dumps({**json.loads(sidecar.read_text()), "metadata": {}})
    ),
    "neither": lambda index, sidecar: [path.unlink() for path in (index, sidecar)],
}


def test_what_is_missing_or_damaged_is_built_again_without_a_word(shop, exact):
    index, sidecar = (shop.layout.indexes / name for name in files(shop))
    for name, damage in DAMAGE.items():
        damage(index, sidecar)
        shop._newest = None  # what is mapped already is not looked at again
        assert recall(shop, exact) >= 0.95, name
        assert [index.name, sidecar.name] == files(shop), name
        told = json.loads(sidecar.read_text())
        assert (told["metadata"]["rows"], told["sha256"]) == (500, file_digest(index)), name
        before = index.stat().st_mtime_ns
        shop._newest = None
        shop.snapshot()
        assert index.stat().st_mtime_ns == before, name


def test_a_checksum_is_compared_once_for_each_time_a_file_is_written(shop, monkeypatch):
    compared = []
    monkeypatch.setattr(searcher, "require_digest", lambda file, expected: compared.append(file))
    index, _ = (shop.layout.indexes / name for name in files(shop))
    for content in (None, None, index.read_bytes(), None):
        if content is not None:
            index.write_bytes(content)
        shop._newest = None
        shop.snapshot()
    assert compared == [index]


def test_a_good_file_is_used_where_nothing_can_be_written(shop, exact, monkeypatch):
    def refuse(*_):
        raise StoreError("read-only")

    index, _ = (shop.layout.indexes / name for name in files(shop))
    index.write_bytes(index.read_bytes())
    monkeypatch.setattr(searcher, "atomic_write", refuse)
    monkeypatch.setattr(searcher.Searcher, "_build", None)  # building would fail
    shop._newest = None
    assert recall(shop, exact) >= 0.95


def test_as_long_as_nothing_is_written_every_call_gives_the_same_snapshot(shop, open_shop):
    first = shop.snapshot()
    assert shop.snapshot() is first
    commit(open_shop(), range(500, 510))
    assert len(shop.snapshot()) == len(first) + 10
    assert shop.snapshot() is shop.snapshot()


def test_a_folder_that_cannot_be_written_costs_no_answer(exact, open_shop):
    exact.layout.indexes.write_text("a file where the folder should be")
    assert recall(open_shop(index=HNSW), exact) >= 0.95


def test_what_came_after_the_file_is_searched_beside_it(shop, exact):
    before = files(shop)
    commit(shop, range(500, 600))
    shop.delete([str(row) for row in range(100)])
    assert files(shop) == before
    assert recall(shop, exact) >= 0.95
    assert files(shop) == before
    [nearest] = shop.snapshot().documents(shop.snapshot().search(VECTORS[550:551], 1).ids[0])
    assert nearest.id == "550"
    found = shop.snapshot().documents(shop.snapshot().search(VECTORS[5:6], 50).ids[0])
    assert all(int(document.id) >= 100 for document in found)


def test_when_too_much_came_after_it_is_built_anew(shop, exact):
    before = files(shop)
    commit(shop, range(500, 620))
    commit(shop, range(100))
    assert recall(shop, exact) >= 0.95
    assert set(files(shop)) > set(before)


def test_if_k_documents_match_k_come_back(shop, exact):
    for where, matching in ({"n": {"$gte": 490}}, 10), ({"n": {"$lt": 250}}, 250), ({"n": -1}, 0):
        assert recall(shop, exact, where=where) >= 0.95
        answer = shop.snapshot().search(QUERIES, 30, where=where)
        assert np.all((answer.ids >= 0).sum(axis=1) == min(30, matching))


@pytest.mark.parametrize("deleted", [3, 200])
def test_the_dead_are_not_found_and_others_fill_their_places(deleted, shop, exact):
    # 3 are fetched and dropped; of 200 so many may be near that a filter takes their place.
    shop.delete([str(row) for row in range(deleted)])
    out = [str(row) for row in range(300, 305)]
    for options in ({}, {"exclude": out}):
        assert recall(shop, exact, **options) >= 0.95
        assert recall(shop, exact, 450, **options) >= 0.95
        found = shop.snapshot().search(QUERIES, 450, **options)
        names = {document.id for row in found.ids for document in shop.snapshot().documents(row[row >= 0])}
        assert not names & {str(row) for row in range(deleted)}
        assert bool(names & set(out)) == (not options)


def test_a_filter_is_matched_once(shop, monkeypatch):
    snapshot, calls = shop.snapshot(), []
    matching = snapshot._catalog.columns.matching
    monkeypatch.setattr(snapshot._catalog.columns, "matching", lambda *args: calls.append(args) or matching(*args))
    for n in (10, 10, 20, 10):
        answer = snapshot.search(QUERIES, 30, where={"n": {"$lt": n}})
        assert np.all((answer.ids >= 0).sum(axis=1) == n)
    assert len(calls) == 2
    for n in range(40):
        snapshot.matching({"n": n})
    assert len(snapshot._filters) <= 16


def test_compaction_leaves_no_stale_file(shop, exact):
    told = contents(shop)
    stale = files(shop)
    (shop.layout.indexes / "hnsw-0123456789abcdef.faiss").write_bytes(b"x")
    shop.compact()
    assert files(shop) == []
    assert recall(shop, exact) >= 0.95
    assert not set(stale) & set(files(shop))
    assert contents(shop) == told


def test_what_a_reader_is_writing_at_this_moment_is_not_taken_for_stale(shop):
    living = shop.catalog.segments(shop.catalog.generation().number)
    aside = [shop.layout.indexes / name for name in (".tmp-a.json", ".tmp-b.faiss")]
    for path in aside:
        path.write_text("{")
    remove_stale(shop.layout.indexes, living)
    assert all(path.exists() for path in aside)


def test_other_settings_have_files_of_their_own(shop, open_shop):
    open_shop(index=IndexSettings(kind=IndexKind.IVF)).snapshot().search(asked("cat"), 1)
    assert [name.partition("-")[0] for name in files(shop)] == ["hnsw", "hnsw", "ivf", "ivf"]
