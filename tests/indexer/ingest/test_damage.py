"""Damage is noticed, named and repaired if possible; no answer comes from damaged data."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from answers import contents, found, png
from PIL import Image
from sqlalchemy import text

from indexer import Collection, Document, index_corpus
from indexer.embed.fake import FakeEmbedder
from indexer.errors import CollectionNotFoundError, CorruptionError, FormatError, StoreError
from indexer.vectors.segments import open_segment

LINES = [{"id": f"{number}", "text": f"cat word{number}", "n": number} for number in range(12)]


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "words.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return file


@pytest.fixture
def indexed(shop, source):
    """Twelve documents in three segments, indexed from a file."""
    index_corpus(source, shop, shard_size=4)
    return shop


def segment_files(shop):
    return sorted(shop.layout.segments.iterdir())


def change(path, where, to):
    """Overwrite bytes of a file."""
    content = bytearray(path.read_bytes())
    content[where : where + len(to)] = to
    path.write_bytes(content)


def sql(shop, statement):
    with shop.database.write() as connection:
        connection.execute(text(statement))


class TestSegments:
    def test_a_damaged_one_is_named_and_not_answered_from(self, shop):
        shop.add([Document("a", text="a")])
        [victim] = segment_files(shop)
        whole = victim.read_bytes()
        for damage in (
            lambda path: path.unlink(),
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(whole + b"\0"),
            lambda path: change(path, 0, b"\xff" * 8),
            lambda path: change(path, 8, b"garbage!"),
        ):
            damage(victim)
            with pytest.raises(CorruptionError, match=rf"{victim.name} is damaged.*check --repair"):
                shop.snapshot()
            assert [victim.name in finding.what for finding in shop.check().findings] == [True]
            victim.write_bytes(whole)
        assert found(shop, "a") == ["a"]

    def test_it_is_mended_and_indexed_again(self, indexed, source):
        whole = contents(indexed)
        victim = segment_files(indexed)[1]
        victim.write_bytes(victim.read_bytes()[:-4])
        indexed.snapshots.close()  # what is mapped already is not looked at again
        with pytest.raises(CorruptionError, match=rf"{victim.name} is damaged: it has"):
            indexed.snapshot()
        with pytest.raises(CorruptionError, match=rf"{victim.name}.*nothing was changed"):
            indexed.compact()
        assert not indexed.check().clean
        [told] = indexed.repair()
        assert f"dropped the damaged segment {victim.name} with 4 documents" in told
        assert indexed.check().findings == []
        assert contents(indexed) == {name: whole[name] for name in whole if name not in {"4", "5", "6", "7"}}
        assert index_corpus(source, indexed, shard_size=4).added == 4
        assert contents(indexed) == whole
        assert indexed.compact() == (3, 1)
        assert indexed.check().findings == []
        with indexed.database.read() as connection:
            assert connection.execute(text("SELECT COUNT(*) FROM segments")).scalar_one() == 1

    def test_a_flipped_bit_among_the_vectors_is_found_by_check(self, indexed):
        victim = segment_files(indexed)[0]
        change(victim, victim.stat().st_size - 1, b"\x55")
        [finding] = indexed.check().findings
        assert victim.name in finding.what
        assert "sha256" in finding.problem
        assert indexed.repair()
        assert indexed.check().clean

    def test_no_flipped_bit_of_a_header_shifts_the_vectors(self, indexed, tmp_path):
        segment = indexed.catalog.segments(indexed.catalog.generation().number)[0]
        digest, copy = indexed.space.digest, tmp_path / "copy"
        content = (indexed.layout.segments / segment.file).read_bytes()
        vectors, ids = open_segment(indexed.layout.segments, segment, digest, 16)
        copy.mkdir()
        refused, end = 0, 8 + int.from_bytes(content[:8], "little")
        for place in range(end):
            flipped = bytearray(content)
            flipped[place] ^= 1 << random.Random(place).randrange(8)
            (copy / segment.file).write_bytes(flipped)
            try:
                others = open_segment(copy, segment, digest, 16)
            except (CorruptionError, FormatError):
                refused += 1
            else:
                np.testing.assert_array_equal(others[0], vectors)
                np.testing.assert_array_equal(others[1], ids)
        assert refused > end // 2

    def test_one_of_another_collection_is_refused(self, indexed, open_shop):
        class Other(FakeEmbedder):
            def fingerprint(self):
                return replace(super().fingerprint(), weights="others")

        other = open_shop("other", Other(16))
        other.add([Document(str(number), text="x") for number in range(4)])
        victim = segment_files(indexed)[0]
        shutil.copy(segment_files(other)[0], victim)
        with pytest.raises(CorruptionError, match=rf"{victim.name} is damaged: it belongs to space"):
            indexed.snapshot()

    def test_one_of_a_newer_release_is_refused(self, indexed):
        victim = segment_files(indexed)[0]
        change(victim, victim.read_bytes().index(b'"format":"1"') + 10, b"2")
        with pytest.raises(FormatError, match="segment format 2; this release reads up to 1.*Upgrade"):
            indexed.snapshot()


class TestTheFolder:
    def test_a_newer_format_is_refused(self, shop, open_shop):
        file = shop.path / "collection.json"
        file.write_text(file.read_text().replace('"format": 1', '"format": 2'))
        with pytest.raises(FormatError, match="has format 2; this release reads up to 1.*pip install -U"):
            open_shop()

    def test_a_damaged_collection_json_is_named(self, shop, open_shop):
        for content in "", "{", "[]", "{}", '{"format": "x", "metadata": "sqlite", "schema": null}':
            (shop.path / "collection.json").write_text(content)
            with pytest.raises(CorruptionError, match=r"collection\.json is damaged"):
                open_shop()

    def test_without_it_there_is_no_collection_and_nothing_is_overwritten(self, shop, tmp_path):
        shop.add([Document("a", text="a")])
        (shop.path / "collection.json").unlink()
        with pytest.raises(CollectionNotFoundError):
            Collection.open(shop.path)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(Exception, match="Name a new or an empty folder"):
            Collection.open(shop.path, "fake:16")
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(("version", "told"), [("m999", "Upgrade: pip"), ("m000", "which no release made")])
    def test_another_schema_is_refused(self, shop, open_shop, version, told):
        sql(shop, f"UPDATE alembic_version SET version_num = '{version}'")
        with pytest.raises(StoreError, match=rf"schema '?{version}.*{told}"):
            open_shop()

    def test_tables_without_a_space_are_refused(self, shop, open_shop):
        sql(shop, "DELETE FROM spaces")
        with pytest.raises(CorruptionError, match="names no embedding space"):
            open_shop()


class TestSqliteFile:
    """A damaged database says so when it is opened or checked, and never answers from half of itself."""

    @pytest.fixture
    def closed(self, tmp_path):
        with Collection.open(tmp_path / "shop", "fake:16") as shop:
            shop.add([Document(str(number), text=f"word{number}" * 50) for number in range(100)])
            shop.database.tidy()
        return tmp_path / "shop" / "metadata.db"

    @pytest.mark.parametrize(
        "damage",
        [
            lambda file: file.unlink(),
            lambda file: file.write_bytes(b""),
            lambda file: file.write_bytes(b"no database at all" * 500),
            lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
            lambda file: change(file, 4096, b"\xa5" * 4096),
        ],
        ids=["missing", "empty", "other", "truncated", "a page"],
    )
    def test_damage_that_stops_it_is_named(self, closed, damage):
        damage(closed)
        with pytest.raises(CorruptionError, match=r"metadata\.db.*(Restore|index again)"), Collection.open(closed.parent) as shop:  # fmt: skip
            shop.check()

    def test_damage_that_does_not_is_found_by_check(self, closed):
        content = closed.read_bytes()
        # Of an index's page (type 10) the third byte and the next count its entries.
        counts = {
            page + 3: int.from_bytes(content[page + 3 : page + 5], "big")
            for page in range(4096, len(content), 4096)
            if content[page] == 10
        }
        change(closed, max(counts, key=counts.get), b"\0\0")
        with Collection.open(closed.parent) as shop:
            report = shop.check()
        assert not report.clean
        assert report.findings[0].what == "the database"


class TestImages:
    @pytest.fixture
    def gallery(self, shop, tmp_path):
        """A file that is referenced, and an image kept in the collection."""
        (tmp_path / "cat.png").write_bytes(png(1, 2, 3))
        shop.add([Document("file", image=tmp_path / "cat.png"), Document("bytes", image=png(4, 5, 6))])
        assert shop.check().findings == []
        return shop

    def test_a_referenced_file_that_changed_or_went_is_told_and_does_no_harm(self, gallery, tmp_path):
        (tmp_path / "cat.png").write_bytes(png(9, 9, 9))
        report = gallery.check()
        assert report.clean
        assert ["changed since it was indexed" in finding.problem for finding in report.findings] == [True]
        (tmp_path / "cat.png").unlink()
        [finding] = gallery.check().findings
        assert "is gone" in finding.problem
        assert len(found(gallery, "cat")) == 2

    @pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: change(path, 20, b"??")])
    def test_a_kept_image_that_is_damaged_is_mended_by_indexing_again(self, shop, tmp_path, damage):
        import base64

        source = tmp_path / "images.jsonl"
        lines = [{"id": str(n), "image_base64": base64.b64encode(png(n, 7, 7)).decode()} for n in range(3)]
        source.write_text("".join(json.dumps(line) + "\n" for line in lines))
        index_corpus(source, shop)
        whole = contents(shop)
        [document] = shop.snapshot().documents(shop.snapshot().vector_ids(["1"]))
        damage(document.image)
        [finding] = shop.check().findings
        assert finding.harmful
        assert "'1'" in finding.problem
        [told] = shop.repair()
        assert "of 1 documents" in told
        assert set(contents(shop)) == {"0", "1", "2"}
        assert index_corpus(source, shop).added == 1
        assert shop.check().findings == []
        assert contents(shop) == whole
        [document] = shop.snapshot().documents(shop.snapshot().vector_ids(["1"]))
        with Image.open(document.image) as image:
            assert image.getpixel((0, 0)) == (1, 7, 7)


class TestCheck:
    def test_orphans_are_told_do_no_harm_and_are_swept(self, indexed):
        layout = indexed.layout
        orphans = [
            layout.segments / "000000000099-0123456789ab.safetensors",
            layout.segments / ".tmp-x.safetensors",
            layout.media / "ab" / f"{'ab' * 32}.png",
            layout.media / ".tmp-y.png",
        ]
        for path in orphans:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        report = indexed.check()
        assert report.clean
        assert {finding.what for finding in report.findings} == {str(path) for path in orphans}
        assert len(indexed.repair()) == 4
        assert indexed.check().findings == []
        assert not any(path.exists() for path in orphans)

    def test_healthy_is_left_alone(self, indexed):
        before = {path: path.stat().st_mtime_ns for path in segment_files(indexed)}
        report = indexed.check()
        assert (report.findings, report.documents, report.segments, report.generation) == ([], 12, 3, 3)
        assert indexed.repair() == []
        assert {path: path.stat().st_mtime_ns for path in segment_files(indexed)} == before
        assert indexed.info()["generation"] == 3

    def test_every_file_is_told_of(self, indexed):
        seen = []
        indexed.check(seen.append)
        assert seen == segment_files(indexed)

    @pytest.mark.parametrize(
        ("statement", "told"),
        [
            ("DELETE FROM vectors WHERE id = 3", ["1 living documents have no vector", "it has 4 rows and 3 vectors"]),
            ("UPDATE generations SET documents = 99", ["12 documents live in generation 3, recorded were 99"]),
        ],
    )
    def test_rows_that_do_not_add_up(self, indexed, statement, told):
        sql(indexed, statement)
        report = indexed.check()
        assert not report.clean
        assert [any(each in finding.problem for finding in report.findings) for each in told] == [True] * len(told)
