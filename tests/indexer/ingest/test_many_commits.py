"""Many small commits leave few segments and few open files, and each is as fast as the first."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
from answers import contents, found
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sqlalchemy import event

from indexer import Document
from indexer.ingest.absorbing import BASE, MANY, MOST_BYTES, MOST_ROWS, absorbed
from indexer.vectors import pinned as parts
from indexer.vectors.segments import READ_BELOW, SegmentFile, open_segment, write_parts


def words(start, count=1):
    return [Document(f"w{number}", text=f"word {number}") for number in range(start, start + count)]


def files(shop):
    return sorted(path.name for path in shop.layout.segments.iterdir())


class TestWhichSegmentsAreAbsorbed:
    @staticmethod
    def after(commits, row_bytes=100, indexed=(), segments=()):
        """The rows of the segments after commits of so many rows."""
        living = list(segments)
        for number, rows in enumerate(commits):
            old = absorbed(living, rows, row_bytes, indexed)
            living = living[: len(living) - len(old)]
            living.append(SegmentFile(f"f{number}", f"s{number}", 0, rows + sum(each.rows for each in old)))
        return [each.rows for each in living]

    def test_as_digits_carry(self):
        assert self.after([1] * 7) == [1] * 7
        assert self.after([1] * 8) == [8]
        assert self.after([1] * 17) == [8, 8, 1]
        assert self.after([1] * 64) == [64]
        assert self.after([2048] * 8) == [16384]

    @given(st.lists(st.integers(1, 5000), max_size=400))
    def test_nothing_is_lost_and_there_are_few(self, commits):
        left = self.after(commits)
        assert sum(left) == sum(commits)
        assert len(left) <= (BASE - 1) * 6 + sum(commits) // 10_000

    def test_no_commit_writes_more_than_it_may(self):
        assert max(self.after([2048] * 300)) <= MOST_ROWS
        assert max(self.after([2048] * 300, row_bytes=1 << 14)) * (1 << 14) <= MOST_BYTES

    def test_what_an_index_was_built_from_stays_as_long_as_there_are_not_too_many(self):
        seven = [SegmentFile(f"f{n}", f"i{n}", 0, 1) for n in range(7)]
        names = {each.sha256 for each in seven}
        assert self.after([1], indexed=names, segments=seven) == [1] * 8
        many = [SegmentFile(f"f{n}", f"i{n}", 0, 1) for n in range(MANY + 1)]
        assert len(self.after([1], indexed={each.sha256 for each in many}, segments=many)) < MANY


@pytest.mark.parametrize("rows", [(3,), (1, 4, 2)])
def test_a_segment_is_what_safetensors_writes(tmp_path, rows):
    rng, first, pieces = np.random.default_rng(0), 0, []
    for count in rows:
        pieces.append((rng.standard_normal((count, 5), np.float32), np.arange(first, first + count)))
        first += count
    name = "000000000000-0123456789ab.safetensors"
    segment = write_parts(tmp_path, name, pieces, "digest")
    whole = {
        "vectors": np.concatenate([each[0] for each in pieces]),
        "ids": np.concatenate([each[1] for each in pieces]),
    }
    for key, value in load_file(tmp_path / name).items():
        np.testing.assert_array_equal(value, whole[key])
    save_file(whole, tmp_path / "theirs", metadata={"format": "1", "space": "digest", "rows": str(first)})
    assert (tmp_path / "theirs").stat().st_size == segment.size == (tmp_path / name).stat().st_size
    vectors, ids = open_segment(tmp_path, segment, "digest", 5)
    np.testing.assert_array_equal(vectors, whole["vectors"])
    np.testing.assert_array_equal(ids, whole["ids"])


def test_documents_outlive_the_merging_of_their_segments(shop, open_shop):
    pinned = None
    for number in range(40):
        shop.add([*words(number), *words(0)])  # each replaces one
        if number == 20:
            shop.delete(["w5"])
            pinned = shop.snapshot(), contents(shop)
    assert len(files(shop)) < 12
    whole = contents(shop)
    assert set(whole) == {f"w{number}" for number in range(40) if number != 5}
    assert found(shop, "word 7", k=1) == ["w7"]
    assert contents(pinned[0]) == pinned[1]
    assert shop.check().findings == []
    with shop.database.read() as connection:
        places = connection.exec_driver_sql(
            'SELECT s.file, v.id, v."row" FROM vectors v JOIN segments s ON v.segment = s.id WHERE s.died IS NULL'
        ).all()
    living = {each.file: each for each in shop.catalog.segments(shop.snapshot().generation)}
    ids = {name: open_segment(shop.layout.segments, each, shop.space.digest, 16)[1] for name, each in living.items()}
    assert [int(ids[file][row]) for file, _, row in places] == [vector for _, vector, _ in places]
    assert contents(open_shop(model=None)) == whole
    shop.compact()
    assert contents(shop) == whole


def test_it_can_be_turned_off(open_shop):
    shop = open_shop(auto_compact=False)
    for number in range(20):
        shop.add(words(number))
    assert len(files(shop)) == 20
    assert len(contents(shop)) == 20


def test_a_damaged_segment_is_not_written_anew_as_if_it_were_whole(shop):
    for number in range(7):
        shop.add(words(number))
    victim = shop.layout.segments / files(shop)[3]
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    shop.add(words(7))
    assert len(files(shop)) == 8
    assert [victim.name in finding.what for finding in shop.check().findings] == [True]


LOOP = """
import json, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]), int(sys.argv[3])))
from indexer import Collection, Document
from indexer.types import Item
with Collection.open(sys.argv[1], "fake:16") as shop:
    query = shop.embedder.encode_query([Item(text="word 3")])
    for number in range(int(sys.argv[2])):
        shop.add([Document(f"w{number}", text=f"word {number}")])
        shop.snapshot().search(query, 3)
    print(json.dumps([len(shop.snapshot()), len(os.listdir("/proc/self/fd"))]))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")  # noqa: PTH112
