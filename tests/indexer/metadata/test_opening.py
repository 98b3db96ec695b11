"""Creating and opening a collection: what is refused, and which database it uses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from answers import contents, found, png

from indexer import Collection, Document
from indexer.embed.fake import FakeEmbedder
from indexer.errors import (
    CallError,
    CollectionNotFoundError,
    CorruptionError,
    SpaceMismatchError,
    StoreError,
    UnknownNameError,
)
from indexer.files.layout import Layout


def words(*texts):
    """A document for each text, named by it."""
    return [Document(text, text=text) for text in texts]


class TestOpening:
    def test_there_must_be_one_or_a_model(self, tmp_path):
        with pytest.raises(CollectionNotFoundError, match="Name a model"):
            Collection.open(tmp_path / "none")
        with pytest.raises(CollectionNotFoundError):
            Collection.open(tmp_path / "none", "fake:16", create=False)
        assert not (tmp_path / "none").exists()

    def test_the_model_need_not_be_named_again(self, shop, open_shop):
        shop.add(words("cat"))
        again = open_shop(model=None)
        assert again.embedder.name == "fake:16"
        assert found(again, "cat") == ["cat"]

    def test_a_folder_with_other_things_is_left_alone(self, tmp_path, open_shop):
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop" / "thesis.tex").write_text("years of work")
        with pytest.raises(StoreError, match="Name a new or an empty folder"):
            open_shop()
        assert [path.name for path in (tmp_path / "shop").iterdir()] == ["thesis.tex"]

    def test_any_name_of_a_folder_will_do(self, open_shop, tmp_path):
        odd = "a b 50%41 what?x=1 #1 naïve 😀 it's"
        one = open_shop(f"{odd}/shop")
        one.add([Document("red", image=png(255, 0, 0))])
        assert found(open_shop(f"{odd}/shop", model=None), "cat") == ["red"]
        assert [path.name for path in tmp_path.iterdir()] == [odd]

    def test_a_failed_start_leaves_nothing_in_the_way(self, tmp_path, open_shop):
        class Broken(FakeEmbedder):
            def fingerprint(self):
                raise OSError("the weights cannot be read")

        with pytest.raises(OSError, match="weights"):
            open_shop(model=Broken(16))
        with pytest.raises(StoreError):
            Collection.open(tmp_path / "shop", "fake:16", database="postgresql://nobody@/none?host=/nowhere")
        open_shop().add(words("cat"))
        assert found(open_shop(model=None), "cat") == ["cat"]

    def test_of_two_who_start_it_at_once_the_second_opens_what_the_first_made(self, open_shop, monkeypatch):
        plan = Layout.plan

        def overtaken(folder, backend):
            layout = plan(folder, backend)
            monkeypatch.setattr(Layout, "plan", plan)
            open_shop().add(words("cat"))
            return layout

        monkeypatch.setattr(Layout, "plan", overtaken)
        assert found(open_shop(), "cat") == ["cat"]

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"model": "fake:32"}, r"dim '16', now '32'.*Open it with fake:16, or give it a second space"),
            ({"parts": "image"}, r"embeds the parts 'auto' of documents, not 'image'.*Leave parts out"),
        ],
    )
    def test_with_another_model_or_parts_it_refuses(self, shop, open_shop, options, told):
        with pytest.raises(SpaceMismatchError, match=told):
            open_shop(**options)

    def test_with_another_arithmetic_it_refuses(self, shop, open_shop):
        class Coarse(FakeEmbedder):
            def fingerprint(self):
                return replace(super().fingerprint(), dtype="bfloat16")

        with pytest.raises(SpaceMismatchError, match="dtype 'float32', now 'bfloat16'"):
            open_shop(model=Coarse(16))

    def test_another_model_with_other_weights_is_told_by_its_name_alone(self, shop, open_shop):
        class Other(FakeEmbedder):
            def fingerprint(self):
                return replace(super().fingerprint(), weights="others", dim=32)

        with pytest.raises(
            SpaceMismatchError, match="was made with fake:16, and fake:32 gives other vectors"
        ) as refused:
            open_shop(model=Other(32))
        assert "others" not in str(refused.value)

    def test_a_model_that_changed_is_noticed_when_it_is_used(self, shop, open_shop, monkeypatch):
        changed = replace(shop.embedder.fingerprint(), weights="others")
        monkeypatch.setattr(FakeEmbedder, "fingerprint", lambda self: changed)
        with pytest.raises(SpaceMismatchError, match="weights 'none', now 'others'"):
            open_shop(model=None).add(words("cat"))

    def test_unknown_names_list_the_known(self, open_shop):
        with pytest.raises(UnknownNameError, match="auto, image, text"):
            open_shop(parts="both")
        with pytest.raises(UnknownNameError, match="float32, bfloat16, float16"):
            open_shop(dtype="int4")

    def test_parts_choose_what_is_embedded(self, open_shop):
        document = Document("a", text="cat", image=png(1, 2, 3))
        kinds = {}
        for parts in ("auto", "image", "text"):
            one = open_shop(parts, parts=parts)
            one.add([document, Document("t", text="cat"), Document("i", image=png(1, 2, 3))])
            kinds[parts] = {name: told[2] for name, told in contents(one).items()}
        assert kinds == {
            "auto": {"a": "image+text", "t": "text", "i": "image"},
            "image": {"a": "image", "i": "image"},
            "text": {"a": "text", "t": "text"},
        }

    def test_info_is_json(self, shop):
        shop.add([*words("cat", "dog"), Document("i", image=png(1, 2, 3))])
        shop.delete(["cat"])
        info = json.loads(json.dumps(shop.info()))
        assert (info["documents"], info["by_modality"]) == (2, {"text": 1, "image": 1})
        assert (info["generation"], info["segments"], info["tombstones"]) == (2, 1, 1)
        assert (info["model"], info["dim"], info["parts"]) == ("fake:16", 16, "auto")
        assert info["vector_bytes"] > 3 * 16 * 4
        assert info["fingerprint"]["dtype"] == "float32"


class TestWhichDatabase:
    def test_a_postgresql_collection_wants_its_url(self, postgres, tmp_path, closing):
        closing(Collection.open(tmp_path / "shop", "fake:16", database=postgres))
        with pytest.raises(CallError, match="Give its URL"):
            Collection.open(tmp_path / "shop")
        with pytest.raises(CorruptionError, match="holds no collection"):
            Collection.open(tmp_path / "shop", database=postgres.replace("/postgres?", "/template1?"))

    def test_a_sqlite_collection_has_no_use_for_one(self, tmp_path, closing):
        closing(Collection.open(tmp_path / "shop", "fake:16"))
        with pytest.raises(CallError, match="keeps its metadata in SQLite"):
            Collection.open(tmp_path / "shop", database="postgresql://localhost/x")

    @pytest.mark.parametrize(
        ("url", "told"),
        [
            ("sqlite:///elsewhere.db", "in the collection's folder"),
            ("mysql://localhost/x", "SQLite or PostgreSQL, not mysql"),
            ("no url", "Write postgresql://"),
        ],
    )
    def test_other_databases_are_refused(self, tmp_path, url, told):
        with pytest.raises(CallError, match=told):
            Collection.open(tmp_path / "shop", "fake:16", database=url)
        assert not (tmp_path / "shop").exists()

    def test_two_collections_in_one_database_do_not_see_each_other(self, postgres, tmp_path, closing):
        one, two = (closing(Collection.open(tmp_path / name, "fake:16", database=postgres)) for name in ("one", "two"))
        one.add(words("cat"))
        two.add(words("dog", "bird"))
        one.delete(["dog"])
        assert set(contents(one)) == {"cat"}
        assert set(contents(two)) == {"dog", "bird"}
        assert one.check().clean
        assert two.check().clean

    def test_a_password_is_not_shown(self, postgres, tmp_path, closing):
        secret = postgres.replace("postgres:@", "postgres:hunter2@")
        shop = closing(Collection.open(tmp_path / "shop", "fake:16", database=secret))
        assert "hunter2" not in json.dumps(shop.info())
        with pytest.raises(StoreError) as refused:
            Collection.open(tmp_path / "x", "fake:16", database=secret.replace("/postgres?", "/nothing?"))
        assert "hunter2" not in str(refused.value)


def test_another_model_that_cannot_be_loaded_is_told_as_another_model(tmp_path):
    with Collection.open(tmp_path / "c", "fake:8") as made:
        made.add([Document("a", text="a cat")])
    with pytest.raises(SpaceMismatchError, match=r"made with fake:8; open_clip:.*Leave the model out"):
        Collection.open(tmp_path / "c", f"open_clip:{tmp_path / 'nothing'}")
