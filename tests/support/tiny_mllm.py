"""Qwen-VL models of a few thousand random weights, in each layout in which real ones are published."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file

from indexer.embed.mllm.spec import SPEC_FILE, MllmSpec
from pipelines.train.common.tokenizer import train_qwen_tokenizer

CORPUS = [
    "You are a helpful assistant.", "Represent the user's input.", "system user assistant", "a red square",
    "a blue circle", "two green stars at night", "find the picture that is changed like that", "\n \n\n",
]  # fmt: skip
VOCABULARY = 420
WIDTH = 32
SPEC = MllmSpec(
    template="<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{image}{text}<|im_end|>\n"
    "<|im_start|>assistant\n<|endoftext|>",
    query_instruction="Find.",
    document_instruction="Represent.",
    resizes=((16 * 16, 64 * 64),),
    max_tokens=96,
)
LAYOUTS = ("headless", "first", "flat", "nested")
"""As the model without a head is saved; as Qwen2-VL was released, in a nested or a flat configuration; as it is now."""


@cache
def _tokenizer_files(folder: Path) -> dict[str, int]:
    train_qwen_tokenizer(CORPUS, VOCABULARY, folder)
    found = json.loads((folder / "tokenizer.json").read_text())
    return {each["content"]: each["id"] for each in found["added_tokens"]}


def tiny_model(kind: str, ids: dict[str, int], seed: int = 0):
    """transformers' own class with its head, and large enough weights that all tells in the vectors."""
    import transformers

    text = {
        "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": ids["<|endoftext|>"],
    }  # fmt: skip
    common = {"patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 2, "depth": 2}
    match kind:
        case "qwen2_vl":
            vision = {**common, "embed_dim": 16, "hidden_size": WIDTH, "mlp_ratio": 2}
            names = ("Qwen2VLConfig", "Qwen2VLForConditionalGeneration")
        case "qwen2_5_vl":
            vision = {
                **common, "hidden_size": 16, "out_hidden_size": WIDTH, "intermediate_size": 24, "window_size": 32,
                "fullatt_block_indexes": [1], "tokens_per_second": 2,
            }  # fmt: skip
            names = ("Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration")
        case "qwen3_vl":
            text["head_dim"] = 8
            vision = {
                **common, "hidden_size": 16, "out_hidden_size": WIDTH, "intermediate_size": 24,
                "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
            }  # fmt: skip
            names = ("Qwen3VLConfig", "Qwen3VLForConditionalGeneration")
    torch.manual_seed(seed)
    config = getattr(transformers, names[0])(
        text_config=text, vision_config=vision, image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    model = getattr(transformers, names[1])(config).eval()
    with torch.no_grad():  # the library's own start is so small that all items come out alike
        for name, value in model.named_parameters():
            if value.ndim >= 2:
                value.normal_(0, 0.3 if "layers" in name or "visual" in name else 1.0)
    return model


def tiny_mllm(
    folder: Path,
    kind: str = "qwen2_vl",
    layout: str = "nested",
    *,
    spec: MllmSpec | None = SPEC,
    shards: int = 1,
    closing: bool = False,
    seed: int = 0,
) -> Path:
    """A checkpoint's folder.

    Args:
        folder: Where to.
        kind: Its `model_type`.
        layout: One of `LAYOUTS`.
        spec: What is written beside it, if anything.
        shards: Files of weights.
        closing: Whether the tokenizer ends every text with a token of its own.
        seed: Of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = _tokenizer_files(folder.parent / "tokenizer")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder.parent / "tokenizer" / file, folder)
    if closing:
        ends = json.loads((folder / "tokenizer.json").read_text())
        piece = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
        ends["post_processor"] = {
            "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, piece],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                "<|endoftext|>": {"id": "<|endoftext|>", "ids": [ids["<|endoftext|>"]], "tokens": ["<|endoftext|>"]}
            },
        }  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(ends))
    model = tiny_model(kind, ids, seed)
    config = json.loads(model.config.to_json_string())
    config["architectures"] = [type(model).__name__]
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    match layout:
        case "headless":
            weights = {name.removeprefix("model."): value for name, value in weights.items() if "lm_head" not in name}
        case "first" | "flat":
            weights = {
                name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): value
                for name, value in weights.items()
            }
    if layout == "flat":  # with remote code, which must not be run
        text = config.pop("text_config")
        rope = text.pop("rope_parameters")
        text |= {
            "rope_theta": rope["rope_theta"],
            "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        }
        text = {key: value for key, value in text.items() if key not in ("model_type", "dtype", "layer_types")}
        config = {**text, **config, "architectures": ["GmeQwen2VL"], "auto_map": {"AutoModel": "evil.GmeQwen2VL"}}
        (folder / "evil.py").write_text("raise SystemExit('remote code ran')")
    (folder / "config.json").write_text(json.dumps(config))
    _save(folder, weights, shards)
    mean = [0.5] * 3 if kind == "qwen3_vl" else [0.48145466, 0.4578275, 0.40821073]
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 8, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": mean, "image_std": mean, "image_processor_type": "Qwen2VLImageProcessor",
    }))  # fmt: skip
    if spec is not None:
        (folder / SPEC_FILE).write_text(json.dumps(spec.to_json()))
    return folder


def _save(folder: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    whole = {name: value.contiguous() for name, value in weights.items()}
    if shards == 1:
        save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(whole)
    where = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        own = names[number::shards]
        save_file({name: whole[name] for name in own}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
