"""Index a folder of images and search it by text.

    python examples/search_folder.py photos "a red bicycle"
    python examples/search_folder.py photos "a red bicycle" --model bundled:emoji-clip    # without a download

Run it again after the folder has changed: only what is new is embedded.
"""

import argparse
from pathlib import Path

import underdrawing as ud


def main() -> None:
    parser = argparse.ArgumentParser(description="Index a folder of images and search it by text.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("text")
    parser.add_argument("--collection", type=Path, default=Path("example-collection"))
    parser.add_argument("--model", default="open_clip:ViT-B-32/laion2b_s34b_b79k")
    arguments = parser.parse_args()

    with ud.Collection.open(arguments.collection, arguments.model) as collection:
        summary = ud.index_corpus(arguments.folder, collection)
        print(f"{summary.added} added, {summary.unchanged} unchanged, {summary.rejected} rejected")
        for rejected in summary.rejects:
            print(f"  {rejected.uri}: {rejected.detail}")

        results = ud.Retriever(collection, method="text").search(ud.Query(text=arguments.text), k=5)
        for hit in results:
            print(f"{hit.rank}  {hit.score:.3f}  {hit.image}")


if __name__ == "__main__":
    main()
