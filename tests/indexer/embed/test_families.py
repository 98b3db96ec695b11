"""Model families by name, and their capabilities."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tiny_models

from indexer.embed import EMBEDDERS, load_embedder
from indexer.embed.base import AdjustableImages, PatchEncoder, PseudoWordEncoder, TrainableEncoder
from indexer.errors import CallError, PluginError, UnknownNameError

CAPABILITIES = (AdjustableImages, PatchEncoder, PseudoWordEncoder, TrainableEncoder)


def test_an_unknown_family_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError) as caught:
        load_embedder("open-clip:ViT-B-32/openai")
    assert "model family 'open-clip' is not known. Did you mean 'open_clip'?" in str(caught.value)


def test_every_family_has_a_line_of_help_and_listing_them_imports_no_model_library():
    code = (
        "import sys; from indexer.embed import EMBEDDERS\nassert all(EMBEDDERS.help().values())\n"
        "print(sorted(sys.modules.keys() & {'torch', 'transformers', 'open_clip', 'sentence_transformers'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_family_can_be_imported():
    assert [name for name in EMBEDDERS.names() if not callable(EMBEDDERS.get(name))] == []


def test_a_family_that_gives_no_embedder_is_refused(monkeypatch):
    monkeypatch.setitem(EMBEDDERS._imported, "theirs", lambda rest, **options: rest)
    with pytest.raises(
        PluginError, match="The model family 'theirs' gave str 'x' for 'theirs:x', which is not an Embedder"
    ):
        load_embedder("theirs:x")


def test_capabilities_are_asked_for_by_protocol(tmp_path):
    clip = load_embedder(f"open_clip:{tiny_models.tiny_clip(tmp_path / 'clip')}")
    assert [each for each in CAPABILITIES if not isinstance(clip, each)] == []
    assert [each for each in CAPABILITIES if isinstance(load_embedder("fake:8"), each)] == []


def test_an_option_of_the_clip_family_is_refused_elsewhere(monkeypatch, tmp_path):
    (tmp_path / "preprocessor_config.json").touch()
    monkeypatch.setattr("indexer.embed.bundled.model_folder", lambda name: tmp_path)
    monkeypatch.setitem(EMBEDDERS._imported, "mllm", lambda rest, **options: load_embedder("fake:8"))
    with pytest.raises(CallError, match="only draft=N may follow a question mark.*Write bundled:mine\\?draft=2, or"):
        load_embedder("bundled:mine?draft=2")
