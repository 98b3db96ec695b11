"""i-CIR: specific objects under a change, each with a database of hard negatives (Psomas et al., NeurIPS 2025).

    python -m benchmarks.icir --data DIR --method product --json FILE
    python -m benchmarks.icir --protocol

A query searches the images of its own instance's database, about 3,700; a target shows the instance as the text says.
The main number is the mean over queries of the trapezoidal average precision of the whole ranking; the mean over
instances is shown beside it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from urllib.parse import quote

from benchmarks.harness.protocol import Choices, Gallery, Protocol
from benchmarks.tasks.dataset import Benchmark, DataSet, Place, Task
from indexer.embed.preprocess import Preprocessing
from pipelines.evaluation.qrels import Average, JudgedQuery, Plan, Precision, Reference, Ties

QUERIES, INSTANCES = 1883, 202
HEADS = frozenset({"image_path", "path", "image"})
HOME = "https://vrg.fel.cvut.cz/icir (the archive icir_v1.0.0.tar.gz)"


def read(data: DataSet, split: str, protocol: Protocol) -> Task:
    """All queries and databases."""
    queries, database = (_rows(data, f"{name}_files.csv") for name in ("query", "database"))
    data.require_count("queries in query_files.csv", len(queries), QUERIES)
    data.require_count("instances in query_files.csv", len({instance for *_, instance in queries}), INSTANCES)
    images: dict[str, Place] = {}
    galleries: dict[str, dict[str, None]] = defaultdict(dict)
    shows: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for path, text, instance in database:
        images[_name(path)] = Place(path)
        galleries[instance].setdefault(_name(path))
        shows[instance, text].setdefault(_name(path))
    for path, *_ in queries:
        images[_name(path)] = Place(path)
    whole = {instance: tuple(names) for instance, names in galleries.items()}
    judged = []
    for number, (path, text, instance) in enumerate(queries):
        if (instance, text) not in shows:
            raise data.wrong(
                f"no image is the target of query {number + 1}, {instance}: {text!r}.", "Download it again from"
            )
        judged.append(
            JudgedQuery(
                query_id=f"q{number + 1:04}",
                query=data.query(f"q{number + 1:04}", [text], _name(path)),
                targets=tuple(shows[instance, text]),
                family=instance,
                gallery=whole[instance],
            )
        )
    return Task(judged, images)


def _rows(data: DataSet, file: str) -> Sequence[Sequence[str]]:
    """Path, text and instance of each image.

    The part of paths before `query/` or `database/` is a folder on the authors' machine.
    """
    rows = data.rows(3, file, f"annotations/{file}")
    rows = rows[1:] if rows and rows[0][0] in HEADS else rows
    return [(re.sub(r"^.*?/(?=(query|database)/)", "", path), text, instance) for path, text, instance in rows]


def _name(path: str) -> str:
    """A path as an id without white space, which a run file could not hold."""
    return quote(path)


BENCHMARK = Benchmark(
    name="icir",
    title="i-CIR",
    home=HOME,
    layout="query_files.csv, database_files.csv, and the images that they name, query/ and database/",
    splits=("test",),
    choices=Choices(
        Protocol(Gallery.LISTED, Reference.REMOVED, precision=Precision.TRAPEZOID, average=Average.QUERIES),
        {
            "precision": (Precision.STANDARD,),
            "average": (Average.FAMILIES,),
            "preprocessing": (Preprocessing.TARGET_PAD,),
            "ties": (Ties.BY_ID,),
        },
    ),
    measures=Plan(recall=(1, 5, 10), precision=(), subset=()),
    main="mAP",
    read=read,
)
