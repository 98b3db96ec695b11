"""Effect of modality-gap correction on typical folders: whether existing documents are still found first.

    python -m benchmarks.tasks.mixed_folders [--photos FILE] [--model M] [--queries N]

The folders hold images, captioned images, and texts, in seven mixtures, of the bundled emoji, or of photographs in a
Parquet file with the columns `image` (bytes) and `captions` (a list). The queries are

* images in the folder, and those images reduced and saved as JPEG: *identical*, *near*;
* texts in the folder, and the captions of images: *text*, *named*;

The table shows the share found first, and each modality's fraction of the top 10 over its fraction of the folder, for
queries in other words and by near images. The rule of `vectors/modality_gap.py` was chosen by these figures, not by
those of `benchmarks.tasks.mixed`.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image

from indexer.bundled import CORPUS, generic_texts
from indexer.collection import Collection
from indexer.embed import load_embedder
from indexer.embed.base import Embedder
from indexer.errors import UnderdrawingError
from indexer.metadata.publish import NewDocument
from indexer.snapshot import Snapshot
from indexer.types import Center, Item, Modality, Role, Vectors
from indexer.vectors.modality_gap import query_mean
from indexer.vectors.unit import unit_rows

KINDS = tuple(Modality)
FOLDERS = {
    "captioned and plain": (0, 600, 433),
    "one captioned": (0, 59, 1),
    "three captioned": (0, 300, 3),
    "thirds": (300, 300, 300),
    "notes and photos": (100, 700, 200),
    "few notes": (20, 900, 0),
    "half": (300, 300, 0),
}
"""Numbers of texts, images, and captioned images."""
LARGEST = max(sum(counts) for counts in FOLDERS.values())
K = 10


@dataclass(frozen=True)
class Material:
    """Vectors of the same things in every form: (n, dim) each."""

    stored: Sequence[Vectors]
    images: Vectors
    near: Vectors
    names: Vectors
    words: Vectors
    generic: Vectors


def material(embedder: Embedder, photos: Path | None) -> Material:
    """Emoji images with a name and another wording, or photographs with two captions."""
    rows = pq.read_table(CORPUS).to_pylist() if photos is None else pq.read_table(photos).to_pylist()
    rows = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))[:LARGEST]]
    if photos is None:
        names = [row["text"] for row in rows]
        words = [next((each for each in row["wordings"] if each != row["text"]), row["text"]) for row in rows]
    else:
        names, words = ([row["captions"][place] for row in rows] for place in (0, 1))
    images = [row["image"] for row in rows]
    texts = embedder.encode_document([Item(text=each) for each in names])
    shown = embedder.encode_document([Item(image=each) for each in images])
    both = embedder.encode_document([Item(text=name, image=each) for name, each in zip(names, images, strict=True)])

    def asked(items: list[Item]) -> Vectors:
        return embedder.encode_query(items)

    return Material(
        (texts, shown, both),
        asked([Item(image=each) for each in images]),
        asked([Item(image=smaller(each)) for each in images]),
        asked([Item(text=each) for each in names]),
        asked([Item(text=each) for each in words]),
        asked([Item(text=each) for each in generic_texts()]),
    )


def smaller(picture: bytes) -> bytes:
    """Three quarters of the size, on white, as JPEG."""
    whole = Image.open(io.BytesIO(picture)).convert("RGBA")
    ground = Image.new("RGBA", whole.size, "white")
    ground.alpha_composite(whole)
    out = io.BytesIO()
    ground.convert("RGB").resize((whole.width * 3 // 4, whole.height * 3 // 4)).save(out, "JPEG", quality=70)
    return out.getvalue()


def measured(embedder: Embedder, given: Material, counts: tuple[int, int, int], queries: int) -> dict[str, list[str]]:
    """The cells of a row, by way of comparing."""
    rng = np.random.default_rng(1)
    kinds = rng.permutation(np.repeat(np.arange(3), counts))
    rows = np.stack([given.stored[kind][place] for place, kind in enumerate(kinds)])
    with tempfile.TemporaryDirectory() as folder, Collection.open(Path(folder) / "shop", embedder) as shop:
        documents = [NewDocument(str(n), None, None, None, None, KINDS[kind], {}) for n, kind in enumerate(kinds)]
        sums = {(Role.QUERY, Modality.TEXT): (len(given.generic), given.generic.sum(0, dtype=np.float64))}
        with shop.writer() as writer:
            writer.commit(documents, rows, extra_sums=sums)
        snapshot = shop.snapshot()
        ways = {way.value: snapshot.centered(way) for way in (Center.OFF, Center.MEANS, Center.ON, Center.AUTO)}
        return {way: _cells(snapshot, view, given, kinds, rows, queries) for way, view in ways.items()}


def _cells(
    snapshot: Snapshot, view: Snapshot, given: Material, kinds: npt.NDArray[np.int64], rows: Vectors,
    queries: int,
) -> list[str]:  # fmt: skip
    def ask(vectors: Vectors, modality: Modality) -> npt.NDArray[np.int64]:
        if view is not snapshot:
            vectors = unit_rows(vectors.astype(np.float64) - query_mean(snapshot.space, modality))
        return view.search(vectors, K).ids

    def first(kind: int, vectors: Vectors, modality: Modality) -> str:
        own = np.flatnonzero(kinds == kind)[:queries]
        if not len(own):
            return ""
        best = rows[ask(vectors[own], modality)[:, 0]]
        return f"{np.mean(np.einsum('ij,ij->i', best, rows[own]) > 1 - 1e-5):.3f}"

    def shares(vectors: Vectors, modality: Modality) -> str:
        found = kinds[ask(vectors[: min(queries, len(kinds))], modality).ravel()]
        parts = [np.mean(found == kind) / max(float(np.mean(kinds == kind)), 1e-9) for kind in range(3)]
        return " / ".join(f"{part:.2f}" if (kinds == kind).any() else "–" for kind, part in enumerate(parts))

    return [
        first(1, given.images, Modality.IMAGE),
        first(1, given.near, Modality.IMAGE),
        first(0, given.names, Modality.TEXT),
        first(2, given.names, Modality.TEXT),
        shares(given.words, Modality.TEXT),
        shares(given.near, Modality.IMAGE),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks.mixed_folders", description="Ask folders.")
    parser.add_argument("--model", default="bundled:emoji-clip", help="an embedder's name")
    parser.add_argument("--photos", type=Path, metavar="FILE", help="Parquet with image and captions")
    parser.add_argument("--queries", type=int, default=200, metavar="N", help="limit of queries of each kind")
    options = parser.parse_args(arguments)
    try:
        embedder = load_embedder(options.model)
        given = material(embedder, options.photos)
    except UnderdrawingError as error:
        print(f"mixed_folders: {error}", file=sys.stderr)
        return error.exit_code
    columns = ("folder (text / image / both)", "centre", "identical", "near", "text", "named", "share, asked in words")
    print(f"| {' | '.join(columns)} | by an image |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, counts in FOLDERS.items():
        for way, cells in measured(embedder, given, counts, options.queries).items():
            print(f"| {name} ({' / '.join(map(str, counts))}) | `{way}` | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
