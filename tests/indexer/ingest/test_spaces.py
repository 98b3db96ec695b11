"""Several embedding spaces in one collection: each answers like a collection made with its model alone."""

from __future__ import annotations

import json

import doomed
import numpy as np
import pytest
from answers import contents, png
from doomed import DIED, After, Before, Half

from indexer import Collection, Document, index_corpus
from indexer.embed.fake import FakeEmbedder
from indexer.errors import CallError, LockedError, RejectedError, SpaceMismatchError, StoreError, UnknownNameError
from indexer.types import Item, Modality, Parts

DOCUMENTS = [
    Document("a", text="cat", fields={"n": 1}),
    Document("b", image=png(1, 1, 1)),
    Document("c", text="a bird", image=png(2, 2, 2)),
    Document("d", images=[png(3, 3, 3), png(4, 4, 4)]),
    Document("e", text="dog"),
]


def every(shop):
    """What is stored, by space."""
    return {each.name: contents(shop.snapshot(each.name)) for each in shop.spaces}


def counts(shop):
    return {each.name: (each.documents, each.missing) for each in shop.spaces}


@pytest.fixture
def alone(open_shop):
    """What a collection of one model alone has after some work."""

    def make(model, *work, **options):
        other = open_shop(f"alone {model}", model, **options)
        for each in work:
            each(other)
        return contents(other)

    return make


@pytest.fixture
def stocked(shop):
    shop.add(DOCUMENTS)
    return shop


@pytest.fixture
def two(stocked):
    stocked.add_space("fake:32")
    return stocked


def change(shop):
    """Everything that changes documents."""
    shop.add([Document("f", text="fish"), Document("a", text="another cat")])
    shop.delete(["e", "nobody"])
    shop.add(Document("g", image=png(5, 5, 5)))


class TestAdding:
    def test_every_document_gets_the_vector_that_it_would_have_alone(self, stocked, alone):
        before = contents(stocked)
        done = stocked.add_space("fake:32")
        assert (done.space, done.embedded, done.rejected) == ("fake:32", 5, [])
        assert every(stocked) == {"fake:16": before, "fake:32": alone("fake:32", lambda other: other.add(DOCUMENTS))}
        assert stocked.check().findings == []

    def test_later_changes_keep_all_spaces_in_step(self, two, alone, open_shop):
        change(two)
        wanted = {model: alone(model, lambda other: other.add(DOCUMENTS), change) for model in ("fake:16", "fake:32")}
        assert every(two) == wanted
        assert counts(two) == {"fake:16": (6, 0), "fake:32": (6, 0)}
        two.compact()
        assert every(open_shop()) == wanted
        assert two.check().findings == []

    def test_an_object_that_was_open_before_embeds_in_a_space_that_another_added(self, stocked, open_shop):
        open_shop().add_space("fake:32")
        stocked.add(Document("f", text="fish"))
        assert counts(stocked) == {"fake:16": (6, 0), "fake:32": (6, 0)}

    def test_a_job_embeds_in_all(self, two, tmp_path, alone):
        lines = [{"id": f"t{n}", "text": f"text {n % 3}"} for n in range(7)] + [{"id": "bad"}]
        (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, lines)))
        summary = index_corpus(tmp_path / "more.jsonl", two, shard_size=3)
        assert (summary.added, summary.rejected, summary.reused) == (7, 1, 4)
        for model in ("fake:16", "fake:32"):
            wanted = alone(
                model, lambda other: other.add(DOCUMENTS), lambda other: index_corpus(tmp_path / "more.jsonl", other)
            )
            assert contents(two.snapshot(model)) == wanted

    def test_both_are_in_one_generation(self, two):
        before = two.catalog.generation().number
        assert two.add(Document("f", text="fish")).generation == before + 1

    def test_a_space_may_be_left_for_later(self, two, tmp_path):
        (tmp_path / "more.jsonl").write_text(json.dumps({"id": "t", "text": "a text"}))
        index_corpus(tmp_path / "more.jsonl", two, spaces=["fake:16"])
        two.add(Document("f", text="fish"), spaces=["fake:16"])
        assert counts(two) == {"fake:16": (7, 0), "fake:32": (5, 2)}
        [finding] = two.check().findings
        assert (finding.harmful, "2 of 7 documents" in finding.problem) == (False, True)
        assert two.fill_space("fake:32").embedded == 2
        assert counts(two)["fake:32"] == (7, 0)
        assert two.fill_space("fake:32").embedded == 0

    def test_the_same_model_again_goes_on_with_its_space(self, two):
        generation = two.catalog.generation().number
        assert two.add_space("fake:32").embedded == 0
        assert two.catalog.generation().number == generation
        assert len(two.spaces) == 2

    def test_a_name_of_another_model_is_refused(self, two):
        with pytest.raises(CallError, match=r"The space 'fake:32' .* was made with another model \(fake:32\)"):
            two.add_space("fake:64", "fake:32")
        with pytest.raises(CallError, match="has this space by the name 'fake:32'"):
            two.add_space("fake:32", "small")

    def test_an_empty_collection_takes_one(self, shop):
        assert shop.add_space("fake:32", "small").embedded == 0
        shop.add(DOCUMENTS)
        assert counts(shop) == {"fake:16": (5, 0), "small": (5, 0)}

    def test_another_writer_is_named(self, stocked, open_shop):
        with open_shop().writer(), pytest.raises(LockedError, match="is being written by"):
            stocked.add_space("fake:32")


