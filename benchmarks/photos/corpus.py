"""Build the training corpus of the photo model: `python -m benchmarks.photos.corpus`.

    python -m benchmarks.photos.corpus photos.parquet --flickr8k F --fashion F --grocery F --emoji F

Each source is a Parquet table of a public set, with the columns that `SOURCES` names; sources may be omitted. The
result is one table: `id`, `image`, `text` (a first caption), `captions` (all of them), `source` and `split` (`train`,
`validation`, `test`). Photos of people and scenes have sentences by people; products are described from their fields in
many ways, since people's wordings differ; groceries from their names and a shop's descriptions. Products are split by
model, as in `rules.py`. Rows without an image or a caption are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.photos.names import TYPES
from benchmarks.photos.rules import Product, split_of
from indexer.errors import CallError, UnderdrawingError, first_line
from indexer.files.atomic import atomic_path

Row = dict[str, Any]
WHOSE: Mapping[str, tuple[str, str]] = {
    "Men": ("men's ", " for men"), "Women": ("women's ", " for women"), "Boys": ("boys' ", " for boys"),
    "Girls": ("girls' ", " for girls"), "Unisex": ("unisex ", ""),
}  # fmt: skip
COLORS: Mapping[str, str] = {
    "na": "", "multi": "multicolored ", "skin": "skin-colored ", "steel": "steel-gray ", "grey": "gray ",
    "grey melange": "gray melange ", "metallic": "metallic ",
}  # fmt: skip
CARTONS = frozenset({"Juice", "Milk", "Oat-Milk", "Soy-Milk", "Sour-Milk", "Yoghurt", "Oatghurt", "Soyghurt"})


def flickr8k(rows: Sequence[Row]) -> Iterator[Row]:
    """Photos of people and animals, each with five sentences."""
    for row in rows:
        part = {"dev": "validation"}.get(row["split"], row["split"])
        if part in ("train", "validation", "test"):
            captions = [re.sub(r"\s+([.,])", r"\1", " ".join(each.split())) for each in row["captions"]]
            yield {"id": row["id"], "captions": captions, "split": part}


def fashion(rows: Sequence[Row]) -> Iterator[Row]:
    """Photos of products on white."""
    products = [
        Product(
            row["id"], row["title"], row["gender"], row["articleType"], row["baseColour"].lower(),
            hashlib.sha256(row["image"]).hexdigest(),
        )
        for row in rows
    ]  # fmt: skip
    part = split_of(products)
    for row, product in zip(rows, products, strict=True):
        yield {"id": product.id, "captions": described(product, str(row["usage"])), "split": part[product.id]}


def described(product: Product, usage: str) -> list[str]:
    """Captions of a product: its type and color in many ways, and its title with and without the brand."""
    noun = re.sub(r"^an? ", "", TYPES.get(product.type, product.type.lower()))
    one = TYPES.get(product.type, noun).startswith(("a ", "an "))
    color = COLORS.get(product.color, f"{product.color} " if product.color else "")
    whose, for_whom = WHOSE.get(product.gender, ("", ""))
    style = f"{usage.lower()} " if usage in ("Sports", "Ethnic", "Formal", "Party", "Travel") else ""
    said = [
        f"{color}{noun}",
        f"{whose}{color}{noun}",
        f"{color}{noun}{for_whom}",
        f"a photo of {_article(f'{color}{noun}', one)}{for_whom}",
        f"{_article(f'{color}{style}{noun}', one)}{for_whom}",
        f"a product photo of {_article(f'{color}{style}{noun}', one)} on a white background",
        f"{noun} in {color.strip()}" if color.strip() else noun,
        noun,
        product.title,
    ]
    behind = re.split(r"(?i)\b(?:men|women|unisex|kids?|boys?|girls?)(?:'?s)?\b", product.title, maxsplit=1)
    if len(behind) == 2 and len(behind[1].split()) > 1:
        said += [behind[1].strip(" '").lower()] * 2
    return said


def grocery(rows: Sequence[Row]) -> Iterator[Row]:
    """Photos of fruit, vegetables and cartons in shops."""
    for row in rows:
        kind, label = row["coarse"].replace("-", " ").lower(), row["label"].replace("-", " ")
        name = label if kind.rstrip("s") in label.lower() else f"{label} {kind}"
        holder = "a carton of" if row["coarse"] in CARTONS else "fresh"
        sentences = [each for each in re.split(r"(?<=\.)\s+", row["description"].strip()) if len(each) > 10]
        captions = [
            name, name.lower(), f"a photo of {name}", f"{holder} {name}", f"a picture of {kind}", f"{kind} in a shop",
            f"{name} on a shelf of a supermarket", *sentences[:3],
        ]  # fmt: skip
        yield {"id": row["id"], "captions": captions, "split": {"val": "validation"}.get(row["split"], row["split"])}


def emoji(rows: Sequence[Row]) -> Iterator[Row]:
    """Emoji images, with their names and keywords."""
    for row in rows:
        name, words = row["text"], " ".join((row["keywords"] or [])[:6])
        yield {
            "id": row["id"],
            "captions": [name, f"{name} emoji", f"an emoji of {name}", *([words] if words else [])],
            "split": row["split"],
        }


SOURCES: Mapping[str, tuple[Callable[[Sequence[Row]], Iterator[Row]], tuple[str, ...]]] = {
    "flickr8k": (flickr8k, ("id", "image", "captions", "split")),
    "fashion": (fashion, ("id", "image", "title", "gender", "articleType", "baseColour", "usage")),
    "grocery": (grocery, ("id", "image", "label", "coarse", "description", "split")),
    "emoji": (emoji, ("id", "image", "text", "keywords", "split")),
}
"""The reader of each source, and its columns."""
SCHEMA = pa.schema([
    ("id", pa.string()), ("image", pa.binary()), ("text", pa.string()), ("captions", pa.list_(pa.string())),
    ("source", pa.string()), ("split", pa.string()),
])  # fmt: skip


def build(tables: Mapping[str, Path], target: Path) -> dict[str, int]:
    """Write the corpus, and count the rows of each source.

    Raises:
        CallError: A table cannot be read, or lacks a column.
    """
    counts: dict[str, int] = {}
    with atomic_path(target) as temporary, pq.ParquetWriter(temporary, SCHEMA) as writer:
        for source, (make, columns) in SOURCES.items():
            if source not in tables:
                continue
            try:
                rows = pq.read_table(tables[source], columns=list(columns)).to_pylist()
                made = {row["id"]: row for row in make(rows)}
            except (OSError, pa.ArrowException) as error:
                raise CallError(
                    f"{tables[source]} cannot be read: {first_line(error)}.",
                    f"Give a Parquet file with the columns {', '.join(columns)}.",
                ) from error
            found = [
                {
                    "id": f"{source}/{row['id']}", "image": row["image"], "text": made[row["id"]]["captions"][0],
                    "captions": made[row["id"]]["captions"], "source": source, "split": made[row["id"]]["split"],
                }
                for row in rows
                if row["image"] and row["id"] in made and made[row["id"]]["captions"]
            ]  # fmt: skip
            writer.write_table(pa.Table.from_pylist(found, SCHEMA))
            counts[source] = len(found)
    return counts


def _article(what: str, one: bool) -> str:
    return what if not one else f"an {what}" if what[:1] in "aeiou" else f"a {what}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photos.corpus", description="Build the corpus.")
    parser.add_argument("target", type=Path, metavar="FILE", help="the corpus, Parquet")
    for source, (_, columns) in SOURCES.items():
        parser.add_argument(f"--{source}", type=Path, metavar="TABLE", help=f"a Parquet file with {', '.join(columns)}")
    options = vars(parser.parse_args(arguments))
    tables = {source: options[source] for source in SOURCES if options[source] is not None}
    try:
        if not tables:
            raise CallError("No source is given.", f"Give one or more of --{', --'.join(SOURCES)}.")
        counts = build(tables, options["target"])
    except UnderdrawingError as error:
        print(f"photos: {error}", file=sys.stderr)
        return error.exit_code
    for source, count in counts.items():
        print(f"{source}: {count:,} photos")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
