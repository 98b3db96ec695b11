"""Search with a reference image and a sentence: this gesture, but with dark skin.

    python examples/composed_query.py

The drawings and the model come with the package. `text` and `image` use one half of the query each; `sum` adds the two
vectors; `inversion` turns the image into a pseudo-word and reads the sentence with it.
"""

import tempfile

import pyarrow.parquet as pq

import underdrawing as ud
from indexer.bundled import CORPUS


def main() -> None:
    hands = [("subgroup", "=", "hand-fingers-closed")]
    rows = pq.read_table(CORPUS, columns=["id", "text", "image"], filters=hands).to_pylist()
    with (
        tempfile.TemporaryDirectory() as folder,
        ud.Collection.open(folder, "bundled:emoji-clip", parts="image") as collection,
    ):
        # With parts="image" the names are stored and shown, but only pixels are searched.
        collection.add([ud.Document(row["id"], text=row["text"], image=row["image"]) for row in rows])
        reference = next(row["image"] for row in rows if row["text"] == "raised fist: light skin tone")

        query = ud.Query(image=reference, text="with dark skin tone")
        for method in ("text", "image", "sum", "inversion"):
            results = ud.Retriever(collection, method=method).search(query, k=2)
            print(f"{method:10}", ", ".join(f"{hit.text} ({hit.id})" for hit in results))

        # Negatives push results away from a text or an image.
        query = ud.Query(text="with dark skin tone", not_texts=("thumbs up", "thumbs down"))
        results = ud.Retriever(collection, method="text").search(query, k=2)
        print(f"{'negative':10}", ", ".join(f"{hit.text} ({hit.id})" for hit in results))


if __name__ == "__main__":
    main()
