"""Search with a model of your own: here, images by their colors.

    python examples/custom_embedder.py

An embedder works in two steps. `preparer` returns a picklable function that decodes one item and may run in another
process; `forward` turns a batch of what it made into unit vectors.
"""

import tempfile
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

import underdrawing as ud
from indexer.corpus.images import decode_image
from indexer.embed.base import Fingerprint, Prepared
from indexer.types import Role, Vectors

BINS = 4


def prepare(item: ud.Item) -> Prepared:
    """The share of an image's pixels in each of 4 x 4 x 4 bins of color."""
    assert item.image is not None  # ColorEmbedder says that it takes images alone
    pixels = np.asarray(decode_image(item.image).resize((32, 32))).reshape(-1, 3)
    bins = pixels.astype(np.int64) * BINS // 256 @ np.array([BINS * BINS, BINS, 1])
    histogram = np.bincount(bins, minlength=BINS**3).astype(np.float32)
    return Prepared(item.modality, {"histogram": np.sqrt(histogram / histogram.sum())})


class ColorEmbedder(ud.Embedder):
    """A color histogram. Its square roots have unit length, and their inner product is Bhattacharyya's coefficient."""

    name = "colors"
    dim = BINS**3
    modalities = frozenset({ud.Modality.IMAGE})

    def fingerprint(self) -> Fingerprint:
        """What vectors depend on; a collection refuses an embedder with another one."""
        return Fingerprint(self.name, "none", "32 x 32 pixels", "none", "float32", self.dim)

    def preparer(self) -> Callable[[ud.Item], Prepared]:
        """The first step; a function of a module can be pickled."""
        return prepare

    def forward(self, prepared: Sequence[Prepared], role: Role, instruction: str | None = None) -> Vectors:
        """The second step: (n, dim) float32, rows of unit length."""
        vectors: Vectors = np.stack([each.arrays["histogram"] for each in prepared])
        return vectors


def main() -> None:
    def plain(color: str) -> Image.Image:
        return Image.new("RGB", (64, 64), color)

    with tempfile.TemporaryDirectory() as folder, ud.Collection.open(folder, ColorEmbedder()) as swatches:
        swatches.add([ud.Document(color, image=plain(color)) for color in ("navy", "red", "gold", "olive")])
        for hit in ud.Retriever(swatches, method="image").search(ud.Query(image=plain("darkblue")), k=2):
            print(f"{hit.rank}  {hit.score:.3f}  {hit.id}")


if __name__ == "__main__":
    main()
