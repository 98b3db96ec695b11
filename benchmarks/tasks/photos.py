"""Composed queries on product photos, by rule: `same-model`, `color` and `type` (see `benchmarks/photos/rules.py`).

    python -m benchmarks.photos.build fashion.parquet DIR
    python -m benchmarks.photos --data DIR --method sum --json FILE
    python -m benchmarks.photos --data DIR --split color

A query searches all photos of its split except the reference and the neutral ones. The main number is the mean over the
requested colors, so that black and blue do not dominate.
"""

from __future__ import annotations

from benchmarks.harness.protocol import Choices, Gallery, Protocol
from benchmarks.photos.rules import Kind
from benchmarks.tasks.dataset import Benchmark, DataSet, Place, Task
from indexer.embed.preprocess import Preprocessing
from pipelines.evaluation.qrels import Average, JudgedQuery, Plan, Reference, Ties

VALIDATION = "validation-"
FIELDS = ("id", "kind", "reference", "text", "color", "targets", "neutral")


def read(data: DataSet, split: str, protocol: Protocol) -> Task:
    """The queries of one kind, and the photos of its part."""
    part = "validation" if split.startswith(VALIDATION) else "test"
    kind, file = split.removeprefix(VALIDATION), f"{part}.json"
    found = data.json(file)
    gallery, queries = [str(each) for each in found["gallery"]], []
    for number, record in enumerate(found["queries"]):
        if absent := [name for name in FIELDS if name not in record]:
            raise data.wrong(f"query {number} of {file} has no {absent[0]!r}.", "Build it again from")
        if record["kind"] == kind:
            queries.append(
                JudgedQuery(
                    query_id=record["id"],
                    query=data.query(record["id"], [record["text"]], record["reference"]),
                    targets=tuple(record["targets"]),
                    family=record["color"],
                    exclude=tuple(record["neutral"]),
                )
            )
    return Task(queries, {name: Place(f"{name}.jpg") for name in gallery}, ("images",))


BENCHMARK = Benchmark(
    name="photos",
    title="product photos by rule",
    home="the table of the public set Fashion Product Images, with python -m benchmarks.photos.build",
    layout="what python -m benchmarks.photos.build writes: test.json, validation.json and images/",
    splits=(*Kind, *(f"{VALIDATION}{kind}" for kind in Kind)),
    choices=Choices(
        Protocol(Gallery.SPLIT, Reference.REMOVED, average=Average.FAMILIES),
        {
            "average": (Average.QUERIES,),
            "preprocessing": (Preprocessing.TARGET_PAD,),
            "ties": (Ties.BY_ID,),
        },
    ),
    measures=Plan(recall=(1, 5, 10), precision=(10,), subset=()),
    main="R@1",
    read=read,
)
