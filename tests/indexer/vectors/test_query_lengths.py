"""The length of a query vector does not matter: it is ranked like the unit vector, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.errors import QueryError
from indexer.metadata.publish import NewDocument
from indexer.types import Center, Modality
from indexer.vectors import rescoring
from indexer.vectors.exact import ExactIndex
from indexer.vectors.unit import query_rows, unit_rows

RNG = np.random.default_rng(5)
DIM, ROWS = 16, 900
VECTORS = unit_rows(RNG.standard_normal((ROWS, DIM)) + np.repeat([[2.0], [-2.0]], ROWS // 2, axis=0))
QUERIES = unit_rows(RNG.standard_normal((8, DIM)))
SCALES = [1e-44, 1e-38, 1e-30, 1e-12, 0.5, 3.0, 1e12, 1e30, 1e38]


@pytest.fixture
def database_url():
    """SQLite: what is searched here are vectors."""
    return None


def stock(shop):
    kinds = [Modality.TEXT, Modality.IMAGE]
    documents = [
        NewDocument(str(row), None, None, None, None, kinds[row // (ROWS // 2)], {"n": row}) for row in range(ROWS)
    ]
    with shop.writer() as writer:
        writer.commit(documents, VECTORS)


WAYS = {
    "scan": {},
    "filtered": {"where": {"n": {"$lt": 700}}},
    "left out": {"exclude": ["1", "2"]},
    "one kind": {"modalities": ["text"]},
}


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf", "codes", "centered"])
def test_a_scaled_query_is_the_same_query(open_shop, monkeypatch, kind):
    monkeypatch.setattr(rescoring, "EXACT_ROWS", 0)
    if kind == "codes":
        for module in ("indexer.vectors.selection", "indexer.ingest.indexing"):
            monkeypatch.setattr(f"{module}.CODED_ROWS", 100)
    shop = open_shop(index="exact" if kind in ("codes", "centered") else kind)
    stock(shop)
    shop.build_index({"texts": RNG.standard_normal((30, DIM))})
    view = shop.snapshot().centered(Center.ON if kind == "centered" else Center.OFF)
    for options in WAYS.values():
        truth = view.search(QUERIES, 10, **options)
        for scale in SCALES:
            found = view.search(QUERIES.astype(np.float64) * scale, 10, **options)
            np.testing.assert_array_equal(found.ids, truth.ids)
            np.testing.assert_allclose(found.scores, truth.scores, atol=1e-6)
    if kind == "codes":
        assert view.search(QUERIES[:1] * np.float32(1e-30), 10).plan == "codes"


@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_in_single_precision_too(shop, scale):
    stock(shop)
    truth = shop.snapshot().search(QUERIES, 10)
    found = shop.snapshot().search(QUERIES * np.float32(scale), 10)
    np.testing.assert_allclose(found.scores, truth.scores, atol=1e-5)  # 1e-38 has fewer digits itself
    assert np.mean(found.ids == truth.ids) > 0.99


def test_a_unit_query_stays_as_it_is_to_the_last_bit():
    np.testing.assert_array_equal(query_rows(QUERIES), QUERIES)


@pytest.mark.parametrize("bad", [0.0, -0.0, np.nan, np.inf, -np.inf])
def test_what_points_nowhere_is_refused_by_name(shop, bad):
    stock(shop)
    queries = QUERIES.copy()
    queries[3] = bad
    said = "Query vector 3 of 8 is zero" if bad == 0 else "not a finite number"
    with pytest.raises(QueryError, match=said):
        shop.snapshot().search(queries, 3)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_an_index_refuses_what_single_precision_cannot_rank(scale):
    with pytest.raises(QueryError, match="Scale it to unit length"):
        ExactIndex([(VECTORS, np.arange(ROWS))]).search(QUERIES * np.float32(scale), 3)


def test_a_zero_of_either_sign_is_one_zero(shop):
    stock(shop)
    queries = QUERIES.copy()
    queries[:, 2] = 0.0
    minus = queries.copy()
    minus[:, 2] = -0.0
    for one, other in zip(*(vars(shop.snapshot().search(each, 10)).values() for each in (queries, minus)), strict=True):
        np.testing.assert_array_equal(one, other)
