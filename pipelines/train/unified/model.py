"""The model of `train unified`: its settings, a new model or a checkpoint to start from, and the resulting folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.embed.mllm.embedder import image_tokens
from indexer.embed.mllm.images import PREPROCESSOR_FILE, ImageShaper, preprocessor_config
from indexer.embed.mllm.loading import adapted_base, find_checkpoint, load_model
from indexer.embed.mllm.prompt import PromptWriter, load_tokenizer
from indexer.embed.mllm.spec import SPEC_FILE, MllmName, MllmSpec
from indexer.embed.tokenizer_file import FILE as TOKENIZER_FILE
from indexer.errors import CallError, MissingExtraError
from indexer.files.atomic import atomic_path, atomic_write
from indexer.types import HelpfulEnum
from pipelines.train.common.contrast import ContrastRecipe
from pipelines.train.common.tokenizer import compact, train_qwen_tokenizer

ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The layers of the language model that a LoRA adapts."""


class Attention(HelpfulEnum):
    """transformers' implementations; on a CPU in bfloat16, the plain one backpropagates faster for short prompts."""

    SDPA = "sdpa"
    EAGER = "eager"
    FLASH = "flash_attention_2"


@dataclass(frozen=True)
class UnifiedRecipe(ContrastRecipe):
    """Everything a run depends on besides the corpus: these fields, and those of `ContrastRecipe`.

    Attributes:
        start: A checkpoint to start from, as written after `mllm:`; it keeps its own spec. None for a new model.
        lora_rank: Rank of a LoRA for the checkpoint's language model; 0 trains all weights.
        text: For a new model: transformers' `text_config`.
        vision: For a new model: transformers' `vision_config`.
        vocabulary: For a new model: its tokens, including the 256 bytes.
        image_pixels: For a new model: the area of its images.
        template: For a new model: its prompt; see `MllmSpec`.
        query_instruction: For a new model: the default instruction of queries.
        fused_instruction: The same for queries with both parts.
        document_instruction: The instruction of documents.
        max_tokens: For a new model: tokens of an item.
        instructions: By task, instructions used in place of the default.
        told: Share of queries that get one of these.
        synthesised: A file of records that `underdrawing synthesize` made from the corpus, as additional training data.
        synthesised_share: Their share of a batch; None for 0.1.
        looks: For a query with both parts, add another image of the same thing as its answer, as a wrong answer: the
            artist distinguishes them.
        likeness: An embedder whose vectors decide which of several images is meant; None to compare small copies.
        steps: Optimizer steps with the batch's own negatives.
        hard_steps: Optimizer steps with mined negatives, too: the second stage.
        hard: Mined negatives per pair.
        mine_depth: Number of best wrong answers that they are drawn from.
        hard_peak: Peak learning rate of the second stage.
        average: Decay of the moving average of the weights, which is evaluated and saved.
        augment: Whether to shift, rotate and relight the images slightly.
        attention: One of `Attention`.
    """

    start: str | None = None
    lora_rank: int = 0
    text: Mapping[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 160, "intermediate_size": 416, "num_hidden_layers": 3, "num_attention_heads": 4,
            "num_key_value_heads": 2, "initializer_range": 0.06,
        }
    )  # fmt: skip
    vision: Mapping[str, Any] = field(
        default_factory=lambda: {
            "embed_dim": 128, "depth": 4, "num_heads": 4, "mlp_ratio": 3, "patch_size": 8, "spatial_merge_size": 2,
            "temporal_patch_size": 1, "initializer_range": 0.06,
        }
    )  # fmt: skip
    vocabulary: int = 2048
    image_pixels: int = 64 * 64
    template: str = "<|im_start|>{instruction}<|im_end|>{image}{text}<|endoftext|>"
    query_instruction: str = "find"
    fused_instruction: str | None = "find it changed"
    document_instruction: str = ""
    max_tokens: int = 96
    instructions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    told: float = 0.3
    synthesised: str | None = None
    synthesised_share: float | None = None
    looks: bool = False
    likeness: str | None = None
    steps: int = 5000
    hard_steps: int = 1000
    hard: int = 1
    mine_depth: int = 20
    hard_peak: float = 3e-4
    average: float = 0.998
    augment: bool = True
    attention: str = "sdpa"


@dataclass(frozen=True)
class Unified:
    """A model in training, with everything that prepares its input.

    Attributes:
        model: The transformers model, without a head; wrapped in a LoRA if one is trained.
        spec: How items become vectors.
        writer: Writes its prompts.
        shaper: Prepares its images.
        source: The folder of its tokenizer and image preprocessing.
    """

    model: Any
    spec: MllmSpec
    writer: PromptWriter
    shaper: ImageShaper
    source: Path


