"""`open_clip_config.json`, read with an allow-list: every key and value is checked, and nothing else reaches a loader.

open_clip passes parts of this file to other libraries: the arguments of a tokenizer, the hub id of a text encoder, the
name of a timm image encoder, which may be a URL. So a model is built only from what is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.embed.model_files import read_json
from indexer.errors import ModelError

CONFIG = "open_clip_config.json"
MOST = 1 << 20
"""Limit of any size in a model; a larger value only fills the memory."""
TIMM_NAME = re.compile(r"[a-z][a-z0-9_]{1,63}(\.[a-z0-9_]{1,63})?")
"""Names of timm's own architectures; URLs have colons and slashes."""

Check = Callable[[Any], bool]


@dataclass(frozen=True)
class TokenizerSpec:
    """How texts become tokens.

    Attributes:
        own: Whether the folder has its own tokenizer; otherwise it is CLIP's, which comes with open_clip.
        context: Tokens of a text.
        clean: Cleaning of a text: `whitespace`, `lower` or `canonicalize`; None for the tokenizer's default.
        strip_sep: Whether the end token becomes 0.
        clips: Whether the class token comes last, as in CLIPS.
    """

    own: bool
    context: int
    clean: str | None = None
    strip_sep: bool = False
    clips: bool = False


@dataclass(frozen=True)
class ClipConfig:
    """The checked content of a folder's configuration.

    Attributes:
        model: Arguments of open_clip's classes, without `custom_text`.
        custom_text: Whether the text encoder is a separate module.
        preprocess: open_clip's `preprocess_cfg` without `size`, as far as given.
        tokenizer: See `TokenizerSpec`.
    """

    model: Mapping[str, Any]
    custom_text: bool
    preprocess: Mapping[str, Any]
    tokenizer: TokenizerSpec

    @property
    def vision(self) -> Mapping[str, Any]:
        """The configuration of the image encoder."""
        found: Mapping[str, Any] = self.model["vision_cfg"]
        return found

    @property
    def text(self) -> Mapping[str, Any]:
        """The configuration of the text encoder."""
        found: Mapping[str, Any] = self.model["text_cfg"]
        return found


def _whole(least: int, most: int = MOST) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _number(least: float, most: float) -> Check:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _one_of(*names: Any) -> Check:
    return lambda value: value in names and type(value) in {type(name) for name in names}


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _pair(check: Check) -> Check:
    return lambda value: check(value) or (isinstance(value, list) and len(value) == 2 and all(map(check, value)))


def _list(check: Check, length: int) -> Check:
    return lambda value: isinstance(value, list) and len(value) == length and all(map(check, value))


def _object(checks: Mapping[str, Check]) -> Check:
    return lambda value: isinstance(value, dict) and all(key in checks and checks[key](value[key]) for key in value)


_yes_or_no: Check = _one_of(True, False)
_width, _layers, _side = _whole(1, 1 << 14), _whole(1, 256), _whole(1, 1 << 13)
_share = _number(0.0, 1.0)
_layer_scale = _or_none(_number(0.0, 10.0))
_act = _or_none(_object({"approximate": _one_of("none", "tanh")}))
_norm = _or_none(_object({"eps": _number(0.0, 1.0), "elementwise_affine": _yes_or_no, "bias": _yes_or_no}))
_BLOCK: Mapping[str, Check] = {
    "mlp_ratio": _number(0.01, 64.0),
    "ls_init_value": _layer_scale,
    "act_kwargs": _act,
    "norm_kwargs": _norm,
    "output_tokens": _yes_or_no,
    "final_ln_after_pool": _yes_or_no,
    "block_type": _or_none(_one_of("default", "custom")),
    **dict.fromkeys(
        ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"), _yes_or_no
    ),
}
VISION: Mapping[str, Check] = {
    **_BLOCK,
    "layers": lambda value: _layers(value) or _list(_layers, 4)(value),
    "width": _width,
    "head_width": _width,
    "patch_size": _or_none(_pair(_side)),
    "image_size": _pair(_side),
    "patch_dropout": _share,
    "attentional_pool": _one_of(True, False, "parallel", "cascade"),
    "attn_pooler_queries": _whole(1, 1 << 14),
    "attn_pooler_heads": _whole(1, 1 << 10),
    "no_ln_pre": _yes_or_no,
    "pos_embed_type": _one_of("learnable", "sin_cos_2d"),
    "pool_type": _one_of("tok", "avg", "none"),
    "timm_model_name": _or_none(lambda value: isinstance(value, str) and TIMM_NAME.fullmatch(value) is not None),
    "timm_model_pretrained": _yes_or_no,
    "timm_pool": _one_of("", "avg", "token", "map", "abs_attn", "rot_attn", "max", "avgmax", "catavgmax"),
    "timm_proj": _or_none(_one_of("", "linear", "mlp", "none")),
    "timm_proj_bias": _yes_or_no,
    "timm_drop": _share,
    "timm_drop_path": _or_none(_share),
}
TEXT: Mapping[str, Check] = {
    **_BLOCK,
    "context_length": _whole(3, 1 << 16),
    "vocab_size": _whole(1, 1 << 23),
    "width": _width,
    "heads": _whole(1, 1 << 10),
    "layers": _layers,
    "embed_cls": _yes_or_no,
    "pad_id": _whole(0, 1 << 23),
    "eos_id": _whole(0, 1 << 23),
    "no_causal_mask": _yes_or_no,
    "pool_type": _one_of("first", "last", "argmax", "eos", "none"),
    "proj_bias": _yes_or_no,
    "proj_type": _one_of("linear", "none"),
}
TOKENIZER: Mapping[str, Check] = {
    "clean": _one_of("whitespace", "lower", "canonicalize"),
    "strip_sep_token": _yes_or_no,
}
"""Keys of `tokenizer_kwargs` that open_clip's own tokenizers read. Others would go to transformers and are refused."""
TOP: Mapping[str, Check] = {
    "embed_dim": _width,
    "quick_gelu": _yes_or_no,
    "custom_text": _yes_or_no,
    "init_logit_scale": _number(-100.0, 100.0),
    "init_logit_bias": _or_none(_number(-1000.0, 1000.0)),
    "nonscalar_logit_scale": _yes_or_no,
    "output_dict": _yes_or_no,
}
PREPROCESS: Mapping[str, Check] = {
    "size": _pair(_side),
    "mode": _one_of("RGB"),
    "mean": _list(_number(-1000.0, 1000.0), 3),
    "std": _list(_number(1e-6, 1000.0), 3),
    "interpolation": _one_of("bicubic", "bilinear", "random"),
    "resize_mode": _one_of("shortest", "longest", "squash"),
    "fill_color": _whole(0, 255),
}
ELSEWHERE: Mapping[str, str] = {
    "hf_model_name": "Name the published model instead (open_clip:ARCHITECTURE/TAG); a folder has its own encoders.",
    "multimodal_cfg": "CoCa's decoder is not read; name the published model instead (open_clip:ARCHITECTURE/TAG).",
}
"""Keys that a folder may not use, and what to do instead."""


