"""The model of `train generator`: a `StableDiffusionPipeline` around a CLIP model's own text encoder.

text_encoder   the text encoder of an open_clip model, as transformers' `CLIPTextModel`, frozen
vae            `AutoencoderTiny`, trained first
unet           `UNet2DConditionModel`, trained by flow matching
scheduler      `DPMSolverMultistepScheduler` with flow sigmas, so that the stock pipeline integrates the flow
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.bundled import generator_folder
from indexer.embed.base import TrainableEncoder
from indexer.embed.textual_inversion import Inversion
from indexer.errors import CallError
from indexer.files.atomic import atomic_write
from pipelines.train.common.recipe import CorpusRecipe
from pipelines.train.common.tokenizer import compact
from retrieval.providers.generation.spec import SPEC, GeneratorSpec, WordSource

if TYPE_CHECKING:
    from torch import Tensor

TIMESTEPS = 1000


@dataclass(frozen=True)
class GeneratorRecipe(CorpusRecipe):
    """Everything a generator's run depends on besides the corpus: these fields, and those of `CorpusRecipe`.

    Attributes:
        autoencoder: Settings of `AutoencoderRecipe`.
        unet: The configuration of diffusers' `UNet2DConditionModel`, without sample size, channels and text width.
        model: The embedder whose text encoder is used and whose image features become pseudo-words; a CLIP model.
        inversion: Its inversion, from which the generator's own is trained.
        start: A generator's folder, or `bundled:NAME`, whose autoencoder is used and whose denoiser is trained further;
            `autoencoder` and `unet` are ignored then. None for random initialization.
        size: Image side in pixels.
        context: Tokens of a prompt.
        worded: Share of prompts with the image's own pseudo-word, with or without words of its caption.
        different: Share of prompts with another image's pseudo-word and what its caption lacks; see `Differences`.
        unconditional: Share of empty prompts, for classifier-free guidance.
        sentences: Texts around a pseudo-word and the change; the first is used for generating.
        train_inversion: Whether the inversion is trained jointly, starting from the given one.
        feature_noise: Standard deviation, over the whole vector, of noise on the image's feature.
        average: Decay of the moving average of the weights, which is evaluated and saved.
        time_mean: Mean of the logit-normal noise levels; above 0 favors noise.
        shifts: Limit of pixels by which an image is shifted for augmentation.
        draw_steps: Default number of steps for generating.
        draw_guidance: Default guidance scale for generating.
        bf16: Autocast to bfloat16 (pays on processors and GPUs with bf16 dot products).
    """

    autoencoder: Mapping[str, Any] = field(default_factory=dict)
    unet: Mapping[str, Any] = field(
        default_factory=lambda: {
            "block_out_channels": [48, 96, 144],
            "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
            "layers_per_block": 1,
            "attention_head_dim": 4,
            "norm_num_groups": 16,
        }
    )
    model: str = "bundled:emoji-clip"
    inversion: str = "bundled:emoji-inversion"
    start: str | None = None
    size: int = 64
    context: int = 24
    worded: float = 0.4
    different: float = 0.4
    unconditional: float = 0.1
    sentences: Sequence[str] = ("{word}, {text}",)
    train_inversion: bool = True
    feature_noise: float = 0.1
    steps: int = 20_000
    batch: int = 128
    warmup: int = 200
    average: float = 0.999
    time_mean: float = 0.3
    shifts: int = 2
    draw_steps: int = 8
    draw_guidance: float = 1.0
    bf16: bool = False
    evaluate_every: int = 500


def text_encoder_of(embedder: TrainableEncoder, context: int) -> tuple[Any, Any]:
    """A CLIP model's text encoder and tokenizer as transformers has them, with the same hidden states.

    Raises:
        CallError: The encoder is not CLIP's kind (pre-norm, causal, pooled at the end token).
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    source = getattr(embedder.model, "text", embedder.model)
    tokenizer = getattr(embedder.tokenizer, "tokenizer", None)
    if tokenizer is None or getattr(source, "pool_type", "argmax") != "argmax":
        raise CallError(
            f"The text encoder of {embedder.name} cannot be written as transformers' CLIPTextModel.",
            "Use an open_clip model with a Hugging Face tokenizer and a causal text encoder.",
        )
    tokenizer.model_max_length = context
    state = {name: value.detach().float() for name, value in source.state_dict().items()}
    layers = len(source.transformer.resblocks)
    width = state["positional_embedding"].shape[1]
    config = CLIPTextConfig(
        vocab_size=len(state["token_embedding.weight"]),
        hidden_size=width,
        intermediate_size=len(state["transformer.resblocks.0.mlp.c_fc.weight"]),
        num_hidden_layers=layers,
        num_attention_heads=source.transformer.resblocks[0].attn.num_heads,
        max_position_embeddings=len(state["positional_embedding"]),
        hidden_act="quick_gelu" if "QuickGELU" in type(source.transformer.resblocks[0].mlp.gelu).__name__ else "gelu",
        projection_dim=embedder.dim,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModel(config).eval().requires_grad_(False)
    named = {
        "embeddings.token_embedding.weight": state["token_embedding.weight"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
        "final_layer_norm.weight": state["ln_final.weight"],
        "final_layer_norm.bias": state["ln_final.bias"],
    }
    for layer in range(layers):
        named |= _layer(state, f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}.")
    # Releases of transformers before 5 nest the encoder one level deeper.
    deeper = "text_model." if any(key.startswith("text_model.") for key in encoder.state_dict()) else ""
    encoder.load_state_dict({deeper + key: value for key, value in named.items()})
    return encoder, tokenizer


def _layer(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        for old, new in (
            ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
            ("attn.out_proj", "self_attn.out_proj"),
        ):  # fmt: skip
            named[f"{ours}{new}.{kind}"] = state[f"{theirs}{old}.{kind}"]
        query, key, value = state[f"{theirs}attn.in_proj_{kind}"].chunk(3)
        named |= {
            f"{ours}self_attn.{name}.{kind}": part
            for name, part in (("q_proj", query), ("k_proj", key), ("v_proj", value))
        }
    return named


def build_unet(recipe: GeneratorRecipe, channels: int, side: int, width: int) -> Any:
    """The denoiser, randomly initialized or from `recipe.start`.

    Args:
        recipe: Its configuration.
        channels: Channels of the latents.
        side: Side of the latents.
        width: Length of the text encoder's hidden states.

    Raises:
        CallError: The denoiser to start from reads hidden states of another length.
    """
    import diffusers

    kind: Any = diffusers.UNet2DConditionModel
    if recipe.start is None:
        return kind(
            sample_size=side, in_channels=channels, out_channels=channels, cross_attention_dim=width, **recipe.unet
        )
    unet = kind.from_pretrained(start_folder(recipe.start) / "unet").float()
    if unet.config.cross_attention_dim != width:
        raise CallError(
            f"The denoiser of {recipe.start} reads hidden states of {unet.config.cross_attention_dim} numbers; "
            f"those of {recipe.model} have {width}.",
            "Start from a generator that was trained for this model, or from none.",
        )
    return unet


def start_folder(start: str) -> Path:
    """The folder of a generator to start from.

    Raises:
        CallError: It does not exist.
        UnknownNameError: No bundled generator of that name.
    """
    folder = generator_folder(start.removeprefix("bundled:")) if start.startswith("bundled:") else Path(start)
    if not (folder / "model_index.json").exists():
        raise CallError(
            f"There is no generator at {start} to start from.", "Name a folder that `train generator` made."
        )
    return folder


def build_pipeline(encoder: Any, tokenizer: Any, autoencoder: Any, unet: Any) -> Any:
    """The stock pipeline, with a scheduler that integrates a flow."""
    import diffusers

    scheduler_kind: Any = diffusers.DPMSolverMultistepScheduler
    scheduler = scheduler_kind(
        num_train_timesteps=TIMESTEPS,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        final_sigmas_type="zero",
        steps_offset=1,  # a flow does not read it, and the pipeline warns of another
    )
    kind: Any = diffusers.StableDiffusionPipeline
    pipeline = kind(
        vae=autoencoder, text_encoder=encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def spec_of(recipe: GeneratorRecipe) -> GeneratorSpec:
    """The description of generation in the finished folder."""
    return GeneratorSpec(
        (WordSource(recipe.model, "inversion"),),
        template=recipe.sentences[0],
        steps=recipe.draw_steps,
        guidance=recipe.draw_guidance,
    )


def export(pipeline: Any, inversion: Inversion, recipe: GeneratorRecipe, folder: Path) -> None:
    """Write the pipeline in half precision, its inversion and its spec."""
    import copy

    import torch

    halved = copy.deepcopy(pipeline).to(dtype=torch.float16)
    for part in halved.components.values():
        # The paths that parts were loaded from are private to this machine.
        if hasattr(part, "register_to_config") and part.config.get("_name_or_path"):
            part.register_to_config(_name_or_path="")
    halved.save_pretrained(folder, safe_serialization=True)
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    atomic_write(tokenizer, compact(tokenizer))
    inversion.save(folder / "inversion")
    atomic_write(folder / SPEC, json.dumps(asdict(spec_of(recipe)), indent=2).encode() + b"\n")
