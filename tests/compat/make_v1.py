"""Makes `data/v1`, the collection that `test_old_formats.py` opens: `python tests/compat/make_v1.py FOLDER`.

Run once, with the release whose format is kept. What lies in `data/` is never made again: it is there because later
releases would make something else.

It holds what a format has: texts, pictures kept in the collection, both at once; documents replaced and deleted, so
that there are tombstones; two segments; a job with its ledger and a reject; means of several modalities.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from PIL import Image

from indexer import Collection, Document, index_corpus
from indexer.corpus.records import make_record
from indexer.types import Rejected

FIELDS = {"price": 20, "tags": ["a", "b"], "deep": {"x": 1.5, "y": None}, "name": "naïve 🎨"}


class Words:
    """A corpus in memory, since the path of a real one would be this machine's."""

    source = "words"

    def __iter__(self):
        for number, word in enumerate(("cat", "dog", "bird", "fish", "horse", "snake")):
            yield make_record(
                id=f"word-{number}", text=f"a {word}", image=None, fields={"n": number}, uri=f"words#{number}"
            )
        yield Rejected("words#6", "empty", "The document has neither text nor image.")


def picture(*colour):
    """A PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def make(folder: Path) -> None:
    """Make the collection, and beside it what it must answer for ever."""
    with Collection.open(folder, "fake:16") as shop:
        index_corpus(Words(), shop, shard_size=4)
        shop.add([
            Document("red", image=picture(200, 10, 10), fields=FIELDS),
            Document("blue", text="a blue square", image=picture(10, 10, 200)),
            Document("gone", text="soon deleted"),
        ])  # fmt: skip
        shop.add([Document("word-1", text="a dog, seen again", fields={"n": 100})])
        shop.delete(["gone", "word-5"])
        snapshot = shop.snapshot()
        told = {
            each.id: {
                "text": each.text,
                "modality": each.modality.value,
                "fields": each.fields,
                "image": each.image and each.image.relative_to(folder).as_posix(),
                "vector": snapshot.vectors(snapshot.vector_ids([each.id]))[0].tolist(),
            }
            for each in snapshot.documents(snapshot.eligible())
        }
        job = {key: shop.info()["jobs"][0][key] for key in ("source", "state", "shards", "rejected")}
        shop.database.tidy()
    (folder / "writer.lock").unlink()
    answers = {"generation": snapshot.generation, "job": job, "documents": told}
    folder.with_suffix(".json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
