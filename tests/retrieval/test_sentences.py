"""The method `caption` end to end: captions from a table, and a rewriter that fails on demand."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from indexer.corpus.images import image_digest
from indexer.errors import CallError, ItemError, ModelError, QueryError, WritingError
from indexer.types import Item
from retrieval import CaptionRewriter, Query, Retriever
from retrieval.providers.caption_rewrite import BATCH, RewriteRequest
from retrieval.providers.language import Change, load_captioner, load_rewriter
from retrieval.providers.language.plain import JoinRewriter, TableCaptioner
from retrieval.scoring import unit


class FakeRewriter:
    """Joins, and remembers what it was asked; what is poison, it cannot write."""

    name = "fake"

    def __init__(self):
        self.asked, self.version, self.poison = [], "one", None

    def identity(self):
        return {"rewriter": self.version}

    def rewrite(self, changes):
        self.asked.append(list(changes))
        return [
            WritingError("The fake is out of ink.", "Wait.")
            if each.text == self.poison
            else f"{each.caption} {each.text}"
            for each in changes
        ]


class CountingCaptioner(TableCaptioner):
    """A table that remembers how many pictures each call had."""

    asked = ()

    def caption(self, pictures):
        self.asked = (*self.asked, len(pictures))
        return super().caption(pictures)


@pytest.fixture
def cat(tmp_path):
    """A picture of which the table knows the caption."""
    Image.new("RGB", (8, 8), "grey").save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


@pytest.fixture
def captioner():
    return CountingCaptioner({"cat.png": "cat"})


@pytest.fixture
def rewriter():
    return FakeRewriter()


@pytest.fixture
def captions(captioner, rewriter, tmp_path):
    """Make a captions; by default, of the test's own models and cache."""

    def make(**options):
        given = {"captioner": captioner, "rewriter": rewriter, "cache": tmp_path / "sentences"}
        return CaptionRewriter(**(given | options))

    return make


@pytest.fixture
def retriever(collection, captions):
    def make(weights=None, **options):
        return Retriever(collection, "caption", weights, captions=captions(**options))

    return make


def ids(results):
    return [hit.id for hit in results]


def same(left, right):
    assert ids(left) == ids(right)
    np.testing.assert_allclose([hit.score for hit in left], [hit.score for hit in right], atol=1e-6)


def test_the_written_sentence_is_searched_and_told(retriever, collection, cat):
    results = retriever().search(Query(text="red", image=cat), k=10)
    same(results, Retriever(collection, "text").search(Query(text="cat red"), k=10))
    assert ids(results)[0] == "red-cat"
    assert results.hits[0].branches.keys() == {"written"}
    assert results.written == {
        "sentence": "cat red", "caption": "cat", "captioner": "table", "rewriter": "fake", "cached": False,
    }  # fmt: skip
    assert (results.notes, results.scale) == ((), "cosine, from -1 to 1")
    assert json.loads(json.dumps(results.to_json()))["written"] == results.written
    assert results.took_ms["write"] > 0


def test_negatives_are_taken_off(retriever, embedder, collection, cat):
    results = retriever().search(Query(text="red", image=cat, not_texts=("dog",)), k=10)
    cat_red, dog = embedder.encode_query([Item(text="cat red"), Item(text="dog")])
    expected = collection.pinned._vectors @ unit(cat_red - 0.5 * dog)
    np.testing.assert_allclose([hit.score for hit in results], sorted(expected)[::-1], atol=1e-6)


def test_no_picture_is_embedded(retriever, embedder, cat, monkeypatch):
    """So that a model which reads texts alone can answer."""
    monkeypatch.setattr(type(embedder), "modalities", frozenset({"text"}))
    assert ids(retriever().search(Query(text="red", image=cat), k=1)) == ["red-cat"]


