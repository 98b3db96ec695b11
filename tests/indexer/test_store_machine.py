"""Random histories of a collection, compared with a dictionary and a brute-force search."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from indexer import Collection
from indexer.errors import SnapshotGoneError
from indexer.metadata.publish import NewDocument
from indexer.types import Modality
from indexer.vectors.unit import unit_rows

pytestmark = pytest.mark.stateful

DIM = 8
NAMES = [f"d{number}" for number in range(12)]
names = st.sampled_from(NAMES)
# Few different vectors and values, so that equal ones, and with them ties, are common.
documents = st.lists(st.tuples(names, st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=6)
VECTORS = unit_rows(np.random.default_rng(0).standard_normal((10, DIM)))
QUERIES = unit_rows(np.random.default_rng(1).standard_normal((3, DIM)))


class Pinned:
    """A snapshot beside what the model was when it was taken."""

    def __init__(self, snapshot, state, compactions):
        self.snapshot, self.state, self.compactions = snapshot, dict(state), compactions


class Store(RuleBasedStateMachine):
    """The model maps an id to (vector id, which vector, value of the field n)."""

    pins = Bundle("pins")
    database = None
    """SQLite in the folder, or a PostgreSQL URL."""

    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp())
        self.shop = Collection.open(self.folder / "shop", f"fake:{DIM}", database=self.database)
        self.opened = [self.shop]
        self.state, self.next, self.generation, self.compactions = {}, 0, 0, 0

    def teardown(self):
        for shop in self.opened:  # pinned snapshots connect again to what was closed
            shop.close()
        shutil.rmtree(self.folder)

    @rule(documents=documents, deleted=st.lists(names, max_size=2))
    def commit(self, documents, deleted):
        rows = [NewDocument(name, None, None, None, None, Modality.TEXT, {"n": n}) for name, _, n in documents]
        with self.shop.writer() as writer:
            done = writer.commit(rows, VECTORS[[vector for _, vector, _ in documents]], deleted=deleted)
        gone = {name for name in deleted if self.state.pop(name, None)}
        fresh = {name: (vector, n) for name, vector, n in documents}
        assert (done.deleted, done.replaced) == (len(gone), len(fresh.keys() & self.state.keys()))
        assert done.added == len(fresh) - done.replaced
        for name, (vector, n) in fresh.items():
            self.state[name] = (self.next, vector, n)
            self.next += 1
        self.generation += 1

    @rule(deleted=st.lists(names, max_size=6))
    def delete(self, deleted):
        assert self.shop.delete(deleted) == len({name for name in deleted if self.state.pop(name, None)})
        self.generation += 1

    @rule()
    def compact(self):
        _, after = self.shop.compact()
        assert after == bool(self.state)
        self.generation += 1
        self.compactions += 1

    @rule()
    def reopen(self):
        self.shop.close()
        self.shop = Collection.open(self.folder / "shop", database=self.database)
        self.opened.append(self.shop)

    @rule()
    def check(self):
        assert self.shop.check().findings == []

    @rule(target=pins)
    def pin(self):
        return Pinned(self.shop.snapshot(), self.state, self.compactions)

    @rule(pin=pins, k=st.integers(1, 14))
    def search_a_pinned_one(self, pin, k):
        agree(pin.snapshot.search(QUERIES, k), pin.state, k)

    @rule(pin=pins, n=st.integers(0, 3), excluded=st.lists(names, max_size=3))
    def filter_a_pinned_one(self, pin, n, excluded):
        chosen = {name: row for name, row in pin.state.items() if row[2] <= n and name not in excluded}
        try:
            answer = pin.snapshot.search(QUERIES, 5, where={"n": {"$lte": n}}, exclude=excluded)
        except SnapshotGoneError:
            assert pin.compactions < self.compactions
        else:
            assert pin.compactions == self.compactions
            agree(answer, chosen, 5)

    @rule(pin=consumes(pins))
    def read_a_pinned_one(self, pin):
        ids = np.array(sorted(row[0] for row in pin.state.values()), np.int64)
        try:
            told = {each.id: each.fields["n"] for each in pin.snapshot.documents(ids)}
        except SnapshotGoneError:
            assert pin.compactions < self.compactions
        else:
            assert told == {name: row[2] for name, row in pin.state.items()}

    @rule(k=st.integers(1, 14), n=st.integers(0, 3), excluded=st.lists(names, max_size=3))
    def search(self, k, n, excluded):
        chosen = {name: row for name, row in self.state.items() if row[2] != n and name not in excluded}
        agree(self.shop.snapshot().search(QUERIES, k, where={"n": {"$ne": n}}, exclude=excluded), chosen, k)

    @invariant()
    def the_newest_is_the_model(self):
        snapshot = self.shop.snapshot()
        assert (snapshot.generation, len(snapshot)) == (self.generation, len(self.state))
        ids, scores = snapshot.scan(QUERIES)
        rows = sorted((row[0], name, *row[1:]) for name, row in self.state.items())
        assert ids.tolist() == [row[0] for row in rows]
        assert [(each.id, each.fields["n"]) for each in snapshot.documents(ids)] == [(row[1], row[3]) for row in rows]
        np.testing.assert_allclose(scores, QUERIES @ VECTORS[[row[2] for row in rows]].reshape(-1, DIM).T, atol=1e-6)


def agree(answer, state, k):
    """The answer is what a search of all rows gives: best first, ties by vector id, padded."""
    rows = sorted(state.values())
    brute = np.float64(QUERIES) @ np.float64(VECTORS[[row[1] for row in rows]].reshape(-1, DIM)).T
    for query, (ids, scores) in enumerate(zip(answer.ids, answer.scores, strict=True)):
        order = sorted(range(len(rows)), key=lambda place: (-np.float32(brute[query, place]), rows[place][0]))[:k]
        padding = k - len(order)
        assert ids.tolist() == [rows[place][0] for place in order] + [-1] * padding
        np.testing.assert_allclose(scores, [brute[query, place] for place in order] + [-np.inf] * padding, atol=1e-6)


SETTINGS = settings(max_examples=10, stateful_step_count=16, deadline=None, suppress_health_check=list(HealthCheck))


def histories(database, count):
    """Play so many random histories."""

    class OnThis(Store):
        pass

    OnThis.database = database
    run_state_machine_as_test(OnThis, settings=settings(SETTINGS, max_examples=count))


def test_on_sqlite():
    histories(None, 10)


def test_on_postgresql(postgres):
    histories(postgres, 4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_longer_histories(request, backend):
    histories(None if backend == "sqlite" else request.getfixturevalue("postgres"), 150)