def start_model(recipe: UnifiedRecipe, folder: Path, texts: Iterable[str]) -> Unified:
    """A new model, or the checkpoint to start from.

    Args:
        recipe: The settings.
        folder: Receives a new model's tokenizer and other input files.
        texts: What a new tokenizer learns from.

    Raises:
        CallError: A LoRA of a new model, or of a LoRA.
        ModelError: The checkpoint cannot be used.
        MissingExtraError: peft is not installed, for a LoRA.
    """
    import torch

    if recipe.start is None:
        if recipe.lora_rank:
            raise CallError("A LoRA adapts an existing model; this run starts a new one.", "Set `start`.")
        return _new(recipe, folder, texts)
    name = MllmName.parse(recipe.start)
    source = find_checkpoint(name.source, name.revision)
    if adapted_base(source) is not None:
        raise CallError(f"{recipe.start} is a LoRA itself.", "Start from the model that it belongs to.")
    spec = name.spec(source)
    model = load_model(source, torch.float32)
    shaper = ImageShaper.from_folder(source, spec, model.config.vision_config)
    writer = PromptWriter(load_tokenizer(source), spec, image_tokens(model.config), shaper.merge)
    if recipe.lora_rank:
        model = _with_lora(model, recipe)
    return Unified(model, spec, writer, shaper, source)


def _new(recipe: UnifiedRecipe, folder: Path, texts: Iterable[str]) -> Unified:
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLModel

    spec = MllmSpec(
        template=recipe.template,
        query_instruction=recipe.query_instruction,
        fused_instruction=recipe.fused_instruction,
        document_instruction=recipe.document_instruction,
        resizes=((recipe.image_pixels, recipe.image_pixels),),
        max_tokens=recipe.max_tokens,
    )
    if not (folder / TOKENIZER_FILE).exists():
        train_qwen_tokenizer(texts, recipe.vocabulary, folder)
    tokenizer = load_tokenizer(folder)
    ids = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()}
    text = {**recipe.text, "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 4096}
    text |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": ids["<|endoftext|>"]}
    text["rope_parameters"] = _rope(text["hidden_size"] // text["num_attention_heads"])
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={**recipe.vision, "hidden_size": text["hidden_size"], "in_channels": 3},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    vision = config.vision_config
    prepared = preprocessor_config(
        vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size, *spec.resizes[-1]
    )
    atomic_write(folder / PREPROCESSOR_FILE, _json(prepared))
    torch.manual_seed(recipe.seed)
    model = Qwen2VLModel(config)
    shaper = ImageShaper.from_folder(folder, spec, vision)
    return Unified(model, spec, PromptWriter(tokenizer, spec, image_tokens(config), shaper.merge), shaper, folder)


def _rope(head: int) -> dict[str, Any]:
    """Pairs of numbers of an attention head for time, rows and columns, in Qwen2-VL's proportions."""
    half = head // 2
    time = half // 4
    rows = (half - time) // 2
    return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [time, rows, half - time - rows]}


def _with_lora(model: Any, recipe: UnifiedRecipe) -> Any:
    import warnings

    import torch

    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "mllm", "Training a LoRA") from None
    layers = [
        name
        for name, _ in model.named_modules()
        if name.startswith("language_model.") and name.rpartition(".")[2] in ADAPTED
    ]
    torch.manual_seed(recipe.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        return peft.get_peft_model(
            model, peft.LoraConfig(r=recipe.lora_rank, lora_alpha=2 * recipe.lora_rank, target_modules=layers)
        )


def normalised(images: Any, shaper: ImageShaper) -> Any:
    """Images (n, 3, height, width) from [-1, 1], as `augment` gives them, to the model's own scale."""
    import torch

    mean, std = (torch.tensor(each, device=images.device)[:, None, None] for each in (shaper.mean, shaper.std))
    return ((images + 1) / 2 - mean) / std


def export(unified: Unified, recipe: UnifiedRecipe, folder: Path) -> None:
    """Write a folder that `mllm:FOLDER` loads, in half precision; weights last, so a folder with them is complete.

    A run that trained a LoRA saves the LoRA and the name of its checkpoint.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / SPEC_FILE, _json(unified.spec.to_json()))
    if recipe.lora_rank:
        _export_lora(unified.model, str(recipe.start), folder)
        return
    atomic_write(folder / TOKENIZER_FILE, compact(unified.source / TOKENIZER_FILE))
    for name in ("tokenizer_config.json", PREPROCESSOR_FILE):
        if (unified.source / name).exists():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(unified.source / name, temporary)
    config = json.loads(unified.model.config.to_json_string())
    config |= {"architectures": [type(unified.model).__name__], "dtype": "float16"}
    atomic_write(folder / "config.json", _json(config))
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(_halved(unified.model.state_dict()), temporary, metadata={"format": "pt"})


def _export_lora(model: Any, start: str, folder: Path) -> None:
    import peft
    from safetensors.torch import save_file

    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": MllmName.parse(start).source, "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    atomic_write(folder / "adapter_config.json", _json(plain))
    with atomic_path(folder / "adapter_model.safetensors") as temporary:
        save_file(_halved(peft.get_peft_model_state_dict(model, save_embedding_layers=False)), temporary)


def _halved(state: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    return {
        name: (value.to(torch.float16) if value.dtype.is_floating_point else value).contiguous().cpu().clone()
        for name, value in state.items()
    }


def _json(values: Any) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False).encode() + b"\n"


def thumbnails(pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Unit rows that are similar for images that look alike: 16 x 16 colors, minus their mean."""
    from PIL import Image

    small = [np.asarray(Image.fromarray(each).resize((16, 16)), np.float32).ravel() for each in pictures]
    rows = np.stack(small)
    rows -= rows.mean(0)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)
