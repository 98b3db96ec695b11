"""Without a network, a missing model fails at once with the remedy."""

from __future__ import annotations

import subprocess
import sys

import huggingface_hub
import pytest
from huggingface_hub import constants

from indexer.embed import hub, load_embedder
from indexer.errors import ModelError
from retrieval.providers.language import load_captioner, load_chat

NAMES = {
    "clip": lambda: load_embedder("open_clip:ViT-B-32/laion2b_s34b_b79k"),
    "clip by URL": lambda: load_embedder("open_clip:RN50/yfcc15m"),
    "mllm": lambda: load_embedder("mllm:Qwen/Qwen3-VL-Embedding-2B"),
    "st": lambda: load_embedder("st:sentence-transformers/all-MiniLM-L6-v2"),
    "captioner": lambda: load_captioner("Salesforce/blip-image-captioning-base"),
    "chat": lambda: load_chat("Qwen/Qwen2.5-1.5B-Instruct"),
}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """Nobody answers, and how often that was tried."""
    tried = []

    def connect(place, *_, **__):
        tried.append(place)
        raise OSError("no route to host")

    monkeypatch.setattr(hub.socket, "create_connection", connect)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "_answered", {})
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return tried


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_here_is_said_after_one_look(name: str, no_network: list[object], capfd) -> None:
    with pytest.raises(ModelError, match=r"not on this machine.*the hub cannot be reached.*bundled:emoji-clip") as told:
        NAMES[name]()
    assert "\n" not in str(told.value)
    assert len(no_network) == 1
    assert constants.HF_HUB_OFFLINE is False
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_hub_that_answers_is_used(no_network: list[object], monkeypatch) -> None:
    monkeypatch.setattr(hub.socket, "create_connection", lambda *_: open_socket())
    with hub.fetching() as reached:
        assert reached
        assert not huggingface_hub.is_offline_mode()


def open_socket():
    import socket

    return socket.socket()


def test_being_offline_by_choice_is_heeded(no_network: list[object], monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        NAMES["st"]()
    assert no_network == []


def test_a_proxy_is_what_is_called(no_network: list[object], monkeypatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert not hub.reachable("https://hub.example")
    monkeypatch.setenv("HTTPS_PROXY", "other.example:99999999")
    assert not hub.reachable("https://hub.example")
    assert no_network == [("proxy.example", 3128)]


def test_the_default_model_offline_is_two_lines(tmp_path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.txt").write_text("a cat")
    code = "import sys; from pipelines.cli.app import app; app(prog_name='underdrawing', args=sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "index", "src", "shop"], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**__import__("os").environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert [line.partition(":")[0].strip() for line in lines[-2:]][0] == "error"
    assert len(lines) <= 3  # before them, which model a new collection gets
    assert not (tmp_path / "shop").exists()
