"""The work that `paired` times in each checkout: indexing and searching, through public names only.

It runs as a script, with the measured checkout on the path, and so imports nothing of `benchmarks`. It prints one JSON
document: by work, the milliseconds of each turn.

    python -P paired_driver.py FOLDER --rows N --images N --turns N
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from indexer import Collection, Document, index_corpus
from retrieval import Query, Retriever

WORDS = 4000
"""Words of the synthetic vocabulary; each text has eight."""
BUCKETS = 1000
BATCH = 500
SPAN = 10
"""Number of buckets that a filter matches."""
ADDS = 100
UNSEEN = 10**6
"""First number of queries whose numbers no document has."""
MODEL = "fake:512"

FIRST_ANSWER = """
import sys
from indexer import Collection
from retrieval import Query, Retriever
with Collection.open(sys.argv[1]) as collection:
    Retriever(collection).search(Query(text="word1 word2"))
"""


def text_of(number: int) -> str:
    """The text of a document: eight words that depend on its number."""
    return " ".join(f"word{word}" for word in np.random.default_rng(number).integers(0, WORDS, 8))


def image_of(number: int, side: int = 24) -> Image.Image:
    """A small image of noise."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8))


def make_texts(file: Path, rows: int) -> None:
    """A corpus of texts with a field to filter by, made once."""
    if not file.exists():
        lines = (json.dumps({"id": str(n), "text": text_of(n), "bucket": n % BUCKETS}) + "\n" for n in range(rows))
        file.write_text("".join(lines), encoding="utf-8")


def make_images(folder: Path, count: int) -> None:
    """A corpus of JPEGs of 320 × 240 pixels, made once."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        if not (file := folder / f"{number}.jpg").exists():
            written = BytesIO()
            image_of(number).resize((320, 240), Image.Resampling.BICUBIC).save(written, "JPEG")
            file.write_bytes(written.getvalue())


def timed(work: Callable[[int], Any], turns: int, first: int = 0) -> list[float]:
    """Milliseconds of each turn."""
    found = []
    for turn in range(first, first + turns):
        start = time.perf_counter()
        work(turn)
        found.append(1000 * (time.perf_counter() - start))
    return found


def indexing(folder: Path) -> dict[str, list[float]]:
    """The times of indexing, each from an open collection to the last commit."""
    found = {}
    for name, source, model in (
        ("index texts", folder / "few.jsonl", MODEL),
        ("index images", folder / "images", "bundled:emoji-clip"),
    ):
        target = folder / "new"
        shutil.rmtree(target, ignore_errors=True)
        with Collection.open(target, model) as collection:
            # The first commit also embeds a hundred generic texts.
            collection.add([Document("first", text="a text")])
            found[name] = timed(partial(_index, source, collection), 1)
            if model == MODEL:
                found["add one document"] = timed(partial(_add, collection), ADDS)
        shutil.rmtree(target)
    return found


def _index(source: Path, collection: Collection, _: int) -> None:
    index_corpus(source, collection)


def _add(collection: Collection, number: int) -> None:
    collection.add([Document(f"added-{number}", text=text_of(number))])


def searching(folder: Path, turns: int) -> dict[str, list[float]]:
    """The times of searching, documents returned; every turn has a new query."""
    kept = folder / "kept"
    if not kept.exists():
        with Collection.open(folder / "making", MODEL) as collection:
            index_corpus(folder / "texts.jsonl", collection)
        (folder / "making").rename(kept)
    with Collection.open(kept) as collection:
        retriever = Retriever(collection, method="sum")

        def composed(turn: int) -> None:
            retriever.search(Query(image=image_of(turn), text=text_of(turn)))

        def filtered(turn: int) -> None:
            low = turn % (BUCKETS - SPAN)
            retriever.search(Query(text=text_of(turn)), where={"bucket": {"$gte": low, "$lt": low + SPAN}})

        def together(turn: int) -> None:
            retriever.search_batch([Query(text=text_of(BATCH * turn + each)) for each in range(BATCH)])

        asked: dict[str, tuple[Callable[[int], Any], int]] = {
            "search, text": (lambda turn: retriever.search(Query(text=text_of(turn))), turns),
            "search, text and image": (composed, turns),
            f"search, {100 * SPAN / BUCKETS:g} % match a filter": (filtered, turns),
            f"search, {BATCH} texts at once": (together, max(turns // 10, 1)),
        }
        found = {}
        for name, (work, count) in asked.items():
            timed(work, min(3, count), UNSEEN)
            found[name] = timed(work, count, 2 * UNSEEN)
    return found


def approximate(folder: Path, turns: int) -> dict[str, list[float]]:
    """The time of a search through HNSW, which is built first if needed."""
    with Collection.open(folder / "kept", index="hnsw") as collection:
        if not (folder / "built").exists():
            collection.build_index()
            (folder / "built").touch()
        retriever = Retriever(collection, method="sum")

        def search(turn: int) -> None:
            retriever.search(Query(text=text_of(turn)))

        timed(search, 3, UNSEEN)
        return {"search, HNSW": timed(search, turns, 2 * UNSEEN)}


def starting(folder: Path) -> dict[str, list[float]]:
    """The time of a new process, from its start to the first answer."""
    command = [sys.executable, "-c", FIRST_ANSWER, str(folder / "kept")]
    return {"process to first answer": timed(lambda _: subprocess.run(command, check=True), 2)}  # noqa: S603


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--turns", type=int, required=True)
    options = parser.parse_args()
    folder = options.folder
    make_texts(folder / "texts.jsonl", options.rows)
    make_texts(folder / "few.jsonl", options.rows // 4)
    make_images(folder / "images", options.images)
    found = searching(folder, options.turns) | approximate(folder, options.turns) | starting(folder) | indexing(folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