class TestPartsOfDocuments:
    """A document may have a vector in one space and none in another."""

    @pytest.fixture
    def split(self, open_shop):
        shop = open_shop(parts="image")
        shop.add_space("fake:32", "texts", parts="text")
        shop.add(DOCUMENTS)
        return shop

    def test_each_space_has_what_it_can_embed(self, split):
        images, texts = split.snapshot(), split.snapshot("texts")
        assert set(contents(images)) == {"b", "c", "d"}
        assert set(contents(texts)) == {"a", "c", "e"}
        assert (images.living, texts.living) == ({Modality.IMAGE: 3}, {Modality.TEXT: 3})
        assert {key[1]: mean.count for key, mean in texts.space.means.items() if key[0] == "document"} == {"text": 3}
        assert counts(split) == {"fake:16": (3, 2), "texts": (3, 2)}
        assert split.check().clean

    def test_the_collection_has_them_all(self, split):
        assert len(split) == 5
        assert sorted(each.id for each in split) == ["a", "b", "c", "d", "e"]
        assert split.get("a").text == "cat"
        assert "e" in split
        assert "nobody" not in split
        assert split.get("nobody") is None

    def test_the_filling_job_gives_the_same(self, open_shop, split):
        shop = open_shop("filled", parts="auto")
        shop.add(DOCUMENTS)
        done = shop.add_space("fake:32", "texts", parts="text")
        assert (done.embedded, dict(done.reasons)) == (3, {"empty": 2})
        assert contents(shop.snapshot("texts")) == contents(split.snapshot("texts"))
        assert shop.snapshot("texts").living == {Modality.TEXT: 3}

    def test_a_vector_of_other_parts_is_no_equal_content(self, open_shop, tmp_path):
        shop = open_shop(parts="text")
        shop.add_space("fake:32", "all", parts="auto")
        shop.add(DOCUMENTS[2])  # in one space its text alone, in the other its image, too
        (tmp_path / "more.jsonl").write_text(json.dumps({"id": "t", "text": "a bird"}))
        assert index_corpus(tmp_path / "more.jsonl", shop).reused == 1
        texts, both = contents(shop.snapshot()), contents(shop.snapshot("all"))
        assert texts["t"][3] == texts["c"][3]
        assert both["t"][3] == tuple(FakeEmbedder(32).encode_document([Item(text="a bird")])[0].tolist())

    def test_what_no_space_embeds_is_rejected_for_the_reason_of_the_first(self, open_shop):
        shop = open_shop(parts="image")
        with pytest.raises(RejectedError, match="this collection embeds only images"):
            shop.add(Document("x", text="a text"))

    def test_a_model_of_texts_embeds_texts_unless_told(self, stocked):
        class Texts(FakeEmbedder):
            modalities = frozenset({Modality.TEXT})

        stocked.add_space(Texts(24))
        assert stocked.spaces[1].parts is Parts.TEXT

    def test_what_one_model_gives_no_vector_is_stored_for_the_other(self, stocked):
        class Broken(FakeEmbedder):
            def forward(self, prepared, role, instruction=None):
                vectors = super().forward(prepared, role, instruction)
                vectors[[each.modality is Modality.IMAGE for each in prepared]] = np.nan
                return vectors

        done = stocked.add_space(Broken(32))
        assert (done.embedded, dict(done.reasons)) == (3, {"no-vector": 2})
        added = stocked.add([Document("x", image=png(9, 9, 9)), Document("y", text="why")])
        assert (added.added, added.rejected) == (2, [])
        assert counts(stocked) == {"fake:16": (7, 0), "fake:32": (4, 3)}


