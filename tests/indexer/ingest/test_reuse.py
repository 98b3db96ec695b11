"""Nothing is embedded twice: equal content reuses the vector."""

from __future__ import annotations

import numpy as np
import pytest
from answers import contents, png
from job_sources import Counting, Listed, made, written

from indexer import Document, Item, index_corpus
from indexer.ingest import reuse
from indexer.metadata.holdings import content_of, holders
from indexer.types import Modality


@pytest.fixture
def model():
    return Counting()


@pytest.fixture
def shop(open_shop, model):
    return open_shop(model=model)


def both(name, color, text, **more):
    return made(name, text, image=png(color, 0, 0), **more)


class TestWithinARun:
    @pytest.mark.parametrize("size", [1, 3, 100])
    def test_equal_content_is_embedded_once(self, shop, model, size):
        entries = [
            both("a", 1, None), both("b", 1, None), both("c", 1, "cat"), both("d", 2, None), both("e", 1, "cat"),
            made("f", "cat"), made("g", "cat"), both("h", 1, "dog"), made("i", "dog"),
        ]  # fmt: skip
        summary = index_corpus(Listed(*entries), shop, shard_size=size)
        assert (summary.added, summary.reused, model.embedded) == (9, 3, 6)
        told = contents(shop)
        alone = shop.embedder.encode_document
        for each in entries:
            expected = alone([Item(each.document.text, each.document.image)])[0]
            np.testing.assert_allclose(told[each.document.id][3], expected, atol=1e-6)

    def test_a_placeholder_that_comes_again_and_again_is_looked_up_once(self, shop, monkeypatch):
        asked = []
        places = reuse.places

        def counting(database, space, wanted):
            asked.extend(wanted)
            return places(database, space, wanted)

        monkeypatch.setattr(reuse, "places", counting)
        index_corpus(Listed(*[both(f"n{number}", 7, None) for number in range(200)]), shop, shard_size=16)
        assert len(asked) <= 2

    @pytest.mark.parametrize("questions", [0, 1, 1000])
    @pytest.mark.parametrize("merged", [0, 5, 1000])
    def test_a_long_job_reads_what_there_is_once_and_finds_the_same(self, shop, model, monkeypatch, questions, merged):
        monkeypatch.setattr(reuse, "QUESTIONS", questions)
        monkeypatch.setattr(reuse, "MERGED", merged)
        asked = []
        places = reuse.places
        monkeypatch.setattr(reuse, "places", lambda *given: asked.append(given[2]) or places(*given))
        monkeypatch.setattr(reuse, "REMEMBERED", 0)
        shop.add([Document("old", text="word1")])
        entries = [made(f"n{number}", f"word{number % 60}") for number in range(150)]
        summary = index_corpus(Listed(*entries), shop, shard_size=20)
        assert (model.embedded, summary.reused) == (60, 91)
        if questions == 0:
            assert sum(map(len, asked)) < 150  # and none of those that are new
            assert all(content in {each.content for each in _held(shop)} for some in asked for content in some)


def _held(shop):
    return holders(shop.database, ["old", *[f"n{number}" for number in range(150)]]).values()


class TestAmongSources:
    def test_what_add_embedded_is_not_embedded_again(self, shop, model):
        shop.add([Document("x", text="cat", image=png(1, 0, 0)), Document("y", text="dog")])
        index_corpus(Listed(both("a", 1, "cat"), written("b", "dog"), both("c", 1, None)), shop)
        assert model.embedded == 2 + 1

    def test_a_changed_field_costs_no_model(self, shop, model):
        index_corpus(Listed(made("a", "cat", stamp="1", fields={"n": 1})), shop)
        summary = index_corpus(Listed(made("a", "cat", stamp="2", fields={"n": 2})), shop)
        assert (summary.added, summary.replaced, summary.reused, model.embedded) == (1, 1, 1, 1)
        assert contents(shop)["a"][1] == {"n": 2}

    def test_after_a_compaction_and_of_many_segments(self, shop, model):
        for number in range(reuse.OPEN_SEGMENTS + 3):
            index_corpus(Listed(both(f"a{number}", number, None), source=f"/x/{number}"), shop)
        before = model.embedded
        again = Listed(*[both(f"b{number}", number, None) for number in range(reuse.OPEN_SEGMENTS + 3)])
        assert index_corpus(again, shop).reused == reuse.OPEN_SEGMENTS + 3
        shop.compact()
        more = Listed(*[both(f"c{number}", number, None) for number in range(3)], source="/x/more")
        assert index_corpus(more, shop).reused == 3
        assert model.embedded == before

    def test_a_deleted_documents_vector_is_not_looked_for(self, shop, model):
        index_corpus(Listed(made("a", "cat")), shop)
        shop.delete(["a"])
        assert index_corpus(Listed(made("a", "cat")), shop).reused == 0

    @pytest.mark.parametrize("parts", ["image", "text"])
    def test_parts_that_are_not_embedded_do_not_count(self, open_shop, model, parts):
        shop = open_shop("parts", model=model, parts=parts)
        index_corpus(Listed(both("a", 1, "cat"), both("b", 1, "dog"), both("c", 2, "cat")), shop)
        assert model.embedded == 2

    def test_images_read_by_another_limit_are_others(self, shop, model):
        for limit, embedded in ((None, 1), (100, 2), (100, 2), (None, 2)):
            source = Listed(both("a", 1, None), source=f"/x/{model.embedded}-{limit}-{len(shop.snapshot())}")
            index_corpus(source, shop, max_pixels=limit)
            assert model.embedded == embedded

    @pytest.mark.parametrize("harm", ["cut", "zeros", "gone"])
    def test_a_damaged_vector_is_not_copied(self, shop, model, harm):
        index_corpus(Listed(made("a", "cat")), shop)
        [segment] = shop.layout.segments.glob("*.safetensors")
        content = segment.read_bytes()
        if harm == "gone":
            segment.unlink()
        else:
            segment.write_bytes(content[:-4] if harm == "cut" else content[:-64] + bytes(64))
        assert index_corpus(Listed(made("b", "cat"), source="/x/b"), shop).reused == 0
        assert model.embedded == 2


def test_what_content_is():
    one = content_of(Modality.TEXT, "cat", None)
    assert content_of(Modality.TEXT, "cat", "ab") == one  # the image is not embedded
    assert content_of(Modality.IMAGE, "cat", "ab") == "ab"
    assert content_of(Modality.FUSED, "cat", "ab") == f"ab+{one}"
    assert content_of(Modality.FUSED, None, "ab") is content_of(Modality.IMAGE, None, None) is None
