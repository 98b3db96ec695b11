"""Loading of a Qwen-VL checkpoint from a hub id or folder into transformers' own class, with every weight checked.

Checkpoints of one model use several naming schemes for their weights: the first releases' (`visual.`, `model.layers.`),
transformers' since 4.52 (`model.visual.`, `model.language_model.layers.`), and that of a model saved without a head
(`visual.`, `language_model.layers.`). transformers 5.24 loads the second into the headless class as random weights,
with only a warning. So names are mapped here, and a checkpoint with missing or unexpected weights is refused. No code
of a checkpoint runs, and nothing is unpickled.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.embed.checkpoints import quietly
from indexer.embed.hub import absent, fetching
from indexer.embed.model_files import closed_to_code, harmless, read_json
from indexer.errors import MissingExtraError, ModelError, first_line
from indexer.types import HelpfulEnum

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FETCHED = ("*.json", "*.safetensors", "*.txt")
_SENSELESS = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, AssertionError)
"""What transformers raises for an unusable configuration."""
UNUSED = frozenset({"lm_head.weight"})
"""Weights that a checkpoint may have beyond the model: the language head, which an embedder does not use."""


class Architecture(HelpfulEnum):
    """The `model_type`s of the checkpoints that are read, each by transformers' own class."""

    QWEN2_VL = "qwen2_vl"
    QWEN2_5_VL = "qwen2_5_vl"
    QWEN3_VL = "qwen3_vl"


