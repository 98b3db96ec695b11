"""EmojiCIR's bundled queries, as the evaluation loop takes them.

What this module does not know: the corpus, models, how queries are ranked.
"""

from __future__ import annotations

from pathlib import Path

from indexer.types import HelpfulEnum
from pipelines.evaluation.loop import JudgedQuery
from retrieval.query import Query


class Split(HelpfulEnum):
    """Which queries. Nothing is ever tuned on `test`."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def read_queries(path: Path, split: Split, limit: int | None = None) -> list[JudgedQuery]:
    """The judged queries of a split.

    Args:
        path: The Parquet file of the queries; the bundled one is `indexer.bundled.QUERIES`.
        split: Which.
        limit: At most so many, spread evenly over the file, so that every large family has its share.
    """
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(path, filters=[("split", "=", split.value)])
    if limit is not None and limit < table.num_rows:
        table = table.take(np.linspace(0, table.num_rows - 1, limit).astype(np.int64))
    return [
        JudgedQuery(
            query_id=row["query_id"],
            query=Query(text=row["text"], like=row["reference"]),
            targets=tuple(row["targets"]),
            subset=tuple(row["subset"]),
            family=row["family"],
            exclude=(row["reference"],),
        )
        for row in table.to_pylist()
    ]


def by_family(queries: list[JudgedQuery], each: int) -> list[JudgedQuery]:
    """At most `each` queries of every family, spread evenly over it, in the order of the file."""
    families: dict[str, list[JudgedQuery]] = {}
    for query in queries:
        families.setdefault(query.family, []).append(query)
    return [
        own[position * len(own) // min(each, len(own))]
        for own in families.values()
        for position in range(min(each, len(own)))
    ]
