"""The promises of a collection: commits are atomic, and documents are returned as stored."""

from __future__ import annotations

import errno
import math
from types import SimpleNamespace

import numpy as np
import pytest
from answers import asked, contents, found, png
from PIL import Image

from indexer import Document
from indexer.errors import (
    CallError,
    SpaceMismatchError,
    StoreError,
)
from indexer.metadata.publish import NewDocument
from indexer.types import Modality, Role
from indexer.vectors.unit import unit_rows


def words(*texts):
    """A document for each text, named by it."""
    return [Document(text, text=text) for text in texts]


class TestAdding:
    def test_a_search_after_add_sees_it(self, shop):
        added = shop.add(words("cat", "dog"))
        assert (added.added, added.replaced, added.rejected, added.generation) == (2, 0, [], 1)
        assert found(shop, "cat", k=1) == ["cat"]
        assert shop.add(words("bird")).generation == 2
        assert found(shop, "bird", k=1) == ["bird"]
        assert len(shop.snapshot()) == 3

    def test_a_document_comes_back_as_it_was(self, shop, tmp_path):
        fields = {"price": 1.5, "deep": {"list": [1, "zwei", None, {"x": True}]}, "": "no name", "ключ": "значение"}
        picture = tmp_path / "a b%20ü.png"
        picture.write_bytes(png(9, 9, 9))
        shop.add([Document("naïve/ 😀 'id'", "a ten’s\ntext", picture, fields, uri="https://example.org/?q=a#b")])
        snapshot = shop.snapshot()
        [back] = snapshot.documents(snapshot.vector_ids(["naïve/ 😀 'id'"]))
        assert (back.id, back.text, back.fields) == ("naïve/ 😀 'id'", "a ten’s\ntext", fields)
        assert (back.uri, back.image, back.modality) == ("https://example.org/?q=a#b", picture, Modality.FUSED)

    def test_numbers_come_back_as_they_were(self, shop):
        numbers = [
            1,
            1.0,
            0.1,
            1e16,
            2.0**60,
            1e22,
            1e300,
            -1.7976931348623157e308,
            5e-324,
            2**53 + 1,
            2**63 - 1,
            -(2**63),
            "1e+20",
        ]
        shop.add([Document("a", text="a", fields={"n": numbers})])
        back = contents(shop)["a"][1]["n"]
        assert back == numbers
        assert [type(each) for each in back] == [type(each) for each in numbers]

    def test_the_same_id_again_replaces_the_document(self, shop):
        shop.add(words("cat", "dog"))
        again = shop.add([Document("cat", text="bird", fields={"new": True})])
        assert (again.added, again.replaced) == (0, 1)
        snapshot = shop.snapshot()
        assert len(snapshot) == 2
        assert found(snapshot, "bird", k=1) == ["cat"]
        [document] = snapshot.documents(snapshot.vector_ids(["cat"]))
        assert (document.text, document.fields) == ("bird", {"new": True})

    def test_nothing_to_add_is_no_generation(self, shop):
        assert shop.add([]).generation == shop.add([Document("empty")], skip_rejected=True).generation == 0

    def test_a_bad_document_costs_itself_alone(self, shop):
        added = shop.add([*words("cat"), Document("bad", image=b"no picture"), *words("dog")])
        assert added.added == 2
        assert [(each.uri, each.reason) for each in added.rejected] == [("bad", "not-an-image")]
        assert set(contents(shop)) == {"cat", "dog"}

    def test_a_bad_version_leaves_the_good_one(self, shop):
        shop.add(words("cat"))
        assert shop.add([Document("cat", image=b"no picture")], skip_rejected=True).rejected
        assert set(contents(shop)) == {"cat"}

    @pytest.mark.parametrize("image", [Image.new("RGB", (3, 3), "red"), png(255, 0, 0)], ids=["pil", "bytes"])
    def test_an_image_without_a_file_is_kept(self, shop, image):
        shop.add([Document("red", image=image)])
        [document] = shop.snapshot().documents(shop.snapshot().vector_ids(["red"]))
        with Image.open(document.image) as kept:
            assert kept.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
        assert document.image.is_relative_to(shop.path / "media")

    def test_the_same_image_is_kept_once(self, shop):
        shop.add(
            [Document("a", image=png(1, 2, 3)), Document("b", image=png(1, 2, 3)), Document("c", image=png(3, 2, 1))]
        )
        shop.add([Document("d", image=png(1, 2, 3))])
        assert len([path for path in shop.layout.media.rglob("*") if path.is_file()]) == 2

    def test_ids_of_vectors_are_never_given_out_again(self, shop):
        seen = []
        for round_ in range(3):
            shop.add(words("cat", "dog"))
            seen += shop.snapshot().vector_ids(["cat", "dog"]).tolist()
            if round_ == 0:
                shop.delete(["cat", "dog"])
                shop.compact()
                assert len(shop.snapshot()) == 0
            shop.compact()
        assert len(set(seen)) == len(seen) == 6
        assert seen == sorted(seen)