def test_text_alone_is_text_and_a_picture_alone_is_a_picture(retriever, collection, captioner, rewriter, cat):
    for query, method, missing in ((Query(text="red cat"), "text", "image"), (Query(image=cat), "image", "text")):
        results = retriever().search(query, k=10)
        same(results, Retriever(collection, method).search(query, k=10))
        assert results.notes == (f"The query has no {missing}, so the method caption searches by the {method} alone.",)
        assert results.written is None
    assert (captioner.asked, rewriter.asked) == ((), [])


def test_a_caption_that_is_given_needs_no_captioner(retriever, cat):
    results = retriever(captioner=None).search(Query(text="red", image=cat, caption="a dog"), k=3)
    assert ids(results)[0] == "red-dog"
    assert results.written == {
        "sentence": "a dog red", "caption": "a dog", "captioner": None, "rewriter": "fake", "cached": False,
    }  # fmt: skip


def test_a_stored_reference_gives_its_picture(collection, captions, cat):
    stored = replace(collection.pinned._documents[0], image=cat, image_sha256=image_digest(cat))
    collection.pinned._documents[0] = stored
    retriever = Retriever(collection, "caption", captions=captions())
    results = retriever.search(Query(text="red", like="cat"), k=10)
    assert results.written["sentence"] == "cat red"
    assert ids(results)[0] == "red-cat"
    assert "cat" not in ids(results)
    with pytest.raises(QueryError, match=r"document 'dog' has no image .* `caption`, or give an image with `image`"):
        retriever.search(Query(text="red", like="dog"))
    assert ids(retriever.search(Query(text="red", like="dog", caption="cat"), k=1)) == ["red-cat"]
    with pytest.raises(CallError, match="nobody"):
        retriever.search(Query(text="red", like="nobody"))


def test_a_stored_picture_that_moved_is_told(collection, captions, tmp_path):
    collection.pinned._documents[0] = replace(collection.pinned._documents[0], image=tmp_path / "gone.png")
    with pytest.raises(QueryError, match=r"The query's image cannot be used: .*gone\.png"):
        Retriever(collection, "caption", captions=captions()).search(Query(text="red", like="cat"))


def test_a_stored_picture_that_is_another_one_now_is_not_sent_anywhere(collection, captions, captioner, cat):
    collection.pinned._documents[0] = replace(collection.pinned._documents[0], image=cat, image_sha256="0" * 64)
    with pytest.raises(QueryError, match=r"document 'cat', .*is no longer the one that was indexed.*`caption`"):
        Retriever(collection, "caption", captions=captions()).search(Query(text="red", like="cat"))
    assert captioner.asked == ()


def test_what_was_written_is_kept(retriever, captioner, rewriter, cat):
    query = Query(text="red", image=cat)
    once, again = retriever().search(query), retriever().search(query)
    assert again.written == once.written | {"cached": True}
    same(once, again)
    assert (captioner.asked, len(rewriter.asked)) == ((1,), 1)
    retriever(anew=True).search(query)
    assert (captioner.asked, len(rewriter.asked)) == ((1, 1), 2)


def test_a_key_is_everything_that_an_answer_depends_on(captions, captioner, rewriter, cat, tmp_path):
    def asked(text="red", caption=None, **options):
        before = len(rewriter.asked)
        captions(**options).rewrite([RewriteRequest(text, None if caption else cat, caption)])
        return len(rewriter.asked) > before

    assert asked()
    assert not asked()
    assert not asked(" red\n")
    assert not asked(caption="cat")
    assert asked("Red")
    assert asked(caption="dog")
    assert asked(cache=tmp_path / "other")
    rewriter.version = "two"
    assert asked()
    assert captioner.asked == (1, 1)
    Image.new("RGB", (8, 8), "white").save(cat)
    assert not asked()
    assert captioner.asked == (1, 1, 1)
    other = CountingCaptioner({"cat.png": "dog"})
    captions(captioner=other).rewrite([RewriteRequest("red", cat)])
    assert other.asked == (1,)


