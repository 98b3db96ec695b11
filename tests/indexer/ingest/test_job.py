"""The batch job: with any cuts, interruptions and repetitions it ends in the state of one undisturbed run."""

from __future__ import annotations

import base64
import json
from collections import Counter

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answers import contents, png

from indexer import Collection, Document, Item, index_corpus
from indexer.corpus.records import Record
from indexer.embed.fake import FakeEmbedder
from indexer.errors import CallError, LockedError, UnderdrawingError
from indexer.ingest import decoding
from indexer.types import Role


class Counting(FakeEmbedder):
    """Counts the documents it embeds, and fails when told to."""

    def __init__(self):
        super().__init__(16)
        self.embedded = 0
        self.fail_after = None

    def forward(self, prepared, role, instruction=None):
        if role is Role.DOCUMENT:
            if self.fail_after is not None and self.embedded >= self.fail_after:
                raise MemoryError("no more")
            self.embedded += len(prepared)
        return super().forward(prepared, role, instruction)


class Listed:
    """A corpus of records at hand."""

    def __init__(self, *records, source="/a/list"):
        self.records, self.source = list(records), source

    def __iter__(self):
        return iter(self.records)


def record(name, text="cat", stamp="1", **more):
    return Record(Document(name, text, **more), stamp)


@pytest.fixture
def model():
    return Counting()


@pytest.fixture
def shop(open_shop, model):
    return open_shop(model=model)


@pytest.fixture
def lines(tmp_path):
    """Write a file of JSON lines from (id, text) pairs; gives its path."""

    def write(*pairs, name="words.jsonl", broken=()):
        file = tmp_path / name
        told = [json.dumps({"id": each, "text": text, "length": len(text)}) for each, text in pairs]
        file.write_text("".join(f"{line}\n" for line in [*told, *broken]))
        return file

    return write


def some(count):
    return [(f"d{number:02}", f"cat word{number}") for number in range(count)]


class TestSources:
    def folder(self, path):
        (path / "a").mkdir(parents=True)
        (path / "a" / "red.png").write_bytes(png(255, 0, 0))
        (path / "a" / "red.txt").write_text("a red square")
        (path / "a" / "red.json").write_text('{"price": 3}')
        (path / "blue.png").write_bytes(png(0, 0, 255))
        (path / "note.md").write_text("a note")
        (path / "bad.jpg").write_bytes(b"no picture")
        return path

    def jsonl(self, path):
        path.mkdir()
        (path / "blue.png").write_bytes(png(0, 0, 255))
        entries = [
            {"id": "a/red.png", "text": "a red square", "image_base64": base64.b64encode(png(255, 0, 0)).decode(), "price": 3},
            {"id": "blue.png", "image": "blue.png"},
            {"id": "note.md", "text": "a note"},
            {"id": "bad.jpg", "image_base64": base64.b64encode(b"no picture").decode()},
        ]  # fmt: skip
        (path / "all.jsonl").write_text("".join(json.dumps(each) + "\n" for each in entries))
        return path / "all.jsonl"

    def parquet(self, path):
        path.mkdir()
        table = {
            "id": ["a/red.png", "blue.png", "note.md", "bad.jpg"],
            "text": ["a red square", None, "a note", None],
            "image": [png(255, 0, 0), png(0, 0, 255), None, b"no picture"],
            "fields": [{"price": 3}, None, None, None],
        }
        pq.write_table(pa.table({**table, "price": [3, None, None, None]}).drop_columns("fields"), path / "all.parquet")
        return path / "all.parquet"

    @pytest.mark.parametrize("kind", ["folder", "jsonl", "parquet"])
    def test_what_a_source_holds_is_what_is_found(self, shop, model, tmp_path, kind):
        source = getattr(self, kind)(tmp_path / "source")
        summary = index_corpus(source, shop)
        assert (summary.documents, summary.added, summary.unchanged, summary.pruned, summary.rejected) == (
            3,
            3,
            0,
            0,
            1,
        )
        assert summary.source == str(source)
        assert summary.reasons == Counter({"not-an-image": 1})
        assert [each.reason for each in summary.rejects] == ["not-an-image"]
        assert "bad.jpg" in summary.rejects[0].uri or "#" in summary.rejects[0].uri
        told = contents(shop)
        assert {name: each[2] for name, each in told.items()} == {
            "a/red.png": "image+text", "blue.png": "image", "note.md": "text",
        }  # fmt: skip
        assert told["a/red.png"][0] == "a red square"
        assert told["a/red.png"][1] == {"price": 3}
        expected = model.encode_document(
            [Item("a red square", png(255, 0, 0)), Item(None, png(0, 0, 255)), Item("a note")]
        )
        stored = [told[name][3] for name in ("a/red.png", "blue.png", "note.md")]
        np.testing.assert_allclose(stored, expected, atol=1e-6)
        assert shop.check().findings == []


