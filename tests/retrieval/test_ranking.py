"""`find` and `places` over a table of scores: exclusions of a scope, batches, rounding of a scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_collection import FakeSnapshot, stored

from indexer.vectors.protocol import Plan
from retrieval import ranking
from retrieval.ranking import Scope, find, places
from retrieval.scoring import Linear

FIRST = FakeSnapshot.FIRST


class Sum:
    """A scoring function of two vectors."""

    scale = "a sum"

    def __init__(self, first, second):
        self.query_vectors = np.stack([first, second])

    def score(self, products):
        return products.sum(axis=0)


class Indexed(FakeSnapshot):
    """Says that its searches go through an index."""

    def search(self, *arguments):
        return replace(super().search(*arguments), plans=(Plan.HNSW,))


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.fixture
def snapshot(rng):
    """Sixty vectors, every third of them of a red document."""
    documents = [stored(f"d{n:02}", color="red" if n % 3 == 0 else "blue") for n in range(60)]
    return Indexed(documents, rng.standard_normal((60, 8)).astype(np.float32))


@pytest.fixture
def functions(rng):
    return [Sum(*rng.standard_normal((2, 8)).astype(np.float32)) for _ in range(5)]


def ranked(snapshot, function, scope, place=0):
    """All ids that a scope lets through, best first."""
    ids, products = snapshot.scan(function.query_vectors, *scope.conditions)
    order = np.argsort(-function.score(products), kind="stable")
    return [each for each in ids[order].tolist() if each not in scope.hidden_from(place).tolist()]


SCOPES = {
    "all": Scope(),
    "field": Scope(where={"color": "red"}),
    "excluded": Scope(exclude=["d00", "d01", "d02", "d30"]),
    "hidden": Scope(hidden=[np.arange(place, 60, 5) + FIRST for place in range(5)]),
}


@pytest.mark.parametrize("together", [1, 2, 64])
@pytest.mark.parametrize("scan", [0, 100])
@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
def test_functions_of_several_vectors_find_what_the_scope_lets_through(
    snapshot, functions, scope, scan, together, monkeypatch
):
    monkeypatch.setattr(ranking, "SCAN_ROWS", scan)
    monkeypatch.setattr(ranking, "TOGETHER", together)
    found = find(snapshot, functions, 4, scope)
    for place, (each, function) in enumerate(zip(found, functions, strict=True)):
        assert each.ids.tolist() == ranked(snapshot, function, scope, place)[:4]
        assert each.plans == (Plan.SCAN if scan else Plan.HNSW,)


@pytest.mark.parametrize("together", [1, 2, 64])
@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
def test_places_are_among_what_the_scope_lets_through(snapshot, functions, scope, together, monkeypatch):
    monkeypatch.setattr(ranking, "TOGETHER", together)
    orders = [ranked(snapshot, function, scope, place) for place, function in enumerate(functions)]
    steps = [(0,), (1, 3), (0, 5, 8), (2,), (6, 7)]
    wanted = [np.array([order[step] for step in own]) for order, own in zip(orders, steps, strict=True)]
    assert places(snapshot, functions, wanted, scope) == [tuple(step + 1 for step in own) for own in steps]


def test_what_a_scan_may_have_rounded_is_scored_again():
    exact = {0: 0.5, 1: 0.3, 2: 0.9, 3: 0.50001, 4: 0.49999, 5: 0.4, 6: 0.3, 7: 0.29999, 8: 0.1}
    scanned = np.array([0.9, 0.49996, 0.50004, 0.4, 0.29996, 0.30004, 0.1], np.float32)  # of 2 to 8
    asked = []

    class Table:
        def scores(self, vectors, ids):
            asked.append(ids.tolist())
            return np.array([[exact[each] for each in ids.tolist()]], np.float32)

    function = Linear(np.ones(1, np.float32))
    # 2 and 3 are better than 0; 6 ties with 1, and goes before it.
    assert ranking._places(Table(), function, np.array([0, 1]), np.arange(2, 9), scanned) == (3, 7)
    assert asked[1:] == [[3, 4, 6, 7]]


def test_a_function_of_one_vector_is_a_search_of_the_index(snapshot, functions):
    linear = Linear(functions[0].query_vectors[0])
    mixed = find(snapshot, [functions[1], linear, functions[2]], 3, Scope())
    assert [each.plans for each in mixed] == [("scan",), ("hnsw",), ("scan",)]
    assert mixed[1].ids.tolist() == ranked(snapshot, linear, Scope())[:3]


@pytest.mark.parametrize(("k", "ties"), [(2, 6), (3, 9), (4, 12)])
def test_all_that_tie_with_the_last_come_along_however_many_are_better(k, ties):
    better = np.linspace(1, 0.9, k - 1)
    scores = np.concatenate([better, np.full(ties, 0.5), np.linspace(0.4, 0.1, 40)]).astype(np.float32)
    snapshot = FakeSnapshot([stored(f"d{n:02}") for n in range(len(scores))], scores[:, None])
    [found] = find(snapshot, [Linear(np.ones(1, np.float32))], k, Scope())
    assert found.ids.tolist() == [FIRST + n for n in range(k - 1 + ties)]