def read_config(folder: Path) -> ClipConfig:
    """The configuration of an open_clip folder.

    Raises:
        ModelError: It is missing or damaged, or has a key or value that is not one of open_clip's own.
    """
    file = folder / CONFIG
    whole = read_json(file, "configuration of an open_clip model")
    model = _part(file, whole, "model_cfg")
    vision, text = dict(_part(file, model, "vision_cfg")), dict(_part(file, model, "text_cfg"))
    rest = {key: value for key, value in model.items() if key not in ("vision_cfg", "text_cfg")}
    own, mode = text.pop("hf_tokenizer_name", None), text.pop("tokenizer_mode", None)
    arguments = text.pop("tokenizer_kwargs", None) or {}
    for key in ("hf_model_pretrained", "hf_proj_type", "hf_pooler_type"):  # meaningless without a name
        text.pop(key, None)
    _check(file, "model_cfg", rest, TOP)
    _check(file, "vision_cfg", vision, VISION)
    _check(file, "text_cfg", text, TEXT)
    _check(file, "tokenizer_kwargs", arguments, TOKENIZER)
    preprocess = {key: value for key, value in _part(file, whole, "preprocess_cfg", {}).items() if value is not None}
    _check(file, "preprocess_cfg", preprocess, PREPROCESS)
    if mode not in (None, "", "clips"):
        raise ModelError(f"{file}: tokenizer_mode is {str(mode)[:40]!r}; it must be 'clips' or absent.")
    if own is not None and not isinstance(own, str):
        raise ModelError(f"{file}: hf_tokenizer_name is {str(own)[:40]!r}; it must be a string or absent.")
    if "embed_dim" not in rest:
        raise ModelError(f"{file} lacks embed_dim, the length of a vector.", "Copy the whole folder again.")
    if arguments.get("strip_sep_token") and own is None:
        raise ModelError(f"{file}: strip_sep_token needs a tokenizer of the folder's own, and it names none.")
    # Weights come from the folder, whatever its configuration says.
    vision["timm_model_pretrained"] = False
    tokenizer = TokenizerSpec(
        own is not None, text.get("context_length", 77), arguments.get("clean"),
        bool(arguments.get("strip_sep_token", False)), mode == "clips",
    )  # fmt: skip
    custom = bool(rest.pop("custom_text", False))
    return ClipConfig({**rest, "vision_cfg": vision, "text_cfg": text}, custom, preprocess, tokenizer)


_missing: Any = object()


def _part(file: Path, values: Mapping[str, Any], name: str, otherwise: Any = _missing) -> Mapping[str, Any]:
    found = values.get(name, otherwise)
    if not isinstance(found, dict):
        raise ModelError(f"{file} has no object {name}.", "Copy the whole folder again.")
    return found


def _check(file: Path, where: str, values: Any, checks: Mapping[str, Check]) -> None:
    if not isinstance(values, dict):
        raise ModelError(f"{file}: {where} is {str(values)[:40]!r}; it must be an object.")
    for key, value in values.items():
        if key in ELSEWHERE:
            raise ModelError(f"{file}: {where} has {key!r}, which is not read.", ELSEWHERE[key])
        if key not in checks:
            raise ModelError(
                f"{file}: {where} has {str(key)[:60]!r}, which is not a key of open_clip's models.",
                f"Take it out if you trust the folder. Known: {', '.join(sorted(checks))}.",
            )
        if not checks[key](value):
            raise ModelError(f"{file}: {where} has {key} = {repr(value)[:60]}, which is not a valid value.")
