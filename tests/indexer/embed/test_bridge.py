"""Bridges as embedders: one sequence of image and text, any batch, and only parts that were trained together."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_bridges import QFORMER, WIDTH, tiny_bridge, tiny_gguf, tiny_text
from tiny_models import pictures, tiny_clip

from indexer import Collection, Document
from indexer.embed import load_embedder
from indexer.embed.bridge.connector import Connector, ConnectorConfig, build_bridge, start_bridge
from indexer.embed.bridge.embedder import CONFIG, WEIGHTS
from indexer.embed.bridge.text_model import Pooling, TextModel
from indexer.errors import CallError, MissingExtraError, ModelError, UnknownNameError
from indexer.types import Item
from retrieval import Query, Retriever

KINDS = tuple(Connector)
ONE, OTHER = pictures(2)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    return {"tower": tiny_clip(folder / "tower")} | {
        kind: tiny_text(folder / kind, kind) for kind in ("encoder", "decoder")
    }


@pytest.fixture(scope="module")
def bridges(parts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("bridges")
    return {
        (kind, text): tiny_bridge(folder / f"{kind}-{text}", kind, parts[text], parts["tower"])
        for kind in KINDS
        for text in ("encoder", "decoder")
    }


@pytest.fixture
def mine(bridges: dict[tuple[str, str], Path], tmp_path: Path) -> Path:
    """A bridge to damage."""
    return Path(shutil.copytree(bridges["mlp", "encoder"], tmp_path / "mine"))


def edited(folder: Path, **values: object) -> str:
    file = folder / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return f"bridge:{folder}"


# -- Vectors


@pytest.mark.parametrize("text", ["encoder", "decoder"])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_do_not_depend_on_the_batch(bridges, kind: str, text: str) -> None:
    embedder = load_embedder(f"bridge:{bridges[kind, text]}")
    items = [
        Item("a red dog"), Item(image=ONE), Item("the cat sits on the big blue heart at night", OTHER), Item("two"),
        Item("", ONE), Item("a red dog", ONE),
    ]  # fmt: skip
    together = embedder.encode_document(items)
    alone = np.concatenate([embedder.encode_document([item]) for item in items])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together[1], together[4], atol=2e-6)  # an empty text beside a picture says nothing
    assert (together @ together.T)[np.triu_indices(4, 1)].max() < 0.999
    np.testing.assert_array_equal(embedder.encode_query(items), together)
    assert embedder.fuses_natively
    assert not embedder.reads_instructions


@pytest.mark.parametrize("text", ["encoder", "decoder"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fused_item_is_read_at_once_and_both_parts_tell(bridges, kind: str, text: str) -> None:
    embedder = load_embedder(f"bridge:{bridges[kind, text]}")
    picture, words, both, other_picture, other_words = embedder.encode_document(
        [Item(image=ONE), Item("a red dog"), Item("a red dog", ONE), Item("a red dog", OTHER), Item("two cats", ONE)]
    )
    for each in (picture, words, other_picture, other_words):
        assert both @ each < 0.9999
    summed = (picture + words) / np.linalg.norm(picture + words)
    assert both @ summed < 0.999, "not the sum of its parts"


def test_a_text_alone_has_the_text_models_own_vector(bridges, parts) -> None:
    """By transformers alone, with the special tokens that the tokenizer sets and without the lengths it says."""
    from transformers import AutoModel, AutoTokenizer

    said = "the big red dog sits on the small blue heart"
    for kind in ("encoder", "decoder"):
        words = AutoTokenizer.from_pretrained(parts[kind])
        words.backend_tokenizer.no_truncation()
        words.backend_tokenizer.no_padding()
        ids = words(said).input_ids
        if kind == "decoder":
            ids = [*ids, words.eos_token_id]
        assert len(ids) > 9
        with torch.inference_mode():
            hidden = AutoModel.from_pretrained(parts[kind])(torch.tensor([ids])).last_hidden_state[0]
        wanted = hidden.mean(0) if kind == "encoder" else hidden[-1]
        [found] = load_embedder(f"bridge:{bridges['linear', kind]}").encode_query([Item(said)])
        np.testing.assert_allclose(found, torch.nn.functional.normalize(wanted, dim=0).numpy(), atol=1e-5)


def test_a_long_text_is_cut_and_the_picture_and_the_end_are_not(bridges) -> None:
    embedder = load_embedder(f"bridge:{bridges['qformer', 'decoder']}")
    long, longer = "a red dog " * 20, "a red dog " * 40
    rows = embedder.encode_document([Item(long, ONE), Item(longer, ONE), Item(longer, OTHER)])
    np.testing.assert_allclose(rows[0], rows[1], atol=2e-6)
    assert rows[1] @ rows[2] < 0.9999


def test_words_that_look_like_special_tokens_are_words(parts) -> None:
    reader = TextModel.load(str(parts["encoder"]), torch.float32, "cpu")
    assert len(reader.before) == len(reader.after) == 1
    ids = reader.ids("<|im_end|>", 20)
    assert len(ids) > 1
    assert reader.after[0] not in ids


def test_bfloat16_keeps_parity_and_is_another_space(bridges) -> None:
    name = f"bridge:{bridges['qformer', 'encoder']}"
    exact, coarse = load_embedder(name), load_embedder(name, dtype="bfloat16")
    items = [Item("a red dog"), Item(image=ONE), Item("a red dog", ONE)]
    assert (exact.encode_document(items) * coarse.encode_document(items)).sum(1).min() > 0.99
    assert exact.fingerprint().digest != coarse.fingerprint().digest


def test_the_preparer_travels_and_bad_items_cost_themselves(bridges) -> None:
    embedder = load_embedder(f"bridge:{bridges['mlp', 'encoder']}")
    prepare = pickle.loads(pickle.dumps(embedder.preparer()))
    assert prepare(Item("a", ONE)).arrays["image"].dtype == np.uint8
    found = embedder.try_encode([Item("a"), Item(" \n"), Item(image=b"no picture"), Item(image=ONE)], "document")
    assert found.rows.tolist() == [0, 3]
    assert sorted(found.errors) == [1, 2]


def test_a_collection_answers_joint_queries(bridges, tmp_path: Path) -> None:
    with Collection.open(tmp_path / "shop", model=f"bridge:{bridges['qformer', 'encoder']}") as shop:
        shop.add([Document("words", "a red dog"), Document("seen", image=ONE), Document("both", "a red dog", ONE)])
        for query, wanted in (
            (Query(text="a red dog"), "words"), (Query(image=ONE), "seen"), (Query(text="a red dog", image=ONE), "both")
        ):  # fmt: skip
            method = "joint" if wanted == "both" else "text" if wanted == "words" else "image"
            [hit, *_] = Retriever(shop, method, center="off").search(query, k=3, keep_reference=True)
            assert (hit.id, round(hit.score, 4)) == (wanted, 1.0)


def test_a_gguf_file_is_a_text_model(parts, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gguf", reason="needs gguf, of the extra bridge")
    (tmp_path / "one").mkdir()
    file = tiny_gguf(tmp_path / "one" / "tiny.gguf")
    capfd.readouterr()
    reader = TextModel.load(str(file), torch.float32, "cpu")
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")  # no bars
    assert TextModel.load(str(file.parent), torch.float32, "cpu").digest == reader.digest
    assert (reader.pooling, reader.width, reader.after) == (Pooling.LAST, WIDTH, [1])
    assert len(reader.ids("red", 9)) == 1
    embedder = load_embedder(f"bridge:{tiny_bridge(tmp_path / 'bridge', 'linear', file, parts['tower'])}")
    rows = embedder.encode_document([Item("red"), Item(image=ONE), Item("red", ONE)])
    assert (rows @ rows.T)[np.triu_indices(3, 1)].max() < 0.999


# -- Connectors


def test_a_connector_makes_words_of_places_or_queries() -> None:
    features = torch.randn(2, 6, 12) * 100
    table = torch.randn(50, 8) * 0.1 + 1
    for kind, tokens in ((Connector.LINEAR, 6), (Connector.MLP, 6), (Connector.QFORMER, 3)):
        config = ConnectorConfig(kind, 6, 12, 8, 10, queries=3, qformer=QFORMER)
        bridge = build_bridge(config).eval()
        start_bridge(bridge, table)
        words = bridge["connector"](features)
        assert words.shape == (2, tokens, 8)
        assert config.tokens == tokens
        assert (words[0] - words[1]).abs().max() > 0.01
        assert (words - 1).abs().mean() < 0.5, "they lie among the words"
        assert torch.equal(bridge["project"](torch.eye(10)), torch.eye(10))
    assert "project" not in build_bridge(ConnectorConfig(Connector.MLP, 6, 12, 8, 10, project=False))


def test_queries_of_a_new_qformer_differ() -> None:
    bridge = build_bridge(ConnectorConfig(Connector.QFORMER, 6, 12, 8, 10, queries=3, qformer=QFORMER)).eval()
    [words] = bridge["connector"](torch.randn(1, 6, 12))
    assert torch.pdist(words).min() > 0.01


def test_connectors_that_cannot_be_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="'quadratic' is not known. Known: linear, mlp, qformer"):
        ConnectorConfig("quadratic", 4, 4, 4, 4)
    with pytest.raises(CallError, match="at least 1"):
        ConnectorConfig("mlp", 4, 0, 4, 4)
    with pytest.raises(CallError, match="A Q-Former cannot be made of"):
        build_bridge(ConnectorConfig("qformer", 4, 4, 4, 4, qformer={"hidden_size": 16, "num_attention_heads": 3}))


# -- What is refused


def test_another_tower_or_text_model_is_refused(mine: Path, parts, tmp_path: Path) -> None:
    other_text = tiny_text(tmp_path / "text", "encoder", seed=1)
    other_tower = tiny_clip(tmp_path / "tower", seed=1)
    for values, told in (
        ({"text": str(other_text)}, "The text model .* is not what this bridge was trained with"),
        (
            {"tower": f"open_clip:{other_tower}"},
            "The weights of the image encoder .* not what",
        ),
        ({"tower_preprocessing": "none"}, "The preprocessing of the image encoder"),
    ):
        kept = (mine / CONFIG).read_text()
        with pytest.raises(ModelError, match=told):
            load_embedder(edited(mine, **values))
        (mine / CONFIG).write_text(kept)
    moved = shutil.copytree(parts["encoder"], tmp_path / "moved")
    assert load_embedder(edited(mine, text=str(moved))).dim == WIDTH, "it is the content that counts"


def test_weights_must_be_all_there_and_no_more(mine: Path) -> None:
    weights = load_file(mine / WEIGHTS)
    name = "connector.1.weight"
    for changed in (
        {key: value for key, value in weights.items() if key != name},
        weights | {"connector.9.weight": torch.zeros(2)},
        weights | {name: weights[name][:, :3].contiguous()},
    ):
        save_file(changed, mine / WEIGHTS)
        with pytest.raises(
            ModelError, match="does not fit bridge.json: 1 weights are missing, unexpected or of another"
        ):
            load_embedder(f"bridge:{mine}")
    (mine / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(ModelError, match="is missing or cannot be read"):
        load_embedder(f"bridge:{mine}")


def test_a_text_model_with_weights_missing_or_left_over_is_refused(parts, tmp_path: Path) -> None:
    folder = shutil.copytree(parts["encoder"], tmp_path / "text")
    weights = load_file(folder / "model.safetensors")
    for changed in (
        {key: value for key, value in weights.items() if not key.endswith("0.attention.self.query.weight")},
        weights | {"encoder.layer.7.attention.self.query.weight": torch.zeros(WIDTH, WIDTH)},
    ):
        save_file(changed, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match="do not fit its configuration: 1 are .*attention.self.query.weight"):
            TextModel.load(str(folder), torch.float32, "cpu")
    without = {key: value for key, value in weights.items() if not key.startswith("pooler")}
    save_file(without, folder / "model.safetensors", {"format": "pt"})
    assert TextModel.load(str(folder), torch.float32, "cpu").width == WIDTH, "nothing reads the pooler"


def test_what_is_no_bridge_or_cannot_carry_one_is_refused(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "passing", ModuleType("passing"))  # as __main__ is: there, and from nowhere
    with pytest.raises(ModelError, match="is not a bridge: it lacks bridge.json"):
        load_embedder(f"bridge:{tmp_path}")
    kept = (mine / CONFIG).read_text()
    for values, told in (
        ({"tower": "fake:64"}, "fake:64 cannot be used in a bridge"),
        ({"layer": 7}, "has no layer 7"),
        ({"text": "/nowhere"}, "neither a folder nor a hub id"),
        ({"text": "package:no_such_package/model"}, "no package 'no_such_package' is installed"),
        ({"text": "package:numpy/model"}, "the installed package numpy has no model"),
        ({"text": "/nowhere.gguf"}, "does not exist"),
        (
            {"pooling": "max"},
            "bridge.json: pooling 'max' is not known. Known: mean, last. Copy the whole folder again, as underdrawing",
        ),
        ({"text": "package:passing/x"}, "no package 'passing' is installed. Write package:NAME/PATH"),
        (
            {"more": 1},
            "bridge.json: 'more' is unknown. Its names are tower, .*, connector. Copy the whole folder again, as underdrawing train",
        ),
        ({"max_tokens": "24"}, "'max_tokens' is '24', and should be of the type int"),
        ({"connector": 3}, "'connector' is 3, and should be of the type dict"),
        (
            {"connector": {"kind": "magic"}},
            "bridge.json, connector: 'feature_tokens' is missing, .*Its names are kind, ",
        ),
    ):
        with pytest.raises((ModelError, CallError), match=told):
            load_embedder(edited(mine, **values)).encode_document([Item(image=ONE)])
        (mine / CONFIG).write_text(kept)
    spec = json.loads(kept)
    for text, told in (
        ("[1]", "is a list, not an object"),
        ("{", "is not JSON: Expecting"),
        (json.dumps({"pool": "mean"} | {name: spec[name] for name in spec if name != "pooling"}), "'pooling' is missing, 'pool' is unknown"),
        (json.dumps(spec | {"connector": spec["connector"] | {"kind": "magic"}}), "'magic' is not known. Known: linear, mlp"),
        (json.dumps(spec | {"connector": spec["connector"] | {"queries": 0}}), "must be a whole number of at least 1"),
    ):  # fmt: skip
        (mine / CONFIG).write_text(text)
        with pytest.raises(ModelError, match=told) as refused:
            load_embedder(f"bridge:{mine}")
        assert str(mine / CONFIG) in refused.value.message
        assert "copy the whole folder" in str(refused.value.remedy).lower()


def test_a_picture_that_leaves_no_room_for_words_is_refused(parts, tmp_path: Path) -> None:
    folder = shutil.copytree(parts["decoder"], tmp_path / "text")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 5}))
    with pytest.raises(ModelError, match="reads 5 tokens, and an image alone has 5"):
        load_embedder(f"bridge:{tiny_bridge(tmp_path / 'bridge', 'qformer', folder, parts['tower'])}")


def test_a_gguf_file_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("indexer.embed.checkpoints.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"underdrawing\[bridge\]"):
        TextModel.load(str(tmp_path / "a.gguf"), torch.float32, "cpu")
