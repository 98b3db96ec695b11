"""Models of a few thousand random weights, in the layouts in which the real ones are published."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from indexer.embed.inversion import Inversion, InversionConfig, build_phi
from pipelines.train.clip_model import PREPROCESS, ClipRecipe, build, export
from pipelines.train.tokenizer import train_tokenizer

VISION = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
TEXT = {"context_length": 20, "vocab_size": 400, "width": 32, "heads": 2, "layers": 2}
DIM = 24
WIDTH = TEXT["width"]
CORPUS = ["a red square", "a blue circle", "two green stars at night", "x o e i b $ and that is no many words"]


def tiny_clip(folder: Path, seed: int = 0, dim: int = DIM) -> Path:
    """A model with a text tower and a tokenizer of its own, as `train clip` makes it."""
    torch.manual_seed(seed)
    recipe = ClipRecipe(vision=VISION, text=TEXT, dim=dim)
    train_tokenizer(CORPUS, TEXT["vocab_size"], TEXT["context_length"], folder / "tokenizer")
    model = build(recipe)
    with torch.no_grad():  # open_clip's own start is so small that all texts come out alike
        model.text.token_embedding.weight.mul_(20)
    export(model, recipe, folder / "tokenizer", folder / "model")
    return folder / "model"


def native_clip(folder: Path, *, custom: bool, **text: object) -> Path:
    """A model with open_clip's native tokenizer; `custom` keeps its text tower apart from the class of OpenAI's."""
    torch.manual_seed(0)
    config = {
        "embed_dim": DIM,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, "vocab_size": 49408, **text},
        **({"custom_text": True} if custom else {}),
    }
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(DIM, config["vision_cfg"], config["text_cfg"])
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def tiny_inversion(
    feature: int = DIM, word: int = WIDTH, *, normalized: bool = True, seed: int = 0, template: str = "{word}, {text}"
) -> Inversion:
    """A random one."""
    torch.manual_seed(seed)
    config = InversionConfig(feature, 2 * feature, word, normalized=normalized, template=template)
    return Inversion(config, build_phi(config), f"random {seed}")


def published_phi(file: Path, word: np.ndarray | None = None, feature: int = DIM, width: int = WIDTH) -> Path:
    """A state dict under the name of its class, as SEARLE saves it; it may give one word whatever it reads."""
    torch.manual_seed(1)
    phi = build_phi(InversionConfig(feature, 4 * feature, width if word is None else len(word)), dropout=0.5)
    if word is not None:
        with torch.no_grad():
            phi.layers[6].weight.zero_()
            phi.layers[6].bias.copy_(torch.from_numpy(word))
    torch.save({"epoch": 3, "Phi": phi.state_dict()}, file)
    return file


def pictures(count: int, size: int = 20) -> list[Image.Image]:
    """Pictures of noise."""
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (size + number, 30, 3), np.uint8)) for number in range(count)]


@cache
def clip_vocabulary() -> tuple[dict[str, int], list[str]]:
    """CLIP's own tokens and merges, as `vocab.json` and `merges.txt` have them, from open_clip's copy."""
    native = open_clip.tokenizer.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(token, token): number for token, number in native.encoder.items()}
    return vocabulary, [" ".join(pair) for pair in native.bpe_ranks]
