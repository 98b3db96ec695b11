"""Mixed collections: documents of several modalities, filtered by modality and ranked without the modality gap.

The truth is brute force: every living document's vector less its modality's shrunk mean, and nothing of the product but
the stored vectors and sums.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from indexer import Document, IndexKind, IndexSettings
from indexer.errors import CallError, QueryError, SnapshotGoneError, UnknownNameError
from indexer.metadata.publish import NewDocument
from indexer.types import Center, Mean, Modality, Role
from indexer.vectors import rescoring
from indexer.vectors.centered import PRIOR, SAMPLE, TRIMMED
from indexer.vectors.modality_gap import FEW, clearly_mixed, document_means, mixture, query_mean, shrunk_means
from indexer.vectors.protocol import Plan
from indexer.vectors.unit import unit_rows

DIM = 16
KINDS = list(Modality)
SHARES = (0.5, 0.3, 0.2)
ROWS = 600


@pytest.fixture(scope="module")
def vectors():
    """Three cones of unlike width, so that neither means nor spreads are equal; and queries near each."""
    rng = np.random.default_rng(3)
    centres = 1.5 * unit_rows(rng.standard_normal((3, DIM)))
    widths = np.array([0.35, 0.2, 0.28])
    kinds = np.repeat(np.arange(3), (np.array(SHARES) * ROWS).astype(int))
    rng.shuffle(kinds)
    rows = unit_rows(centres[kinds] + widths[kinds, None] * rng.standard_normal((ROWS, DIM)) * 2)
    rows[5] = rows[np.flatnonzero(kinds == kinds[5])[-1]]  # equal rows tie
    queries = unit_rows(centres[[0, 1, 2, 0, 1]] + 0.7 * rng.standard_normal((5, DIM)))
    return rows, kinds, queries


def put(shop, vectors, start=0, stop=ROWS):
    """Store rows as they are."""
    rows, kinds, _ = vectors
    documents = [
        NewDocument(f"d{n:04}", f"text {n}", None, None, None, KINDS[kinds[n]], {"n": n}) for n in range(start, stop)
    ]
    with shop.writer() as writer:
        writer.commit(documents, rows[start:stop])


@pytest.fixture
def database_url():
    """SQLite: what is searched here are vectors. What asks SQL is asked of both, below."""
    return None


@pytest.fixture
def mixed(shop, vectors):
    """In two segments, with a gap where documents were replaced and deleted."""
    put(shop, vectors, 0, 400)
    put(shop, vectors, 350, ROWS)
    shop.delete([f"d{n:04}" for n in range(0, ROWS, 17)])
    return shop


def truth(shop, vectors, center=Center.ON, keep=lambda n, kind: True):
    """{document id: scores of the queries} of every document kept, in float64, by the formulas as they stand."""
    rows, kinds, queries = vectors
    snapshot = shop.snapshot()
    names = [each.id for each in snapshot.documents(snapshot.eligible())]
    places = np.array([int(name[1:]) for name in names])
    means = document_means(snapshot.space)
    centred_rows = rows[places].astype(np.float64) - np.stack([means[KINDS[kinds[n]]].vector for n in places])
    centred_rows /= np.linalg.norm(centred_rows, axis=1, keepdims=True)
    scores = queries.astype(np.float64) @ centred_rows.T
    own = kinds[places]
    if center is Center.ON:
        picked = [np.flatnonzero(own == kind) for kind in range(3)]
        picked = [each[np.linspace(0, len(each) - 1, min(SAMPLE, len(each))).astype(int)] for each in picked]
        powers = [np.sort(scores[:, each] ** 4)[:, : len(each) - math.ceil(TRIMMED * len(each))] for each in picked]
        squares = np.stack([np.sqrt(each.mean(1)) for each in powers], axis=1)
        sizes = np.array([len(each) for each in picked])
        squares = (sizes * squares + PRIOR * (squares @ sizes / sizes.sum())[:, None]) / (sizes + PRIOR)
        factors = np.sqrt(squares.max(1, keepdims=True) / squares)[:, own]
        scores = factors * scores / (1 + (factors - 1) * np.abs(scores))
    return {
        name: scores[:, place]
        for place, (name, n) in enumerate(zip(names, places, strict=True))
        if keep(int(n), KINDS[kinds[n]])
    }


def answers(view, vectors, k, **conditions):
    found = view.search(vectors[2], k, **conditions)
    ids = [[each.id for each in view.documents(row[row >= 0])] for row in found.ids]
    return ids, [row[row > -np.inf] for row in found.scores]


def agree(view, vectors, expected, k, **conditions):
    ids, scores = answers(view, vectors, k, **conditions)
    for query, (names, values) in enumerate(zip(ids, scores, strict=True)):
        best = sorted((-round(float(own[query]), 6), name) for name, own in expected.items())[:k]
        assert len(names) == min(k, len(expected))
        np.testing.assert_allclose(values, [-score for score, _ in best], atol=2e-6)
        np.testing.assert_allclose(values, [expected[name][query] for name in names], atol=2e-6)


CONDITIONS = {
    "everything": ({}, lambda n, kind: True),
    "a field": ({"where": {"n": {"$lt": 200}}}, lambda n, kind: n < 200),
    "few": ({"where": {"n": {"$lt": 12}}}, lambda n, kind: n < 12),
    "a modality": ({"modalities": ["image"]}, lambda n, kind: kind is Modality.IMAGE),
    "two and a field": (
        {"modalities": ["text", "image+text"], "where": {"n": {"$gte": 300}}},
        lambda n, kind: kind is not Modality.IMAGE and n >= 300,
    ),
    "without one": ({"exclude": ["d0001", "d0444", "nobody"]}, lambda n, kind: n not in (1, 444)),
}


@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize("center", [Center.ON, Center.MEANS])
def test_a_scan_is_brute_force(mixed, vectors, monkeypatch, center, conditions):
    asked, keep = CONDITIONS[conditions]
    expected = truth(mixed, vectors, center, keep)
    view = mixed.snapshot().centered(center)
    for few in (10_000, 0):  # scored one by one, and scanned
        monkeypatch.setattr("indexer.vectors.centered.FEW_ROWS", few)
        for k in (1, 10, 700) if conditions == "everything" else (10,):
            agree(view, vectors, expected, k, **asked)
    ids, scores = view.scan(vectors[2], **asked)
    assert [each.id for each in view.documents(ids)] == list(expected)
    np.testing.assert_allclose(scores.T, list(expected.values()), atol=1e-5)
    np.testing.assert_allclose(view.scores(vectors[2], ids).T, list(expected.values()), atol=1e-6)


@pytest.mark.parametrize("kind", [IndexKind.HNSW, IndexKind.IVF])
@pytest.mark.parametrize("conditions", CONDITIONS)
def test_an_index_finds_it(mixed, vectors, open_shop, monkeypatch, kind, conditions):
    monkeypatch.setattr("indexer.vectors.centered.FEW_ROWS", 0)
    monkeypatch.setattr(rescoring, "EXACT_ROWS", 0)
    asked, keep = CONDITIONS[conditions]
    expected = truth(mixed, vectors, keep=keep)
    shop = open_shop(index=IndexSettings(kind=kind, recall=0.99))
    shop.build_index()
    view = shop.snapshot().centered(Center.ON)
    assert not view.plain.scans
    if conditions == "everything":
        assert view.search(vectors[2], 10).plan != Plan.SCAN
    found = right = 0
    for k in (1, 10, 700) if conditions == "everything" else (10,):
        ids, scores = answers(view, vectors, k, **asked)
        for query, (names, values) in enumerate(zip(ids, scores, strict=True)):
            assert len(names) == len(set(names)) == min(k, len(expected))
            np.testing.assert_allclose(values, [expected[name][query] for name in names], atol=2e-6)
            assert list(values) == sorted(values, reverse=True)
            last = sorted((own[query] for own in expected.values()), reverse=True)[: len(names)][-1]
            found, right = found + len(names), right + sum(expected[name][query] >= last - 1e-6 for name in names)
    assert right / found >= 0.95


def test_every_part_of_the_linear_probe_is_needed(mixed, vectors, open_shop, monkeypatch):
    """With an index that answers exactly, the rounds of probes find what brute force finds: the bound holds."""
    monkeypatch.setattr("indexer.vectors.centered.FEW_ROWS", 0)
    monkeypatch.setattr("indexer.vectors.centered.SPARE", 1)
    plain = mixed.snapshot().view
    monkeypatch.setattr(plain, "scans", False)
    view = mixed.snapshot().centered(Center.ON)
    depths = []
    search = plain.search
    monkeypatch.setattr(plain, "search", lambda q, k, ids: depths.append((k, len(ids))) or search(q, k, ids))
    for k in (1, 3, 10):
        agree(view, vectors, truth(mixed, vectors), k)
    assert min(depth / held for depth, held in depths) < 0.2


def test_a_document_scores_the_same_however_it_is_found(mixed, vectors):
    view = mixed.snapshot().centered(Center.ON)
    together = view.search(vectors[2], 30)
    for query in range(len(vectors[2])):
        alone = view.search(vectors[2][query : query + 1], 30)
        np.testing.assert_array_equal(alone.ids[0], together.ids[query])
        np.testing.assert_array_equal(alone.scores[0], together.scores[query])
        np.testing.assert_array_equal(view.scores(vectors[2], alone.ids[0])[query], alone.scores[0])


def test_a_large_batch_is_its_queries_one_by_one(mixed, vectors):
    view = mixed.snapshot().centered(Center.ON)
    many = np.tile(vectors[2], (52, 1))[:256]
    np.testing.assert_array_equal(view.search(many, 5).ids[-1], view.search(many[-1:], 5).ids[0])


def test_the_centred_space_has_no_means(mixed):
    view = mixed.snapshot().centered(Center.ON)
    assert not any(mean.vector.any() for mean in view.space.means.values())
    ids = view.plain.eligible()
    rows = view.vectors(ids)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    for code in range(3):
        own = rows[view.plain.modality_codes[ids] == code]
        assert np.linalg.norm(own.mean(0)) < 0.15
        assert np.linalg.norm(view.plain.vectors(ids)[view.plain.modality_codes[ids] == code].mean(0)) > 0.4


class TestAuto:
    def test_is_on_where_modalities_live_apart(self, mixed):
        view = mixed.snapshot().centered(Center.AUTO)
        assert view.center is Center.ON
        assert view.center is Center.ON

    def test_is_off_where_one_lives_or_few_were_seen(self, shop, vectors):
        put(shop, vectors, 0, 60)
        assert shop.snapshot().centered(Center.AUTO).center is Center.OFF
        put(shop, vectors, 60, 200)
        assert shop.snapshot().centered(Center.AUTO).center is Center.ON
        others = [f"d{n:04}" for n in range(200) if KINDS[vectors[1][n]] is not Modality.TEXT]
        shop.delete(others)
        snapshot = shop.snapshot()
        assert set(snapshot.living) == {Modality.TEXT}
        assert snapshot.centered(Center.AUTO) is snapshot
        assert snapshot.centered(Center.ON).center is Center.ON

    def test_is_off_where_there_is_no_gap(self, shop):
        rng = np.random.default_rng(0)
        documents = [NewDocument(f"d{n}", None, None, None, None, KINDS[n % 3], {}) for n in range(300)]
        with shop.writer() as writer:
            writer.commit(documents, unit_rows(rng.standard_normal((300, DIM))))
        assert shop.snapshot().centered(Center.AUTO).center is Center.OFF

    @pytest.mark.parametrize(
        ("texts", "images", "both", "mixed"),
        [
            (0, 59, 1, False), (0, 600, 433, False), (0, 300, 3, False), (20, 900, 0, False), (49, 49, 49, False),
            (50, 49, 1, True), (100, 700, 200, True), (50, 2000, 0, False), (900, 30, 19, False), (900, 30, 30, True),
        ],
    )  # fmt: skip
    def test_is_for_collections_with_many_texts_and_many_pictures(self, texts, images, both, mixed):
        living = {Modality.TEXT: texts, Modality.IMAGE: images, Modality.FUSED: both}
        assert clearly_mixed(living) == mixed
        assert f"{texts:,} documents are texts and {images + both:,} have an image" in mixture(living)
        assert ("is not clearly" in mixture(living)) != mixed

    def test_off_is_the_snapshot_itself(self, mixed):
        snapshot = mixed.snapshot()
        assert snapshot.centered(Center.OFF) is snapshot


class TestTheIdenticalItem:
    """Whoever asks with what is stored finds it first, however much the other modalities are lifted."""

    @pytest.mark.parametrize("center", [Center.ON, Center.MEANS])
    @pytest.mark.parametrize("kind", range(3))
    def test_comes_first(self, mixed, vectors, center, kind):
        rows, kinds, _ = vectors
        view = mixed.snapshot().centered(center)
        ids = view.plain.eligible(modalities=[KINDS[kind]])
        own = view.plain.vectors(ids)
        queries = unit_rows(own - query_mean(view.plain.space, KINDS[kind]))
        found = view.search(queries, 2)
        np.testing.assert_allclose(found.scores[:, 0], 1, atol=1e-6)
        same = np.einsum("ij,ij->i", view.plain.vectors(found.ids[:, 0]), own) > 1 - 1e-6
        assert same.all()

    def test_lifting_leaves_the_order_within_a_modality_and_ends_at_one(self):
        from indexer.vectors.centered import lifted

        cosines = np.linspace(-1, 1, 2001)
        for factor in (1.0, 1.5, 4.0, 50.0):
            up = lifted(cosines, np.full(1, factor))
            assert (np.diff(up) > 0).all()
            assert (up[0], up[-1]) == (-1, 1)
            np.testing.assert_allclose(lifted(up, np.full(1, 1 / factor)), cosines, atol=1e-9)
            np.testing.assert_allclose(lifted(np.array([1e-6]), np.full(1, factor)), factor * 1e-6, rtol=1e-3)


class TestMeans:
    def test_many_keep_their_own_some_are_drawn_to_all_and_few_have_none(self):
        rng = np.random.default_rng(1)
        apart, noise = np.eye(DIM)[0] * 0.6, 0.2
        rows = {
            count: unit_rows(apart + noise * rng.standard_normal((count, DIM))) for count in (1, FEW - 1, FEW, 2000)
        }
        text = unit_rows(-apart + noise * rng.standard_normal((2000, DIM)))
        shares = []
        for count in (1, FEW - 1, FEW, 2000):
            mean = rows[count].mean(0)
            shrunk = shrunk_means({Modality.TEXT: Mean(2000, text.mean(0)), Modality.IMAGE: Mean(count, mean)})
            own = shrunk[Modality.IMAGE]
            everything = (text.sum(0) + rows[count].sum(0)) / (2000 + count)
            np.testing.assert_allclose(own.vector, (1 - own.noise) * mean + own.noise * everything, atol=1e-6)
            shares.append(own.noise)
        assert shares[:2] == [1, 1]
        assert 0.5 > shares[2] > shares[3]
        assert shares[3] < 0.001

    def test_of_nothing_there_are_none(self):
        assert shrunk_means({}) == {}
        assert shrunk_means({Modality.TEXT: Mean(0, np.zeros(4, np.float32))}) == {}

    def test_of_one_vector_is_that_vector(self):
        [shrunk] = shrunk_means({Modality.TEXT: Mean(1, np.eye(4, dtype=np.float32)[0])}).values()
        np.testing.assert_allclose(shrunk.vector, np.eye(4)[0])

    def test_a_reader_sees_those_of_its_generation(self, shop, vectors):
        put(shop, vectors, 0, 100)
        pinned = shop.snapshot()
        before = document_means(pinned.space)
        put(shop, vectors, 100, 400)
        np.testing.assert_array_equal(document_means(pinned.space)[Modality.TEXT].vector, before[Modality.TEXT].vector)
        after = document_means(shop.snapshot().space)
        assert np.abs(after[Modality.TEXT].vector - before[Modality.TEXT].vector).max() > 1e-4
        texts = vectors[0][:400][vectors[1][:400] == 0]
        stored = shop.space.means[Role.DOCUMENT, Modality.TEXT]
        assert stored.count == len(texts)
        np.testing.assert_allclose(stored.vector, texts.mean(0), atol=1e-6)


class TestModalities:
    @pytest.fixture(params=["sqlite", "postgresql"])
    def database_url(self, request):
        return None if request.param == "sqlite" else request.getfixturevalue("postgres")

    def test_they_are_counted_and_follow_the_writes(self, shop):
        shop.add([Document("a", text="a"), Document("b", text="b"), Document("c", text="c")])
        assert shop.snapshot().living == {Modality.TEXT: 3}
        pinned = shop.snapshot()
        shop.delete(["a"])
        assert shop.snapshot().living == {Modality.TEXT: 2}
        assert pinned.living == {Modality.TEXT: 3}

    def test_a_filter_keeps_k(self, mixed, vectors):
        found = mixed.snapshot().search(vectors[2], 40, modalities=["image"])
        kinds = [{each.modality for each in mixed.snapshot().documents(row)} for row in found.ids]
        assert kinds == [{Modality.IMAGE}] * 5

    def test_an_unknown_one_is_named(self, mixed, vectors):
        with pytest.raises(UnknownNameError, match="modality 'video' is not known.*image"):
            mixed.snapshot().search(vectors[2], 3, modalities=["video"])

    def test_a_pinned_reader_that_was_compacted_away_is_told(self, mixed, open_shop):
        pinned = open_shop().snapshot()
        mixed.delete([f"d{n:04}" for n in range(1, 100)])
        mixed.compact()
        with pytest.raises(SnapshotGoneError):
            pinned.centered(Center.ON)

    def test_one_that_has_read_them_goes_on(self, mixed, open_shop, vectors):
        pinned = open_shop().snapshot().centered(Center.ON)
        before = pinned.search(vectors[2], 5)
        mixed.delete([f"d{n:04}" for n in range(1, 100)])
        mixed.compact()
        np.testing.assert_array_equal(pinned.search(vectors[2], 5).scores, before.scores)


def test_a_query_that_makes_no_sense_is_refused(mixed, vectors):
    view = mixed.snapshot().centered(Center.ON)
    with pytest.raises(CallError, match="k is 0"):
        view.search(vectors[2], 0)
    with pytest.raises(QueryError, match="not a finite number"):
        view.search(np.full((1, DIM), np.nan, np.float32), 3)


def test_a_vector_that_is_its_own_mean_scores_nothing(shop):
    same = np.tile(unit_rows(np.ones((1, DIM))), (30, 1))
    with shop.writer() as writer:
        writer.commit([NewDocument(f"d{n}", None, None, None, None, Modality.TEXT, {}) for n in range(30)], same)
    found = shop.snapshot().centered(Center.ON).search(same[:1], 3)
    assert np.abs(found.scores).max() < 1e-3
