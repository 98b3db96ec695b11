"""Recall of a model on the emoji corpus: names of images, seen and unseen, and words that are in no caption.

    python -m benchmarks.emoji.names [--model bundled:emoji-clip] [--json FILE]

Three measures, each R@10:

* image to text: an image against the 3,786 names, for the concepts of each part of the split;
* text to image: a name against all images of the corpus, for the same parts; any image of the concept is right;
* synonyms: a word of `synonyms.json` against all images; any image whose name contains one of the listed words is
  right. None of these words occurs in any name, keyword or wording of the corpus, which is checked on every run.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from indexer.bundled import CORPUS
from indexer.embed import load_embedder
from indexer.embed.base import Embedder
from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write
from indexer.types import Item, Vectors

SYNONYMS = Path(__file__).with_name("synonyms.json")
K = 10

Rows = Sequence[Mapping[str, Any]]


def measure(embedder: Embedder, rows: Rows, synonyms: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """All three measures of one model."""
    images = embedder.encode_document([Item(image=row["image"]) for row in rows])
    names = sorted({row["text"] for row in rows})
    texts = embedder.encode_query([Item(text=name) for name in names])
    number = {name: position for position, name in enumerate(names)}
    concept = np.array([number[row["text"]] for row in rows])
    part = np.array([row["split"] for row in rows])
    found: dict[str, Any] = {"image_to_text": {}, "text_to_image": {}}
    for split in ("train", "validation", "test"):
        inside = part == split
        found["image_to_text"][split] = _ranked(images[inside] @ texts.T, concept[inside])
        wanted = np.unique(concept[inside])
        hits = [bool(np.isin(_top(texts[each] @ images.T), np.flatnonzero(concept == each)).any()) for each in wanted]
        found["text_to_image"][split] = {"R@10": round(float(np.mean(hits)), 4), "names": len(wanted)}
    return found | {"synonyms": _synonyms(embedder, images, rows, synonyms)}


def _ranked(scores: npt.NDArray[np.float32], right: npt.NDArray[np.int64]) -> dict[str, float]:
    rank = (scores > scores[np.arange(len(right)), right][:, None]).sum(1)
    return {f"R@{k}": round(float((rank < k).mean()), 4) for k in (1, 5, K)} | {"images": len(right)}


def _synonyms(embedder: Embedder, images: Vectors, rows: Rows, synonyms: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    known = {word for row in rows for text in _said(row) for word in _words(text)}
    leaked = sorted(known & set(synonyms))
    if leaked:
        raise CallError(f"These synonyms occur in the corpus: {', '.join(leaked)}.", f"Remove them from {SYNONYMS}.")
    names = [_words(row["text"]) for row in rows]
    queries = embedder.encode_query([Item(text=word) for word in synonyms])
    missed = []
    for query, (word, accepted) in zip(queries, synonyms.items(), strict=True):
        if not any(names[row] & set(accepted) for row in _top(query @ images.T)):
            missed.append(word)
    return {"R@10": round(1 - len(missed) / len(synonyms), 4), "words": len(synonyms), "missed": missed}


def _said(row: Mapping[str, Any]) -> list[str]:
    return [row["text"], row["group"] or "", row["subgroup"] or "", *row["keywords"], *row["wordings"]]


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def _top(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    return np.argsort(-scores, kind="stable")[:K]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the last line of standard output is one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emoji.names", description="What a model knows.")
    parser.add_argument("--model", default="bundled:emoji-clip", help="an embedder's name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to FILE")
    options = parser.parse_args(arguments)
    try:
        rows = pq.read_table(CORPUS).to_pylist()
        synonyms = json.loads(SYNONYMS.read_text(encoding="utf-8"))
        found = {"model": options.model, **measure(load_embedder(options.model), rows, synonyms)}
    except UnderdrawingError as error:
        print(f"names: {error}", file=sys.stderr)
        return error.exit_code
    for direction in ("image_to_text", "text_to_image"):
        for split, values in found[direction].items():
            print(f"{direction:14} {split:11} " + "  ".join(f"{name} {value}" for name, value in values.items()))
    print(f"synonyms       R@10 {found['synonyms']['R@10']} of {found['synonyms']['words']} words")
    line = json.dumps(found, separators=(",", ":"))
    if options.json:
        atomic_write(options.json, line.encode() + b"\n")
    print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
