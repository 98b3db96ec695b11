"""FashionIQ: dresses, shirts and tops, with two captions per query (Wu et al., CVPR 2021).

    python -m benchmarks.fashioniq --data DIR --method sum --json FILE
    python -m benchmarks.fashioniq --data DIR --split dress --gallery val
    python -m benchmarks.fashioniq --protocol

Each category has its own gallery: that of the split files (`original`) or the queries' own images (`val`); the
reference stays in it. The main number is the mean over categories. Only the validation split has public qrels, so
`--split` is that, or one category of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.protocol import Captions, Choices, Gallery, Protocol
from benchmarks.tasks.dataset import Benchmark, DataSet, Place, Task
from indexer.embed.preprocess import Preprocessing
from pipelines.evaluation.qrels import Average, JudgedQuery, Plan, Reference, Ties


@dataclass(frozen=True)
class Counts:
    """Published counts of a category: queries, and images of either gallery."""

    queries: int
    original: int
    val: int


COUNTS: Mapping[str, Counts] = {
    "dress": Counts(2017, 3817, 2628),
    "shirt": Counts(2038, 6346, 3089),
    "toptee": Counts(1961, 5373, 2902),
}
STRIPPED = ".?, "
HOME = "https://github.com/XiaoxiaoGuo/fashion-iq (annotations, and URLs of the images)"


def read(data: DataSet, split: str, protocol: Protocol) -> Task:
    """The queries and galleries of all categories, or of one."""
    queries: list[JudgedQuery] = []
    names: dict[str, None] = {}
    for category in COUNTS if split == "val" else [split]:
        own = _category(data, category, protocol)
        queries += own
        names |= dict.fromkeys(own[0].gallery)
        # A reference is indexed even if it is in no gallery: its vector is the query.
        names |= dict.fromkeys(query.query.like or "" for query in own)
    return Task(queries, {name: Place(f"{name}.jpg") for name in names}, ("images", ""))


def _category(data: DataSet, category: str, protocol: Protocol) -> list[JudgedQuery]:
    captions, split = f"captions/cap.{category}.val.json", f"image_splits/split.{category}.val.json"
    records = data.records(["candidate", "target", "captions"], captions)
    original = data.json(split)
    if not isinstance(original, list):
        raise data.wrong(f"{split} is not a list of names.", "Download it again from")
    known = COUNTS[category]
    data.require_count(f"queries in {captions}", len(records), known.queries)
    data.require_count(f"images in {split}", len(original), known.original)
    data.require_unique(f"image in {split}", original)
    union = list(dict.fromkeys(each[name] for each in records for name in ("candidate", "target")))
    data.require_count(f"images named in {captions}", len(union), known.val)
    gallery = tuple(original if protocol.gallery is Gallery.ORIGINAL else union)
    return [
        JudgedQuery(
            query_id=f"{category}-{number}",
            query=data.query(f"{category}-{number}", sentences, each["candidate"]),
            targets=(each["target"],),
            family=category,
            gallery=gallery,
        )
        for number, each in enumerate(records)
        for sentences in [_sentences(data, captions, number, each["captions"], protocol.captions)]
    ]


def _sentences(data: DataSet, file: str, number: int, given: Any, how: Captions) -> Sequence[str]:
    """The captions joined; an empty one, of which the data set has three, leaves the other with its 'and'."""
    if not isinstance(given, list) or len(given) != 2 or not all(isinstance(each, str) for each in given):
        raise data.wrong(f"entry {number} of {file} does not have two captions.", "Download it again from")
    one, two = (each.strip(STRIPPED) for each in given)
    match how:
        case Captions.FORWARD:
            return [f"{one} and {two}"]
        case Captions.REVERSED:
            return [f"{two} and {one}"]
        case _:
            return [f"{one} and {two}", f"{two} and {one}"]


BENCHMARK = Benchmark(
    name="fashioniq",
    title="FashionIQ",
    home=HOME,
    layout="captions/cap.CATEGORY.val.json and image_splits/split.CATEGORY.val.json for dress, shirt and toptee, and "
    "images/NAME.jpg or .png",
    splits=("val", *COUNTS),
    choices=Choices(
        Protocol(Gallery.ORIGINAL, Reference.KEPT, Captions.BOTH_ORDERS, average=Average.FAMILIES),
        {
            "gallery": (Gallery.VAL,),
            "reference": (Reference.REMOVED,),
            "captions": (Captions.FORWARD, Captions.REVERSED),
            "preprocessing": (Preprocessing.TARGET_PAD,),
            "ties": (Ties.BY_ID,),
        },
    ),
    measures=Plan(recall=(1, 5, 10, 50), precision=(), subset=()),
    main="R@10",
    read=read,
)
