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

from indexer.embed.textual_inversion import Inversion, InversionConfig, build_phi
from pipelines.train.clip.model import PREPROCESS, ClipRecipe, build, export
from pipelines.train.common.tokenizer import train_tokenizer

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
        model.logit_scale.fill_(np.log(100))  # as trained ones have it
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


WIDTH_2 = 40
"""Of the second text encoder."""


def _tokenizer() -> object:
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocabulary, [tuple(pair.split()) for pair in merges], model_max_length=77)


def _text_config(width: int) -> object:
    from transformers import CLIPTextConfig

    # The token ids are those of the published files, right or wrong.
    return CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        hidden_act="quick_gelu", projection_dim=DIM, bos_token_id=0, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip


def _unet(width: int, **more: object) -> object:
    import diffusers

    return diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=width, attention_head_dim=2, **more,
    )  # fmt: skip


def _vae() -> object:
    import diffusers

    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tiny_pipeline(layout: str) -> object:
    """A pipeline as one of the published: `sd15`, `sdxl`, `turbo` or `lcm`. Pictures are of 16 pixels."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    text, vae, tokenizer = CLIPTextModel(_text_config(WIDTH)), _vae(), _tokenizer()
    safety = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    match layout:
        case "sd15":
            scheduler = diffusers.PNDMScheduler(**NOISE, skip_prk_steps=True, steps_offset=1)
            made = diffusers.StableDiffusionPipeline(vae, text, tokenizer, _unet(WIDTH), scheduler, **safety)
        case "lcm":
            scheduler = diffusers.LCMScheduler(**NOISE)
            distilled = _unet(WIDTH, time_cond_proj_dim=12)
            made = diffusers.LatentConsistencyModelPipeline(vae, text, tokenizer, distilled, scheduler, **safety)
        case "sdxl" | "turbo":
            wide = _unet(
                WIDTH + WIDTH_2, addition_embed_type="text_time", addition_time_embed_dim=4,
                projection_class_embeddings_input_dim=6 * 4 + DIM,
            )  # fmt: skip
            kind = diffusers.EulerDiscreteScheduler if layout == "sdxl" else diffusers.EulerAncestralDiscreteScheduler
            second = _tokenizer()
            second.pad_token = "!"
            made = diffusers.StableDiffusionXLPipeline(
                vae, text, CLIPTextModelWithProjection(_text_config(WIDTH_2)), tokenizer, second, wide,
                kind(**NOISE, timestep_spacing="trailing"),
            )  # fmt: skip
    with torch.no_grad():  # texts should tell in the pictures
        for name in ("text_encoder", "text_encoder_2"):
            if getattr(made, name, None) is not None:
                getattr(made, name).get_input_embeddings().weight.mul_(20)
        for name, module in made.unet.named_modules():
            if name.endswith(("attn2.to_q", "attn2.to_v")):
                module.weight.mul_(10 if name.endswith("q") else 300)
    return made


def save_generator(folder: Path, layout: str, word: str | None = None, **spec: object) -> Path:
    """A pipeline with inversions and a spec; with a word, the inversions give just that, whatever they read."""
    pipeline = tiny_pipeline(layout)
    pipeline.save_pretrained(folder)
    encoders = [pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)]
    words = []
    for place, encoder in enumerate(each for each in encoders if each is not None):
        table = encoder.get_input_embeddings().weight
        own = None
        if word is not None:
            [number] = pipeline.tokenizer.encode(word, add_special_tokens=False)
            own = table[number].detach().numpy()
        published_phi(folder / f"phi_{place}.pt", own, width=table.shape[1])
        words.append({"model": f"open_clip:tower-{place}", "inversion": f"phi_{place}.pt"})
    (folder / "underdrawing.json").write_text(json.dumps({"words": words, "steps": 2, "guidance": 3.0} | spec))
    return folder