class TestUsing:
    def test_another_default_is_for_here_and_for_later_openings(self, two, open_shop):
        before = open_shop()
        two.set_default_space("fake:32")
        assert (two.embedder.dim, two.snapshot().space.dim) == (32, 32)
        assert (before.embedder.dim, before.snapshot().space.dim) == (16, 16)
        later = open_shop(model=None)
        assert (later.embedder.dim, later.snapshot().space.dim, later.space.name) == (32, 32, "fake:32")
        assert [each.default for each in later.spaces] == [True, False]

    def test_a_space_is_chosen_by_name_or_by_model(self, two, open_shop):
        assert open_shop(model=None, space="fake:32").snapshot().space.dim == 32
        assert open_shop(model="fake:32").snapshot().space.dim == 32
        assert open_shop(model=FakeEmbedder(32)).embedder_of("fake:16").dim == 16
        with pytest.raises(UnknownNameError, match=r"space 'fake:33' is not known. Did you mean 'fake:32'"):
            open_shop(model=None, space="fake:33")
        with pytest.raises(SpaceMismatchError, match="fake:64 gives other vectors"):
            open_shop(model="fake:64")

    @pytest.mark.parametrize("call", ["snapshot", "embedder_of", "fill_space", "set_default_space", "drop_space"])
    def test_a_name_that_is_none_is_answered_with_the_nearest(self, two, call):
        with pytest.raises(UnknownNameError, match="Did you mean 'fake:32'"):
            getattr(two, call)("fake:33")

    def test_searches_of_each_space_are_its_own(self, two):
        for model in ("fake:16", "fake:32"):
            query = two.embedder_of(model).encode_query([Item(text="dog")])
            snapshot = two.snapshot(model)
            [best] = snapshot.documents(snapshot.search(query, 1, where={}).ids[0])
            assert best.id == "e"

    def test_a_filter_finds_the_same_documents_in_each(self, two):
        for _ in range(3):  # by SQL, and from a column
            for model in ("fake:16", "fake:32"):
                snapshot = two.snapshot(model)
                assert [each.id for each in snapshot.documents(snapshot.matching({"n": 1}))] == ["a"]