class TestDeleting:
    def test_deleted_documents_are_not_found(self, shop):
        shop.add(words("cat", "dog", "bird"))
        assert shop.delete(["cat", "bird", "unheard of"]) == 2
        for where in None, {}, {"x": None}:
            assert found(shop, "cat", where=where) == ["dog"]
        assert len(shop.snapshot()) == 1
        with pytest.raises(CallError, match="The document 'bird' is not in"):
            shop.snapshot().vector_ids(["dog", "bird"])
        assert shop.delete(["cat"]) == 0

    def test_more_than_one_statement_takes(self, shop):
        shop.add([Document(str(number), text=f"word{number}") for number in range(1201)])
        assert shop.delete([str(number) for number in range(1200)]) == 1200
        assert set(contents(shop)) == {"1200"}

    def test_deleted_and_added_again(self, shop):
        shop.add(words("cat"))
        shop.delete(["cat"])
        assert shop.add(words("cat")).added == 1
        assert found(shop, "cat") == ["cat"]

    def test_one_text_is_not_a_list_of_ids(self, shop):
        with pytest.raises(CallError, match=r"Write delete\(\['cat'\]\)"):
            shop.delete("cat")

    def test_an_id_that_no_document_can_have_is_unheard_of(self, shop):
        shop.add(words("cat"))
        odd = ["a\0b", "a\ud800b", ""]
        assert shop.delete(odd) == 0
        assert found(shop, "cat", exclude=odd) == ["cat"]
        with pytest.raises(CallError, match="3 of 4 documents are not in the collection"):
            shop.snapshot().vector_ids(["cat", *odd])
        with pytest.raises(CallError, match="The document 'dog' is not in the collection"):
            shop.snapshot().vector_ids(["cat", "dog"])


