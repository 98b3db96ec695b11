"""GeneCIS: four tasks of conditional similarity, each query with a short list of candidates (Vaze et al., CVPR 2023).

    python -m benchmarks.genecis --data DIR --method sum --json FILE
    python -m benchmarks.genecis --data DIR --split change_object
    python -m benchmarks.genecis --protocol

The condition is the sentence. `focus` preserves what it names, `change` changes to it; objects are whole images of
COCO, attributes are parts of Visual Genome's images, cropped as by the authors. The main number is the mean over tasks.
The published lists begin with the target, so ties count against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.harness.protocol import Choices, Gallery, Protocol
from benchmarks.tasks.dataset import Benchmark, DataSet, Place, Task
from indexer.embed.preprocess import Preprocessing
from pipelines.evaluation.qrels import Average, JudgedQuery, Plan, Reference, Ties

QUERIES: Mapping[str, int | None] = {
    "focus_attribute": None,
    "change_attribute": None,
    "focus_object": 1960,
    "change_object": 1960,
}
"""Published number of queries by task; unknown for the attribute tasks."""
CANDIDATES: Mapping[str, int | None] = {**dict.fromkeys(QUERIES), "focus_object": 15, "change_object": 15}
"""Number of candidates of a query, by task."""

FOLDERS = ("val2017", "coco/val2017", "VG_100K", "VG_100K_2", "VG_All", "visual_genome", "")
HOME = (
    "https://github.com/facebookresearch/genecis (annotations), https://cocodataset.org (val2017) and "
    "https://homes.cs.washington.edu/~ranjay/visualgenome (Visual Genome 1.2, for the attribute tasks)"
)


def read(data: DataSet, split: str, protocol: Protocol) -> Task:
    """The queries of all tasks, or of one, with the images that they name."""
    queries: list[JudgedQuery] = []
    images: dict[str, Place] = {}
    for task in QUERIES if split == "all" else [split]:
        file = f"genecis/{task}.json"
        records = data.records(["reference", "target", "gallery", "condition"], file, f"{task}.json")
        data.require_count(f"queries in {file}", len(records), QUERIES[task])
        for number, record in enumerate(records):
            where = f"entry {number} of {file}"
            named = [_image(data, each, where) for each in _images(data, record, where)]
            data.require_count(f"candidates in {where}", len(named) - 1, CANDIDATES[task])
            images |= named
            (reference, _), (target, _), *_ = named
            queries.append(
                JudgedQuery(
                    query_id=f"{task}-{number}",
                    query=data.query(f"{task}-{number}", [record["condition"]], reference),
                    targets=(target,),
                    family=task,
                    # An image that is listed twice is one candidate.
                    gallery=tuple(dict.fromkeys(name for name, _ in named[1:])),
                )
            )
    return Task(queries, images, FOLDERS)


def _images(data: DataSet, record: Mapping[str, Any], where: str) -> list[Any]:
    if not isinstance(record["gallery"], list):
        raise data.wrong(f"the gallery in {where} is not a list.", "Download it again from")
    return [record["reference"], record["target"], *record["gallery"]]


def _image(data: DataSet, record: Any, where: str) -> tuple[str, Place]:
    """The id and location of an image of COCO, by `val_image_id`, or of a part of an image of Visual Genome."""
    try:
        if "val_image_id" in record:
            number = int(record["val_image_id"])
            return f"coco/{number}", Place(f"{number:012}.jpg")
        number = int(record["image_id"])
        left, top, width, height = (float(each) for each in record["instance_bbox"])
    except (KeyError, TypeError, ValueError) as error:
        raise data.wrong(f"{where} names no image: {record!r:.80}.", "Download it again from") from error
    box = "-".join(f"{each:g}" for each in (left, top, width, height))
    return f"vg/{number}/{box}", Place(f"{number}.jpg", (left, top, width, height))


BENCHMARK = Benchmark(
    name="genecis",
    title="GeneCIS",
    home=HOME,
    layout=f"genecis/TASK.json for {', '.join(QUERIES)}, COCO's images in val2017/, "
    "and Visual Genome's in VG_100K/ and VG_100K_2/",
    splits=("all", *QUERIES),
    choices=Choices(
        Protocol(Gallery.LISTED, Reference.REMOVED, average=Average.FAMILIES),
        {"preprocessing": (Preprocessing.TARGET_PAD,), "ties": (Ties.BY_ID,)},
    ),
    measures=Plan(recall=(1, 2, 3), precision=(), subset=()),
    main="R@1",
    read=read,
)
