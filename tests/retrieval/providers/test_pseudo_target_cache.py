"""The cache of pseudo-targets: entries are keyed by their inputs and complete, despite crashes and damage."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.errors import StoreError
from retrieval.providers.generation.cache import PseudoTargetCache, default_folder, key_of

KEY = key_of("reference", "at night", {"generator": "g", "seed": 0})
ROUNDS = 15
SCRIPT = """
import os, sys
from pathlib import Path
from PIL import Image
from retrieval.providers.generation.cache import PseudoTargetCache
cache = PseudoTargetCache(Path(sys.argv[1]))
def drawing(writer): return tuple(Image.new("RGB", (8, 8), (writer, number, 0)) for number in range(2))
"""


def drawing(writer: int) -> tuple[Image.Image, ...]:
    """Two pictures, both told by the writer."""
    return tuple(Image.new("RGB", (8, 8), (writer, number, 0)) for number in range(2))


def seen(cache: PseudoTargetCache, key: str = KEY) -> list[tuple[int, ...]] | None:
    """The colours of an entry's pictures."""
    entry = cache.get(key)
    return None if entry is None else [Image.open(file).getpixel((0, 0)) for file in entry.images]


@pytest.fixture
def cache(tmp_path: Path) -> PseudoTargetCache:
    return PseudoTargetCache(tmp_path / "drawings")


def test_a_key_is_everything_that_was_asked() -> None:
    identity = {"generator": "g", "seed": 0, "words": [["m", "d"]]}
    key = key_of("r", "at  night\n", identity)
    assert key == key_of("r", "at night", dict(reversed(identity.items())))
    others = [
        key_of("s", "at night", identity),
        key_of("r", "at Night", identity),
        *(key_of("r", "at night", identity | {name: "other"}) for name in identity),
    ]
    assert len({key, *others}) == 6


def test_what_was_put_comes_back_with_the_features_added_since(cache: PseudoTargetCache) -> None:
    assert cache.get(KEY) is None
    put = cache.put(KEY, drawing(7), "1 of 3 images came out black", {"text": "at night"})
    assert (put.features, put.failed) == ({}, "1 of 3 images came out black")
    one, two = np.array([0.1, -1e-9], np.float32), np.array([3.0], np.float32)
    cache.add_feature(KEY, "a", one)
    cache.add_feature(KEY, "b", two)
    found = cache.get(KEY)
    assert (found.images, found.failed) == (put.images, put.failed)
    np.testing.assert_array_equal(found.features["a"], one)
    np.testing.assert_array_equal(found.features["b"], two)
    assert found.features["a"].dtype == np.float32
    assert seen(cache) == [(7, 0, 0), (7, 1, 0)]


def test_a_drawing_without_a_picture_is_kept_as_well(cache: PseudoTargetCache) -> None:
    cache.put(KEY, (), "1 of 1 images came out black", {})
    assert cache.get(KEY).images == ()


def test_a_feature_of_nothing_is_dropped(cache: PseudoTargetCache) -> None:
    cache.add_feature(KEY, "a", np.ones(1, np.float32))
    assert cache.get(KEY) is None
    assert not cache.folder.exists()


@pytest.mark.parametrize("what", ["manifest", "picture"])
def test_a_torn_file_is_no_entry_and_the_next_put_mends_it(cache: PseudoTargetCache, what: str) -> None:
    entry = cache.put(KEY, drawing(7), None, {})
    file = entry.images[1] if what == "picture" else cache._manifests.path(KEY)
    whole = file.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 2):
        file.write_bytes(whole[:length])
        assert cache.get(KEY) is None
    file.unlink()
    assert cache.get(KEY) is None
    cache.put(KEY, drawing(7), None, {})
    assert seen(cache) == [(7, 0, 0), (7, 1, 0)]


