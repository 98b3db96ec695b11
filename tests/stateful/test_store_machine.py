"""Random lives of a collection, against a dictionary and a matrix product."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from indexer.collection import Collection
from indexer.embed import load_embedder
from indexer.errors import SnapshotGoneError
from indexer.snapshot import Snapshot
from indexer.types import Document, Item, Vectors

EMBEDDER = load_embedder("fake:8")
WORDS = ["red", "blue", "cat", "dog", "night"]
IDS = st.sampled_from([f"d{number}" for number in range(8)])
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)


def vector(text: str) -> Vectors:
    row: Vectors = EMBEDDER.encode_query([Item(text)])
    return row


class StoreMachine(RuleBasedStateMachine):
    """The collection must always answer as the dictionary does; a pinned reader as the dictionary did."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model: dict[str, tuple[str, int]] = {}
        self.pinned: tuple[Snapshot, dict[str, tuple[str, int]]] | None = None
        self.compacted_since = False

    @initialize()
    def open(self) -> None:
        self.collection = Collection.open(self.folder / "shop", EMBEDDER)

    @rule(documents=st.dictionaries(IDS, st.tuples(TEXTS, st.integers(0, 3)), min_size=1, max_size=4))
    def add(self, documents: dict[str, tuple[str, int]]) -> None:
        added = self.collection.add(Document(id, text, fields={"n": n}) for id, (text, n) in documents.items())
        assert added.replaced == len(documents.keys() & self.model.keys())
        assert added.added == len(documents) - added.replaced
        self.model |= documents

    @rule(ids=st.lists(IDS, max_size=3, unique=True))
    def delete(self, ids: list[str]) -> None:
        assert self.collection.delete(ids) == len(set(ids) & self.model.keys())
        for id in ids:
            self.model.pop(id, None)

    @rule()
    def compact(self) -> None:
        self.collection.compact()
        self.compacted_since = True

    @rule()
    def reopen(self) -> None:
        self.collection.close()
        self.collection = Collection.open(self.folder / "shop", EMBEDDER)

    @rule()
    def pin(self) -> None:
        self.pinned = (self.collection.snapshot(), dict(self.model))
        self.compacted_since = False

    @rule(text=TEXTS, k=st.integers(1, 10), n=st.none() | st.integers(0, 3))
    def search(self, text: str, k: int, n: int | None) -> None:
        with self.collection.snapshot() as snapshot:
            self.compare(snapshot, self.model, text, k, n)

    @precondition(lambda self: self.pinned is not None)
    @rule(text=TEXTS, k=st.integers(1, 10), n=st.none() | st.integers(0, 3))
    def search_pinned(self, text: str, k: int, n: int | None) -> None:
        assert self.pinned is not None
        try:
            self.compare(*self.pinned, text, k, n)
        except SnapshotGoneError:
            assert self.compacted_since

    @staticmethod
    def compare(snapshot: Snapshot, model: dict[str, tuple[str, int]], text: str, k: int, n: int | None) -> None:
        where: dict[str, Any] | None = None if n is None else {"n": n}
        found = snapshot.search(vector(text), k, where)
        kept = found.ids[0] >= 0
        documents = snapshot.documents(found.ids[0][kept])
        expected = {
            id: float((vector(said) @ vector(text).T)[0, 0]) for id, (said, own) in model.items() if n in (None, own)
        }
        assert len(documents) == min(k, len(expected))
        assert all(model[document.id] == (document.text, document.fields["n"]) for document in documents)
        best = sorted(expected.values(), reverse=True)[:k]
        np.testing.assert_allclose(found.scores[0][kept], best, atol=1e-6)
        np.testing.assert_allclose([expected[document.id] for document in documents], best, atol=1e-6)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "collection"):
            assert self.collection.catalog.generation().documents == len(self.model)

    def teardown(self) -> None:
        if hasattr(self, "collection"):
            report = self.collection.check()
            assert report.clean, report.findings
            assert not [finding for finding in report.findings if "orphan" in finding.problem]
            self.collection.close()
        shutil.rmtree(self.folder)


StoreMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestStore = StoreMachine.TestCase
