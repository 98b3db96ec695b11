"""EmojiCIR: composed queries over the bundled emoji corpus.

    python -m benchmarks.emojicir --split test --method sum --json FILE [--run FILE] [--model M] [--limit N]
    python -m benchmarks.emojicir --split test --table       every method, as the markdown table of the README
    python -m benchmarks.emojicir --sweep                    tune the weights on the validation split

The gallery is the whole corpus, all vendors and all splits; only images are embedded, never names or keywords; the
reference is a stored image and is removed from the ranking; the text is the query's sentence, unchanged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq

from benchmarks.harness.protocol import Choices, Gallery, Protocol
from benchmarks.tasks.dataset import Benchmark, DataSet, Task
from indexer.bundled import CORPUS, QUERIES
from indexer.files.atomic import file_digest
from pipelines.evaluation.emojicir import Split, read_queries
from pipelines.evaluation.qrels import Average, Plan, Precision, Reference, Ties


def read(data: DataSet, split: str, protocol: Protocol) -> Task:
    """The queries of a split, and the whole corpus."""
    return Task(
        read_queries(QUERIES, Split(split)),
        corpus=CORPUS,
        ids=frozenset(pq.read_table(CORPUS, columns=["id"])["id"].to_pylist()),
        digests={"corpus": file_digest(CORPUS)[:16], "judgments": file_digest(QUERIES)[:16]},
    )


def limited(task: Task, limit: int) -> Task:
    """A limited number of queries, spread evenly over the file, so that every large family has its share."""
    if limit >= len(task.queries):
        return task
    return replace(
        task, queries=[task.queries[place] for place in np.linspace(0, len(task.queries) - 1, limit).astype(int)]
    )


BENCHMARK = Benchmark(
    name="emojicir",
    title="EmojiCIR",
    home="",
    layout="Its corpus and queries are bundled.",
    splits=("test", "validation", "train"),
    choices=Choices(
        Protocol(
            Gallery.WHOLE,
            Reference.REMOVED,
            precision=Precision.TRUNCATED,
            ties=Ties.BY_ID,
            average=Average.FAMILIES,
        ),
        {"ties": (Ties.AGAINST_TARGET,)},
    ),
    measures=Plan(),
    main="mAP@10",
    read=read,
    model="bundled:emoji-clip",
    limited=limited,
    tuned_on="validation",
)
