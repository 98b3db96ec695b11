"""Pruning deletes documents that a source no longer has, and none that it may still have."""

from __future__ import annotations

import os
import shutil

import pytest
from answers import contents
from job_sources import Listed, made, written

from indexer import index_corpus
from indexer.errors import CallError
from indexer.ingest import prune
from indexer.ingest.prune import Hidden
from indexer.types import PassedOver, Rejected


def tree(*names):
    return [made(each, f"text of {each}") for each in names]


ALL = ["a/1", "a/2", "ab", "b/1", "b/2", "c"]


@pytest.fixture
def filled(shop):
    index_corpus(Listed(*tree(*ALL)), shop)
    return shop


def unread(hides):
    return Rejected("somewhere", "unreadable", "It cannot be read.", hides=hides)


def deny(monkeypatch, end):
    """Make folders unreadable; not by chmod, which does not bind root."""
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith(end):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)


class TestHidden:
    @pytest.mark.parametrize(
        ("hides", "seen", "left"),
        [
            ([""], ["c"], ALL),
            (["a/"], ["ab", "c", "b/1"], ["a/1", "a/2", "ab", "b/1", "c"]),
            (["a/1"], ["a/2", "ab", "b/1", "b/2", "c"], ALL),
            (["a/1", "a/1", "b/"], ["c"], ["a/1", "b/1", "b/2", "c"]),
            (["b/2", ""], ["c"], ALL),
            (["nothing/"], ["a/1", "a/2", "b/1", "b/2", "c"], ["a/1", "a/2", "b/1", "b/2", "c"]),
            ([None], ["a/1", "a/2", "ab", "b/1", "b/2"], ["a/1", "a/2", "ab", "b/1", "b/2"]),
        ],
    )
    def test_what_may_lie_under_what_could_not_be_read_stays(self, filled, hides, seen, left):
        summary = index_corpus(Listed(*tree(*seen), *map(unread, hides)), filled, prune=True, prune_most=1)
        assert set(contents(filled)) == set(left)
        assert summary.pruned == len(ALL) - len(left)
        assert summary.kept == len(set(left) - set(seen))
        assert summary.rejected == len(hides)

    def test_what_is_passed_over_may_hide_documents_as_well(self, filled):
        summary = index_corpus(
            Listed(*tree("c"), PassedOver("a", "empty folder", "a/")), filled, prune=True, prune_most=1
        )
        assert (summary.kept, set(contents(filled))) == (2, {"a/1", "a/2", "c"})

    def test_the_longer_ids_of_a_source_are_hidden_by_its_own_names(self, filled):
        second = Listed(*tree(*ALL), source="/x/second")
        index_corpus(second, filled)
        second.entries = [*tree("c"), unread("a/"), unread("b/1")]
        summary = index_corpus(second, filled, prune=True, prune_most=1)
        assert (summary.pruned, summary.kept, summary.documents) == (2, 3, 2 * len(ALL) - 2)

    @pytest.mark.parametrize("how", ["not listed", "empty", "links to what is away"])
    def test_ids_that_were_written_are_hidden_by_their_places(self, shop, tmp_path, monkeypatch, how):
        for name in "nas", "nas/sub", "local":
            (tmp_path / "src" / name).mkdir(parents=True)
        (tmp_path / "t.jsonl").write_text('{"id": "one", "text": "a"}\n{"id": "two", "text": "b"}\n')
        (tmp_path / "src/nas/sub/t.jsonl").symlink_to(tmp_path / "t.jsonl")
        (tmp_path / "src/nas/x.txt").write_text("c")
        (tmp_path / "src/nas/x.json").write_text('{"id": "three"}')
        for name in "y", "z":
            (tmp_path / f"src/local/{name}.txt").write_text(name)
            (tmp_path / f"src/local/{name}.json").write_text(f'{{"id": "{name}"}}')
        index_corpus(tmp_path / "src", shop)
        (tmp_path / "src/local/z.txt").unlink()
        if how == "empty":
            shutil.rmtree(tmp_path / "src/nas")
            (tmp_path / "src/nas").mkdir()
        elif how == "links to what is away":
            (tmp_path / "src/nas/sub").rename(tmp_path / "sub")
            (tmp_path / "src/nas/x.txt").unlink()
            (tmp_path / "src/nas/x.json").unlink()
            for name in "sub", "x.txt":
                (tmp_path / "src/nas" / name).symlink_to(tmp_path / "away")
        else:
            deny(monkeypatch, "/nas")
        summary = index_corpus(tmp_path / "src", shop, prune=True, prune_most=1)
        assert (set(contents(shop)), summary.pruned, summary.kept) == ({"one", "two", "three", "y"}, 1, 3)

    def test_hidden_in_a_shard_that_is_done_already(self, filled):
        source = Listed(*tree("c"), unread("a/"))
        for _ in range(3):
            summary = index_corpus(source, filled, prune=True, prune_most=1)
        assert (summary.kept, set(contents(filled))) == (2, {"a/1", "a/2", "c"})

    def test_a_record_that_no_longer_decodes_keeps_its_last_version(self, filled):
        broken = [made(each, "new", stamp="2", fields={"x": float("inf")}) for each in ALL]
        summary = index_corpus(Listed(*broken), filled, prune=True)
        assert (summary.rejected, summary.pruned, len(contents(filled))) == (6, 0, 6)

    def test_prefixes_are_found_whatever_others_there_are(self):
        hidden = Hidden()
        for each in ("b", "ba", "a/", "a0", "é", "b\U0010ffff"):
            hidden.add(each)
        told = {each: hidden.covers(each) for each in ("a", "a/", "a/x", "a0x", "a1", "b", "bzz", "c", "é/", "", "A")}
        assert {each for each, covered in told.items() if covered} == {"a/", "a/x", "a0x", "b", "bzz", "é/"}
        hidden.add("c")
        assert hidden.covers("cc")

    def test_more_than_can_be_kept_in_mind_hides_everything(self, monkeypatch):
        monkeypatch.setattr(prune, "MOST_PREFIXES", 3)
        hidden = Hidden()
        for each in "abcd":
            hidden.add(each)
        assert hidden.covers("zzz")