class TestWhatIsRefused:
    def test_a_document_no_database_can_hold(self, shop):
        deep = {depth: {"x": 1} for depth in (101, 900, 100_000)}
        for depth in deep:
            for _ in range(depth):
                deep[depth] = {"x": deep[depth]}
        refused = [
            (Document(""), "bad-id"),
            (Document("x" * 1025, text="a"), "too-long"),
            (Document("語" * 1000, text="a"), "too-long"),
            (Document(7.0, text="a"), "bad-id"),
            (Document([10**5000], text="a"), "bad-id"),
            (Document(10**5000, text="a"), "too-long"),
            (Document("a\0b", text="a"), "nul"),
            (Document("a\ud800b", text="a"), "not-unicode"),
            (Document("a", text="a\0b"), "nul"),
            (Document("a", text="a\udfffb"), "not-unicode"),
            (Document("a", text=b"bytes"), "bad-text"),
            (Document("a", text="a", uri="a\0b"), "nul"),
            (Document("a", text="a", uri="a\ud800b"), "not-unicode"),
            (Document("a"), "empty"),
            (Document("a", text=" \n\t"), "empty"),
            (Document("a", text="a", fields={"x": [math.inf]}), "bad-fields"),
            (Document("a", text="a", fields={"x": b"bytes"}), "bad-fields"),
            (Document("a", text="a", fields={1.5: "x"}), "bad-fields"),
            (Document("a", text="a", fields=["x"]), "bad-fields"),
            (Document("a", text="a", fields={"x": 10**5000}), "bad-fields"),
            (Document("a", text="a", fields={"x": "a\0b"}), "nul"),
            (Document("a", text="a", fields={"x": [{"a\0b": 1}]}), "nul"),
            (Document("a", text="a", fields={"x": "\ud800"}), "not-unicode"),
            *((Document("a", text="a", fields=fields), "bad-fields") for fields in deep.values()),
        ]
        added = shop.add([*(document for document, _ in refused), *words("cat")])
        assert [each.reason for each in added.rejected] == [reason for _, reason in refused]
        assert set(contents(shop)) == {"cat"}

    def test_fields_at_the_limit_are_kept(self, shop):
        deep = 1
        for _ in range(99):
            deep = [deep]
        shop.add([Document("a", text="a", fields={"x": deep})])
        assert contents(shop)["a"][1] == {"x": deep}

    def test_the_longest_id_and_a_long_text_are_kept(self, shop):
        rng = np.random.default_rng(0)
        name = "".join(chr(each) for each in rng.integers(0x400, 0x7FF, 1024))  # two bytes each, and no pattern
        shop.add([Document(name, text="é" * 1_000_000)])
        assert contents(shop)[name][0] == "é" * 1_000_000

    def test_vectors_that_do_not_fit_are_refused(self, shop):
        document = NewDocument("a", "a", None, None, None, Modality.TEXT, {})
        with shop.writer() as writer:
            for vectors in (None, np.ones((1, 8), np.float32), np.ones((2, 16), np.float32)):
                with pytest.raises(CallError, match=r"must have the shape \(1, 16\)"):
                    writer.commit([document], vectors)
            for vectors in (np.ones((1, 16), np.float32), np.full((1, 16), np.nan, np.float32)):
                with pytest.raises(CallError, match="unit length"):
                    writer.commit([document], vectors)
        assert shop.info()["generation"] == 0


class TestAFullDisk:
    @pytest.mark.parametrize("what", ["the segment", "its content", "the image"])
    def test_nothing_is_published_and_the_next_try_works(self, shop, monkeypatch, what):
        shop.add(words("cat"))
        before = contents(shop)

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left")

        with monkeypatch.context() as patch:
            if what == "its content":
                patch.setattr("indexer.vectors.segments.hashlib", SimpleNamespace(sha256=full))
            else:
                patch.setattr("os.fsync", full)
            document = Document("dog", text="dog", image=png(1, 2, 3) if what == "the image" else None)
            with pytest.raises(StoreError, match=r"(segments|media)/.* cannot be written: [Nn]o space.*disk full"):
                shop.add([document])
        assert contents(shop) == before
        assert shop.check().findings == []
        assert shop.add([document]).generation == 2


