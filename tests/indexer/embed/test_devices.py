"""Devices of models: every entry point takes the same names and refuses others in one line."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from indexer import Collection, Document
from indexer.embed import devices, load_embedder
from indexer.embed.devices import checked_device, settled_device
from indexer.errors import CallError, DeviceError
from indexer.types import Item
from pipelines.interop.mteb import MtebEncoder
from pipelines.train.clip.model import ClipRecipe
from pipelines.train.common.recipe import load_recipe
from retrieval.providers.caption_rewrite import CaptionRewriter
from retrieval.providers.generation.diffusion import PseudoTargetGenerator
from retrieval.providers.language import load_captioner, load_chat, load_rewriter
from retrieval.providers.pseudo_target import PseudoTargetProvider

WRONG = ["gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:0 ", "cpu:1", "", "tpu", None, 0, "auto:1"]


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch):
    """A machine with so many cards, as far as torch says."""

    def have(count: int, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(devices, "has_mps", lambda: mps)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    have(0)
    return have


DOORS = {
    "load_embedder": lambda folder, device: load_embedder("bundled:emoji-clip", device=device),
    "a fake": lambda folder, device: load_embedder("fake:8", device=device),
    "Collection.open": lambda folder, device: Collection.open(folder / "c", model="fake:8", device=device),
    "PseudoTargetProvider": lambda folder, device: PseudoTargetProvider(device=device),
    "CaptionRewriter": lambda folder, device: CaptionRewriter(device=device),
    "a generator": lambda folder, device: PseudoTargetGenerator.load("bundled:emoji-generator", device=device),
    "a captioner": lambda folder, device: load_captioner(folder, device=device),
    "a rewriter": lambda folder, device: load_rewriter(folder, device=device),
    "a chat model": lambda folder, device: load_chat(folder, device=device),
    "mteb": lambda folder, device: MtebEncoder("fake:8", device=device or "none"),
    "a recipe": lambda folder, device: load_recipe(ClipRecipe, None, {"device": device or "none"}),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", 0])
def test_every_door_refuses_what_is_no_device(door: str, device: object, cards, tmp_path) -> None:
    with pytest.raises(CallError, match="device") as refused:
        DOORS[door](tmp_path, device)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("device", ["cuda", "cuda:3", "mps"])
def test_every_door_says_that_a_device_is_not_there(door: str, device: str, cards, tmp_path) -> None:
    with pytest.raises(DeviceError, match=f"{device} does not exist.*Available: cpu") as refused:
        DOORS[door](tmp_path, device)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("device", WRONG)
def test_what_is_no_name_is_refused_with_those_that_are(device: object, cards) -> None:
    with pytest.raises(CallError, match=r"Write one of auto, cpu, cuda, cuda:N or mps. Available: cpu"):
        checked_device(device)


def test_auto_takes_the_best_that_is_there(cards) -> None:
    assert settled_device("auto") == "cpu"
    cards(0, mps=True)
    assert settled_device("auto") == "mps"
    cards(2, mps=True)
    assert settled_device("auto") == "cuda"
    assert [settled_device(each) for each in ("cpu", "cuda", "cuda:1", "mps")] == ["cpu", "cuda", "cuda:1", "mps"]
    with pytest.raises(
        DeviceError, match=r"cuda:2 does not exist: torch sees 2 CUDA cards. Available: cpu, cuda:0, cuda:1, mps"
    ):
        settled_device("cuda:2")


def test_no_card_is_looked_for_with_torch_where_there_is_no_driver(monkeypatch) -> None:
    monkeypatch.setattr(devices, "_DRIVERS", ())
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setitem(sys.modules, "torch.cuda", None)  # an import would fail
    assert settled_device("auto") == "cpu"
    assert "torch" not in sys.modules


def test_a_collection_says_where_its_model_runs_and_its_fingerprint_does_not(cards, tmp_path) -> None:
    with Collection.open(tmp_path / "c", model="fake:8") as opened:
        opened.add([Document("a", text="x")])
        assert opened.info()["device"] == "cpu"
    cards(1)
    with Collection.open(tmp_path / "c") as opened:
        assert opened.info()["device"] == "cuda"  # which is not loaded for that
        assert opened.embedder.fingerprint().digest == opened.space.digest
    one, other = (load_embedder("bundled:emoji-clip", device="cpu") for _ in range(2))
    other.device = "cuda:1"
    assert one.fingerprint() == other.fingerprint()
    assert one.device == "cpu"
    np.testing.assert_array_equal(one.encode_query([Item(text="a")]), one.encode_query([Item(text="a")]))