def test_a_question_asked_twice_is_written_once_and_batches_are_bounded(captions, captioner, rewriter, cat):
    wanted = [RewriteRequest(f"text {number}", cat) for number in range(BATCH + 3)] * 2
    sentences = captions().rewrite(wanted)
    assert [each.text for each in sentences] == [f"cat {each.text}" for each in wanted]
    assert captioner.asked == (1,)
    assert [len(each) for each in rewriter.asked] == [BATCH, 3]


def test_without_a_sentence_caption_and_text_are_searched_side_by_side(retriever, collection, rewriter, cat):
    rewriter.poison = "red"
    retriever = retriever()
    results, fine = retriever.search_batch([Query(text="red", image=cat), Query(text="night", image=cat)], k=10)
    same(results, Retriever(collection, "text").search(Query(text="cat, red"), k=10))
    assert results.notes == (
        "Not rewritten: The fake is out of ink. Wait. Caption and text are searched side by side.",
    )
    assert results.written["sentence"] == "cat, red"
    assert results.written["rewriter"] is None
    assert (fine.notes, fine.written["sentence"]) == ((), "cat night")
    rewriter.poison = None  # what failed is not kept
    assert retriever.search(Query(text="red", image=cat)).written["sentence"] == "cat red"


def test_without_a_caption_the_text_is_searched_alone(retriever, collection, captioner, tmp_path):
    unknown = tmp_path / "unknown.png"
    Image.new("RGB", (8, 8), "red").save(unknown)
    results = retriever().search(Query(text="red", image=unknown), k=10)
    same(results, Retriever(collection, "text").search(Query(text="red"), k=10))
    assert results.notes == ("No caption: table has no caption of unknown.png. The query's text is searched alone.",)
    assert results.written["caption"] is results.written["captioner"] is results.written["rewriter"] is None


def test_a_strict_scribe_raises_instead(retriever, rewriter, cat, tmp_path):
    rewriter.poison = "red"
    with pytest.raises(WritingError, match="out of ink"):
        retriever(strict=True).search(Query(text="red", image=cat))
    Image.new("RGB", (8, 8), "red").save(tmp_path / "unknown.png")
    with pytest.raises(WritingError, match="no caption"):
        retriever(strict=True).search(Query(text="blue", image=tmp_path / "unknown.png"))


@pytest.mark.parametrize("broken", [b"no picture", None])
def test_a_picture_that_cannot_be_used_is_named_by_its_query(retriever, cat, tmp_path, broken):
    file = tmp_path / "broken.png"
    if broken is not None:
        file.write_bytes(broken)

    class Looking(TableCaptioner):
        def caption(self, pictures):
            from indexer.corpus.images import decode_image

            try:
                return [decode_image(each) and "seen" for each in pictures]
            except ItemError as error:
                return [error] * len(pictures)

    one = retriever(captioner=Looking({}))
    with pytest.raises(QueryError, match="The image of query 1 cannot be used"):
        one.search_batch([Query(text="red", image=cat, caption="x"), Query(text="red", image=file)])
    with pytest.raises(QueryError, match="The query's image cannot be used"):
        one.search(Query(text="red", image=file))


