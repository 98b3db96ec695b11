"""Index files are a cache: whatever happens to them, answers stay the same, and no search builds one."""

from __future__ import annotations

import json
import os
from threading import Thread

import numpy as np
import pytest
from answers import contents

from indexer import Document, IndexKind, IndexSettings
from indexer.errors import CallError, LockedError, StoreError, UnderdrawingError
from indexer.files.atomic import file_digest
from indexer.metadata.publish import NewDocument
from indexer.types import Modality
from indexer.vectors import cache as stored
from indexer.vectors.unit import unit_rows

HNSW = IndexSettings(kind=IndexKind.HNSW, recall=1.0)
RNG = np.random.default_rng(0)
VECTORS = unit_rows(RNG.standard_normal((620, 16)))
QUERIES = unit_rows(RNG.standard_normal((20, 16)))
SAMPLES = {"texts": RNG.standard_normal((50, 16))}
"""Without these, the model would be asked for some."""


def commit(shop, rows):
    documents = [NewDocument(str(row), None, None, None, None, Modality.TEXT, {"n": row}) for row in rows]
    with shop.writer() as writer:
        writer.commit(documents, VECTORS[list(rows)])


def files(shop):
    return sorted(path.name for path in shop.layout.indexes.iterdir() if not path.name.startswith("."))


def recall(shop, exact, k=10, **options):
    """How many of the true neighbors come back; their scores must be true as well."""
    answer = shop.snapshot().search(QUERIES, k, **options)
    truth = exact.snapshot().search(QUERIES, k, **options)
    for ids, scores in zip(answer.ids, answer.scores, strict=True):
        assert np.all(np.diff(scores[ids >= 0]) <= 0)
    assert np.array_equal(answer.ids >= 0, truth.ids >= 0)
    same = [np.isin(one, other).mean() for one, other in zip(answer.ids, truth.ids, strict=True)]
    return float(np.mean(same))


@pytest.fixture
def database_url():
    """SQLite: what is looked at here are files."""
    return None


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
    """The same, searched through a graph, which is built."""
    shop = open_shop(index=HNSW)
    [built] = shop.build_index(SAMPLES)
    assert (built.kind, built.rows) == (IndexKind.HNSW, 500)
    assert recall(shop, exact) >= 0.95
    assert shop.snapshot().search(QUERIES, 1).plan == "hnsw"
    assert [name.partition("-")[0] for name in files(shop)] == ["hnsw", "hnsw"]
    return shop


def same(shop, exact):
    """The answers are those of exact search, to the last digit."""
    for k in (1, 10):
        ours, truth = shop.snapshot().search(QUERIES, k), exact.snapshot().search(QUERIES, k)
        np.testing.assert_array_equal(ours.ids, truth.ids)
        np.testing.assert_array_equal(ours.scores, truth.scores)