class TestAgain:
    def test_nothing_new_is_nothing_to_do(self, shop, model, lines):
        source = lines(*some(10))
        index_corpus(source, shop, shard_size=4)
        again = index_corpus(source, shop, shard_size=4)
        assert (again.added, again.unchanged, again.documents, again.generation) == (0, 10, 10, 3)
        assert model.embedded == 10

    def test_only_what_changed_is_embedded(self, shop, model, lines):
        index_corpus(lines(*some(10)), shop, shard_size=4)
        changed = [*some(5), ("d05", "dog"), *some(9)[6:], ("new", "bird")]
        again = index_corpus(lines(*changed), shop, shard_size=4)
        assert (again.added, again.unchanged, again.documents) == (2, 8, 11)
        assert model.embedded == 12
        assert contents(shop)["d05"][0] == "dog"

    def test_a_changed_image_behind_the_same_name_is_embedded(self, shop, model, tmp_path):
        (tmp_path / "photos").mkdir()
        for name in "ab":
            (tmp_path / "photos" / f"{name}.png").write_bytes(png(200, 0, 0))
        index_corpus(tmp_path / "photos", shop)
        (tmp_path / "photos" / "b.png").write_bytes(png(0, 0, 200, size=(5, 5)))
        assert index_corpus(tmp_path / "photos", shop).added == 1
        told = contents(shop)
        assert told["a.png"][3] != told["b.png"][3]

    def test_another_shard_size_costs_nothing(self, shop, model, lines):
        source = lines(*some(10))
        for size in (4, 3, 100, 4):
            summary = index_corpus(source, shop, shard_size=size)
            assert (summary.documents, summary.unchanged) == (10, 10 - summary.added)
        assert model.embedded == 10

    def test_what_was_deleted_by_hand_comes_back(self, shop, model, lines):
        source = lines(*some(10))
        index_corpus(source, shop, shard_size=4)
        shop.delete(["d03", "d09"])
        again = index_corpus(source, shop, shard_size=4)
        assert (again.added, again.unchanged, again.documents) == (2, 8, 10)

    def test_prune_removes_what_the_source_no_longer_has_and_nothing_else(self, shop, lines):
        shop.add([Document("mine", text="by hand")])
        index_corpus(lines(("other", "bird"), name="other.jsonl"), shop)
        index_corpus(lines(*some(6)), shop, shard_size=2)
        fewer = lines(*some(6)[::2])
        assert index_corpus(fewer, shop, shard_size=2).documents == 8
        pruned = index_corpus(fewer, shop, shard_size=2, prune=True, prune_most=0.5)
        assert (pruned.pruned, pruned.documents) == (3, 5)
        assert set(contents(shop)) == {"mine", "other", "d00", "d02", "d04"}
        assert index_corpus(fewer, shop, shard_size=2, prune=True).pruned == 0