class TestSearching:
    def test_an_empty_collection_answers(self, shop):
        snapshot = shop.snapshot()
        answer = snapshot.search(asked("cat", "dog"), 3)
        assert answer.ids.tolist() == [[-1] * 3] * 2
        assert np.all(answer.scores == -np.inf)
        assert (len(snapshot), found(snapshot, "cat", where={"a": 1}), shop.check().clean) == (0, [], True)
        ids, scores = snapshot.scan(asked("cat"))
        assert (ids.shape, scores.shape) == ((0,), (1, 0))

    @pytest.mark.parametrize("size", [0, 1])
    def test_a_wrong_call_is_refused_however_many_there_are(self, shop, size):
        shop.add(words("cat", "dog")[:size])
        snapshot = shop.snapshot()
        with pytest.raises(CallError, match="at least 1"):
            snapshot.search(asked("cat"), 0)
        with pytest.raises(CallError, match="finite"):
            snapshot.search(np.full((1, 16), np.nan, np.float32), 1)
        with pytest.raises(CallError, match="not known"):
            snapshot.search(asked("cat"), 1, where={"a": {"$like": 1}})
        with pytest.raises(SpaceMismatchError, match="dimension 16"):
            snapshot.search(np.ones((1, 8), np.float32), 1)

    def test_k_beyond_the_size_is_padded(self, shop):
        shop.add(words("cat", "dog"))
        answer = shop.snapshot().search(asked("cat"), 5)
        assert (answer.ids[0] >= 0).tolist() == [True, True, False, False, False]
        assert answer.scores[0, 2:].tolist() == [-math.inf] * 3

    def test_scores_are_cosines_best_first(self, shop):
        shop.add(words("cat", "dog", "cat dog", "bird"))
        snapshot = shop.snapshot()
        answer = snapshot.search(asked("cat"), 4)
        names = [document.id for document in snapshot.documents(answer.ids[0])]
        expected = asked(*names) @ asked("cat")[0]
        np.testing.assert_allclose(answer.scores[0], expected, atol=1e-6)
        assert sorted(expected, reverse=True) == expected.tolist()
        np.testing.assert_allclose(snapshot.scores(asked("cat"), answer.ids[0])[0], expected, atol=1e-6)

    def test_what_is_excluded_or_filtered_out_makes_room(self, shop):
        shop.add([Document(str(number), text=f"cat word{number}", fields={"n": number}) for number in range(20)])
        shop.delete(["0", "1"])
        assert sorted(found(shop, "cat", k=3, where={"n": {"$lt": 5}})) == ["2", "3", "4"]
        assert sorted(found(shop, "cat", k=9, where={"n": {"$lt": 5}}, exclude=["3", "0", "gone"])) == ["2", "4"]
        assert len(found(shop, "cat", k=17, exclude=["9"])) == 17
        ids, scores = shop.snapshot().scan(asked("cat"), where={"n": {"$gte": 18}}, exclude=["18"])
        assert [each.id for each in shop.snapshot().documents(ids)] == ["19"]
        assert scores.shape == (1, 1)

    def test_one_text_is_not_a_list_of_exclusions(self, shop):
        shop.add(words("c", "a", "t"))
        with pytest.raises(CallError, match=r"\['cat'\]"):
            shop.snapshot().search(asked("cat"), 1, exclude="cat")

    def test_documents_come_in_the_order_asked(self, shop):
        shop.add([Document(str(number), text="cat") for number in range(1100)])
        snapshot = shop.snapshot()
        names = [str(each) for each in np.random.default_rng(0).permutation(1100)]
        assert [each.id for each in snapshot.documents(snapshot.vector_ids(names))] == names


class TestMeans:
    def test_they_are_those_of_all_vectors_that_were_committed(self, shop):
        rng = np.random.default_rng(0)
        kinds = list(Modality)
        everything = {kind: [] for kind in kinds}
        with shop.writer() as writer:
            for commit in range(5):
                documents, rows = [], []
                for number in range(7):
                    kind = kinds[rng.integers(len(kinds))]
                    documents.append(NewDocument(f"{commit}-{number}", "t", None, None, None, kind, {}))
                    rows.append(unit_rows(rng.standard_normal((1, 16)))[0])
                    everything[kind].append(rows[-1])
                writer.commit(documents, np.stack(rows))
        shop.compact()
        means = shop.space.means
        assert set(means) == {(Role.DOCUMENT, kind) for kind in kinds}
        for kind in kinds:
            mean = means[Role.DOCUMENT, kind]
            assert mean.count == len(everything[kind])
            np.testing.assert_allclose(mean.vector, np.mean(np.float64(everything[kind]), axis=0), atol=1e-7)

    def test_a_snapshot_has_those_of_its_generation(self, shop):
        shop.add(words("cat"))
        before = shop.snapshot()
        shop.add(words("dog"))
        assert before.space.means[Role.DOCUMENT, Modality.TEXT].count == 1
        np.testing.assert_allclose(before.space.means[Role.DOCUMENT, Modality.TEXT].vector, asked("cat")[0], atol=1e-6)
        assert shop.snapshot().space.means[Role.DOCUMENT, Modality.TEXT].count == 2

    def test_the_mean_of_queries_comes_with_the_first_documents(self, shop):
        from indexer.bundled import generic_texts

        assert (Role.QUERY, Modality.TEXT) not in shop.space.means
        shop.add(words("cat"))
        shop.add(words("dog"))
        mean = shop.space.means[Role.QUERY, Modality.TEXT]
        assert mean.count == len(generic_texts())
        np.testing.assert_allclose(mean.vector, asked(*generic_texts()).mean(axis=0), atol=1e-6)
