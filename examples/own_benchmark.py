"""Measure methods on queries of your own.

    python examples/own_benchmark.py collection queries.csv

The CSV has one line for each query and right answer:

    query,image,text,target
    q1,refs/red-shirt.jpg,the same in blue,shirts/blue.jpg

`image` is a file, `target` the id of a document. Several lines of one query are several right answers.
"""

import argparse
import csv
from pathlib import Path

import underdrawing as ud
from retrieval.metrics import average_precision_at, bootstrap_interval, hit_rate_at, mean


def read_queries(path: Path) -> tuple[list[ud.Query], list[set[str]]]:
    """The queries of a CSV file, and the right answers of each."""
    queries: dict[str, ud.Query] = {}
    targets: dict[str, set[str]] = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            image = path.parent / row["image"] if row["image"] else None
            queries[row["query"]] = ud.Query(image=image, text=row["text"] or None)
            targets.setdefault(row["query"], set()).add(row["target"])
    return list(queries.values()), list(targets.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure methods on queries of your own.")
    parser.add_argument("collection", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("--methods", nargs="+", default=["text", "image", "sum", "slerp", "product"])
    arguments = parser.parse_args()

    queries, targets = read_queries(arguments.queries)
    with ud.Collection.open(arguments.collection, create=False) as collection:
        print(f"{len(queries)} queries, {len(collection)} documents; percent, with the 95 % bootstrap interval")
        for method in arguments.methods:
            rankings = ud.Retriever(collection, method=method).search_batch(queries, k=10)
            ids = [[hit.id for hit in results] for results in rankings]
            first = [hit_rate_at(ranked, right, 1) for ranked, right in zip(ids, targets, strict=True)]
            precision = [average_precision_at(ranked, right, 10) for ranked, right in zip(ids, targets, strict=True)]
            low, high = bootstrap_interval(first)
            print(
                f"{method:10} R@1 {100 * mean(first):5.1f} [{100 * low:.1f}, {100 * high:.1f}]"
                f"   mAP@10 {100 * mean(precision):5.1f}"
            )


if __name__ == "__main__":
    main()
