"""What `train clip` makes: the recipe's fields, the open_clip model it describes, its vectors, its folder.

What this module does not know: losses, steps, corpora.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.files import atomic_path, atomic_write

if TYPE_CHECKING:
    from torch import Tensor

PREPROCESS = {
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "longest",
    "fill_color": 255,
}  # fmt: skip


@dataclass(frozen=True)
class ClipRecipe:
    """Everything a run depends on, besides the corpus.

    Attributes:
        vision: open_clip's `vision_cfg`.
        text: open_clip's `text_cfg`; `vocab_size` and `context_length` also shape the tokenizer.
        dim: Dimension of the joint space.
        templates: Caption template to its share; see `Templates`.
        values: Field to raw value to the words said for it.
        split_field: The field that names a record's part, or None to train on all.
        train_part: The part trained on.
        validation_part: The part that progress is measured on.
        steps: Optimiser steps of the first stage.
        text_steps: Steps of the second; 0 trains without a teacher.
        batch: Images in a step.
        words: Words in a step of the second stage.
        teacher_contrast: Weight of the contrast with the teacher's captions.
        distillation: Weight of the distillation.
        softness: Temperature of the teacher's cosines when it compares a word with the names.
        peak: AdamW's largest learning rate.
        text_peak: The same in the second stage.
        weight_decay: AdamW's decay, on matrices alone.
        warmup: Steps of linear warm-up.
        average: Decay of the moving average of the weights, which is what is evaluated and kept.
        bf16: Autocast to bfloat16 (pays on processors and GPUs with bf16 dot products).
        seed: Of everything random.
        evaluate_every: Steps between evaluations and checkpoints.
        device: `cpu` or `cuda`.
    """

    vision: Mapping[str, Any] = field(
        default_factory=lambda: {
            "image_size": 64,
            "patch_size": 8,
            "width": 256,
            "layers": 6,
            "head_width": 64,
        }
    )
    text: Mapping[str, Any] = field(
        default_factory=lambda: {
            "context_length": 32,
            "vocab_size": 8192,
            "width": 256,
            "heads": 4,
            "layers": 4,
        }
    )
    dim: int = 256
    templates: Mapping[str, float] = field(default_factory=lambda: {"{text}": 1.0})
    values: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    split_field: str | None = None
    train_part: str = "train"
    validation_part: str = "validation"
    steps: int = 5000
    text_steps: int = 0
    batch: int = 256
    words: int = 512
    teacher_contrast: float = 0.5
    distillation: float = 1.0
    softness: float = 0.04
    peak: float = 1e-3
    text_peak: float = 5e-4
    weight_decay: float = 0.1
    warmup: int = 200
    average: float = 0.998
    bf16: bool = False
    seed: int = 0
    evaluate_every: int = 250
    device: str = "cpu"


def build(recipe: ClipRecipe) -> Any:
    """A freshly initialised open_clip model; open_clip's own class, so that its folder loads anywhere."""
    from open_clip.model import CustomTextCLIP

    return CustomTextCLIP(recipe.dim, dict(recipe.vision), dict(recipe.text))


def encode_pixels(model: Any, pixels: npt.NDArray[np.uint8], device: Any, batch: int = 256) -> npt.NDArray[np.float32]:
    """Unit image vectors (n, dim) of (n, size, size, 3) uint8 pixels."""
    import torch

    model.eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(pixels), batch):
            images = torch.from_numpy(pixels[start : start + batch]).to(device).permute(0, 3, 1, 2).float()
            rows.append(model.encode_image(images.div_(127.5).sub_(1), normalize=True).float().cpu().numpy())
    return np.concatenate(rows)


def encode_texts(model: Any, tokens: Tensor, device: Any, batch: int = 512) -> npt.NDArray[np.float32]:
    """Unit text vectors (n, dim) of (n, context) token ids."""
    import torch

    model.eval()
    with torch.inference_mode():
        return np.concatenate([
            encode_tokens(model, tokens[start : start + batch].to(device)).float().cpu().numpy()
            for start in range(0, len(tokens), batch)
        ])  # fmt: skip


def export(model: Any, recipe: ClipRecipe, tokenizer: Path, folder: Path) -> None:
    """Write an open_clip folder in half precision; the weights come last, so a folder that has them is whole."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(tokenizer.iterdir()):
        atomic_write(folder / file.name, file.read_bytes())
    config = {
        "model_cfg": {
            "embed_dim": recipe.dim,
            "vision_cfg": dict(recipe.vision),
            "text_cfg": {**recipe.text, "hf_tokenizer_name": "."},
            "custom_text": True,
        },
        "preprocess_cfg": PREPROCESS,
    }
    atomic_write(folder / "open_clip_config.json", json.dumps(config, indent=2).encode() + b"\n")
    halved = {
        name: (value.to(torch.float16) if value.dtype.is_floating_point else value).contiguous().cpu().clone()
        for name, value in model.state_dict().items()
    }
    with atomic_path(folder / "open_clip_model.safetensors") as temporary:
        save_file(halved, temporary)


def encode_tokens(model: Any, tokens: Tensor) -> Tensor:
    """`model.encode_text` on unit rows, without the padding after the longest text where that is possible.

    In open_clip's own text tower of a model with two separate towers, attention is causal, so that padding changes
    nothing and costs time. It adds its whole mask whatever the length, so the mask is cut to the length meanwhile.
    """
    mask = getattr(getattr(model, "text", None), "attn_mask", None)
    if mask is None:
        whole: Tensor = model.encode_text(tokens, normalize=True)
        return whole
    length = int((tokens != 0).sum(1).max())
    model.text.attn_mask = mask[:length, :length]
    try:
        vectors: Tensor = model.encode_text(tokens[:, :length], normalize=True)
    finally:
        model.text.attn_mask = mask
    return vectors