class TestDropping:
    def test_the_default_stays(self, two):
        with pytest.raises(CallError, match=r"'fake:16' is the default space .* set_default_space\('fake:32'\)"):
            two.drop_space("fake:16")

    def test_so_does_the_default_of_others(self, two, open_shop):
        with pytest.raises(CallError, match="is the default space"):
            open_shop(model="fake:32").drop_space("fake:16")

    def test_it_is_gone_and_the_documents_stay(self, two, open_shop):
        old, before = two.snapshot(), contents(two)
        two.set_default_space("fake:32")
        left = contents(two)
        assert two.drop_space("fake:16") == 5
        assert contents(old) == before  # pinned
        assert every(two) == {"fake:32": left}
        assert two.check().findings == []
        two.add(Document("f", text="fish"))
        two.compact()
        assert set(contents(open_shop(model=None))) == {*left, "f"}
        with two.database.read() as connection:
            rows = {
                table: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()
                for table in ("spaces", "segments", "vectors")
            }
        assert rows == {"spaces": 1, "segments": 1, "vectors": 6}
        assert two.check().findings == []

    def test_who_has_it_open_is_told(self, two, open_shop):
        other = open_shop()
        two.set_default_space("fake:32")
        two.drop_space("fake:16")
        for call in (other.snapshot, lambda: other.add(Document("f", text="fish"))):
            with pytest.raises(StoreError, match=r"The space 'fake:16' has been dropped\. Open"):
                call()

    def test_it_can_come_back_before_a_compaction(self, two):
        wanted = every(two)
        two.drop_space("fake:32")
        assert two.add_space("fake:32").embedded == 5
        assert every(two) == wanted
        two.compact()
        assert every(two) == wanted
        assert two.check().findings == []


class TestFilling:
    def test_what_others_do_meanwhile_is_kept(self, stocked, open_shop):
        """Documents are deleted, replaced and added between the reading of a shard and its commit."""
        other, done = open_shop(), []

        class Slow(FakeEmbedder):
            def forward(self, prepared, role, instruction=None):
                if not done:
                    done.append(True)
                    other.delete(["a"])
                    other.add([Document("e", text="a wolf"), Document("f", text="fish")], spaces=["fake:16"])
                return super().forward(prepared, role, instruction)

        stocked.add_space(Slow(32), shard_size=2)
        assert every(stocked).keys() == {"fake:16", "fake:32"}
        told = every(stocked)
        assert set(told["fake:16"]) == set(told["fake:32"]) == {"b", "c", "d", "e", "f"}
        fresh = open_shop("fresh", "fake:32")
        fresh.add([*DOCUMENTS[1:4], Document("e", text="a wolf"), Document("f", text="fish")])
        assert told["fake:32"] == contents(fresh)
        assert stocked.check().findings == []

    def test_two_that_fill_at_once_do_it_once(self, stocked, open_shop):
        other, done = open_shop(), []

        class Slow(FakeEmbedder):
            def forward(self, prepared, role, instruction=None):
                if not done:
                    done.append(other.fill_space("fake:32").embedded)
                return super().forward(prepared, role, instruction)

        assert stocked.add_space(Slow(32)).embedded == 0
        assert done == [5]
        assert counts(stocked)["fake:32"] == (5, 0)

    def test_a_space_that_is_dropped_meanwhile_ends_it(self, stocked, open_shop):
        other = open_shop()

        class Slow(FakeEmbedder):
            def forward(self, prepared, role, instruction=None):
                if len(other.spaces) > 1:
                    other.drop_space("fake:32")
                return super().forward(prepared, role, instruction)

        with pytest.raises(StoreError, match="'fake:32' has been dropped"):
            stocked.add_space(Slow(32))
        assert stocked.check().findings == []

    def test_an_image_that_changed_is_no_image_of_the_document(self, shop, tmp_path):
        path = tmp_path / "cat.png"
        path.write_bytes(png(1, 2, 3))
        shop.add([Document("cat", image=path), Document("dog", text="dog")])
        path.write_bytes(png(3, 2, 1))
        done = shop.add_space("fake:32")
        assert (done.embedded, dict(done.reasons)) == (1, {"changed": 1})
        assert done.rejected[0].uri == path.as_uri()
        path.write_bytes(png(1, 2, 3))
        done = shop.fill_space("fake:32")
        assert (done.embedded, done.rejected) == (1, [])

    def test_it_is_in_the_ledger_and_no_source_of_documents(self, two):
        [job] = two.info()["jobs"]
        assert (job["source"], job["state"], job["shards"]) == ("space fake:32", "done", 1)
        from indexer.metadata.holdings import job_sources

        assert job_sources(two.database) == []

    def test_processes_may_decode(self, stocked, alone):
        stocked.add_space("fake:32", workers=1, shard_size=2)
        assert contents(stocked.snapshot("fake:32")) == alone("fake:32", lambda other: other.add(DOCUMENTS))


