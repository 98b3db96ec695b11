"""The model of `train clip`: the recipe's fields, the open_clip model they describe, its vectors, its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.errors import ModelError
from indexer.files.atomic import atomic_path, atomic_write
from pipelines.train.common.losses import encode_tokens
from pipelines.train.common.recipe import CorpusRecipe

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "open_clip_model.safetensors"
PREPROCESS = {
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "longest",
    "fill_color": 255,
}  # fmt: skip


@dataclass(frozen=True)
class ClipRecipe(CorpusRecipe):
    """Everything a run depends on besides the corpus: these fields, and those of `CorpusRecipe`.

    Attributes:
        vision: open_clip's `vision_cfg`.
        text: open_clip's `text_cfg`; `vocab_size` and `context_length` also shape the tokenizer.
        dim: Dimension of the joint space.
        text_steps: Steps of the second stage, which needs a teacher or sentences.
        words: Words in a step of the second stage.
        teacher_contrast: Weight of the contrast with the teacher's captions.
        distillation: Weight of the distillation; 0 trains without a teacher.
        softness: Temperature of the teacher's cosines between a word and the names.
        spoil: Share of images that are blurred, that are posterized, and that have a patch covered.
        kinship: Share of the contrast's targets given to captions that the teacher finds similar, 0 to 1.
        families: Share of a batch made of families with similar texts, 0 to 1; see `Batches`.
        start: An open_clip folder that `train clip` made, or `bundled:NAME`, whose weights and tokenizer training
            starts from. None for random initialization.
        sentences: Texts around a pseudo-word and the change, for the second stage; each has `{word}` and `{text}`.
            Without any, the encoder does not learn to read pseudo-words.
        composed: Weight of the composed queries.
        tag_share: Share of composed queries whose text is a keyword or property of the answer.
        identity: Share of composed queries that are a pseudo-word alone, which finds its own image.
        image_share: Weight of the reference's own vector beside the sentence's, in half of the composed queries.
        text_peak: Peak learning rate of the second stage.
        average: Decay of the moving average of the weights, which is evaluated and saved.
        bf16: Autocast to bfloat16 (pays on processors and GPUs with bf16 dot products).
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
    steps: int = 5000
    text_steps: int = 0
    words: int = 512
    teacher_contrast: float = 0.5
    distillation: float = 1.0
    softness: float = 0.04
    spoil: float = 0.0
    kinship: float = 0.0
    families: float = 0.0
    start: str | None = None
    sentences: Sequence[str] = ()
    composed: float = 1.0
    tag_share: float = 0.25
    identity: float = 0.25
    image_share: float = 0.4
    text_peak: float = 5e-4
    weight_decay: float = 0.1
    warmup: int = 200
    average: float = 0.998
    bf16: bool = False

    @property
    def taught(self) -> bool:
        """Whether a teacher is used."""
        return self.text_steps > 0 and self.distillation > 0


def build(recipe: ClipRecipe) -> Any:
    """A randomly initialized open_clip model; open_clip's own class, so that its folder loads anywhere."""
    from open_clip.model import CustomTextCLIP

    return CustomTextCLIP(recipe.dim, dict(recipe.vision), dict(recipe.text))


def start_folder(start: str) -> Path:
    """The open_clip folder to start from.

    Raises:
        ModelError: It does not exist.
    """
    from indexer.bundled import model_folder

    folder = model_folder(start.removeprefix("bundled:")) if start.startswith("bundled:") else Path(start)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"There is no model at {start} to start from.", "Name a folder that `train clip` made.")
    return folder


def load_start(model: Any, start: str) -> None:
    """Load the weights of another model of the same shape.

    Raises:
        ModelError: It does not exist, or has another shape.
    """
    from safetensors.torch import load_file

    weights = start_folder(start) / WEIGHTS
    try:
        model.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    except RuntimeError as error:
        raise ModelError(
            f"{start} has another shape than the recipe's `vision`, `text` and `dim`: {str(error).splitlines()[-1]}"
        ) from error


def copy_start(start: str, tokenizer: Path) -> None:
    """Copy the tokenizer of the model that training starts from."""
    tokenizer.mkdir(parents=True, exist_ok=True)
    # The configuration comes last: a folder that has it is complete.
    for name in ("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"):
        atomic_write(tokenizer / name, (start_folder(start) / name).read_bytes())


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
    """Write an open_clip folder in half precision; the weights come last, so a folder that has them is complete."""
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
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(halved, temporary)