def test_a_cache_that_cannot_be_written_costs_the_memory_alone(retriever, cat, tmp_path):
    (tmp_path / "file").write_text("in the way")
    results = retriever(cache=tmp_path / "file").search(Query(text="red", image=cat))
    assert results.written["sentence"] == "cat red"
    assert len(results.notes) == 2
    assert all(note.startswith("The answer is not cached: ") for note in results.notes)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"answer": 3}', b'{"answer": "ca', b"\xff"])
def test_a_damaged_entry_is_written_again(captions, rewriter, tmp_path, content):
    wanted = [RewriteRequest("red", caption="cat")]
    captions().rewrite(wanted)
    [entry] = (tmp_path / "sentences").rglob("*.json")
    entry.write_bytes(content)
    assert captions().rewrite(wanted)[0].text == "cat red"
    assert len(rewriter.asked) == 2
    assert captions().rewrite(wanted)[0].artifact["cached"] is True


def test_threads_share_a_scribe(captions, cat):
    one = captions()
    with ThreadPoolExecutor(8) as pool:
        texts = [f"text {number % 5}" for number in range(40)]
        written = list(pool.map(lambda text: one.rewrite([RewriteRequest(text, cat)])[0].text, texts))
    assert written == [f"cat {text}" for text in texts]


def test_a_sweep_that_was_killed_goes_on_where_it_was(tmp_path, rewriter):
    """The process dies inside its second batch; what the first one wrote is there."""
    code = f"""
import os
from pathlib import Path
from retrieval.providers.caption_rewrite import CaptionRewriter, RewriteRequest
class Rewriter:
    name, batches = "dying", 0
    def identity(self): return {{"rewriter": "one"}}
    def rewrite(self, changes):
        self.batches += 1
        if self.batches == 2: os._exit(9)
        return [f"{{each.caption}} {{each.text}}" for each in changes]
CaptionRewriter(None, Rewriter(), cache=Path({str(tmp_path)!r})).rewrite([RewriteRequest(str(n), caption="cat") for n in range({2 * BATCH})])
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    again = CaptionRewriter(None, rewriter, cache=tmp_path).rewrite(
        [RewriteRequest(str(n), caption="cat") for n in range(2 * BATCH)]
    )
    assert sum(map(len, rewriter.asked)) == BATCH
    assert [each.text for each in again] == [f"cat {n}" for n in range(2 * BATCH)]


def test_models_that_were_not_given_are_asked_for(retriever, cat):
    query = Query(text="red", image=cat)
    with pytest.raises(CallError, match=r"needs a captioner.*`captioner` .*`caption`\."):
        retriever(captioner=None).search(query)
    with pytest.raises(CallError, match=r"needs a rewriter.*`rewriter`: a chat model.*api:MODEL, or join"):
        retriever(rewriter=None).search(query)


def test_a_table_knows_pictures_by_content_path_and_name(cat, tmp_path):
    captions = {image_digest(cat): "by content", str(cat): "by path", "cat.png": "by name"}
    for expected in ("by content", "by path", "by name"):
        assert TableCaptioner(captions).caption([cat]) == [expected]
        del captions[next(iter(captions))]
    [missing] = TableCaptioner(captions).caption([cat])
    assert "no caption of cat.png" in str(missing)
    picture = Image.new("RGB", (4, 4))
    assert TableCaptioner({image_digest(picture): "black"}).caption([picture]) == ["black"]
    [unreadable] = TableCaptioner({}).caption([tmp_path / "gone.png"])
    assert isinstance(unreadable, ItemError)


def test_a_table_is_read_from_a_file(tmp_path):
    file = tmp_path / "captions.json"
    file.write_text('{"cat.png": "a cat"}')
    table = load_captioner(f"table:{file}")
    assert table.name == f"table:{file}"
    assert table.identity() == TableCaptioner({"cat.png": "a cat"}).identity()
    for content, said in (("[]", "not a table of captions"), ("{", "cannot be read"), ('{"a": ""}', "not a table")):
        file.write_text(content)
        with pytest.raises(ModelError, match=said):
            load_captioner(f"table:{file}")
    with pytest.raises(ModelError, match="cannot be read"):
        load_captioner(f"table:{tmp_path / 'none.json'}")


def test_a_template_is_filled_once():
    change = Change("a {text} and {caption}", "{caption}!")
    assert load_rewriter("join").rewrite([change]) == ["a {text} and {caption}, {caption}!"]
    assert load_rewriter("join:{text} / {caption}").rewrite([change]) == ["{caption}! / a {text} and {caption}"]
    assert load_rewriter("join").name == "join"
    assert JoinRewriter("{text} {caption}").identity() != JoinRewriter().identity()
    with pytest.raises(CallError, match=r"'only \{text\}' lacks \{caption\}"):
        load_rewriter("join:only {text}")