def find_checkpoint(source: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint: the named folder, or a copy from the hub, fetched on first use.

    Raises:
        ModelError: There is no such folder, and the hub does not have it or cannot be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise ModelError(f"{source} is neither a folder nor a hub id such as Qwen/Qwen3-VL-Embedding-2B.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with fetching() as reached:
            return Path(snapshot_download(source, revision=revision, allow_patterns=list(FETCHED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        if not reached:
            raise ModelError(*absent(source, "mllm:/path/to/folder")) from error
        raise ModelError(
            f"{source} is not on this machine and cannot be fetched: {first_line(error)}.",
            "Connect once so that it is cached, or copy its folder here and name that: mllm:/path/to/folder.",
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder's model, a single file or its shards.

    Raises:
        ModelError: There is none, or a shard is missing.
    """
    index = folder / WEIGHTS_INDEX
    if index.exists():
        named = read_json(index, "list of weights").get("weight_map")
        if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
            raise ModelError(f"{index} has no weight_map, which maps weights to files.", "Copy the whole folder again.")
        files = sorted({folder / Path(name).name for name in named.values()})
    else:
        files = [folder / WEIGHTS]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise ModelError(
            f"{folder} lacks {', '.join(missing)}.",
            "Copy the whole folder. Only safetensors weights are read.",
        )
    return files


def load_config(folder: Path) -> Any:
    """The model's configuration, in transformers' own class.

    Raises:
        ModelError: It is missing, damaged, or of another kind of model.
    """
    file = folder / "config.json"
    values = harmless(read_json(file, "configuration of a model"), file)
    kind = values.get("model_type")
    if kind not in list(Architecture):
        raise ModelError(f"{folder} holds a model of the kind {kind!r}; known kinds are {', '.join(Architecture)}.")
    from huggingface_hub.errors import StrictDataclassError

    try:
        return _classes(Architecture(kind))[0].from_dict(values)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{file} cannot be used: {first_line(error)}.") from error


def load_model(folder: Path, dtype: torch.dtype) -> Any:
    """The model without a head, in evaluation mode, on the CPU.

    Raises:
        ModelError: Weights are missing, unexpected, or have the wrong shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = load_config(folder)
    kind = _classes(Architecture(config.model_type))[1]
    weights: dict[str, Tensor] = {}
    try:
        for file in weight_files(folder):
            weights |= {settled(name): tensor for name, tensor in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The weights in {folder} cannot be read: {first_line(error)}.") from error
    with quietly(), closed_to_code():
        try:
            wanted = _shapes(kind, config)
            _require_all(folder, wanted, {name: tuple(each.shape) for name, each in weights.items()})
            model, report = kind.from_pretrained(
                None,
                config=config,
                state_dict={name: weights[name] for name in wanted},
                dtype=dtype,
                output_loading_info=True,
            )
        except _SENSELESS as error:
            raise ModelError(f"No model can be made of {folder}'s configuration: {first_line(error)}.") from error
    left = [each for part in ("missing_keys", "unexpected_keys", "mismatched_keys") for each in report[part]]
    if left:
        raise ModelError(f"transformers did not load {len(left)} weights of {folder}, such as {left[0]}.")
    return model.eval()


def merge_adapter(model: Any, folder: Path) -> Any:
    """A model with the LoRA of a folder merged into its weights.

    The adapted layers are read from the adapter's weights, since the patterns in its configuration use the names
    of the library that trained it.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: It is not a LoRA, or it does not fit the model.
    """
    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "mllm", "A checkpoint that is a LoRA") from None
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = _lora(folder)
    try:
        stored = load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The adapter in {folder} cannot be read: {first_line(error)}.") from error
    weights = {settled(name.removeprefix("base_model.model.")): tensor for name, tensor in stored.items()}
    layers = sorted({name.partition(".lora_")[0] for name in weights})
    known = dict(model.named_modules())
    strange = [name for name in layers if name not in known]
    if strange:
        raise ModelError(f"The adapter in {folder} changes {strange[0]}, which the model does not have.")
    config.target_modules = layers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers; users cannot act on it
        adapted = peft.get_peft_model(model, config)
    named = {f"base_model.model.{name}": tensor for name, tensor in weights.items()}
    result = peft.set_peft_model_state_dict(adapted, named)
    wanted = {name for name, _ in adapted.named_parameters() if ".lora_" in name}
    missing = [name for name in result.missing_keys if name in wanted]
    if missing or result.unexpected_keys:
        raise ModelError(
            f"The adapter in {folder} does not fit: {len(missing)} of its weights are missing and "
            f"{len(result.unexpected_keys)} are too many, such as {(missing or result.unexpected_keys)[0]}."
        )
    return adapted.merge_and_unload().eval()


def _lora(folder: Path) -> Any:
    """A LoRA's configuration, plain numbers only: peft's own may name modules to import.

    Raises:
        ModelError: It is missing or damaged, or is not a plain LoRA.
    """
    import peft

    file = folder / ADAPTER_CONFIG
    values = read_json(file, "configuration of an adapter")
    kind = values.get("peft_type")
    more = sorted(key for key in _MORE_THAN_LORA if values.get(key))
    if kind != "LORA" or more or values.get("bias", "none") != "none":
        raise ModelError(
            f"{folder} holds a {str(kind)[:40]} adapter with more than plain LoRA, which is not read: "
            f"{', '.join(more) or 'peft_type'}."
        )
    told = {key: values[key] for key in _LORA if values.get(key) is not None}
    for key, value in told.items():
        parts = list(value.values()) if isinstance(value, dict) else [value]
        if isinstance(value, dict) is not key.endswith("_pattern") or not all(
            type(part) in _LORA[key] and 0 <= part < 1 << 20 for part in parts
        ):
            raise ModelError(f"{file}: {key} is {str(value)[:60]!r}, which is not a valid value.")
    return peft.LoraConfig(**told, inference_mode=True)


_LORA: Mapping[str, tuple[type, ...]] = {
    "r": (int,), "lora_alpha": (int, float), "use_rslora": (bool,), "fan_in_fan_out": (bool,),
    "rank_pattern": (int,), "alpha_pattern": (int, float),
}  # fmt: skip
_MORE_THAN_LORA = frozenset({
    "modules_to_save", "use_dora", "lora_bias", "megatron_config", "layer_replication", "trainable_token_indices",
    "use_qalora", "target_parameters", "arrow_config", "alora_invocation_tokens",
})  # fmt: skip


def adapted_base(folder: Path) -> str | None:
    """The checkpoint that a folder's adapter belongs to, if the folder has no model of its own.

    Raises:
        ModelError: The adapter does not name it.
    """
    file = folder / ADAPTER_CONFIG
    if not file.exists() or any((folder / name).exists() for name in (WEIGHTS, WEIGHTS_INDEX)):
        return None
    base = read_json(file, "configuration of an adapter").get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{file} does not name the model that it adapts.")
    return base


def settled(name: str) -> str:
    """A weight's name in the headless class: `visual...` or `language_model...`."""
    bare = re.sub(r"^model\.(?=(visual|language_model)\.)", "", name)
    return re.sub(r"^(model\.)?(?=(embed_tokens|layers|norm)\.)", "language_model.", bare)


def _require_all(folder: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys() - UNUSED)
    misshapen = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    told = []
    if missing:
        told.append(f"{len(missing)} of {len(wanted)} weights are missing, such as {missing[0]}")
    if extra:
        told.append(f"{len(extra)} are unexpected, such as {extra[0]}")
    if misshapen:
        name = misshapen[0]
        told.append(f"{len(misshapen)} have another shape, such as {name}, {found[name]} for {wanted[name]}")
    if told:
        raise ModelError(
            f"The weights in {folder} do not fit its configuration: {'; '.join(told)}.",
            "Fetch the checkpoint again, or check that config.json belongs to it.",
        )


def _shapes(kind: Any, config: Any) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all weights of a class, without allocating any."""
    import torch

    with torch.device("meta"):
        return {name: tuple(each.shape) for name, each in kind(config).state_dict().items()}


def _classes(architecture: Architecture) -> tuple[Any, Any]:
    """Configuration and headless model."""
    import transformers

    names = {
        Architecture.QWEN2_VL: ("Qwen2VLConfig", "Qwen2VLModel"),
        Architecture.QWEN2_5_VL: ("Qwen2_5_VLConfig", "Qwen2_5_VLModel"),
        Architecture.QWEN3_VL: ("Qwen3VLConfig", "Qwen3VLModel"),
    }[architecture]
    if not all(hasattr(transformers, name) for name in names) or int(transformers.__version__.split(".")[0]) < 5:
        raise MissingExtraError("transformers 5", "mllm", f"A model of the kind {architecture}")
    config, model = (getattr(transformers, name) for name in names)
    return config, model
