"""CIRCO: composed queries over COCO's unlabelled images, with several targets each (Baldrati et al., ICCV 2023).

    python -m benchmarks.circo --data DIR --split val --method sum --json FILE
    python -m benchmarks.circo --data DIR --split test --method sum --submission DIR      files for its server
    python -m benchmarks.circo --protocol

The gallery is all 123,403 images, including the reference. mAP@K counts all targets, R@K the one that the query was
written for; results per semantic aspect are shown, too. Only the server knows the targets of the test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.harness.protocol import Choices, Gallery, Protocol, SharedConcept
from benchmarks.harness.submission import write_circo
from benchmarks.tasks.dataset import Benchmark, DataSet, Place, Task
from indexer.corpus.paths import scan_folder
from indexer.embed.preprocess import Preprocessing
from pipelines.evaluation.qrels import JudgedQuery, Plan, Precision, Reference, Ties

QUERIES: Mapping[str, int] = {"val": 220, "test": 800}
IMAGES = 123_403
FOLDERS = ("COCO2017_unlabeled/unlabeled2017", "unlabeled2017")
INFO = ("COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", "annotations/image_info_unlabeled2017.json")
HOME = "https://github.com/miccunifi/CIRCO (annotations) and https://cocodataset.org (the unlabeled images of 2017)"


def read(data: DataSet, split: str, protocol: Protocol) -> Task:
    """The queries of a split and the whole gallery."""
    file = f"annotations/{split}.json"
    judged = ["target_img_id", "gt_img_ids", "semantic_aspects"] if split == "val" else []
    records = data.records(["id", "reference_img_id", "relative_caption", "shared_concept", *judged], file)
    data.require_count(f"queries in {file}", len(records), QUERIES[split])
    names = {str(number): Place(f"{number:012}.jpg") for number in _numbers(data)}
    data.require_count("images", len(names), IMAGES)
    return Task([_query(data, each, split, protocol) for each in records], names, FOLDERS)


def _query(data: DataSet, record: Mapping[str, Any], split: str, protocol: Protocol) -> JudgedQuery:
    text = record["relative_caption"]
    if protocol.shared_concept is SharedConcept.BEFORE:
        text = f"{record['shared_concept']}, {text}"
    hidden = split != "val"
    return JudgedQuery(
        query_id=str(record["id"]),
        query=data.query(str(record["id"]), [text], str(record["reference_img_id"])),
        targets=() if hidden else tuple(str(number) for number in record["gt_img_ids"]),
        intended=None if hidden else str(record["target_img_id"]),
        aspects=() if hidden else tuple(record["semantic_aspects"]),
    )


def _numbers(data: DataSet) -> list[int]:
    """The ids of all images, from COCO's own list if it exists, else from the files."""
    if not any((data.root / place).exists() for place in INFO):
        stems = (name.rpartition(".")[0] for name in scan_folder(data.find(*FOLDERS)))
        return sorted(int(stem) for stem in stems if stem.isdecimal())
    listed = data.json(*INFO)
    images = listed.get("images") if isinstance(listed, dict) else None
    if not isinstance(images, list) or not all(isinstance(each, dict) and "id" in each for each in images):
        raise data.wrong(f"{data.find(*INFO)} has no list of images with ids.", "Download it again from")
    numbers = [int(each["id"]) for each in images]
    data.require_unique("image", numbers)
    return numbers


BENCHMARK = Benchmark(
    name="circo",
    title="CIRCO",
    home=HOME,
    layout="annotations/SPLIT.json, COCO2017_unlabeled/unlabeled2017/ID.jpg or .png, ID of 12 digits, and, if it is "
    "there, COCO2017_unlabeled/annotations/image_info_unlabeled2017.json",
    splits=("val", "test"),
    choices=Choices(
        Protocol(
            Gallery.WHOLE,
            Reference.KEPT,
            shared_concept=SharedConcept.LEFT_OUT,
            precision=Precision.TRUNCATED,
        ),
        {
            "reference": (Reference.REMOVED,),
            "shared_concept": (SharedConcept.BEFORE,),
            "preprocessing": (Preprocessing.TARGET_PAD,),
            "ties": (Ties.BY_ID,),
        },
    ),
    measures=Plan(recall=(5, 10, 25, 50), precision=(5, 10, 25, 50), subset=()),
    main="mAP@5",
    read=read,
    submit=write_circo,
    hidden=frozenset({"test"}),
)
