"""A model that a collection names by a path is loaded only if the user names it, too, or trusts the collection."""

from __future__ import annotations

import pytest
from answers import found
from sqlalchemy import text

from indexer import Collection, Document, lazy_embedder
from indexer.embed.fake import FakeEmbedder
from indexer.errors import UntrustedModelError
from indexer.lazy_embedder import names_a_folder


@pytest.fixture
def loaded(monkeypatch):
    """The names of the models that were loaded; each is a fake."""
    names = []

    def load(name, **options):
        names.append(name)
        return FakeEmbedder(16)

    monkeypatch.setattr(lazy_embedder, "load_embedder", load)
    return names


@pytest.fixture
def received(tmp_path, loaded):
    """A collection whose maker gave it a model of this name."""
    with Collection.open(tmp_path / "shop", "fake:16") as shop:
        shop.add([Document("cat", text="cat")])

    def named(model):
        with Collection.open(tmp_path / "shop", "fake:16") as shop, shop.database.write() as connection:
            connection.execute(text("UPDATE spaces SET model = :model"), {"model": model})
        loaded.clear()
        return tmp_path / "shop"

    return named


PATHS = [
    "open_clip:/opt/model", "open_clip:./model", "open_clip:../model", "open_clip:~/model", "open_clip:here",
    "open_clip:here/model", "open_clip:here?draft=2", "open_clip:C:\\model", "open_clip:a\\b", "open_clip:a/../../b",
    "open_clip:local-dir:here/x", "open_clip:hf-hub:here/model", "bridge:anything", "bridge:here?x=1", "st:here",
    "st:/opt/model", "st:here/model", "mllm:here", "mllm:here@main", "mllm:here/model?dim=512", "mllm:/opt/model@main",
    "open_clip:dangling",
]  # fmt: skip
NAMES = [
    "open_clip:ViT-B-32/laion2b_s34b_b79k", "bundled:emoji-clip", "bundled:here", "fake:16", "mllm:Qwen/Qwen3-VL-2B@main",
    "st:sentence-transformers/clip", "open_clip:hf-hub:timm/vit/x", "mllm:Qwen/Qwen3-VL-2B?dim=512",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory in which some names are folders."""
    (tmp_path / "work" / "here" / "model").mkdir(parents=True)
    (tmp_path / "work" / "dangling").symlink_to(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.parametrize("name", PATHS)
def test_paths_are_told_from_names(name):
    assert names_a_folder(name)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_paths(name):
    assert not names_a_folder(name)


@pytest.mark.parametrize("act", [lambda shop: found(shop, "cat"), lambda shop: shop.info(), lambda shop: shop.check()])
def test_what_needs_no_model_works(received, loaded, act):
    with Collection.open(received("open_clip:here/model")) as shop:
        act(shop)
    assert loaded == []


@pytest.mark.parametrize("use", [lambda shop: shop.embedder, lambda shop: shop.add([Document("a", text="a")])])
def test_a_path_that_only_the_collection_names_is_not_loaded(received, loaded, use):
    folder = received("open_clip:here/model")
    with Collection.open(folder) as shop:
        with pytest.raises(
            UntrustedModelError, match=rf"{folder} names the model 'open_clip:here/model'.*`trust=True`"
        ):
            use(shop)
    assert loaded == []


@pytest.mark.parametrize("options", [{"trust": True}, {"model": "open_clip:here/model"}])
def test_it_is_loaded_by_who_trusts_the_collection_or_names_it(received, loaded, options):
    with Collection.open(received("open_clip:here/model"), **options) as shop:
        shop.add([Document("a", text="a")])
        assert len(shop.snapshot()) == 2
    assert loaded == ["open_clip:here/model"]


def test_other_names_are_loaded_as_ever(received, loaded):
    with Collection.open(received("bundled:emoji-clip")) as shop:
        shop.add([Document("a", text="a")])
    assert loaded == ["bundled:emoji-clip"]