class TestRejects:
    def test_they_are_counted_again_and_not_tried_again(self, shop, lines, monkeypatch):
        tried = Counter()
        ingest = decoding.ingest_chunk

        def counting(way_in, source, chunk):
            tried.update(each.document.id for each in chunk)
            return ingest(way_in, source, chunk)

        monkeypatch.setattr("indexer.ingest.job.ingest_chunk", counting)
        odd = [json.dumps({"id": "bad", "image_base64": "AAAA"}), "{", json.dumps({"id": "d00", "text": "twice"})]
        source = lines(*some(7), broken=odd)
        first = index_corpus(source, shop, shard_size=4)
        again = index_corpus(source, shop, shard_size=4)
        reasons = Counter({"not-an-image": 1, "bad-json": 1, "duplicate-id": 1})
        for summary in (first, again):
            assert (summary.rejected, summary.reasons, summary.documents) == (3, reasons, 7)
            assert sorted(each.reason for each in summary.rejects) == sorted(reasons)
        assert (first.added, again.added, again.unchanged) == (7, 0, 7)
        assert tried["bad"] == 1
        assert shop.info()["jobs"][0]["rejected"] == 3
        grown = index_corpus(lines(*some(7), ("new", "bird"), broken=odd), shop, shard_size=4)
        assert (grown.added, grown.rejected, grown.reasons) == (1, 3, reasons)
        assert tried["bad"] == 2
        mended = index_corpus(lines(*some(7), ("bad", "good now")), shop, shard_size=4)
        assert (mended.added, mended.rejected, mended.reasons) == (1, 0, Counter())

    def test_a_shard_of_nothing_else_is_done_as_well(self, shop, lines):
        source = lines(broken=["{", "[]", "nonsense"])
        for _ in range(2):
            summary = index_corpus(source, shop, shard_size=2)
            assert (summary.rejected, summary.documents, summary.generation) == (3, 0, 0)
        assert shop.info()["jobs"][0]["shards"] == 2

    def test_those_of_a_part_that_is_gone_are_forgotten(self, shop, lines):
        index_corpus(lines(*some(3), broken=["{"]), shop, shard_size=2)
        summary = index_corpus(lines(*some(2)), shop, shard_size=2)
        assert (summary.rejected, summary.reasons, summary.rejects) == (0, Counter(), [])

    def test_of_one_id_twice_the_first_counts(self, shop):
        source = Listed(record("a", "one"), record("b", "two"), record("a", "three"), record("b", "four"))
        summary = index_corpus(source, shop, shard_size=3)
        assert {name: told[0] for name, told in contents(shop).items()} == {"a": "one", "b": "two"}
        assert [(each.uri, each.reason) for each in summary.rejects] == [("a", "duplicate-id"), ("b", "duplicate-id")]

    def test_whatever_a_corpus_yields_the_job_goes_on(self, shop):
        odd = [
            record("a\0b"), record("a\ud800b"), record("a\ud800b"), record(""), record("x", uri="u\0\ud800"),
            record("y", text="\udfff"), record("z", fields={"x": float("inf")}), record("w", text=None),
        ]  # fmt: skip
        summary = index_corpus(Listed(*odd, record("good")), shop)
        assert set(contents(shop)) == {"good"}
        assert summary.rejected == len(odd)
        assert [each.uri for each in summary.rejects].count("a\\ud800b") == 2


class TestInterrupted:
    def test_a_failing_model_loses_its_shard_alone(self, shop, model, lines):
        source = lines(*some(12))
        model.fail_after = 8
        with pytest.raises(MemoryError):
            index_corpus(source, shop, shard_size=4)
        assert set(contents(shop)) == {name for name, _ in some(8)}
        assert shop.info()["jobs"][0]["state"] == "running"
        model.fail_after = None
        summary = index_corpus(source, shop, shard_size=4)
        assert (summary.added, summary.unchanged, model.embedded) == (4, 8, 12)
        assert shop.info()["jobs"][0]["state"] == "done"

    def test_a_caller_who_has_enough_stops_it_anywhere(self, shop, model, lines):
        source = lines(*some(40))

        def stop(progress):
            if progress.prepared >= 20:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index_corpus(source, shop, shard_size=5, on_progress=stop)
        assert 0 < len(shop.snapshot()) < 40
        index_corpus(source, shop, shard_size=5)
        assert set(contents(shop)) == {name for name, _ in some(40)}
        assert model.embedded == 40


