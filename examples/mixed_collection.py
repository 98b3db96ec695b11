"""Texts, images and documents of both in one collection.

    python examples/mixed_collection.py

A CLIP model puts texts and images into different regions of its space (the modality gap), so that a text finds texts
first, whatever they say. In a mixed collection the search corrects for that by itself.
"""

import tempfile
from collections import Counter

import pyarrow.parquet as pq

import underdrawing as ud
from indexer.bundled import CORPUS


def documents() -> list[ud.Document]:
    """One document for each drawing of food and of animals: a text, an image, or both, in turns."""
    groups = [("group", "in", ["food-drink", "animals-nature"])]
    rows = pq.read_table(CORPUS, columns=["id", "text", "image", "drawing"], filters=groups).to_pylist()
    made = []
    for number, row in enumerate(row for row in rows if row["id"].startswith("noto/")):
        text = row["text"] if number % 3 != 1 else None
        image = row["image"] if number % 3 != 0 else None
        made.append(ud.Document(row["id"], text=text, image=image, fields={"name": row["text"]}))
    return made


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ud.Collection.open(folder, "bundled:emoji-clip") as pages:
        pages.add(documents())
        retriever = ud.Retriever(pages, method="text")

        results = retriever.search(ud.Query(text="a kind of fruit"), k=20)
        kinds = Counter("both" if hit.text and hit.image else "text" if hit.text else "image" for hit in results)
        print("of any kind:", dict(sorted(kinds.items())))

        images = retriever.search(ud.Query(text="a kind of fruit"), k=5, modalities=["image"])
        print("images only:", ", ".join(str(hit.fields["name"]) for hit in images))


if __name__ == "__main__":
    main()