DAMAGE = {
    "no file": lambda index, sidecar: index.unlink(),
    "truncated": lambda index, sidecar: index.write_bytes(index.read_bytes()[:-10]),
    "flipped": lambda index, sidecar: index.write_bytes(index.read_bytes()[:-2000] + b"!" + index.read_bytes()[-1999:]),
    "no sidecar": lambda index, sidecar: sidecar.unlink(),
    "bad sidecar": lambda index, sidecar: sidecar.write_text("{"),
    "deep sidecar": lambda index, sidecar: sidecar.write_text("[" * 100_000),
    "odd sidecar": lambda index, sidecar: sidecar.write_text(
        json.dumps({**json.loads(sidecar.read_text()), "metadata": {}})
    ),
    "another's sidecar": lambda index, sidecar: sidecar.rename(sidecar.with_name("hnsw-0123456789abcdef.json")),
    "neither": lambda index, sidecar: [path.unlink() for path in (index, sidecar)],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_missing_or_damaged_is_not_used_and_answers_are_exact_until_it_is_built(damage, shop, exact, open_shop):
    index, sidecar = (shop.layout.indexes / name for name in files(shop))
    DAMAGE[damage](index, sidecar)
    other = open_shop(index=HNSW)
    same(other, exact)
    assert "not built yet" in other.snapshot().notes[-1]
    assert sidecar.exists() == (damage not in ("no sidecar", "another's sidecar", "neither"))  # nothing was built
    other.build_index(SAMPLES)
    assert other.snapshot().search(QUERIES, 1).plan == "hnsw"
    assert recall(other, exact) >= 0.95
    told = json.loads(sidecar.read_text())
    assert (told["metadata"]["rows"], told["sha256"]) == (500, file_digest(index))
    assert other.build_index(SAMPLES) == []


def test_opening_and_searching_and_asking_builds_nothing(exact, open_shop, monkeypatch):
    monkeypatch.setattr("indexer.vectors.local.build", None)  # building would fail
    for settings in ("hnsw", IndexSettings(kind="ivf"), IndexKind.EXACT, None):
        other = open_shop(index=settings)
        same(other, exact)
        assert other.snapshot().search(QUERIES, 3).plan == "scan"
        assert other.explain()["built"] == (settings in (IndexKind.EXACT, None))
        told = other.info()
        wanting = settings not in (IndexKind.EXACT, None)
        assert ("build_index() builds it" in told["index"]) == ("500 vectors are scanned" in told["index"]) == wanting
    assert not exact.layout.indexes.exists()


def test_an_open_collection_takes_up_what_another_one_builds(exact, open_shop):
    waiting, builder = open_shop(index="ivf"), open_shop(index="ivf")
    first = waiting.snapshot()
    assert waiting.snapshot() is first
    builder.build_index(SAMPLES)
    assert waiting.snapshot().search(QUERIES, 3).plan == "ivf"
    assert waiting.snapshot() is waiting.snapshot()


def test_other_threads_search_while_an_index_is_built(exact, open_shop, monkeypatch):
    from indexer.vectors import local

    shop, answers, build = open_shop(index="hnsw"), [], local.build

    def slowly(*arguments):
        reader = Thread(target=lambda: answers.append(shop.snapshot().search(QUERIES, 3).plan))
        reader.start()
        reader.join(60)
        assert answers == ["scan"]
        commit(exact, range(500, 505))  # a writer sweeps, and leaves alone what is being built
        with pytest.raises(LockedError, match="is being written by"):
            open_shop(index="ivf").build_index(SAMPLES)
        return build(*arguments)

    monkeypatch.setattr(local, "build", slowly)
    shop.build_index(SAMPLES)
    assert shop.snapshot().search(QUERIES, 3).plan == "hnsw and scan"


def test_a_checksum_is_compared_at_each_opening_and_not_at_each_commit(shop, exact, open_shop, monkeypatch):
    compared = []
    monkeypatch.setattr(stored, "file_digest", lambda file: compared.append(file) or file_digest(file))
    index, _ = (shop.layout.indexes / name for name in files(shop))
    for turn in range(3):
        commit(exact, range(500 + turn, 501 + turn))
        assert shop.snapshot().search(QUERIES, 3).plan == "hnsw and scan"
    assert compared == []
    open_shop(index=HNSW).snapshot()
    assert compared == [index]


def test_a_large_approximate_file_is_compared_once_for_each_time_it_is_written(shop, open_shop, monkeypatch):
    compared = []
    monkeypatch.setattr(stored, "COMPARED_ALWAYS", 0)
    monkeypatch.setattr(stored, "file_digest", lambda file: compared.append(file) or file_digest(file))
    index, sidecar = (shop.layout.indexes / name for name in files(shop))
    for content in (None, None, index.read_bytes(), None):
        if content is not None:
            index.write_bytes(content)
        assert open_shop(index=HNSW).snapshot().search(QUERIES, 3).plan == "hnsw"
    assert compared == [index]
    index.write_bytes(content := index.read_bytes())
    monkeypatch.setattr(stored, "atomic_write", refuse)  # where nothing can be written, it is used all the same
    assert open_shop(index=HNSW).snapshot().search(QUERIES, 3).plan == "hnsw"
    assert compared == [index, index]


def refuse(*_):
    raise StoreError("read-only")


def test_building_where_nothing_can_be_written_says_so_and_costs_no_answer(exact, open_shop):
    exact.layout.indexes.write_text("a file where the folder should be")
    other = open_shop(index=HNSW)
    with pytest.raises(StoreError, match="cannot be written"):
        other.build_index(SAMPLES)
    same(other, exact)


def flip(path, position):
    """Another bit at a position, under the same size and time."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[position] ^= 1 << position % 8
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def coded(exact, open_shop, monkeypatch):
    """Searched exactly, through 8-bit codes."""
    for module in ("indexer.vectors.selection", "indexer.ingest.indexing"):
        monkeypatch.setattr(f"{module}.CODED_ROWS", 100)
    monkeypatch.setattr("indexer.vectors.quantized.LOOKED_AT", 8)
    monkeypatch.setattr("indexer.vectors.quantized.LOOKED_AT_PER_K", 2)
    shop = open_shop()
    [built] = shop.build_index()
    assert built.kind is IndexKind.EXACT
    assert shop.snapshot().search(QUERIES[:1], 3).plan == "codes"
    return shop


@pytest.mark.parametrize("suffix", [".faiss", ".json"])
@pytest.mark.parametrize("kind", ["coded", "shop"])
def test_whatever_byte_is_flipped_check_says_so_and_answers_are_exact(kind, suffix, request, exact, open_shop):
    shop = request.getfixturevalue(kind)
    settings = shop.settings
    [path] = shop.layout.indexes.glob(f"*{suffix}")
    size, whole = path.stat().st_size, path.read_bytes()
    for position in sorted({*range(0, size, max(size // 40, 1)), *range(size - 100, size)}):
        flip(path, position)
        report = shop.check()
        assert not report.clean, position
        assert any(finding.harmful and finding.what == str(path) for finding in report.findings), position
        if position % 3 == 0:
            other = open_shop(index=settings)
            same(other, exact)
            assert "scan" in other.snapshot().search(QUERIES[:1], 3).plan
            assert any(path.stem in note and "not used" in note for note in other.snapshot().notes)
            other.close()
        path.write_bytes(whole)
    assert shop.check().findings == []


def test_repair_removes_what_is_damaged_and_building_brings_it_back(shop, exact, open_shop):
    index, sidecar = (shop.layout.indexes / name for name in files(shop))
    flip(index, 3000)
    (shop.layout.indexes / "notes.txt").write_text("of somebody's own")
    assert any(str(index) in sentence for sentence in shop.repair())
    assert [finding.what for finding in shop.check().findings] == [str(shop.layout.indexes / "notes.txt")]
    assert shop.check().clean
    assert files(shop) == ["notes.txt"]
    other = open_shop(index=HNSW)
    other.build_index(SAMPLES)
    assert recall(other, exact) >= 0.95
    assert index.exists()


def test_an_index_of_an_older_release_is_not_trusted_nor_called_damaged(shop, exact, open_shop):
    _, sidecar = (shop.layout.indexes / name for name in files(shop))
    told = json.loads(sidecar.read_text())
    for key in ("format", "digest"):
        del told[key]
    sidecar.write_text(json.dumps(told))
    assert shop.check().clean
    assert "older release" in shop.check().findings[0].problem
    other = open_shop(index=HNSW)
    same(other, exact)
    assert "not built yet" in other.snapshot().notes[-1]


def test_codes_are_made_when_documents_come_and_only_for_many(coded, exact, monkeypatch, open_shop):
    made = []
    monkeypatch.setattr("indexer.vectors.local.build", lambda *_: made.append(1))
    coded.add([Document(f"new{n}", text=f"{n}") for n in range(60)])
    assert made == []
    assert coded.snapshot().search(QUERIES[:1], 3).plan == "codes and scan"
    monkeypatch.undo()
    for module in ("indexer.vectors.selection", "indexer.ingest.indexing"):
        monkeypatch.setattr(f"{module}.CODED_ROWS", 100)
    coded.add([Document(f"newer{n}", text=f"{n}") for n in range(80)])
    assert coded.snapshot().search(QUERIES[:1], 3).plan == "codes"
    same(coded, exact)
    assert len(files(coded)) == 2  # that of the smaller part is gone


def test_as_long_as_nothing_is_written_every_call_gives_the_same_snapshot(shop, open_shop):
    first = shop.snapshot()
    assert shop.snapshot() is first
    commit(open_shop(), range(500, 510))
    assert len(shop.snapshot()) == len(first) + 10
    assert shop.snapshot() is shop.snapshot()


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


def test_when_too_much_came_after_it_says_so_and_building_starts_anew(shop, exact):
    before = files(shop)
    commit(shop, range(500, 620))
    commit(shop, range(100))
    assert recall(shop, exact) >= 0.95
    assert files(shop) == before
    assert "lacks 220 of 720 vectors" in shop.snapshot().notes[-1]
    assert shop.build_index(SAMPLES, coverage=0.6) == []
    [built] = shop.build_index(SAMPLES, coverage=0.8)
    assert built.rows == 720
    assert not set(files(shop)) & set(before)  # what it holds, the new one holds, too
    assert shop.snapshot().notes == ()
    assert recall(shop, exact) >= 0.95


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


def test_compaction_leaves_no_stale_file_and_builds_what_was_built(shop, exact):
    told, stale = contents(shop), files(shop)
    orphan = shop.layout.indexes / "hnsw-0123456789abcdef.faiss"
    for path in (orphan, shop.layout.indexes / "kept.faiss"):
        path.write_bytes(b"x")
    shop.compact()
    assert not orphan.exists()
    assert (shop.layout.indexes / "kept.faiss").exists()  # no name of ours
    assert shop.snapshot().search(QUERIES, 3).plan == "hnsw"
    assert recall(shop, exact) >= 0.95
    assert not set(stale) & set(files(shop))
    assert contents(shop) == told


def test_other_settings_have_files_of_their_own_and_a_higher_recall_serves_a_lower(shop, open_shop):
    open_shop(index=IndexSettings(kind=IndexKind.IVF)).build_index(SAMPLES)
    assert [name.partition("-")[0] for name in files(shop)] == ["hnsw", "hnsw", "ivf", "ivf"]
    assert open_shop(index="hnsw").snapshot().search(QUERIES, 1).plan == "hnsw"  # tuned to 1, asked for 0.95
    strict = open_shop(index=IndexSettings(kind="ivf", recall=0.99)).snapshot()
    assert strict.search(QUERIES, 1).plan == "scan"


@pytest.mark.parametrize(
    ("queries", "error"),
    [
        ({"texts": np.ones((3, 5))}, "has dimension 16"),
        ({"texts": np.zeros((3, 16))}, "zero or not finite"),
        ({"texts": np.full((3, 16), np.nan)}, "zero or not finite"),
    ],
)
def test_samples_that_make_no_sense_are_refused(queries, error, shop):
    with pytest.raises(UnderdrawingError, match=error):
        shop.build_index(queries)


@pytest.mark.parametrize("coverage", [0, 1.5])
def test_a_coverage_is_a_share(coverage, shop):
    with pytest.raises(CallError, match="above 0 and at most 1"):
        shop.build_index(coverage=coverage)
