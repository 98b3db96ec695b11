"""Build the composed queries on product photos from the table of a shop: `python -m benchmarks.photos.build`.

    python -m benchmarks.photos.build fashion.parquet DIR

The table is Parquet with the columns `id`, `image` (bytes), `title`, `gender`, `articleType` and `baseColour`, as in
the public set "Fashion Product Images". The folder gets

    images/ID.jpg           the photos of the validation and test galleries, byte for byte
    SPLIT.json              the queries of a split, for each kind of `rules.py`, and the ids of its gallery
    split.json              the part of every product, for training: the tested product models are not in training

The same table gives the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.photos.names import TYPES
from benchmarks.photos.rules import Kind, Product, gallery_of, queries_of, split_of
from indexer.errors import CallError, UnderdrawingError, first_line
from indexer.files.atomic import atomic_write

COLUMNS = ("id", "image", "title", "gender", "articleType", "baseColour")
MOST: Mapping[str, int] = {"validation": 450, "test": 900}
"""Limit of queries of each kind."""


def build(table: Path, folder: Path, *, most: Mapping[str, int] = MOST) -> dict[str, dict[str, int]]:
    """Write the benchmark.

    Args:
        table: The shop's table.
        folder: Destination; existing files are replaced.
        most: Limit of queries of each kind, by split.

    Returns:
        The size of the gallery and the number of queries of each kind, by split.

    Raises:
        CallError: The table cannot be read or lacks a column, or a row has no photo.
    """
    rows = _rows(table)
    products = [_product(row, number) for number, row in enumerate(rows)]
    images = {product.id: row["image"] for product, row in zip(products, rows, strict=True)}
    if len(images) < len(products):
        raise CallError(f"{table}: an id occurs twice among its {len(products):,} rows.", "Ids must be unique.")
    part = split_of(products)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    _write(folder / "split.json", part)
    counts: dict[str, dict[str, int]] = {}
    for split, limit in most.items():
        gallery = gallery_of([product for product in products if part[product.id] == split])
        counts[split] = {"gallery": len(gallery)}
        written: dict[str, Any] = {"gallery": [product.id for product in gallery], "queries": []}
        for kind in Kind:
            queries = queries_of(gallery, kind, limit, TYPES)
            counts[split][str(kind)] = len(queries)
            written["queries"] += [
                {
                    "id": f"{split}-{kind}-{number}", "kind": str(kind), "reference": query.reference,
                    "text": query.text, "color": query.color, "targets": query.targets, "neutral": query.neutral,
                }
                for number, query in enumerate(queries)
            ]  # fmt: skip
        _write(folder / f"{split}.json", written)
        for product in gallery:
            atomic_write(folder / "images" / f"{product.id}.jpg", images[product.id])
    return counts


def _rows(table: Path) -> list[dict[str, Any]]:
    try:
        return pq.read_table(table, columns=list(COLUMNS)).to_pylist()  # type: ignore[no-any-return]
    except (OSError, pa.ArrowException) as error:
        raise CallError(
            f"{table} cannot be read: {first_line(error)}.",
            f"Give a Parquet file with the columns {', '.join(COLUMNS)}.",
        ) from error


def _product(row: Mapping[str, Any], number: int) -> Product:
    for name in COLUMNS:
        if not isinstance(row[name], bytes if name == "image" else str):
            raise CallError(f"Row {number} has no {name}: {str(row[name])[:40]!r}.", "Leave such rows out.")
    if Path(row["id"]).name != row["id"]:
        raise CallError(f"Row {number} has the id {row['id'][:40]!r}, which cannot be a file name.")
    digest = hashlib.sha256(row["image"]).hexdigest()
    return Product(row["id"], row["title"], row["gender"], row["articleType"], row["baseColour"].lower(), digest)


def _write(file: Path, values: Any) -> None:
    atomic_write(file, json.dumps(values, indent=0, ensure_ascii=False).encode() + b"\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photos.build", description="Build the benchmark.")
    parser.add_argument("table", type=Path, metavar="TABLE", help=f"a Parquet file with {', '.join(COLUMNS)}")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to")
    options = parser.parse_args(arguments)
    try:
        counts = build(options.table, options.folder)
    except UnderdrawingError as error:
        print(f"photos: {error}", file=sys.stderr)
        return error.exit_code
    kinds = list(Kind)
    print(f"| | gallery | {' | '.join(kinds)} |\n| --- |{' ---: |' * (1 + len(kinds))}")
    for split, own in counts.items():
        print(f"| {split} | {own['gallery']:,} | {' | '.join(f'{own[kind]:,}' for kind in kinds)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