def test_a_damaged_segment_takes_its_space_alone(two):
    before = every(two)
    [segment] = two.catalog.segments(two.catalog.generation().number, two.catalog.living_spaces()[1])
    file = two.layout.segments / segment.file
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert not two.check().clean
    [told] = two.repair()
    assert "with 0 documents" in told
    assert "5 more have no vector in the space fake:32 now" in told
    assert two.check().clean
    assert two.fill_space("fake:32").embedded == 5
    assert every(two) == before
    assert two.check().findings == []


def test_each_space_has_its_index(two):
    two.build_index()
    from indexer import IndexSettings

    two.settings = IndexSettings(kind="hnsw")
    with Collection.open(two.path, database=doomed.shop_url(two), index="hnsw") as shop:
        for model in ("fake:16", "fake:32"):
            assert len(shop.build_index(space=model)) == 1
            assert not shop.snapshot(model).scans
        shop.add(Document("f", text="fish"))
        shop.compact()
        assert not shop.snapshot().scans
        assert not shop.snapshot("fake:32").scans


COMMIT_STEPS = {
    "before the second segment": Before("indexer.ingest.writer:write_parts", call=2),
    "half of the second segment": Half("segments", call=2),
    "in the transaction, at its beginning": Before("indexer.metadata.publish:_bury"),
    "in the transaction, between the spaces": Before("indexer.metadata.publish:_insert_vectors", call=2),
    "before COMMIT": After("indexer.metadata.publish:_publish"),
    "after COMMIT": After("indexer.ingest.writer:publish"),
}
FILL_STEPS = {
    "before the space": Before("indexer.ingest.spaces:create_space"),
    "after the space": After("indexer.ingest.spaces:create_space"),
    "before the first segment": Before("indexer.ingest.writer:write_parts"),
    "half of the second segment": Half("segments", call=2),
    "before the second COMMIT": Before("indexer.metadata.publish:_publish", call=2),
    "after the first COMMIT": After("indexer.ingest.writer:publish"),
    "at the end": Before("indexer.metadata.jobs/Ledger:finish"),
}


def add_more(shop):
    shop.add([Document("f", text="fish"), Document("a", text="another cat")])


def add_space(shop):
    shop.add_space("fake:32", shard_size=2)


@pytest.mark.crash
@pytest.mark.parametrize("step", COMMIT_STEPS)
def test_a_commit_dies_whole(two, database_url, step):
    before = every(two)
    assert doomed.run(doomed.doomed_work, add_more, COMMIT_STEPS[step], two.path, database_url) == DIED
    done = step == "after COMMIT"
    told = every(two)
    assert (told == before) is not done
    assert two.check().clean
    add_more(two)
    after = every(two)
    assert set(after["fake:16"]) == set(after["fake:32"]) == {*"abcdef"}
    two.repair()
    assert two.check().findings == []


@pytest.mark.crash
@pytest.mark.parametrize("step", FILL_STEPS)
def test_a_filling_that_died_goes_on(stocked, database_url, open_shop, step):
    before = contents(stocked)
    assert doomed.run(doomed.doomed_work, add_space, FILL_STEPS[step], stocked.path, database_url) == DIED
    assert contents(stocked) == before
    assert stocked.check().clean
    stocked.add(Document("f", text="fish"))
    add_space(stocked)
    fresh = open_shop("fresh", "fake:32")
    fresh.add([*DOCUMENTS, Document("f", text="fish")])
    assert every(stocked) == {"fake:16": contents(stocked), "fake:32": contents(fresh)}
    assert set(contents(stocked)) == {*before, "f"}
    assert stocked.check().findings == []