def test_few_files_are_open_after_many_commits(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime=0", "-c", LOOP, str(tmp_path / "shop"), "300", "64"],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    documents, held = json.loads(done.stdout)
    assert documents == 300
    assert held < 40
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="mappings are counted in /proc")  # noqa: PTH112
def test_old_snapshots_hold_no_mappings(open_shop):
    import gc

    shop = open_shop(auto_compact=False)
    large = READ_BELOW // (4 * 16 + 8) + 1

    def mapped():
        with open("/proc/self/maps") as maps:  # noqa: PTH123
            return sum(str(shop.layout.segments) in line for line in maps)

    gc.disable()
    try:
        for number in range(3):
            shop.add(words(number * large, large))
            found(shop, "word 3")
        assert mapped() == 3
        shop.compact()
        found(shop, "word 3")
        assert mapped() == 1
    finally:
        gc.enable()


def test_what_is_open_is_not_opened_again(shop, monkeypatch):
    opened = []
    monkeypatch.setattr(parts, "open_segment", lambda *told: opened.append(told[1].file) or open_segment(*told))
    for number in range(4):
        shop.add(words(number))
        shop.snapshot()
    assert sorted(opened) == files(shop)


def test_a_commit_reads_no_more_after_many(shop):
    read = []

    def told(connection, cursor, statement, parameters, context, many):
        if "FROM means" in statement and statement.startswith("SELECT"):
            read.append(statement)

    for number in range(80):
        shop.add(words(number))
    with shop.database.read() as connection:
        held = connection.exec_driver_sql("SELECT count(*) FROM means WHERE role = 'document'").scalar()
    assert held <= 66
    event.listen(shop.database.engine, "before_cursor_execute", told)
    shop.add(words(80))
    event.remove(shop.database.engine, "before_cursor_execute", told)
    assert len(read) <= 2, read
