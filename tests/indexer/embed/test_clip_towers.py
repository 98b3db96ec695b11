"""Our own towers give open_clip's vectors, weight by weight, for every shape that they build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import DIM, TEXT, VISION, native_clip, pictures, tiny_clip

from indexer.bundled import model_folder
from indexer.embed import load_embedder
from indexer.embed.clip import loading as clip_loading
from indexer.embed.clip.config import read_config
from indexer.embed.clip.encoders import can_build
from indexer.errors import ModelError
from indexer.types import Item

TEXTS = [
    "a red heart", "", "$", "  two\tgreen stars &amp; more  ", "a " * 200, "[END] [PAD] <end_of_text>", "\u0414\u043e\u043c \U0001f34e e\u0301",
]  # fmt: skip
SHAPES = {
    "plain": {},
    "quick": {"quick_gelu": True},
    "biased": {"init_logit_bias": -10.0, "nonscalar_logit_scale": True},
    "scaled": {"vision_cfg": {"ls_init_value": 0.1}, "text_cfg": {"ls_init_value": 0.2, "mlp_ratio": 2.0}},
    "odd": {"vision_cfg": {"image_size": [16, 24], "layers": 3, "mlp_ratio": 3.0}, "text_cfg": {"context_length": 12}},
    "resnet10t": {"vision_cfg": {"timm_model_name": "resnet10t", "image_size": 32}},
}


def folder_of(folder: Path, shape: str, custom: bool) -> Path:
    """A model of that shape with random weights, made by open_clip."""
    torch.manual_seed(0)
    told = SHAPES[shape]
    vision = (
        {"timm_model_name": "resnet10t", "image_size": 32}
        if shape == "resnet10t"
        else {**VISION, **told.get("vision_cfg", {})}
    )
    config = {
        **{key: value for key, value in told.items() if not isinstance(value, dict)},
        "embed_dim": DIM, "vision_cfg": vision, "text_cfg": {**TEXT, "vocab_size": 49408, **told.get("text_cfg", {})},
    }  # fmt: skip
    made = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.05 * torch.randn_like(value) if value.ndim else 0)
        for name, value in made.named_buffers():
            if "running" in name:
                value.uniform_(0.5, 1.5)
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {**config, "custom_text": custom}, "preprocess_cfg": {}})
    )
    save_file({k: v.contiguous() for k, v in made.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def same(folder: Path, source: str) -> None:
    """The vectors of a folder in our classes and in open_clip's."""
    ours = load_embedder(f"open_clip:{folder}")
    assert "open_clip" not in type(ours.model).__module__
    theirs = open_clip.create_model(source).eval()
    words = open_clip.get_tokenizer(source)
    assert torch.equal(ours.tokenizer(TEXTS), words(TEXTS))
    prepared = [ours.preparer()(Item(image=each)) for each in pictures(4)]
    seen = torch.from_numpy(ours._preprocess.normalize(np.stack([each.arrays["image"] for each in prepared])))
    with torch.inference_mode():
        for mine, other in (
            (ours.model.encode_text(ours.tokenizer(TEXTS)), theirs.encode_text(words(TEXTS))),
            (ours.model.encode_text(words(TEXTS), normalize=True), theirs.encode_text(words(TEXTS), normalize=True)),
            (ours.model.encode_image(seen), theirs.encode_image(seen)),
            (ours.model.logit_scale, theirs.logit_scale),
        ):
            assert float((mine - other).abs().max()) <= 1e-6 * max(1.0, float(other.abs().max()))
        for layer in (-1, 0):
            how = {"indices": [layer], "stop_early": True, "intermediates_only": True, "output_fmt": "NCHW"}
            mine, other = (
                m.visual.forward_intermediates(seen, **how)["image_intermediates"][0] for m in (ours.model, theirs)
            )
            torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-6)
    assert ours.model.state_dict().keys() == theirs.state_dict().keys()
    told = [json.loads(json.dumps(each.visual.preprocess_cfg, sort_keys=True)) for each in (theirs, ours.model)]
    assert told[0] == told[1]


@pytest.mark.parametrize("custom", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_our_towers_are_open_clips(tmp_path: Path, shape: str, custom: bool) -> None:
    folder = folder_of(tmp_path / "model", shape, custom)
    same(folder, f"local-dir:{folder}")


def test_the_bundled_model_is_open_clips(tmp_path: Path) -> None:
    same(model_folder("emoji-clip"), f"local-dir:{model_folder('emoji-clip')}")
    same(tiny_clip(tmp_path), f"local-dir:{tmp_path / 'model'}")


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("text_cfg", {"no_causal_mask": True}),
        ("text_cfg", {"pool_type": "last"}),
        ("text_cfg", {"proj_bias": True}),
        ("text_cfg", {"qk_norm": True}),
        ("text_cfg", {"norm_kwargs": {"eps": 1e-6}}),
        ("vision_cfg", {"pool_type": "avg"}),
        ("vision_cfg", {"no_ln_pre": True}),
        ("vision_cfg", {"layers": [1, 1, 1, 1]}),
        ("vision_cfg", {"final_ln_after_pool": True}),
        ("vision_cfg", {"timm_model_name": "resnet18"}),
        ("vision_cfg", {"timm_model_name": "resnet10t", "timm_proj": "mlp"}),
    ],
)
def test_whatever_else_is_asked_for_is_left_to_open_clip(tmp_path: Path, part: str, values: dict[str, object]) -> None:
    folder = native_clip(tmp_path / "model", custom=True)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"][part] |= values
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert not can_build(read_config(folder).model)


def test_a_folder_for_open_clip_has_its_vectors(tmp_path: Path) -> None:
    folder = native_clip(tmp_path / "model", custom=True, no_causal_mask=True)
    ours = load_embedder(f"open_clip:{folder}")
    assert "open_clip" in type(ours.model).__module__
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.inference_mode():
        words = ours.tokenizer(TEXTS)
        torch.testing.assert_close(ours.model.encode_text(words), theirs.encode_text(words))


def test_half_precision_on_disk_is_computed_in_single(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path)
    assert {each.dtype for each in load_file(folder / "open_clip_model.safetensors").values()} == {torch.float16}
    assert {each.dtype for each in load_embedder(f"open_clip:{folder}").model.parameters()} == {torch.float32}


def test_weights_of_another_shape_are_refused_before_a_model_is_made(tmp_path: Path, monkeypatch) -> None:
    folder = shutil.copytree(tiny_clip(tmp_path / "made"), tmp_path / "copy")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["vocab_size"] = 8_000_000
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    monkeypatch.setattr(clip_loading, "settle", lambda _: pytest.fail("a model was made"))
    with pytest.raises(ModelError, match="token_embedding.weight"):
        load_embedder(f"open_clip:{folder}")
