"""Loading of CLIP models from a folder or by a published name: model, tokenizer, and the weights file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexer.embed.checkpoints import quietly
from indexer.embed.clip.config import CONFIG, ClipConfig, read_config
from indexer.embed.clip.encoders import build, can_build, settle
from indexer.embed.clip.tokenizer import load_tokenizer
from indexer.embed.hub import absent, fetching
from indexer.embed.model_files import closed_to_code
from indexer.errors import ModelError, UnknownNameError, first_line

WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PREPROCESS: Mapping[str, Any] = {
    "mode": "RGB", "mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0,
}  # fmt: skip
"""open_clip's defaults for what a folder does not say."""
CACHE = Path("~/.cache/clip")
"""Where open_clip caches files that it fetches from elsewhere than a hub."""
SPARE = 4
"""Numbers that a configuration may ask for, relative to the weights file: positions may be resized."""


def load_folder(folder: Path, name: str) -> tuple[Any, Any, Path]:
    """The model, tokenizer and weights file of a folder in open_clip's layout.

    Raises:
        ModelError: A file is missing or damaged, the files do not match, or something unsupported is asked for.
    """
    weights = next((folder / each for each in WEIGHT_NAMES if (folder / each).is_file()), None)
    if weights is None or not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} is not an open_clip folder: it lacks {CONFIG} or {' or '.join(WEIGHT_NAMES)}.")
    config = read_config(folder)
    state = read_weights(weights)
    model = _own(config, state, weights) if can_build(config.model) and weights.suffix == ".safetensors" else None
    if model is None:
        model = _by_open_clip(config, state, weights, name)
    size = getattr(model.visual, "image_size", None) or config.preprocess.get("size", 224)
    model.visual.preprocess_cfg = {**PREPROCESS, **config.preprocess, "size": size}
    return model, load_tokenizer(folder, config.tokenizer), weights


def read_weights(file: Path) -> dict[str, Any]:
    """The tensors of a checkpoint, by name; nothing but tensors is unpickled.

    Raises:
        ModelError: The file is empty, damaged, or holds something else.
    """
    import pickle  # for its error

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
            found = found.get("state_dict", found) if isinstance(found, dict) else found
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors; loading it would run code from it.",
            "Convert it to safetensors if you trust it.",
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, SafetensorError) as error:
        raise ModelError(
            f"The weights cannot be loaded from {file}: {first_line(error)}.", "Copy the whole folder again."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise ModelError(f"{file} holds no tensors by name.", "Copy the whole folder again.")
    if not found:
        raise ModelError(f"{file} holds no weights at all.", "Copy the whole folder again.")
    return found


def _own(config: ClipConfig, state: Mapping[str, Any], weights: Path) -> Any | None:
    """The model in our own classes; None if the weight names are those of another library."""
    model = build(config.model, config.custom_text)
    wanted = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    found = {name: tuple(each.shape) for name, each in state.items()}
    if wanted.keys() != found.keys():
        return None
    differing = sorted(name for name in wanted if wanted[name] != found[name])
    if differing:
        if all("positional_embedding" in name for name in differing):
            return None  # open_clip resizes them
        first = differing[0]
        raise ModelError(
            f"{weights} does not fit {CONFIG}: {len(differing)} of {len(wanted)} weights have another shape, such as "
            f"{first}, {found[first]} for {wanted[first]}.",
            "Both files come from one model; copy the whole folder.",
        )
    # open_clip computes in single precision whatever the file has.
    model.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in state.items()}, assign=True)
    return settle(model)


def _by_open_clip(config: ClipConfig, state: Mapping[str, Any], weights: Path, name: str) -> Any:
    """The model in open_clip's classes, built from the checked configuration only."""
    import open_clip
    import torch

    kind = open_clip.CustomTextCLIP if config.custom_text else open_clip.CLIP
    arguments = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.model.items()}
    try:
        with closed_to_code():
            with torch.device("meta"):
                asked = sum(each.numel() for each in kind(**arguments).parameters())
            there = sum(each.numel() for each in state.values())
            if asked > SPARE * there:
                raise ModelError(f"{CONFIG} of {name} asks for {asked:,} numbers; {weights} has {there:,}.")
            model = kind(**arguments)
            open_clip.load_checkpoint(model, str(weights), strict=True, weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError, ZeroDivisionError,
            NotImplementedError) as error:  # fmt: skip
        raise ModelError(f"{name} cannot be loaded from {weights}: {first_line(error)}.") from error
    return model


def load_published(architecture: str, tag: str, name: str) -> tuple[Any, Any, Path]:
    """The model, tokenizer and weights file of a name that open_clip knows, fetched on first use.

    Raises:
        UnknownNameError: open_clip has no such architecture or no such weights for it.
        ModelError: The weights cannot be fetched or read.
    """
    import pickle  # for its error: weights_only refuses anything but plain tensors

    import open_clip
    from safetensors import SafetensorError

    if architecture not in open_clip.list_models():
        raise UnknownNameError("architecture", architecture, sorted(open_clip.list_models()))
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        raise UnknownNameError(f"weights of {architecture}", tag, sorted(tags))
    known = open_clip.get_pretrained_cfg(architecture, tag)
    address = None if known.get("hf_hub") else known.get("url")
    try:
        with fetching(address) as reached:
            if not reached and address and not (CACHE / address.rpartition("/")[2]).expanduser().is_file():
                raise OSError("no connection")  # open_clip would wait forever
            weights = Path(open_clip.download_pretrained(known))
    except (OSError, RuntimeError, ValueError) as error:
        if not reached:
            raise ModelError(*absent(f"{name} (its weights)", "open_clip:/path/to/folder")) from error
        raise ModelError(
            f"The weights of {name} are not on this machine and cannot be fetched: {first_line(error)}.",
            "Connect once so that they are cached, or copy an open_clip folder here and name it: "
            "open_clip:/path/to/folder. Offline, bundled:emoji-clip always works.",
        ) from error
    # OpenAI's weights were trained with QuickGELU; open_clip only warns if the architecture's name does not say so.
    quick = bool(known.get("quick_gelu", False))
    fetched = (open_clip.get_model_config(architecture) or {}).get("text_cfg", {}).get("hf_tokenizer_name")
    try:
        with fetching(address), quietly(), closed_to_code():
            model = open_clip.create_model(architecture, pretrained=tag, force_quick_gelu=quick, weights_only=True)
            tokenizer = open_clip.get_tokenizer(architecture, **({"trust_remote_code": False} if fetched else {}))
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError, pickle.UnpicklingError) as error:
        raise ModelError(f"{name} cannot be loaded from {weights}: {first_line(error)}.") from error
    return model, tokenizer, weights
