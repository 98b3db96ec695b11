"""Makers of tiny files, good and bad, for the tests of this folder."""

import io
import signal
import tarfile
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from indexer.corpus import open_corpus
from indexer.corpus.records import Record
from indexer.types import PassedOver, Rejected

CORNERS = {"R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255), "W": (255, 255, 255)}


@pytest.fixture
def picture():
    """Make a picture whose quarters are red, green, blue and white, so that every turn and flip shows."""

    def make(size=(48, 32)):
        width, height = size[0] // 2, size[1] // 2
        image = Image.new("RGB", size)
        for number, colour in enumerate(CORNERS.values()):
            x, y = number % 2 * width, number // 2 * height
            image.paste(colour, (x, y, x + width, y + height))
        return image

    return make


@pytest.fixture
def quarters():
    """Name the colours of a picture's quarters in reading order: RGBW for an upright `picture`."""

    def look(image):
        width, height = image.size
        seen = [image.getpixel((x, y)) for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
        return "".join(
            min(CORNERS, key=lambda name: sum(abs(a - b) for a, b in zip(CORNERS[name], pixel, strict=True)))
            for pixel in seen
        )

    return look


@pytest.fixture
def encoded():
    """Encode a PIL image."""

    def encode(image, format, **options):
        file = io.BytesIO()
        image.save(file, format, **options)
        return file.getvalue()

    return encode


@pytest.fixture
def tar_bytes():
    """Make a tar archive of (name, content) pairs."""

    def make(members):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return file.getvalue()

    return make


@pytest.fixture
def read():
    """Read a source to its end: the records, and the rejects."""

    def read(source):
        found = list(source if hasattr(source, "source") else open_corpus(source))
        rejects = [entry for entry in found if isinstance(entry, Rejected)]
        return [entry for entry in found if isinstance(entry, Record)], rejects

    return read


@pytest.fixture
def passed_over():
    """What a source passed over: the kinds by the last part of the URI."""

    def read(source):
        found = source if hasattr(source, "source") else open_corpus(source)
        return {unquote(Path(each.uri).name): each.kind for each in found if isinstance(each, PassedOver)}

    return read


@pytest.fixture
def deadline():
    """Fail a block that hangs, as opening a fifo would, in place of waiting with it."""

    def expire(signum, frame):
        raise AssertionError("this hangs")

    @contextmanager
    def limit(seconds=5):
        before = signal.signal(signal.SIGALRM, expire)
        signal.alarm(seconds)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    return limit
