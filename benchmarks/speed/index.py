"""Speed of indexing, compared with the encoder's own forward pass on prepared tensors.

    python -m benchmarks.speed_index [--json FILE] [--photographs N] [--dtype TYPE ...] [--workers N ...]

An encoder of the size of ViT-B/32 (random weights take the same time) indexes JPEGs of synthetic photographs, from a
folder to a durable commit. In the same turn it embeds as many prepared tensors, and a simple loop (decode a batch,
embed it, take the next) does the same work without a store. Ratios are medians over the turns. Indexing of texts alone
is measured, too, and the peak memory for corpora of several sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.harness.options import cache_folder
from benchmarks.speed.timing import machine, race
from indexer.collection import Collection
from indexer.embed.base import Dtype
from indexer.errors import CallError, UnderdrawingError
from indexer.files.atomic import atomic_write
from indexer.ingest.job import Summary, index_corpus
from indexer.ingest.streams import STREAM_BATCH
from indexer.types import Document, Item, Role

if TYPE_CHECKING:
    from indexer.embed.clip.embedder import ClipEmbedder

ARCHITECTURE = "ViT-B-32"
PHOTOGRAPH = (640, 480)
BAR = 0.95
LOOP_BATCH = 64
"""Batch size of the simple loop, on all cores."""


def encoder(architecture: str, dtype: Dtype, folder: Path) -> ClipEmbedder:
    """An open_clip model with random weights."""
    import open_clip
    import torch

    from indexer.embed.clip.embedder import ClipEmbedder

    torch.manual_seed(0)
    weights = folder / "weights"  # read by the fingerprint; these weights have no file
    weights.write_text(f"{architecture}, seed 0", encoding="utf-8")
    model, tokenizer = open_clip.create_model(architecture), open_clip.get_tokenizer(architecture)
    return ClipEmbedder(model, tokenizer, weights, name=f"random:{architecture}", dtype=dtype, device="cpu")


def photographs(folder: Path, count: int) -> Path:
    """A folder of JPEGs with detail of every size, made once."""
    target = folder / f"photographs-{count}"
    target.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if not (file := target / f"{number:05}.jpg").exists():
            atomic_write(file, photograph(number, PHOTOGRAPH))
    return target


def photograph(seed: int, size: tuple[int, int]) -> bytes:
    """A JPEG of noise whose strength grows with its scale, as in photographs."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3), np.float32)
    for step in (128, 64, 32, 16, 8, 4):
        small = Image.fromarray(rng.integers(0, 256, (max(size[1] // step, 1), max(size[0] // step, 1), 3), np.uint8))
        total += np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.float32) * step
    file = BytesIO()
    Image.fromarray((total / 252).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def measure(embedder: ClipEmbedder, source: Path, workers: int, turns: int, folder: Path) -> dict[str, Any]:
    """The race of indexing, the raw forward pass and the simple loop, over the same photographs."""
    files = sorted(source.iterdir())
    prepare = embedder.preparer()
    ready = [prepare(Item(image=file)) for file in files[:LOOP_BATCH]]
    begun = _begun(embedder, folder)
    summaries: list[Summary] = []

    def index(turn: int) -> None:
        target = folder / f"collection-{turn}"
        shutil.copytree(begun, target)
        with Collection.open(target, embedder) as collection:
            summaries.append(index_corpus(source, collection, workers=workers))
        shutil.rmtree(target)

    found = race({"index": index, "raw": _raw(embedder, ready, len(files)), "loop": _loop(embedder, files)}, turns)
    shutil.rmtree(begun)
    summary = summaries[-1]
    return {
        "images": len(files),
        "workers": workers,
        "images_per_second": {name: round(len(files) / (found.ms(name) / 1000), 2) for name in found.seconds},
        "of_raw": found.ratio("raw", "index"),
        "loop_of_raw": found.ratio("raw", "loop"),
        "waiting_share": round(summary.waited / summary.seconds, 4),
        "seconds": found.told(),
    }


def _begun(embedder: ClipEmbedder, folder: Path) -> Path:
    """A collection with one document: the first commit also embeds a hundred generic texts."""
    with Collection.open(folder / "begun", embedder) as collection:
        collection.add([Document("first", text="a text")])
        return collection.path


def measure_texts(embedder: ClipEmbedder, count: int, turns: int, folder: Path) -> dict[str, Any]:
    """The race of indexing and the raw forward pass on prepared tokens, for a corpus of texts alone."""
    texts = [f"a photograph of thing number {number} in a made-up place" for number in range(count)]
    source = folder / "captions.jsonl"
    lines = (json.dumps({"id": str(number), "text": text}) + "\n" for number, text in enumerate(texts))
    source.write_text("".join(lines), encoding="utf-8")
    tokens = embedder.tokenizer(texts)
    begun = _begun(embedder, folder)
    summaries: list[Summary] = []

    def index(turn: int) -> None:
        target = folder / f"texts-{turn}"
        shutil.copytree(begun, target)
        with Collection.open(target, embedder) as collection:
            summaries.append(index_corpus(source, collection))
        shutil.rmtree(target)

    raw = _side_by_side(embedder, embedder.model.encode_text, tokens, count)
    found = race({"index": index, "raw": raw}, turns)
    shutil.rmtree(begun)
    return {
        "texts": count,
        "of_raw": found.ratio("raw", "index"),
        "waiting_share": round(summaries[-1].waited / summaries[-1].seconds, 4),
        "seconds": found.told(),
    }


def _raw(embedder: ClipEmbedder, ready: Sequence[Any], count: int) -> Callable[[int], None]:
    """The model alone, on fully prepared input."""
    import torch

    pixels = embedder._preprocess.normalize(np.stack([each.arrays["image"] for each in ready]))
    batch = torch.from_numpy(pixels).to(embedder._torch_dtype)
    return _side_by_side(embedder, embedder.model.encode_image, batch, count)


def _side_by_side(
    embedder: ClipEmbedder, encode: Callable[[Any], Any], ready: Any, count: int
) -> Callable[[int], None]:
    """A number of forward passes on prepared rows, in the streams and batches of a job, which are fastest."""
    import torch

    def forward(start: int) -> None:
        with torch.inference_mode():
            place = start % len(ready)
            encode(ready[place : place + min(STREAM_BATCH, count - start)])

    def run(_: int) -> None:
        with embedder.threads() as pool:
            for done in [pool.submit(forward, start) for start in range(0, count, STREAM_BATCH)]:
                done.result()

    return run


def _loop(embedder: ClipEmbedder, files: Sequence[Path]) -> Callable[[int], None]:
    def run(_: int) -> None:
        prepare = embedder.preparer()
        for start in range(0, len(files), LOOP_BATCH):
            batch = [prepare(Item(image=file)) for file in files[start : start + LOOP_BATCH]]
            embedder.forward(batch, Role.DOCUMENT)

    return run


MEMORY = """
import sys
from pathlib import Path
from benchmarks.speed.timing import peak_megabytes
from indexer.ingest.job import index_corpus
from indexer.collection import Collection
from indexer.embed.fake import FakeEmbedder
with Collection.open(Path(sys.argv[2]), FakeEmbedder(512)) as collection:
    index_corpus(Path(sys.argv[1]), collection, shard_size=512)
print(peak_megabytes())
"""


def memory(folder: Path, counts: Sequence[int]) -> dict[str, Any]:
    """Peak memory of indexing texts, in MB, by number of texts, each in a process of its own."""
    import subprocess

    peaks = {}
    for count in counts:
        source, target = folder / f"{count}.jsonl", folder / f"memory-{count}"
        source.write_text("".join(json.dumps({"id": str(n), "text": f"text {n}"}) + "\n" for n in range(count)))
        command = [sys.executable, "-c", MEMORY, str(source), str(target)]
        told = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        peaks[str(count)] = round(float(told.stdout), 1)
        shutil.rmtree(target)
    return peaks


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed_index", description="Measure indexing.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE")
    parser.add_argument("--architecture", default=ARCHITECTURE, metavar="NAME", help="one of open_clip's")
    parser.add_argument("--photographs", type=int, default=192, metavar="N", help="in the corpus")
    parser.add_argument("--turns", type=int, default=2, metavar="N", help="of the race")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], metavar="TYPE", help="arithmetic")
    parser.add_argument("--workers", nargs="+", type=int, default=[0], metavar="N", help="decoding processes")
    parser.add_argument(
        "--draft", type=int, default=0, metavar="N", help="also measure with ImagePreprocess.draft; 0 to skip"
    )
    parser.add_argument(
        "--texts",
        nargs="*",
        type=int,
        default=[2_000, 20_000, 200_000],
        metavar="N",
        help="corpus sizes for measuring memory",
    )
    parser.add_argument("--captions", type=int, default=256, metavar="N", help="texts in the text corpus; 0 for none")
    parser.add_argument("--data", type=Path, default=cache_folder(), metavar="DIR", help="for the photographs")
    options = parser.parse_args(arguments)
    try:
        told = _measured(options)
    except UnderdrawingError as error:
        print(f"speed_index: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(told, separators=(",", ":")))
    return 0


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    if min(options.photographs, options.turns) < 1:
        raise CallError("At least one photograph and one turn are needed.")
    source = photographs(options.data, options.photographs)
    facts = machine()
    print(f"indexing: {facts}")
    told: dict[str, Any] = {
        "machine": facts,
        "architecture": options.architecture,
        "photograph": PHOTOGRAPH,
        "rows": [],
    }
    with tempfile.TemporaryDirectory(dir=options.data) as name:
        folder = Path(name)
        for dtype in options.dtype:
            plain = encoder(options.architecture, Dtype(dtype), folder)
            for draft in sorted({0, options.draft}):
                embedder = plain.with_draft(draft) if draft else plain
                for workers in options.workers:
                    row = {"dtype": dtype, "draft": draft}
                    row |= measure(embedder, source, workers, options.turns, folder)
                    row["reached"] = row["of_raw"]["median"] >= BAR
                    told["rows"].append(row)
                    print(f"  {_words(row)}")
                    _write(told, options.json)
        if options.captions:
            plain = encoder(options.architecture, Dtype.FLOAT32, folder)
            told["texts"] = measure_texts(plain, options.captions, options.turns, folder)
            row = told["texts"]
            print(
                f"  {row['texts']} texts alone: {row['of_raw']['median']:.2f} of raw, waits {row['waiting_share']:.1%}"
            )
            _write(told, options.json)
        told["memory_mb"] = memory(folder, options.texts)
        print(f"  peak memory, MB, by number of texts: {told['memory_mb']}")
    _write(told, options.json)
    return told


def _write(told: dict[str, Any], file: Path | None) -> None:
    """Write the results so far, so that an interrupted run has its finished rows."""
    if file:
        atomic_write(file, json.dumps(told, indent=1).encode() + b"\n")


def _words(row: dict[str, Any]) -> str:
    speed = row["images_per_second"]
    decoding = f"{row['workers']} processes" if row["workers"] else "a thread"
    return (
        f"{row['dtype']}, draft {row['draft']}, decoding in {decoding}: {row['of_raw']['median']:.2f} of raw "
        f"({speed['index']} of {speed['raw']} images/s; simple loop {row['loop_of_raw']['median']:.2f}), "
        f"the model waits {100 * row['waiting_share']:.1f} %"
    )


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    raise SystemExit(main())
