"""What the bundled models find: a fixed sample of EmojiCIR's test split, with a floor for each method.

Full results are in README.md. The gallery here is smaller, so numbers are higher; a floor is what was measured less
three points, since a model's last digits differ between processors.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.harness.gallery import gallery
from benchmarks.tasks.dataset import DataSet, Task
from indexer.bundled import CORPUS, QUERIES
from indexer.collection import Collection
from indexer.embed import load_embedder
from pipelines.evaluation.emojicir import Split, read_queries
from pipelines.evaluation.loop import JudgedQuery, evaluate
from retrieval import PseudoTargetProvider, Retriever

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SAMPLE, DISTRACTORS = 60, 20
"""Queries, spread evenly over the split; and of the drawings that they do not name, every twentieth is in the gallery."""

FLOORS = {
    "text": {"R@10": 20, "mAP@10": 6},
    "image": {"R@10": 67, "mAP@10": 21},
    "sum": {"R@10": 80, "mAP@10": 41},
    "slerp": {"R@10": 80, "mAP@10": 41},
    "product": {"R@10": 77, "mAP@10": 43},
    "shift": {"R@10": 77, "mAP@10": 40},
    "inversion": {"R@10": 79, "mAP@10": 44},
    "cig-reinvert": {"R@10": 79, "mAP@10": 44},
    "cig-embed": {"R@10": 77, "mAP@10": 42},
    "cig-product": {"R@10": 77, "mAP@10": 43},
}
"""R@10 and mAP@10 of each method, in percent."""


@pytest.fixture(scope="module")
def queries() -> list[JudgedQuery]:
    return list(read_queries(QUERIES, Split.TEST, SAMPLE))


@pytest.fixture(scope="module")
def collection(queries: list[JudgedQuery], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    folder = tmp_path_factory.mktemp("headline")
    named = {name for query in queries for name in (query.query.like, *query.targets, *query.subset)}
    table = pq.read_table(CORPUS)
    keep = [name in named or place % DISTRACTORS == 0 for place, name in enumerate(table["id"].to_pylist())]
    pq.write_table(table.filter(pa.array(keep)), folder / "corpus.parquet")
    task = Task(queries, corpus=folder / "corpus.parquet", ids=frozenset({"any"}))
    model = load_embedder("bundled:emoji-clip")
    with gallery("emojicir", DataSet("EmojiCIR", Path(), ""), task, {}, model, folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def pseudo_targets(tmp_path_factory: pytest.TempPathFactory) -> PseudoTargetProvider:
    return PseudoTargetProvider(cache=Path(tmp_path_factory.mktemp("drawings")))


@pytest.mark.parametrize("name", list(FLOORS))
def test_every_method_finds_what_it_found(
    name: str, collection: Collection, queries: list[JudgedQuery], pseudo_targets: PseudoTargetProvider
) -> None:
    found = evaluate(queries, Retriever(collection, name, pseudo_targets=pseudo_targets), 10)
    measured = {measure: 100 * found.measures[measure].value for measure in ("R@10", "mAP@10")}
    short = {
        measure: (value, FLOORS[name][measure]) for measure, value in measured.items() if value < FLOORS[name][measure]
    }
    assert not short, f"{name} fell below its floors (measured, floor): {short}"
