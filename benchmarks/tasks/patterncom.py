"""PatternCom: aerial images and the requested value of an attribute (Psomas et al., IGARSS 2024).

    python -m benchmarks.patterncom --data DIR --method sum --json FILE
    python -m benchmarks.patterncom --data DIR --split color
    python -m benchmarks.patterncom --protocol

A query is an image and another value of one of its attributes, as one word; a target shows the same class with that
value. The gallery is all of PatternNet, including the reference; average precision uses the whole ranking. The main
number is the mean over the six attributes (its authors' `Avg` weights values instead).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness.protocol import Choices, Gallery, Protocol
from benchmarks.tasks.dataset import Benchmark, DataSet, Place, Task
from indexer.corpus.paths import scan_folder
from indexer.corpus.records import IMAGE_SUFFIXES
from indexer.embed.preprocess import Preprocessing
from pipelines.evaluation.qrels import Average, JudgedQuery, Plan, Precision, Reference, Ties

ATTRIBUTES = ("color", "context", "density", "existence", "quantity", "shape")
IMAGES = 38 * 800
QUERIES = 21_000
"""Lower bound of the published number of queries, over all attributes."""

MERGED: Mapping[str, str] = {
    "denseresidential": "residential",
    "sparseresidential": "residential",
    "closedroad": "road",
    "intersection": "road",
    "bridge": "roadpass",
    "overpass": "roadpass",
    "ferryterminal": "pier",
    "harbor": "pier",
    "parkingspace": "parking",
    "parkinglot": "parking",
}
"""Classes that the benchmark merges: a target may belong to either."""
OFFERED: Mapping[str, frozenset[str]] = {
    "density": frozenset({"residential"}),
    "shape": frozenset({"road"}),
    "context": frozenset({"roadpass"}),
    "existence": frozenset({"pier", "parking"}),
}
"""By attribute, the merged classes that share their values; every other class uses its own values."""
HOME = "https://github.com/billpsomas/rscir (annotations, and a link to PatternNet)"


def read(data: DataSet, split: str, protocol: Protocol) -> Task:
    """The queries of all attributes, or of one, and all images of PatternNet."""
    folder = data.find("images")
    paths = {path.name: path.relative_to(folder).as_posix() for path in _files(folder)}
    data.require_count("images in images/", len(paths), IMAGES)
    attributes = ATTRIBUTES if split == "all" else (split,)
    queries = [query for attribute in attributes for query in _queries(data, attribute)]
    if split == "all" and len(queries) < QUERIES:
        raise data.wrong(
            f"{len(queries):,} queries, and more than {QUERIES:,} are published.",
            "Numbers would not be comparable; download it again from",
        )
    return Task(queries, {name: Place(path) for name, path in paths.items()}, ("images",))


def _queries(data: DataSet, attribute: str) -> list[JudgedQuery]:
    rows = data.rows(3, f"PatternCom/{attribute}.csv")
    data.require_unique(f"image in PatternCom/{attribute}.csv", [name for name, *_ in rows])
    offered: dict[str, dict[str, None]] = defaultdict(dict)
    shows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, _, value in rows:
        offered[_asking(name, attribute)].setdefault(value)
        shows[_merged(name), value].append(name)
    return [
        JudgedQuery(
            query_id=f"{attribute}-{number}-{place}",
            query=data.query(f"{attribute}-{number}-{place}", [wanted], name),
            targets=tuple(shows[_merged(name), wanted]),
            family=attribute,
        )
        for number, (name, _, value) in enumerate(rows)
        for place, wanted in enumerate(each for each in offered[_asking(name, attribute)] if each != value)
    ]


def _merged(name: str) -> str:
    """The class that an image's name begins with, as the benchmark merges it."""
    own = re.split(r"\d", name)[0]
    return MERGED.get(own, own)


def _asking(name: str, attribute: str) -> str:
    """The class whose values an image's queries use."""
    own, merged = re.split(r"\d", name)[0], _merged(name)
    return merged if merged in OFFERED.get(attribute, ()) else own


def _files(folder: Path) -> list[Path]:
    """The images, in one folder or one per class."""
    found = []
    for name in sorted(scan_folder(folder)):
        if name.endswith("/"):
            found += _files(folder / name)
        elif Path(name).suffix.lower() in IMAGE_SUFFIXES:
            found.append(folder / name)
    return found


BENCHMARK = Benchmark(
    name="patterncom",
    title="PatternCom",
    home=HOME,
    layout="images/ of PatternNet, flat or in one folder per class, and PatternCom/ATTRIBUTE.csv for "
    f"{', '.join(ATTRIBUTES)}",
    splits=("all", *ATTRIBUTES),
    choices=Choices(
        Protocol(Gallery.WHOLE, Reference.KEPT, precision=Precision.STANDARD, average=Average.FAMILIES),
        {
            "reference": (Reference.REMOVED,),
            "precision": (Precision.TRAPEZOID,),
            "preprocessing": (Preprocessing.TARGET_PAD,),
            "average": (Average.QUERIES,),
            "ties": (Ties.BY_ID,),
        },
    ),
    measures=Plan(recall=(1, 5, 10), precision=(), subset=()),
    main="mAP",
    read=read,
)
