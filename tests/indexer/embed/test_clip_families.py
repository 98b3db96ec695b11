"""Published families of CLIP by name, with random weights: small encoders in the published layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_models import PREPROCESS
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from indexer.embed import load_embedder
from indexer.embed.clip.config import ELSEWHERE, read_config
from indexer.errors import ModelError
from indexer.types import Item

WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "a", "red", "blue", "star", "at", "night", "two", "cats"]
# Architecture in open_clip's zoo, and a smaller image tower of the same class.
FAMILIES = {
    "ViT-B-16-SigLIP2": "vit_pwee_patch16_reg1_gap_256",
    "ViT-B-32-quickgelu": None,  # MetaCLIP's
    "ViT-H-14-worldwide-quickgelu": None,  # MetaCLIP 2's
    "EVA02-B-16": "eva02_tiny_patch14_224",
    "PE-Core-B-16": "vit_pe_core_tiny_patch16_384",
}


def shrunk(architecture: str, tower: str | None) -> dict:
    """The architecture's own configuration, with fewer layers and the same keys."""
    config = json.loads(json.dumps(open_clip.get_model_config(architecture)))
    bare = config["vision_cfg"].get("timm_proj") == "none"  # the image tower's own width is the vector's
    config["embed_dim"] = 256 if bare else 32
    config["text_cfg"] |= {"width": 32, "heads": 2, "layers": 2}
    if config["text_cfg"].get("hf_tokenizer_name"):
        config["text_cfg"]["vocab_size"] = len(WORDS)
    if tower is None:
        config["vision_cfg"] |= {"width": 32, "layers": 2, "head_width": 16, "image_size": 64}
    else:
        config["vision_cfg"] |= {
            "timm_model_name": tower,
            "timm_model_pretrained": False,
            "image_size": int(tower[-3:]),
        }
    return config


def tokenizer_of(folder: Path) -> None:
    """A tokenizer file as those folders have one: it ends a text with its own token."""
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    fast.save_pretrained(folder)


def published_folder(folder: Path, architecture: str) -> tuple[Path, torch.nn.Module]:
    """What `save_pretrained` of open_clip leaves, and the model in it."""
    config = shrunk(architecture, FAMILIES[architecture])
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    arguments["text_cfg"] = {
        k: v for k, v in config["text_cfg"].items() if k not in ("hf_tokenizer_name", "tokenizer_kwargs")
    }
    model = kind(**arguments).eval()
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    save_file(
        {k: v.clone().contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    if config["text_cfg"].get("hf_tokenizer_name"):
        tokenizer_of(folder)
    return folder, model


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_folder_of_each_family_has_open_clips_own_vectors(architecture: str, tmp_path: Path) -> None:
    folder, model = published_folder(tmp_path / "model", architecture)
    embedder = load_embedder(f"open_clip:{folder}")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8))
    texts = ["a red star", "two cats at night", "a blue star " * 40]
    preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(**PREPROCESS | {"size": model.visual.image_size}), is_train=False
    )
    tokens = embedder._tokenizer(texts)
    with torch.inference_mode():
        theirs = model.encode_image(preprocess(image)[None], normalize=True)
        said = model.encode_text(tokens, normalize=True)
    np.testing.assert_allclose(embedder.encode_document([Item(image=image)]), theirs, atol=2e-5)
    np.testing.assert_allclose(embedder.encode_query([Item(text) for text in texts]), said, atol=2e-5)
    assert len({tuple(row) for row in tokens.tolist()}) == 3
    assert tokens.shape[1] == open_clip.get_model_config(architecture)["text_cfg"]["context_length"]


def test_a_folder_without_its_tokenizer_names_what_is_missing(tmp_path: Path) -> None:
    folder, _ = published_folder(tmp_path / "model", "ViT-B-16-SigLIP2")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json") as told:
        load_embedder(f"open_clip:{folder}")
    assert str(folder) in str(told.value)


@pytest.mark.parametrize("architecture", open_clip.list_models())
def test_every_architecture_of_open_clip_is_read_or_refused_by_name(architecture: str, tmp_path: Path) -> None:
    config = open_clip.get_model_config(architecture)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    unread = [key for key in ELSEWHERE if key in config or key in config["text_cfg"]]
    if not unread:
        assert read_config(tmp_path).model["embed_dim"] == config["embed_dim"]
        return
    with pytest.raises(ModelError, match="|".join(unread)) as told:
        read_config(tmp_path)
    assert told.value.remedy
