"""One id in two sources: neither loses a document silently, and each finds its own again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter

import pytest
from answers import contents, png
from job_sources import Counting, Listed, made, written

from indexer import Collection, Document, index_corpus
from indexer.ingest.ids import qualifier


@pytest.fixture
def model():
    return Counting()


@pytest.fixture
def shop(open_shop, model):
    return open_shop(model=model)


@pytest.fixture
def folder(tmp_path):
    """Write a folder of pictures, of one color each; gives its path."""

    def write(name, **colors):
        for stem, color in colors.items():
            path = tmp_path / name / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(color, 0, 0))
        return tmp_path / name

    return write


@pytest.fixture
def lines(tmp_path):
    """Write a file of JSON lines; gives its path."""

    def write(name, *entries):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(each) + "\n" for each in entries))
        return path

    return write


def longer(source, name):
    return f"{source.name}-{hashlib.sha256(str(source).encode()).hexdigest()[:6]}/{name}"


class TestMadeIds:
    def test_equal_names_in_two_folders_are_two_documents(self, shop, folder):
        first, second = folder("holiday", a=1, b=2), folder("birthday", a=3, c=4)
        index_corpus(first, shop)
        summary = index_corpus(second, shop)
        assert (summary.added, summary.replaced, summary.documents) == (2, 0, 4)
        assert set(contents(shop)) == {"a.png", "b.png", "c.png", longer(second, "a.png")}

    def test_whoever_comes_again_finds_its_own(self, shop, folder, model):
        first, second = folder("holiday", a=1, b=2), folder("birthday", a=3, c=4)
        for source in (first, second):
            index_corpus(source, shop)
        before, embedded = contents(shop), model.embedded
        for source in (second, first, second):
            summary = index_corpus(source, shop, prune=True)
            assert (summary.added, summary.unchanged, summary.pruned, summary.rejected) == (0, 2, 0, 0)
        assert (contents(shop), model.embedded) == (before, embedded)

    def test_a_longer_id_stays_when_the_short_one_comes_free(self, shop, folder):
        first, second = folder("holiday", a=1), folder("birthday", a=3)
        for source in (first, second):
            index_corpus(source, shop)
        shop.delete(["a.png"])
        assert index_corpus(second, shop, prune=True).unchanged == 1
        assert set(contents(shop)) == {longer(second, "a.png")}
        assert index_corpus(first, shop).added == 1
        assert set(contents(shop)) == {"a.png", longer(second, "a.png")}

    def test_a_changed_file_changes_the_document_of_its_own_source(self, shop, folder):
        first, second = folder("holiday", a=1), folder("birthday", a=3)
        for source in (first, second):
            index_corpus(source, shop)
        before = contents(shop)
        folder("birthday", a=99)
        (second / "a.txt").write_text("another")
        summary = index_corpus(second, shop)
        assert (summary.added, summary.replaced) == (1, 1)
        after = contents(shop)
        assert after["a.png"] == before["a.png"]
        assert after[longer(second, "a.png")] != before[longer(second, "a.png")]

    def test_what_a_source_no_longer_has_is_pruned_under_its_longer_id(self, shop, folder):
        first, second = folder("holiday", a=1, b=2), folder("birthday", a=3, b=4)
        for source in (first, second):
            index_corpus(source, shop)
        (second / "b.png").unlink()
        assert index_corpus(second, shop, prune=True, prune_most=0.5).pruned == 1
        assert set(contents(shop)) == {"a.png", "b.png", longer(second, "a.png")}

    def test_lines_and_archives_without_ids_are_kept_apart(self, shop, lines):
        first = lines("one/docs.jsonl", {"text": "cat"}, {"text": "dog"})
        second = lines("two/docs.jsonl", {"text": "bird"}, {"text": "fish"})
        for source in (first, second):
            assert index_corpus(source, shop).added == 2
        assert sorted(text for text, *_ in contents(shop).values()) == ["bird", "cat", "dog", "fish"]

    def test_documents_put_there_by_add_are_kept(self, shop):
        shop.add([Document("a", text="by hand")])
        for _ in range(2):
            index_corpus(Listed(made("a", "made"), source="/x/list"), shop)
        assert {told[0] for told in contents(shop).values()} == {"by hand", "made"}

    def test_replacing_does_not_concern_them(self, shop):
        index_corpus(Listed(made("a", "one"), source="/x/one"), shop)
        summary = index_corpus(Listed(made("a", "two"), source="/x/two"), shop, replace=True)
        assert (summary.documents, summary.replaced_from) == (2, Counter())

    def test_the_order_and_the_cut_into_shards_do_not_matter(self, open_shop):
        told = {}
        sources = [Listed(*(made(f"d{n}", f"{name} word{n}") for n in range(9)), source=f"/x/{name}") for name in "ab"]
        for size in (1, 4, 100):
            shop = open_shop(f"by {size}")
            for source in (*sources, *reversed(sources)):
                index_corpus(source, shop, shard_size=size)
            told[size] = contents(shop)
        assert told[1] == told[4] == told[100]
        assert len(told[1]) == 18

    @pytest.mark.parametrize(
        ("source", "name"),
        [("/a/photos", "photos"), ("/a/photos/", "photos"), ("/a/my photos (2).tar", "my photos (2).tar"), ("/", "source"),
         ("/x/shards-{000..012}.tar", "shards-{000..012}.tar"), ("/x/Fotos Österreich", "Fotos Österreich"),
         ("/x/" + "n" * 300, "n" * 64), ("c:\\photos", "photos"), ("/x/caf\udce9", "caf%E9")],
    )  # fmt: skip
    def test_what_goes_before_an_id(self, source, name):
        assert qualifier(source) == f"{name}-{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}/"


class TestWrittenIds:
    def test_another_sources_document_is_kept_and_the_reject_says_whose_it_is(self, shop, lines):
        first, second = lines("one.jsonl", {"id": 5, "text": "cat"}), lines("two.jsonl", {"id": "5", "text": "dog"})
        index_corpus(first, shop)
        for _ in range(2):
            summary = index_corpus(second, shop)
            assert (summary.added, summary.rejected, summary.reasons) == (0, 1, Counter({"other-source": 1}))
            assert str(first) in summary.rejects[0].detail
            assert "`replace=True`" in summary.rejects[0].detail
            assert "replace=True" in summary.rejects[0].detail
            assert summary.found is False
        assert contents(shop)["5"][0] == "cat"

    def test_with_consent_it_is_replaced_and_counted(self, shop, lines):
        first, second = lines("one.jsonl", {"id": "5", "text": "cat"}), lines("two.jsonl", {"id": "5", "text": "dog"})
        index_corpus(first, shop)
        shop.add([Document("6", text="by hand")])
        lines("two.jsonl", {"id": "5", "text": "dog"}, {"id": "6", "text": "fish"}, {"id": "7", "text": "cow"})
        index_corpus(second, shop)
        summary = index_corpus(second, shop, replace=True)
        assert (summary.added, summary.replaced, summary.rejected) == (2, 2, 0)
        assert summary.replaced_from == Counter({str(first): 1, "add": 1})
        assert {name: told[0] for name, told in contents(shop).items()} == {"5": "dog", "6": "fish", "7": "cow"}
        again = index_corpus(second, shop, replace=True)
        assert (again.added, again.unchanged, again.replaced_from) == (0, 3, Counter())

    def test_what_another_took_is_not_pruned_by_its_first_source(self, shop, lines):
        first, second = lines("one.jsonl", {"id": "5", "text": "cat"}, {"id": "6", "text": "cow"}), None
        index_corpus(first, shop)
        second = lines("two.jsonl", {"id": "5", "text": "dog"})
        index_corpus(second, shop, replace=True)
        summary = index_corpus(first, shop, prune=True)
        assert (summary.pruned, summary.reasons) == (0, Counter({"other-source": 1}))
        assert contents(shop)["5"][0] == "dog"

    def test_when_the_other_document_goes_the_id_is_free(self, shop, lines):
        first, second = lines("one.jsonl", {"id": "5", "text": "cat"}), lines("two.jsonl", {"id": "5", "text": "dog"})
        index_corpus(first, shop)
        index_corpus(second, shop)
        shop.delete(["5"])
        assert index_corpus(second, shop).added == 1

    def test_add_replaces_by_id_whoever_has_it(self, shop, lines):
        index_corpus(lines("one.jsonl", {"id": "5", "text": "cat"}), shop)
        assert shop.add([Document(5, text="dog")]).replaced == 1
        assert contents(shop)["5"][0] == "dog"

    def test_whole_numbers_of_a_corpus_of_ones_own_are_ids(self, shop):
        summary = index_corpus(Listed(written(5), written("5"), written(6)), shop)
        assert (set(contents(shop)), summary.reasons) == ({"5", "6"}, Counter({"duplicate-id": 1}))


class TestMoved:
    def test_a_folder_that_moved_keeps_its_documents_and_vectors(self, shop, folder, tmp_path, model):
        first = folder("photos", a=1, b=2)
        (first / "a.txt").write_text("a cat")
        index_corpus(first, shop)
        before, embedded = contents(shop), model.embedded
        second = first.rename(tmp_path / "pictures")
        summary = index_corpus(second, shop)
        assert (summary.added, summary.moved, summary.replaced, summary.reused, summary.documents) == (2, 2, 2, 2, 2)
        assert (contents(shop), model.embedded) == (before, embedded)
        assert shop.catalog.ids_of_source(str(second)) == {"a.png", "b.png"}
        assert shop.catalog.ids_of_source(str(first)) == set()
        uris = [each.uri for each in shop.snapshot().documents(shop.snapshot().vector_ids(["a.png"]))]
        assert uris == [(second / "a.png").as_uri()]
        again = index_corpus(second, shop, prune=True)
        assert (again.added, again.unchanged, again.pruned) == (0, 2, 0)

    @pytest.mark.parametrize("first_is_gone", [False, True])
    @pytest.mark.parametrize("first_is_deleted", [False, True])
    def test_documents_with_longer_ids_move_as_well(
        self, shop, folder, tmp_path, model, first_is_gone, first_is_deleted
    ):
        first, second = folder("photos", a=1, b=2), folder("more", a=3, b=4)
        index_corpus(first, shop)
        index_corpus(second, shop)
        if first_is_gone:
            shutil.rmtree(first)
        if first_is_deleted:
            shop.delete(["a.png", "b.png"])
        before, embedded = contents(shop), model.embedded
        for name in ("moved", "moved again"):
            second = second.rename(tmp_path / name)
            summary = index_corpus(second, shop, prune=True)
            assert (summary.moved, summary.reused, summary.pruned, contents(shop)) == (2, 2, 0, before)
            assert index_corpus(second, shop, prune=True).unchanged == 2
        assert model.embedded == embedded
        (second / "b.png").unlink()
        assert index_corpus(second, shop, prune=True, prune_most=1).pruned == 1

    def test_each_of_several_that_moved_finds_its_own(self, shop, folder, tmp_path):
        folders = [folder(name, a=number, b=number + 3) for number, name in enumerate("xyz")]
        for each in folders:
            index_corpus(each, shop)
        before = contents(shop)
        moved = [each.rename(tmp_path / f"{each.name} moved") for each in folders]
        assert [index_corpus(moved[number], shop).moved for number in (2, 0, 1)] == [2, 2, 2]
        assert [index_corpus(each, shop, prune=True).unchanged for each in moved] == [2, 2, 2]
        assert contents(shop) == before

    def test_what_takes_the_place_of_a_folder_that_is_gone_is_not_pruned(self, shop, folder):
        first = folder("photos", a=1, b=2)
        index_corpus(first, shop)
        shutil.rmtree(first)
        summary = index_corpus(folder("others", a=3, b=4), shop, prune=True, prune_most=1)
        assert (summary.added, summary.pruned, summary.documents) == (2, 0, 4)

    def test_what_changed_on_the_way_is_another_document(self, shop, folder, tmp_path):
        first = folder("photos", a=1, b=2)
        index_corpus(first, shop)
        second = first.rename(tmp_path / "pictures")
        (second / "b.png").write_bytes(png(9, 9, 9))
        summary = index_corpus(second, shop)
        assert (summary.moved, summary.documents) == (1, 3)
        assert set(contents(shop)) == {"a.png", "b.png", longer(second, "b.png")}
        assert index_corpus(second, shop).unchanged == 2

    def test_a_copy_is_kept_beside_and_not_embedded(self, shop, folder, tmp_path, model):
        first = folder("photos", a=1, b=2)
        index_corpus(first, shop)
        embedded = model.embedded
        second = shutil.copytree(first, tmp_path / "copy")
        summary = index_corpus(second, shop)
        assert (summary.moved, summary.reused, summary.documents, model.embedded) == (0, 2, 4, embedded)
        told = contents(shop)
        assert told["a.png"][3] == told[longer(second, "a.png")][3]

    def test_written_ids_move_as_well(self, shop, lines, tmp_path):
        first = lines("one.jsonl", {"id": "5", "text": "cat", "n": 1}, {"id": "6", "text": "dog"})
        index_corpus(first, shop)
        second = first.rename(tmp_path / "two.jsonl")
        lines("two.jsonl", {"id": "5", "text": "cat", "n": 2}, {"id": "6", "text": "cow"})
        summary = index_corpus(second, shop)
        assert (summary.moved, summary.reasons) == (1, Counter({"other-source": 1}))
        assert contents(shop)["5"][:2] == ("cat", {"n": 2})
        assert contents(shop)["6"][0] == "dog"

    @pytest.mark.parametrize(
        "uri", [None, "media:ab/c.png", "https://example.org/a.png", "file:///dev/null", "file:///\0"]
    )
    def test_a_document_whose_file_is_there_or_unknown_has_not_moved(self, shop, uri):
        shown = None if uri and "\0" in uri else uri
        index_corpus(Listed(made("a", "cat", uri=shown), source="/x/one"), shop)
        summary = index_corpus(Listed(made("a", "cat", uri=shown), source="/x/two"), shop)
        assert (summary.moved, summary.documents) == (0, 2)

    def test_what_add_put_there_is_never_taken_over(self, shop, tmp_path):
        gone = (tmp_path / "gone.txt").as_uri()
        shop.add([Document("a", text="cat", uri=gone)])
        summary = index_corpus(Listed(made("a", "cat")), shop)
        assert (summary.moved, summary.documents) == (0, 2)


def test_a_collection_of_an_earlier_release_goes_on_as_it_was(tmp_path, closing):
    """Its vectors are known by content, too: the migration tells what they were made of."""
    from pathlib import Path

    data = Path(__file__).parents[2] / "compat" / "data" / "v1"
    opened = closing(Collection.open(shutil.copytree(data, tmp_path / "old")))
    with opened.database.read() as connection:
        rows = connection.exec_driver_sql(
            "SELECT modality, content, image_sha256, text FROM documents WHERE died IS NULL"
        ).all()
    assert rows
    for modality, content, sha, text in rows:
        told = hashlib.sha256(text.encode()).hexdigest() if text else None
        assert content == {"image": sha, "text": told, "image+text": f"{sha}+{told}"}[modality]
