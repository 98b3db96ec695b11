"""A reader pins a generation and sees all of it, whatever is written, deleted or compacted meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from answers import asked, contents, found, png
from sqlalchemy import func, select

from indexer import Document
from indexer.errors import SnapshotGoneError
from indexer.metadata.catalog import Catalog
from indexer.metadata.schema import DocumentRow
from indexer.types import Modality, Role


def words(*texts, **fields):
    return [Document(text, text=text, fields=fields) for text in texts]


class TestPinned:
    def test_it_keeps_seeing_what_it_saw(self, shop):
        shop.add(words("cat", "dog", "bird", n=1))
        pinned = shop.snapshot()
        before = contents(pinned)
        shop.add([Document("cat", text="fish", fields={"n": 2}), *words("new", n=1)])
        shop.delete(["dog"])
        assert contents(pinned) == before
        assert found(pinned, "cat", k=1) == ["cat"]
        assert sorted(found(pinned, "cat", where={"n": 1})) == ["bird", "cat", "dog"]
        assert sorted(found(pinned, "cat", exclude=["cat", "new"])) == ["bird", "dog"]
        assert pinned.generation == 1
        assert {name: told[0] for name, told in contents(shop).items()} == {"cat": "fish", "bird": "bird", "new": "new"}

    def test_an_id_means_the_version_of_that_time(self, shop):
        shop.add(words("cat"))
        pinned = shop.snapshot()
        shop.add([Document("cat", text="fish")])
        assert pinned.vector_ids(["cat"]).tolist() == [0]
        assert shop.snapshot().vector_ids(["cat"]).tolist() == [1]

    def test_a_read_sees_one_state_however_many_statements_it_takes(self, shop, open_shop):
        shop.add(words("cat"))
        counted = select(func.count()).select_from(DocumentRow)
        with shop.database.read() as connection:
            first = connection.execute(counted).scalar_one()
            open_shop().add(words("dog"))
            assert connection.execute(counted).scalar_one() == first == 1

    def test_opening_while_others_write_sees_the_generation_it_began_with(self, shop, monkeypatch):
        shop.add(words("cat", "dog"))
        before, spaces = contents(shop), Catalog.spaces
        shop.snapshots.close()  # what is opened already is not opened again

        def written_right_before(self, generation):
            monkeypatch.setattr(Catalog, "spaces", spaces)
            shop.delete(["cat"])
            shop.add(words("bird"))
            return spaces(self, generation)

        monkeypatch.setattr(Catalog, "spaces", written_right_before)
        opened = shop.snapshot()
        assert contents(opened) == before
        assert opened.space.means[Role.DOCUMENT, Modality.TEXT].count == 2
        assert set(contents(shop)) == {"dog", "bird"}

    def test_threads_share_a_snapshot_and_a_collection(self, shop):
        shop.add([Document(str(number), text=f"cat word{number}", fields={"n": number}) for number in range(40)])
        snapshot = shop.snapshot()
        expected = found(snapshot, "cat", k=5, where={"n": {"$lt": 20}})

        def ask(number):
            return found(snapshot if number % 2 else shop, "cat", k=5, where={"n": {"$lt": 20}})

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(ask, range(12))) == [expected] * 12


class TestCompacting:
    @pytest.fixture
    def worn(self, shop):
        """Six segments, with replaced and deleted documents in them."""
        for part in range(5):
            shop.add([
                Document(f"{part}-{number}", text=f"cat word{part} thing{number}", fields={"n": number})
                for number in range(4)
            ])  # fmt: skip
        shop.add([Document("0-0", text="another cat"), Document("1-1", text="one more cat")])
        shop.delete([f"2-{number}" for number in range(4)] + ["3-0"])
        return shop

    @pytest.mark.parametrize("rows", [1 << 18, 5, 1])
    def test_answers_stay_the_same(self, worn, rows, monkeypatch):
        monkeypatch.setattr("indexer.ingest.compaction.ROWS_PER_SEGMENT", rows)
        before = worn.snapshot()
        told, answer = contents(before), before.search(asked("cat", "word3"), 30, where={"n": {"$lt": 3}})
        ids, _ = before.scan(asked("cat"))
        old, new = worn.compact()
        after = worn.snapshot()
        assert (old, new) == (6, {1 << 18: 1, 5: 3, 1: 15 - 10}.get(rows, new))
        assert contents(after) == told
        again = after.search(asked("cat", "word3"), 30, where={"n": {"$lt": 3}})
        np.testing.assert_array_equal(again.ids, answer.ids)
        np.testing.assert_array_equal(again.scores, answer.scores)
        np.testing.assert_array_equal(after.scan(asked("cat"))[0], ids)
        assert after.space.means.keys() == before.space.means.keys()
        for key, mean in before.space.means.items():
            assert after.space.means[key].count == mean.count
            np.testing.assert_array_equal(after.space.means[key].vector, mean.vector)

    def test_nothing_dead_is_left(self, worn):
        worn.compact()
        info = worn.info()
        assert (info["documents"], info["tombstones"], info["segments"]) == (15, 0, 1)
        assert len(list(worn.layout.segments.iterdir())) == 1
        with worn.database.read() as connection:
            assert connection.execute(select(func.count()).select_from(DocumentRow)).scalar_one() == 15
        assert worn.check().findings == []
        assert worn.compact() == (1, 1)

    def test_the_empty_and_the_all_dead_can_be_compacted(self, shop):
        assert shop.compact() == (0, 0)
        shop.add(words("cat", "dog"))
        shop.delete(["cat", "dog"])
        assert shop.compact() == (1, 0)
        assert found(shop, "cat") == []
        shop.add(words("cat"))
        assert found(shop, "cat") == ["cat"]
        assert shop.check().findings == []

    def test_images_of_the_dead_go(self, shop):
        shop.add(
            [Document("a", image=png(1, 1, 1)), Document("b", image=png(2, 2, 2)), Document("c", image=png(1, 1, 1))]
        )
        shop.delete(["a", "b"])
        shop.compact()
        [kept] = [path for path in shop.layout.media.rglob("*") if path.is_file()]
        [document] = shop.snapshot().documents(shop.snapshot().vector_ids(["c"]))
        assert document.image == kept

    def test_what_a_pinned_reader_can_still_do_and_what_it_cannot(self, worn):
        pinned = worn.snapshot()
        told, answer = contents(pinned), pinned.search(asked("cat"), 30)
        worn.delete(["4-0"])
        worn.compact()
        np.testing.assert_array_equal(pinned.search(asked("cat"), 30).ids, answer.ids)
        living = [name for name in told if name != "4-0"]
        ids = worn.snapshot().vector_ids(living)
        assert [document.id for document in pinned.documents(ids)] == living
        for refused in (
            lambda: pinned.documents(answer.ids[0][answer.ids[0] >= 0]),  # 4-0 is among them
            lambda: pinned.matching({"n": 1}),
            lambda: pinned.search(asked("cat"), 3, where={"n": 1}),
            lambda: pinned.search(asked("cat"), 3, exclude=["4-0"]),
            lambda: pinned.vector_ids(["4-0"]),
        ):
            with pytest.raises(SnapshotGoneError, match="Generation 7 was compacted away.*Open a new snapshot"):
                refused()

    def test_opening_while_it_is_compacted_away_opens_what_it_became(self, worn, monkeypatch):
        told = contents(worn)
        generation, segments = Catalog.generation, Catalog.segments
        stale = worn.catalog.generation()
        worn.compact()
        answers = iter([stale])
        monkeypatch.setattr(Catalog, "generation", lambda self: next(answers, None) or generation(self))
        assert contents(worn.snapshot()) == told
        assert next(answers, None) is None

        def compacted_right_after(self, *arguments):
            found_segments = segments(self, *arguments)
            monkeypatch.setattr(Catalog, "segments", segments)
            worn.add(words("more"))
            worn.compact()
            return found_segments

        monkeypatch.setattr(Catalog, "segments", compacted_right_after)
        worn.snapshots.close()  # what is opened already is not opened again
        assert set(contents(worn.snapshot())) == {*told, "more"}


def test_notes_by_their_old_name(shop):
    with pytest.warns(DeprecationWarning, match=r"Snapshot\.remarks is now Snapshot\.notes"):
        assert shop.snapshot().remarks == shop.snapshot().notes