class TestOneMeaning:
    def test_a_batch_gives_what_one_by_one_gives(self, shop, open_shop, tmp_path):
        source = TestSources().folder(tmp_path / "source")
        index_corpus(source, shop)
        single = open_shop("single")
        for name, text, image, fields in (
            ("a/red.png", "a red square", source / "a" / "red.png", {"price": 3}),
            ("blue.png", None, source / "blue.png", {}),
            ("note.md", "a note", None, {}),
        ):
            single.add([Document(name, text, image, fields)])
        batch, one_by_one = contents(shop), contents(single)
        assert {name: told[:3] for name, told in batch.items()} == {name: told[:3] for name, told in one_by_one.items()}
        for name, told in batch.items():
            np.testing.assert_allclose(told[3], one_by_one[name][3], atol=1e-6)

    def test_the_size_of_shards_changes_nothing_but_the_commits(self, open_shop, lines):
        source = lines(*some(21), broken=["{"])
        told = {}
        for size in (1, 5, 22, 1000):
            one = open_shop(f"by {size}")
            summary = index_corpus(source, one, shard_size=size)
            assert (summary.added, summary.rejected) == (21, 1)
            told[size] = contents(one), one.snapshot().vector_ids([name for name, _ in some(21)]).tolist()
        assert told[1] == told[5] == told[22] == told[1000]

    def test_processes_give_what_threads_give_and_one_that_dies_is_told_of(self, tmp_path, closing):
        source = tmp_path / "photos"
        source.mkdir()
        for number in range(240):  # more than are ever decoded ahead
            (source / f"{number:03}.png").write_bytes(png(number, 0, 0))
        (source / "999.png").write_bytes(b"no picture")
        here, there = (closing(Collection.open(tmp_path / name, "fake:16")) for name in ("here", "there"))
        index_corpus(source, here, workers=0)

        def kill_one(progress):
            for child in psutil.Process().children():
                if any("spawn_main" in part for part in child.cmdline()):
                    child.kill()

        with pytest.raises(UnderdrawingError, match="died.*Run it again"):
            index_corpus(source, there, workers=2, shard_size=20, on_progress=kill_one)
        summary = index_corpus(source, there, workers=2, shard_size=20)
        assert summary.reasons == Counter({"not-an-image": 1})
        assert contents(there) == contents(here)


class TestTheCall:
    def test_progress_counts_up_to_the_summary(self, shop, lines):
        seen = []
        index_corpus(lines(*some(20)), shop, shard_size=20)
        source = lines(*some(50), broken=["{"])
        summary = index_corpus(
            source, shop, shard_size=20,
            on_progress=lambda now: seen.append((now.prepared, now.added, now.unchanged, now.rejected)),
        )  # fmt: skip
        assert seen == sorted(seen)
        assert seen[-1] == (30, 30, 20, 1) == (30, summary.added, summary.unchanged, summary.rejected)
        assert len(seen) == 1 + 2 + 1  # a chunk of nothing, 16 and 4, and 10

    @pytest.mark.parametrize("options", [{"shard_size": 0}, {"workers": -1}])
    def test_numbers_that_make_no_sense_are_refused(self, shop, lines, options):
        with pytest.raises(CallError, match="must be a whole number of at least [01]"):
            index_corpus(lines(*some(1)), shop, **options)

    def test_a_source_that_is_not_there_is_refused(self, shop, tmp_path):
        with pytest.raises(CallError, match="does not exist"):
            index_corpus(tmp_path / "nothing", shop)

    def test_there_is_one_writer(self, shop, lines):
        with shop.writer(), pytest.raises(LockedError):
            index_corpus(lines(*some(1)), shop)
