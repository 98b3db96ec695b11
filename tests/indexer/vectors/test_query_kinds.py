"""An approximate index is tuned for every kind of query: texts far from images reach their recall, too."""

from __future__ import annotations

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest

from indexer import Collection, IndexSettings
from indexer.bundled import CORPUS, change_texts, generic_texts
from indexer.metadata.publish import NewDocument
from indexer.types import Item, Modality
from indexer.vectors.exact import ExactIndex
from indexer.vectors.faiss_index import FaissIndex
from indexer.vectors.protocol import IndexKind
from indexer.vectors.tuning import Recall, tune
from indexer.vectors.unit import unit_rows

pytestmark = pytest.mark.differential

ROWS, DIM, GROUPS = 6_000, 32, 150
RECALL = 0.95


@pytest.fixture(autouse=True)
def one_thread():
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture(scope="module")
def cones():
    """Pictures in tight groups within one cone; texts, in another, are near none of the groups."""
    rng = np.random.default_rng(0)
    shown, said = unit_rows(rng.standard_normal((2, DIM)))
    groups = unit_rows(3 * shown + rng.standard_normal((GROUPS, DIM)))
    pictures = unit_rows(groups[rng.integers(0, GROUPS, ROWS)] + 0.06 * rng.standard_normal((ROWS, DIM)))
    texts = unit_rows(3 * said + rng.standard_normal((400, DIM)))
    return pictures, texts[:200], texts[200:]


def recall(index, truth, queries):
    found, right = index.search(queries, 10).ids, truth.search(queries, 10).ids
    return float(np.mean([np.isin(one, other).mean() for one, other in zip(right, found, strict=True)]))


def test_tuned_by_pictures_alone_it_misses_the_neighbors_of_texts(cones):
    """What the samples are for: without them this index gives texts much less than was asked for."""
    pictures, _, unseen = cones
    truth = ExactIndex([(pictures, np.arange(ROWS))])
    blind = FaissIndex.build(IndexKind.IVF, [(pictures, np.arange(ROWS))], IndexSettings(recall=RECALL))
    assert blind.metadata["recall_at_10"] >= RECALL
    assert recall(blind, truth, unseen) < RECALL - 0.1


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_tuned_by_texts_too_every_kind_gets_its_recall(open_shop, cones, kind):
    pictures, texts, unseen = cones
    shop, exact = (
        open_shop("shop", f"fake:{DIM}", index=IndexSettings(kind=each, recall=RECALL)) for each in (kind, "exact")
    )
    documents = [NewDocument(str(n), None, None, None, None, Modality.IMAGE, {}) for n in range(ROWS)]
    with shop.writer() as writer:
        writer.commit(documents, pictures)
    shop.build_index({"texts": texts})
    told = shop.info()["recall_by_kind"]
    assert {"documents held out", "sums of two documents", "documents with texts", "texts"} == set(told)
    assert all(own["recall"] >= RECALL for own in told.values())
    assert shop.info()["recall_at_10"] == min(told.values(), key=lambda own: own["low"])["recall"]
    asked = {"texts": unseen, "pictures": pictures[:200], "composed": unit_rows(pictures[:200] + unseen)}
    for name, queries in asked.items():
        assert recall(shop.snapshot(), exact.snapshot(), queries) >= RECALL - 0.01, name
    plans = {shop.snapshot().search(each[None], 10).plan for each in unseen}
    if any(own["exact"] for own in told.values()):
        assert "scan" in plans  # and the plan says so
        assert {shop.snapshot().search(each[None], 10).plan for each in pictures[:50]} == {kind}


@pytest.fixture
def database_url():
    return None


class Asked:
    """Stands for an index whose recall, by kind and effort, is told; `best` is each kind's best score."""

    kinds = {"near": slice(0, 50), "far": slice(50, 100)}

    def __init__(self, near, far):
        self.near, self.far, self.efforts = near, far, []

    def __call__(self, effort):
        self.efforts.append(effort)
        self.effort = effort
        best = np.concatenate([np.linspace(0.8, 0.9, 50), np.linspace(0.4, 0.5, 50)]).astype(np.float32)
        return type("Found", (), {"scores": best[:, None]})

    def shares(self, found):
        return np.repeat([self.near(self.effort), self.far(self.effort)], 50).astype(np.float64)

    def recalls(self, shares):
        return {
            name: Recall(float(shares[part].mean()), float(shares[part].mean())) for name, part in self.kinds.items()
        }


def test_an_effort_that_is_worth_it_serves_all_kinds():
    asked = Asked(near=lambda effort: 1.0, far=lambda effort: min(effort / 20, 1))
    tuned = tune(asked, asked, 0.95, least=1, most=400, worth=100)
    assert (tuned.sure_above, tuned.kinds["far"]["exact"]) == (None, 0)
    assert 19 <= tuned.effort <= 23


def test_a_kind_that_would_need_too_much_is_answered_exactly():
    asked = Asked(near=lambda effort: min(effort / 10, 1), far=lambda effort: effort / 400)
    tuned = tune(asked, asked, 0.95, least=1, most=400, worth=100)
    assert 10 <= tuned.effort <= 12
    assert 0.45 < tuned.sure_above < 0.8
    assert tuned.kinds["near"]["exact"] == 0
    assert tuned.kinds["far"]["exact"] >= 0.9
    assert tuned.facts()["recall_at_10"] >= 0.95
    assert max(asked.efforts) < 130


def test_where_every_kind_needs_much_all_of_it_is_spent():
    asked = Asked(near=lambda effort: effort / 400, far=lambda effort: effort / 400)
    tuned = tune(asked, asked, 0.95, least=1, most=400, worth=100)
    assert (tuned.sure_above, tuned.effort >= 380) == (None, True)


@pytest.fixture(scope="module")
def drawings():
    rows = pq.read_table(CORPUS, columns=["image", "text"]).slice(0, 10_000).to_pylist()[::8]
    return rows


def test_bundled_model_and_drawings(tmp_path, drawings):
    """Through the product: names and sentences that the index was not tuned by, of a real model."""
    with Collection.open(tmp_path / "shop", "bundled:emoji-clip", index=IndexSettings(kind="ivf")) as shop:
        encoder, vectors = shop.embedder, []
        for start in range(0, len(drawings), 250):
            vectors.append(encoder.encode_document([Item(image=row["image"]) for row in drawings[start : start + 250]]))
        documents = [
            NewDocument(str(n), row["text"], None, None, None, Modality.IMAGE, {}) for n, row in enumerate(drawings)
        ]
        with shop.writer() as writer:
            writer.commit(documents, np.concatenate(vectors))
        shop.build_index()
        told = shop.info()["recall_by_kind"]
        assert {"texts", "changes", "names of documents", "documents with texts"} < set(told)
        assert all(own["recall"] >= RECALL for own in told.values())
        half = [f"{one}, and {other}" for one, other in zip(change_texts()[::2], change_texts()[1::2], strict=False)]
        unseen = encoder.encode_query([Item(text=each) for each in [*half, *(f"a {each}" for each in generic_texts())]])
        with Collection.open(tmp_path / "shop", index="exact") as exact:
            assert recall(shop.snapshot(), exact.snapshot(), unseen) >= RECALL
