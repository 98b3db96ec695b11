"""Checkpoints of multimodal language models: all published layouts, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_mllm import LAYOUTS, tiny_mllm

from indexer.embed import load_embedder
from indexer.embed.mllm.loading import find_checkpoint, load_model, settled
from indexer.errors import ModelError
from indexer.types import Item

KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mllm(tmp_path_factory.mktemp("mllm") / "model")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("kind", KINDS)
def test_every_published_layout_gives_the_same_model_with_every_weight(kind: str, tmp_path: Path) -> None:
    states = {
        layout: load_model(tiny_mllm(tmp_path / layout, kind, layout), torch.float32).state_dict()
        for layout in LAYOUTS
        if (kind, layout) != ("qwen3_vl", "flat")  # never released so
    }
    stored = load_file(tmp_path / "headless" / WEIGHTS)
    for layout, state in states.items():
        assert state.keys() == stored.keys()
        for name, value in stored.items():
            assert torch.equal(state[name], value), (layout, name)


def test_shards_are_read_as_one(folder: Path, tmp_path: Path) -> None:
    sharded = tiny_mllm(tmp_path / "sharded", shards=3)
    assert not (sharded / WEIGHTS).exists()
    one, other = (load_embedder(f"mllm:{each}") for each in (folder, sharded))
    np.testing.assert_array_equal(one.encode_document([Item("a star")]), other.encode_document([Item("a star")]))
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks model-00002-of-00003.safetensors"):
        load_embedder(f"mllm:{sharded}")


def test_weights_that_are_missing_are_named(copy: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    del weights["model.visual.merger.ln_q.weight"]
    save_file(weights, copy / WEIGHTS)
    with pytest.raises(ModelError, match=r"1 of \d+ weights are missing, such as visual.merger.ln_q.weight"):
        load_embedder(f"mllm:{copy}")


def test_weights_that_are_too_many_are_named_but_for_the_head(copy: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    assert "lm_head.weight" in weights
    save_file(weights | {"model.visual.other.weight": torch.zeros(3)}, copy / WEIGHTS)
    with pytest.raises(ModelError, match=r"1 are unexpected, such as visual.other.weight"):
        load_embedder(f"mllm:{copy}")


def test_weights_of_another_shape_are_named(copy: Path) -> None:
    weights = load_file(copy / WEIGHTS)
    weights["model.language_model.norm.weight"] = torch.zeros(5)
    save_file(weights, copy / WEIGHTS)
    with pytest.raises(ModelError, match=r"language_model.norm.weight, \(5,\) for \(32,\)"):
        load_embedder(f"mllm:{copy}")


def test_damaged_and_unsafe_weights_are_refused(copy: Path) -> None:
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be read"):
        load_embedder(f"mllm:{copy}")
    (copy / WEIGHTS).rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"lacks model.safetensors. .* Only safetensors weights are read"):
        load_embedder(f"mllm:{copy}")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "llava"}, "a model of the kind 'llava'; known kinds are qwen2_vl"),
        ("config.json", None, "config.json is missing"),
        ("config.json", {"vision_config": {"depth": "many"}}, "config.json cannot be used"),
        ("preprocessor_config.json", None, "preprocessor_config.json is missing"),
        ("preprocessor_config.json", {"patch_size": 14}, r"of \(14, 2, 2\); the model reads \(8, 2, 2\)"),
        ("tokenizer.json", None, "has no tokenizer.json"),
    ],
)
def test_a_folder_that_is_not_whole_says_what_is_wrong(
    copy: Path, file: str, change: dict[str, object] | None, message: str
) -> None:
    if change is None:
        (copy / file).unlink()
    else:
        (copy / file).write_text(json.dumps(json.loads((copy / file).read_text()) | change))
    with pytest.raises(ModelError, match=message):
        load_embedder(f"mllm:{copy}")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][-1], "id": 500, "content": "<|more|>"})
    tokenizer["added_tokens"] += [
        {**tokenizer["added_tokens"][-1], "id": 501 + each, "content": f"<|more {each}|>"} for each in range(80)
    ]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="tokens, more than the model's 420"):
        load_embedder(f"mllm:{copy}")


@pytest.mark.parametrize(
    ("published", "wanted"),
    [
        ("visual.blocks.0.norm1.weight", "visual.blocks.0.norm1.weight"),
        ("model.visual.patch_embed.proj.weight", "visual.patch_embed.proj.weight"),
        ("model.layers.3.mlp.up_proj.weight", "language_model.layers.3.mlp.up_proj.weight"),
        ("model.language_model.embed_tokens.weight", "language_model.embed_tokens.weight"),
        ("language_model.norm.weight", "language_model.norm.weight"),
        ("norm.weight", "language_model.norm.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_names_of_weights_are_settled(published: str, wanted: str) -> None:
    assert settled(published) == wanted


def test_a_hub_id_is_fetched_once_without_its_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def fetch(name, **options):
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    embedder = load_embedder("mllm:Qwen/Qwen3-VL-Embedding-2B@abc123?max_tokens=64")
    assert (asked["name"], asked["revision"]) == ("Qwen/Qwen3-VL-Embedding-2B", "abc123")
    assert not any(pattern.endswith((".py", "*")) for pattern in asked["allow_patterns"])
    assert embedder.name == "mllm:Qwen/Qwen3-VL-Embedding-2B@abc123?max_tokens=64"


def test_a_checkpoint_that_cannot_be_fetched_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr("indexer.embed.hub.reachable", lambda _: True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ModelError, match="cannot be fetched: no connection. Connect once"):
        load_embedder("mllm:Qwen/Qwen3-VL-Embedding-2B")
    for name in ("/nowhere/at/all", "qwen", "./a/b"):
        with pytest.raises(ModelError, match="is neither a folder nor a hub id"):
            find_checkpoint(name)


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    flat = tiny_mllm(tmp_path / "flat", layout="flat")
    assert "raise SystemExit" in (flat / "evil.py").read_text()
    load_embedder(f"mllm:{flat}").encode_document([Item("a star")])


class TestLora:
    """Checkpoints that are only a LoRA of another one."""

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("peft", reason="needs peft, of the extra mllm")

    def adapter(
        self, base: Path, to: Path, names: str, target: object = ("q_proj", "v_proj", "qkv")
    ) -> tuple[Path, object]:
        """A random LoRA of a checkpoint, its weights named as in a release; and the model with it, unmerged."""
        import peft

        torch.manual_seed(5)
        model = load_model(base, torch.float32)
        config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(target))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # later releases of peft warn of target_modules
            adapted = peft.get_peft_model(model, config)
        with torch.no_grad():
            for name, value in adapted.named_parameters():
                if "lora_" in name:
                    value.normal_(0, 0.2)
        adapted.save_pretrained(to, save_embedding_layers=False)
        stored = json.loads((to / "adapter_config.json").read_text()) | {"base_model_name_or_path": str(base)}
        (to / "adapter_config.json").write_text(json.dumps(stored))
        weights = load_file(to / "adapter_model.safetensors")
        rename = {
            "headless": lambda name: name,
            "first": lambda name: name.replace("model.language_model.", "model.model."),
            "nested": lambda name: name.replace("base_model.model.", "base_model.model.model."),
        }[names]
        save_file({rename(name): value for name, value in weights.items()}, to / "adapter_model.safetensors")
        return to, adapted

    @pytest.mark.parametrize("names", ["headless", "first", "nested"])
    def test_it_is_merged_into_its_base(self, folder: Path, tmp_path: Path, names: str) -> None:
        lora, adapted = self.adapter(folder, tmp_path / "lora", names)
        (lora / "underdrawing.json").write_text((folder / "underdrawing.json").read_text())
        config = json.loads((lora / "adapter_config.json").read_text())
        # A pattern for the names of another library's model, which no module here has.
        config["target_modules"] = "^transformer.*"
        (lora / "adapter_config.json").write_text(json.dumps(config))
        embedder, base = load_embedder(f"mllm:{lora}"), load_embedder(f"mllm:{folder}")
        assert not any("lora" in name for name, _ in embedder._model.named_modules())
        base_vectors = base.encode_document([Item("a star")])
        merged = embedder.encode_document([Item("a star")])
        base._model = adapted.base_model.model.eval()
        np.testing.assert_allclose(merged, base.encode_document([Item("a star")]), atol=2e-5)
        assert (merged * base_vectors).sum() < 0.999
        assert embedder.fingerprint().weights != load_embedder(f"mllm:{folder}").fingerprint().weights

    def test_one_that_does_not_fit_is_refused(self, folder: Path, tmp_path: Path) -> None:
        lora, _ = self.adapter(folder, tmp_path / "lora", "headless")
        shutil.copy(folder / "underdrawing.json", lora)
        whole = load_file(lora / "adapter_model.safetensors")
        first = next(iter(whole))
        save_file({name: value for name, value in whole.items() if name != first}, lora / "adapter_model.safetensors")
        with pytest.raises(ModelError, match="does not fit: 1 of its weights are missing"):
            load_embedder(f"mllm:{lora}")
        strange = {name.replace("layers.0", "layers.9"): value for name, value in whole.items()}
        save_file(strange, lora / "adapter_model.safetensors")
        with pytest.raises(ModelError, match=r"changes language_model.layers.9.*which the model does not have"):
            load_embedder(f"mllm:{lora}")
        (lora / "adapter_model.safetensors").unlink()
        with pytest.raises(ModelError, match="cannot be read"):
            load_embedder(f"mllm:{lora}")
        config = json.loads((lora / "adapter_config.json").read_text())
        (lora / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
        with pytest.raises(ModelError, match="does not name the model"):
            load_embedder(f"mllm:{lora}")