class TestMuch:
    @pytest.mark.parametrize("options", [{}, {"prune_most": 0.42}, {"confirm": lambda error: False}])
    def test_a_large_share_is_refused_with_the_numbers(self, filled, options):
        source = Listed(*tree("a/1", "a/2", "new"), *tree("ab"))
        with pytest.raises(CallError, match=r"3 of the 7 documents .* \(43%\).* none was pruned") as caught:
            index_corpus(source, filled, prune=True, **options)
        assert "prune_most=0.43" in caught.value.remedy
        assert "`prune_most=0.43`" in caught.value.remedy
        assert set(contents(filled)) == {*ALL, "new"}  # the rest is done
        assert index_corpus(source, filled, prune=True, prune_most=0.43).pruned == 3

    def test_who_is_asked_may_agree(self, filled):
        asked = []

        def confirm(error):
            asked.append(error.message)
            return True

        assert index_corpus(Listed(*tree("c")), filled, prune=True, confirm=confirm).pruned == 5
        assert len(asked) == 1

    def test_a_small_share_needs_no_question(self, filled):
        def confirm(error):
            raise AssertionError(error)

        assert index_corpus(Listed(*tree(*ALL[:-1])), filled, prune=True, confirm=confirm).pruned == 1

    def test_an_empty_source_looks_like_a_disk_that_is_away(self, filled):
        with pytest.raises(CallError, match=r"6 of the 6 documents .* \(100%\)"):
            index_corpus(Listed(), filled, prune=True)
        assert len(contents(filled)) == 6
        assert index_corpus(Listed(), filled, prune=True, prune_most=1).documents == 0

    def test_the_share_is_of_this_source_alone(self, filled):
        index_corpus(Listed(*[written(f"w{number}") for number in range(90)], source="/x/many"), filled)
        with pytest.raises(CallError, match="2 of the 6"):
            index_corpus(Listed(*tree(*ALL[2:])), filled, prune=True)

    @pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
    def test_no_share_is_refused(self, filled, share):
        with pytest.raises(CallError, match="from 0 to 1|a finite number"):
            index_corpus(Listed(), filled, prune=True, prune_most=share)


@pytest.mark.parametrize("error", [OSError("gone"), MemoryError("no more"), KeyboardInterrupt()])
def test_a_source_that_breaks_off_prunes_nothing(filled, error):
    with pytest.raises(type(error)):
        index_corpus(_Breaking(error, *tree("a/1")), filled, prune=True, prune_most=1)
    assert set(contents(filled)) == set(ALL)


class _Breaking(Listed):
    def __init__(self, error, *entries):
        super().__init__(*entries)
        self.error = error

    def __iter__(self):
        yield from self.entries
        raise self.error


class TestPassedOver:
    def test_it_is_counted_by_kind_and_kept_with_the_job(self, shop):
        entries = [*tree("a"), PassedOver("x.cr2", ".cr2"), PassedOver("y.cr2", ".cr2"), PassedOver("z", "no suffix")]
        for size in (1, 2048):
            summary = index_corpus(Listed(*entries), shop, shard_size=size)
            assert summary.passed_over == {".cr2": 2, "no suffix": 1}
            assert summary.rejected == 0
        jobs = shop.info()["jobs"]
        assert [each["passed_over"] for each in jobs] == [{".cr2": 2, "no suffix": 1}] * 2
        assert "3 passed over (.cr2 2, no suffix 1)" in repr(summary)

    def test_it_does_not_move_the_shards(self, shop):
        index_corpus(Listed(*tree("a", "b", "c")), shop, shard_size=2)
        entries = [PassedOver("x", ".x"), *tree("a"), PassedOver("x", ".x"), *tree("b", "c")]
        assert index_corpus(Listed(*entries), shop, shard_size=2).generation == 2

    def test_kinds_without_end_are_counted_together(self, shop):
        summary = index_corpus(Listed(*[PassedOver(f"x.{number}", f".{number}") for number in range(1000)]), shop)
        assert len(summary.passed_over) == 201
        assert summary.passed_over.total() == 1000
        assert summary.passed_over["other kinds"] == 800
        assert summary.found is False
        assert "196 other kinds" in repr(summary)
