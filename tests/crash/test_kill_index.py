"""`index` is killed at random moments, and run again each time.

The contract: however often a run is killed, the last one ends where an undisturbed run ends: the same ids, texts,
fields, stamps and vectors, the same rejects, and a clean check. The default run kills five times; twenty times is

    python -m pytest -m slow tests/crash/test_kill_index.py
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from indexer.collection import Collection

CHILD = """
import sys
from indexer.build import index_corpus
from indexer.collection import Collection

with Collection.open(sys.argv[2], model="fake:16") as collection:
    print("ready", flush=True)
    summary = index_corpus(sys.argv[1], collection, shard_size=8)
print(summary.added, summary.unchanged, summary.rejected)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(240):
        colour = (number * 37 % 256, number * 91 % 256, number * 53 % 256)
        Image.new("RGB", (24, 24), colour).save(folder / f"{number:03d}.png")
        if number % 3 == 0:
            (folder / f"{number:03d}.txt").write_text(f"picture {number}")
        if number % 40 == 7:
            (folder / f"{number:03d}.png").write_bytes(b"\x89PNG broken")
    return folder


def start(photos: Path, shop: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(photos), str(shop)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def finish(photos: Path, shop: Path) -> list[int]:
    child = start(photos, shop)
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    return [int(word) for word in output.split()]


def state(shop: Path) -> dict[str, Any]:
    """All that a user can see of a collection, by document id."""
    with Collection.open(shop, create=False) as collection, collection.snapshot() as snapshot:
        assert collection.check().clean
        ids = [f"{number:03d}.png" for number in range(240) if number % 40 != 7]
        vectors = snapshot.vector_ids(ids)
        stamps = collection.catalog.stamps(ids, collection.info()["jobs"][0]["source"])
        return {
            document.id: (document.text, document.fields, document.modality, stamps[document.id], vector.tobytes())
            for document, vector in zip(snapshot.documents(vectors), snapshot.vectors(vectors), strict=True)
        } | {"": (len(snapshot), collection.info()["jobs"][0]["rejected"])}


def kill_often(photos: Path, tmp_path: Path, times: int) -> None:
    begun = time.monotonic()
    assert finish(photos, tmp_path / "undisturbed") == [234, 0, 6]
    duration = time.monotonic() - begun
    moment = random.Random(5)
    killed_midway = 0
    shop = tmp_path / "killed"
    for _ in range(times):
        child = start(photos, shop)
        # Early moments count most: later on little is left to do.
        time.sleep(moment.random() ** 2 * duration / 2)
        child.kill()
        child.communicate()
        killed_midway += child.returncode != 0
    added, unchanged, rejected = finish(photos, shop)
    assert killed_midway > 0
    assert (added + unchanged, rejected) == (234, 6)
    assert state(shop) == state(tmp_path / "undisturbed")


def test_five_kills_leave_what_an_undisturbed_run_leaves(photos: Path, tmp_path: Path) -> None:
    kill_often(photos, tmp_path, 5)


@pytest.mark.slow
def test_twenty_kills_leave_what_an_undisturbed_run_leaves(photos: Path, tmp_path: Path) -> None:
    kill_often(photos, tmp_path, 20)
