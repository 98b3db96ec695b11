"""A benchmark's documents as a collection, indexed once per model, resuming an interrupted run."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tasks.dataset import Box, DataSet, Place, Task
from indexer.collection import Collection
from indexer.corpus.images import decode_image, encode_for_storage
from indexer.corpus.paths import scan_folder
from indexer.corpus.records import Corpus, Record, make_record, record_or_rejected
from indexer.embed.base import Embedder
from indexer.errors import ItemError
from indexer.files.atomic import atomic_write, file_digest
from indexer.ingest.job import Progress, index_corpus
from indexer.types import Rejected
from indexer.vectors.protocol import IndexKind, IndexSettings

if TYPE_CHECKING:
    from PIL.Image import Image

TWINS: Mapping[str, tuple[str, ...]] = {
    ".png": (".png", ".jpg", ".jpeg"),
    ".jpg": (".jpg", ".png", ".jpeg"),
    ".jpeg": (".jpeg", ".jpg", ".png"),
}
"""Alternative file suffixes, by the suffix in the annotations: copies of a data set differ."""
DILATION = 0.7


class ImageCorpus:
    """Image files by id, as `index_corpus` reads them.

    Attributes:
        source: Name of the gallery.
        images: Image files by id.
    """

    def __init__(self, source: str, images: Mapping[str, Path]) -> None:
        self.source = source
        self.images = images

    def __iter__(self) -> Iterator[Record | Rejected]:
        for name, path in self.images.items():
            uri = path.as_uri()
            yield record_or_rejected(uri, partial(make_record, id=name, text=None, image=path, fields={}, uri=uri))


def images_of(task: Task, data: DataSet, crops: Path) -> dict[str, Path]:
    """The file of every image; a part of an image is cropped and cached.

    Args:
        task: The task with the images.
        data: The data set.
        crops: The folder of cropped parts.

    Raises:
        CallError: Some are missing; the error names the first, and where to get it.
    """

    @cache
    def names(folder: Path) -> frozenset[str]:
        return frozenset(scan_folder(folder)) if folder.is_dir() else frozenset()

    found: dict[str, Path] = {}
    missing = []
    for name, place in task.images.items():
        path = next((each for each in _candidates(data.root, task, place) if each.name in names(each.parent)), None)
        if path is None:
            missing.append(place.path)
        else:
            found[name] = path.absolute()
    if missing:
        raise data.wrong(
            f"{len(missing):,} of {len(task.images):,} images are not below {data.root}, the first: {missing[0]}.",
            "Get them from",
        )
    return {
        name: path if (box := task.images[name].box) is None else _cut(path, box, crops, data)
        for name, path in found.items()
    }


def _candidates(root: Path, task: Task, place: Place) -> Iterator[Path]:
    for folder in task.folders:
        path = root / folder / place.path
        for suffix in TWINS.get(path.suffix.lower(), (path.suffix,)):
            yield path.with_suffix(suffix)


def _cut(path: Path, box: Box, crops: Path, data: DataSet) -> Path:
    """The part of an image in a file of its own, made once."""
    state = path.stat()
    key = hashlib.sha256(f"{path} {state.st_size} {state.st_mtime_ns} {box} {DILATION}".encode()).hexdigest()[:24]
    part = (crops / key[:2] / f"{key}.png").absolute()
    if not part.exists():  # written completely or not at all
        try:
            content, _ = encode_for_storage(crop_of(decode_image(path), box))
        except ItemError as error:
            raise data.wrong(f"{path} cannot be read: {error.detail}", "Download it again from") from error
        atomic_write(part, content)
    return part


def crop_of(image: Image, box: Box) -> Image:
    """An expanded box of an image, centered in a black square: as GeneCIS crops Visual Genome's objects.

    The box grows to the left and to the top by 0.7 of its size. GeneCIS's own code measures the right and lower edges
    from the expanded corner, so they stay in place unless the corner met the image's edge; this code does the same.

    Args:
        image: RGB.
        box: Left, top, width and height in pixels.
    """
    from PIL import Image as pil

    left, top, width, height = box
    left, top = max(0.0, left - DILATION * width), max(0.0, top - DILATION * height)
    right, bottom = min(image.width, left + (1 + DILATION) * width), min(image.height, top + (1 + DILATION) * height)
    part = image.crop((round(left), round(top), round(right), round(bottom)))
    side = max(part.size)
    square = pil.new("RGB", (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


@contextmanager
def gallery(
    name: str,
    data: DataSet,
    task: Task,
    images: Mapping[str, Path],
    embedder: Embedder,
    folder: Path,
    workers: int = 0,
) -> Iterator[Collection]:
    """The documents of a task as a collection, indexed once per state of model and documents.

    Args:
        name: Name of the benchmark.
        data: The data set.
        task: Has the corpus, if documents are not image files.
        images: Files by id, as `images_of` found them.
        embedder: The model.
        folder: Where such collections are stored.
        workers: Processes that decode ahead; 0 decodes in a thread.

    Raises:
        CallError: A document cannot be read: numbers would not be comparable.
    """
    listed = hashlib.sha256("\0".join(f"{key} {path}" for key, path in sorted(images.items())).encode()).hexdigest()
    corpus: Path | Corpus = ImageCorpus(f"{name} {listed[:16]}", images) if task.corpus is None else task.corpus
    source = listed if task.corpus is None else _digest(task.corpus)
    count = len(task.documents)
    exact = IndexSettings(kind=IndexKind.EXACT)  # published numbers need exact rankings, whatever the size
    state = folder / f"{embedder.fingerprint().digest}-{source[:16]}"
    with Collection.open(state, embedder, parts=task.parts, index=exact) as collection:
        # Documents that are indexed already are skipped, so an interrupted run is completed.
        with _shown(count) as on_progress:
            summary = index_corpus(corpus, collection, workers=workers, on_progress=on_progress)
        if summary.rejected:
            first = summary.rejects[0]
            raise data.wrong(
                f"{summary.rejected:,} of {count:,} documents cannot be read, the first: "
                f"{first.uri} ({first.reason}: {first.detail})",
                "Without them, numbers would not be comparable; download them again from",
            )
        yield collection


def _digest(corpus: Path | Corpus) -> str:
    return file_digest(corpus) if isinstance(corpus, Path) else hashlib.sha256(corpus.source.encode()).hexdigest()


@contextmanager
def _shown(total: int) -> Iterator[Callable[[Progress], None]]:
    """A progress bar on standard error, if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("index", total=total)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.added + progress.unchanged)

        yield show
