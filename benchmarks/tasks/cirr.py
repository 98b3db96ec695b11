"""CIRR: composed queries over images of everyday scenes, with subsets of hard siblings (Liu et al., ICCV 2021).

    python -m benchmarks.cirr --data DIR --split val --method sum --json FILE
    python -m benchmarks.cirr --data DIR --split test1 --method sum --submission DIR      files for its server
    python -m benchmarks.cirr --protocol

The gallery is that of the split, without the reference; Rsub@K ranks the five other images of the group of six that a
query was written for. Only the server knows the targets of test1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.harness.protocol import Choices, Gallery, Protocol
from benchmarks.harness.submission import write_cirr
from benchmarks.tasks.dataset import Benchmark, DataSet, Place, Task
from indexer.embed.preprocess import Preprocessing
from pipelines.evaluation.qrels import JudgedQuery, Plan, Reference, Ties


@dataclass(frozen=True)
class Counts:
    """Published counts of a split."""

    queries: int
    images: int
    references: int


COUNTS: Mapping[str, Counts] = {"val": Counts(4181, 2297, 2165), "test1": Counts(4148, 2315, 2178)}

FOLDERS = ("", "img_raw", "cirr", "cirr/img_raw")
HOME = "https://github.com/Cuberick-Orion/CIRR (annotations) and https://lil.nlp.cornell.edu/nlvr/ (NLVR2's images)"


def read(data: DataSet, split: str, protocol: Protocol) -> Task:
    """The queries and gallery of a split."""
    fields = ["pairid", "reference", "caption", "img_set", *(["target_hard"] if split == "val" else [])]
    captions, splits = f"captions/cap.rc2.{split}.json", f"image_splits/split.rc2.{split}.json"
    records = data.records(fields, captions, f"cirr/{captions}")
    names = data.json(splits, f"cirr/{splits}")
    if not isinstance(names, dict):
        raise data.wrong(f"{splits} is not an object of names and paths.", "Download it again from")
    known = COUNTS[split]
    data.require_count(f"queries in {captions}", len(records), known.queries)
    data.require_count(f"images in {splits}", len(names), known.images)
    data.require_count(f"references in {captions}", len({each["reference"] for each in records}), known.references)
    queries = [
        JudgedQuery(
            query_id=str(each["pairid"]),
            query=data.query(each["pairid"], [each["caption"]], each["reference"]),
            targets=(each["target_hard"],) if split == "val" else (),
            subset=tuple(name for name in each["img_set"]["members"] if name != each["reference"]),
        )
        for each in records
    ]
    return Task(queries, {name: Place(path) for name, path in names.items()}, FOLDERS)


BENCHMARK = Benchmark(
    name="cirr",
    title="CIRR",
    home=HOME,
    layout="captions/cap.rc2.SPLIT.json, image_splits/split.rc2.SPLIT.json (or both below cirr/), and the images at "
    "the paths that the second names, below DIR or img_raw/",
    splits=("val", "test1"),
    choices=Choices(
        Protocol(Gallery.SPLIT, Reference.REMOVED),
        {
            "reference": (Reference.KEPT,),
            "preprocessing": (Preprocessing.TARGET_PAD,),
            "ties": (Ties.BY_ID,),
        },
    ),
    measures=Plan(recall=(1, 5, 10, 50), precision=(), subset=(1, 2, 3)),
    main="R@1",
    read=read,
    submit=write_cirr,
    hidden=frozenset({"test1"}),
)
