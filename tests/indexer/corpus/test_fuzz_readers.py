"""Mutated files of every format: each entry is a record or a reject with a reason, without other exceptions.

A run is seeded: the same seed mutates the same way. The default run looks at `ROUNDS` mutants of each kind;
`pytest -m "fuzz and slow" -s` goes on for `MINUTES`, and as long with filters and with command lines.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import time
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from indexer.corpus.images import decode_image
from indexer.corpus.readers import open_corpus
from indexer.corpus.records import Record
from indexer.errors import ItemError, UnderdrawingError
from indexer.types import PassedOver, Rejected

pytestmark = pytest.mark.fuzz

ROUNDS, MINUTES = 25, 10


def picture(kind, mode="RGB", **options):
    file = io.BytesIO()
    Image.radial_gradient("L").resize((24, 16)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def lines():
    records = [
        {"id": "a", "text": "cat", "fields": {"n": 1, "deep": {"x": [1, 2.5, None]}}},
        {"id": 7, "text": "naïve 🎨", "price": 1e3},
        {"id": "c", "image_base64": "iVBORw0KGgo="},
        {"text": "no id"},
    ]
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records).encode()


def table():
    rows = [{"id": f"r{n}", "text": f"text {n}", "image": picture("PNG"), "tags": ["a", str(n)]} for n in range(4)]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def archive():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in (("a.png", picture("PNG")), ("a.txt", b"cat"), ("a.json", b'{"n": 1}'), ("b.txt", b"dog")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


CORPORA = {
    "all.jsonl": lines(),
    "all.jsonl.gz": gzip.compress(lines(), mtime=0),
    "all.parquet": table(),
    "all.tar": archive(),
    "all.tar.gz": gzip.compress(archive(), mtime=0),
}
PICTURES = {
    "png": picture("PNG"),
    "palette": picture("PNG", "P"),
    "jpeg": picture("JPEG"),
    "gif": picture("GIF"),
    "webp": picture("WEBP"),
    "tiff": picture("TIFF", compression="tiff_lzw"),
    "bmp": picture("BMP"),
    "ppm": picture("PPM"),
}


def mutants(content, seed, count):
    """Copies with bytes changed, cut out, repeated or moved, some at once."""
    chance = random.Random(seed)
    for _ in range(count):
        mutant = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            if not mutant:
                break
            start = chance.randrange(len(mutant))
            stop = min(len(mutant), start + chance.choice((1, 1, 2, 4, 64)))
            match chance.randrange(6):
                case 0:
                    mutant[start] ^= 1 << chance.randrange(8)
                case 1:
                    mutant[start:stop] = chance.choice((b"\0", b"\xff", b"\x7f")) * (stop - start)
                case 2:
                    del mutant[start:stop]
                case 3:
                    mutant[start:start] = mutant[start:stop] * chance.choice((1, 2, 50))
                case 4:
                    del mutant[start:]
                case 5:
                    mutant[start:stop] = chance.randbytes(stop - start)
        yield bytes(mutant)


def read(folder, name, content):
    """Every entry of a corpus, its picture decoded."""
    file = folder / name
    file.write_bytes(content)
    try:
        for entry in open_corpus(file):
            assert isinstance(entry, Record | Rejected | PassedOver)
            if isinstance(entry, Record) and entry.document.image is not None:
                decode(entry.document.image)
            if isinstance(entry, Rejected):
                assert entry.reason
                entry.detail.encode()
    except UnderdrawingError as error:
        assert error.message  # noqa: PT017  (most mutants are read)


def decode(content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert decode_image(content).mode == "RGB"
        except ItemError as error:
            assert error.reason  # noqa: PT017  (most mutants of some formats are pictures still)


@pytest.mark.parametrize("name", CORPORA)
def test_corpora(tmp_path, name):
    for mutant in mutants(CORPORA[name], 1, ROUNDS):
        read(tmp_path, name, mutant)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name):
    for mutant in mutants(PICTURES[name], 2, ROUNDS):
        decode(mutant)


@pytest.mark.slow
def test_at_length(tmp_path):
    end, seed, seen = time.monotonic() + 60 * MINUTES, 100, 0
    while time.monotonic() < end:
        for name, whole in (CORPORA | PICTURES).items():
            for mutant in mutants(whole, seed, ROUNDS):
                try:
                    read(tmp_path, name, mutant) if name in CORPORA else decode(mutant)
                except BaseException:
                    (tmp_path / f"found-{name}").write_bytes(mutant)
                    print(f"{name}, seed {seed}: {tmp_path}/found-{name}")  # noqa: T201
                    raise
                seen += 1
        seed += 1
    print(f"{seen} mutants")  # noqa: T201