@pytest.mark.parametrize(
    "content", ["[]", "null", "{}", '{"pictures": 3, "features": {}}', '{"pictures": [], "features": [1]}', "\x00\xff"]
)
def test_a_manifest_of_another_kind_is_no_entry(cache: PseudoTargetCache, content: str) -> None:
    cache.put(KEY, drawing(7), None, {})
    cache._manifests.path(KEY).write_text(content, encoding="latin-1")
    assert cache.get(KEY) is None
    cache.add_feature(KEY, "a", np.ones(1, np.float32))
    assert cache.get(KEY) is None


def test_a_changed_pixel_is_noticed(cache: PseudoTargetCache) -> None:
    entry = cache.put(KEY, drawing(7), None, {})
    content = bytearray(entry.images[0].read_bytes())
    content[len(content) // 2] ^= 1
    entry.images[0].write_bytes(content)
    assert cache.get(KEY) is None


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        PseudoTargetCache(tmp_path / "file").put(KEY, drawing(1), None, {})


def test_the_users_cache_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "underdrawing" / "drawings"


def watch(cache: PseudoTargetCache, over: threading.Event) -> list[list[tuple[int, ...]] | None]:
    """What readers see until it is over, and once after."""
    found = []
    while not over.is_set():
        found.append(seen(cache))
    return [*found, seen(cache)]


def check(found: list[list[tuple[int, ...]] | None]) -> None:
    """Every reader saw one writer's drawing."""
    for each in found:
        assert each is not None
        (one, first, _), (other, second, _) = each
        assert (one, first, second) == (other, 0, 1)


def test_threads_that_write_one_key_leave_one_whole_entry_at_any_moment(cache: PseudoTargetCache) -> None:
    cache.put(KEY, drawing(9), None, {})
    together, over = threading.Barrier(4), threading.Event()

    def write(writer: int) -> None:
        together.wait()
        for _ in range(ROUNDS):
            cache.put(KEY, drawing(writer), None, {})
            cache.add_feature(KEY, str(writer), np.ones(2, np.float32))

    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(watch, cache, over)
        for done in [pool.submit(write, writer) for writer in range(4)]:
            done.result()
        over.set()
        check(reader.result())


def test_processes_that_write_one_key_do_too(cache: PseudoTargetCache) -> None:
    cache.put(KEY, drawing(9), None, {})
    script = (
        SCRIPT
        + f"""
print("ready", flush=True)
sys.stdin.readline()
for _ in range({ROUNDS}):
    cache.put({KEY!r}, drawing(int(sys.argv[2])), None, {{}})
"""
    )
    pipe = subprocess.PIPE
    writers = [
        subprocess.Popen([sys.executable, "-c", script, cache.folder, str(n)], stdin=pipe, stdout=pipe, text=True)
        for n in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(watch, cache, over)
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        for writer in writers:
            writer.communicate()
            assert writer.returncode == 0
        over.set()
        found = reader.result()
    check(found)
    assert found[-1][0][0] in (0, 1)


def test_a_writer_killed_at_any_step_leaves_a_whole_entry_or_none(cache: PseudoTargetCache) -> None:
    """A child dies before the first, second, third renaming; the fourth finishes."""
    script = (
        SCRIPT
        + """
replace = Path.replace
for steps in range(4):
    if (child := os.fork()) == 0:
        left = [steps]
        def dying(self, target):
            if not left[0]:
                os._exit(9)
            left[0] -= 1
            return replace(self, target)
        Path.replace = dying
        cache.put(f"{steps}key", drawing(steps), None, {})
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    done = subprocess.run([sys.executable, "-c", script, cache.folder], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["9", "9", "9", "0"]
    assert [seen(cache, f"{steps}key") for steps in range(4)] == [None, None, None, [(3, 0, 0), (3, 1, 0)]]
    for steps in range(4):
        cache.put(f"{steps}key", drawing(8), None, {})
        assert seen(cache, f"{steps}key") == [(8, 0, 0), (8, 1, 0)]
