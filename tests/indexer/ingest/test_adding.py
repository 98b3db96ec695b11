"""`add` and `delete`: mistakes of the caller are clear errors, and documents that were not stored are reported."""

from __future__ import annotations

import io
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from answers import contents, png
from job_sources import Listed, written
from PIL import Image

from indexer import Added, Document, Rejected, index_corpus
from indexer.errors import CallError, RejectedError


def good(name, text="cat"):
    return Document(name, text=text)


class TestWhatIsGiven:
    @pytest.mark.parametrize(
        ("documents", "message"),
        [
            (None, "not None"), ("a text", "not str 'a text'"), (b"bytes", "not a bytes"), (5, "not int 5"),
            ({"id": "z", "text": "t"}, r"not a dict. Write add\(\[Document\(id=..., text=...\)\]\)"),
            ([{"id": "z", "image": "x.png"}], r"documents\[0\] is a dict.*Document\(id=..., image=...\)"),
            ([good("a"), None], r"documents\[1\] is None"), ([good("a"), "b"], r"documents\[1\] is str 'b'"),
            ([[good("a")]], r"documents\[0\] is a list"), (Document, "not a type"), ({5: 5}.values(), r"documents\[0\] is int 5"),
        ],
    )  # fmt: skip
    def test_what_is_no_document_is_refused_and_nothing_stored(self, shop, documents, message):
        with pytest.raises(CallError, match=message):
            shop.add(documents)
        assert contents(shop) == {}
        assert shop.check().findings == []

    @pytest.mark.parametrize("given", [good("a"), [good("a")], (good("a"),), {1: good("a")}.values(), range])
    def test_one_document_and_any_iterable_are_taken(self, shop, given):
        assert shop.add((good(str(each)) for each in given(1)) if given is range else given).added == 1

    def test_nothing_is_no_error(self, shop):
        assert shop.add([]) == Added(0, 0, [], 0)


class TestRejects:
    def test_a_call_of_which_nothing_is_stored_raises_with_the_reasons(self, shop):
        with pytest.raises(
            RejectedError, match="None of the 2 documents can be stored. The first is a: .*'x'"
        ) as caught:
            shop.add([Document("a", text="t", fields={"x": b""}), Document("b")])
        assert [each.reason for each in caught.value.rejected] == ["bad-fields", "empty"]
        assert "skip_rejected=True" in caught.value.remedy
        with pytest.raises(RejectedError, match="^The document cannot be stored. b: "):
            shop.add(Document("b"))
        with pytest.raises(RejectedError, match="^The document cannot be stored. The id"):
            shop.add(Document("", text="t"))

    def test_unless_that_was_asked_for(self, shop):
        added = shop.add([Document("b")], skip_rejected=True)
        assert [(each.uri, each.reason) for each in added.rejected] == [("b", "empty")]

    def test_what_is_stored_beside_rejects_comes_back_and_is_shown(self, shop):
        added = shop.add([good("a"), Document("b"), Document("c"), Document(5.5, text="t")])
        assert (added.added, [each.reason for each in added.rejected]) == (1, ["empty", "empty", "bad-id"])
        assert repr(added) == (
            "Added(1 added, 0 replaced, 3 rejected (empty 2, bad-id 1), "
            "the first b: The document has neither text nor image.; generation 1)"
        )
        assert repr(shop.add(good("a"))) == "Added(0 added, 1 replaced, 0 rejected; generation 2)"

    def test_of_one_id_twice_the_first_counts_by_either_door(self, open_shop):
        texts = [("a", "one"), ("b", "two"), ("a", "three"), (5, "four"), ("5", "five"), (np.int64(5), "six")]
        added, indexed = open_shop("added"), open_shop("indexed")
        told = added.add([good(*each) for each in texts])
        summary = index_corpus(Listed(*[written(*each) for each in texts]), indexed)
        assert (
            [each.reason for each in told.rejected] == [each.reason for each in summary.rejects] == ["duplicate-id"] * 3
        )
        assert (told.added, told.replaced, summary.added) == (3, 0, 3)
        for shop in (added, indexed):
            assert {name: each[0] for name, each in contents(shop).items()} == {"a": "one", "b": "two", "5": "four"}

    def test_a_document_that_cannot_be_used_does_not_take_its_id(self, shop):
        added = shop.add([Document("a"), good("a")])
        assert (added.added, [each.reason for each in added.rejected]) == (1, ["empty"])


class TestImages:
    @pytest.mark.parametrize(
        ("image", "reason", "word"),
        [
            (5, "bad-image", "int"), (np.zeros((4, 4, 3), np.uint8), "bad-image", "fromarray"), (io.BytesIO(b"x"), "bad-image", "BytesIO"),
            (["a.png"], "bad-image", "list"), (True, "bad-image", "bool"), ("https://example.org/a.png", "remote-uri", "https://example.org/a.png"),
            ("s3://bucket/a.png", "remote-uri", "s3"), ("a.png", "missing", "a.png"), (b"no image", "not-an-image", "no image"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("parts", ["auto", "text"])
    def test_what_is_no_image_costs_its_own_document(self, open_shop, image, reason, word, parts):
        shop = open_shop(parts, parts=parts)
        bad = Document("bad", text="t", image=image)
        added = shop.add([bad, good("a")])
        [reject] = added.rejected
        assert (reject.reason, word in reject.detail) == (reason, True)
        assert index_corpus(Listed(written("bad2", "t", image=image)), shop).reasons == {reason: 1}

    def test_bytes_of_any_kind_are_an_image(self, shop):
        content = png(1, 2, 3)
        picture = Image.open(io.BytesIO(content))
        given = [content, bytearray(content), memoryview(content), picture]
        assert shop.add([Document(str(place), image=each) for place, each in enumerate(given)]).added == 4


class TestDeleting:
    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            (None, "not None"), (5, r"not int 5. Write delete\(\[5\]\)"), ("a", r"Write delete\(\['a'\]\)"), (5.5, "not float 5.5"),
            ([5.5], r"ids\[0\] is float 5.5"), (["a", None], r"ids\[1\] is None"), ([True], r"ids\[0\] is bool True"),
            ([b"a"], r"ids\[0\] is a bytes"), ([good("a")], r"ids\[0\] is a Document.*delete\(\[document.id\]\)"), (good("a"), "not a Document"),
        ],
    )  # fmt: skip
    def test_what_is_no_id_is_refused_and_nothing_deleted(self, shop, ids, message):
        shop.add([good("a"), good(5)])
        with pytest.raises(CallError, match=message):
            shop.delete(ids)
        assert len(contents(shop)) == 2

    @pytest.mark.parametrize("five", [5, "5", np.int64(5), np.str_("5"), np.uint8(5)])
    def test_a_whole_number_is_its_decimal_text(self, shop, five):
        shop.add([good(5), good(str(UUID(int=1)))])
        assert shop.delete({five}) == 1
        assert shop.delete([UUID(int=1)]) == 1

    def test_what_no_document_can_be_called_is_not_there(self, shop):
        shop.add(good("a"))
        assert shop.delete(["", "a\0", "\ud800", "x" * 5000, 10**5000, "a"]) == 1


def test_a_reject_names_a_document_of_any_id(shop):
    added = shop.add([good("a"), Document(Path("x"), text="t"), Document(10**5000, text="t"), Document([[]], text="t")])
    assert all(isinstance(each, Rejected) and each.uri for each in added.rejected)
    assert len(added.rejected) == 3
