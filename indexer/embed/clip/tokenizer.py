"""Tokenizers of CLIP folders: the folder's own `tokenizer.json`, or CLIP's byte pairs, which open_clip brings.

Where transformers would read the file unchanged, it is read here without transformers. A tokenizer that transformers
changes on loading goes through transformers, from a copy of the folder with data files only, without code or network.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from indexer.embed.checkpoints import quietly
from indexer.embed.clip.config import TokenizerSpec
from indexer.embed.model_files import closed_to_code, data_only, read_json
from indexer.embed.tokenizer_file import FILE, Readable, read_tokenizer, token_named
from indexer.errors import ModelError, first_line

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = (None, "PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that use the file unchanged."""
NEUTRAL = frozenset({
    "tokenizer_class", "model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces",
    "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "model_input_names", "chat_template",
    "backend", "is_local", "auto_map", "name_or_path", "bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
    "cls_token", "mask_token", "processor_class", "special_tokens_map_file",
})  # fmt: skip
"""Settings that a plain tokenizer may have without being changed by them."""


class FolderTokenizer:
    """A folder's `tokenizer.json`, called like open_clip's own; safe for any number of threads.

    Args:
        file: Its path.
        config: `tokenizer_config.json`, with the additions of `special_tokens_map.json`.
        spec: How texts are prepared.

    Raises:
        ModelError: It cannot be read, or has no padding token.
    """

    def __init__(self, file: Path, config: dict[str, Any], spec: TokenizerSpec) -> None:
        self._file, self._config, self._spec = file, config, spec
        self.clean_fn = open_clip_tokenizer().get_clean_fn(spec.clean or "whitespace")
        self._bare = read_tokenizer(file)
        self._whole = read_tokenizer(file)
        self.bos_token_id, self.eos_token_id, self.pad_token_id, self.sep_token_id = (
            self._id(role) for role in ("bos_token", "eos_token", "pad_token", "sep_token")
        )
        if self.pad_token_id is None:
            raise ModelError(
                f"The tokenizer in {file.parent} names no existing pad_token, which fills short texts.",
                "Name it in tokenizer_config.json.",
            )
        left = ("left", "right")
        cut, fill = (str(config.get(name) or "right") for name in ("truncation_side", "padding_side"))
        if cut not in left or fill not in left:
            raise ModelError(f"{file.parent}: truncation and padding sides are left or right, not {cut!r}, {fill!r}.")
        try:
            self._whole.enable_truncation(spec.context, direction=cut)
        except ValueError as error:
            raise ModelError(f"{file} cannot cut a text to {spec.context} tokens: {error}.") from error
        pad = str(token_named(config, "pad_token"))
        self._whole.enable_padding(direction=fill, length=spec.context, pad_id=self.pad_token_id, pad_token=pad)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(n, context) int64 token ids."""
        import torch

        read = self._whole.encode_batch([self.clean_fn(text) for text in texts])
        ids = torch.tensor([each.ids for each in read], dtype=torch.int64).view(len(texts), self._spec.context)
        if self._spec.strip_sep:
            ids[ids == (-1 if self.sep_token_id is None else self.sep_token_id)] = 0
        return ids

    def encode(self, text: str) -> list[int]:
        """The tokens of a piece of text, without special tokens."""
        return list(self._bare.encode(self.clean_fn(text), add_special_tokens=False).ids)

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The same tokenizer in transformers' class, for saving."""
        from transformers import PreTrainedTokenizerFast

        roles = {
            role: token_named(self._config, role)
            for role in ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
            if token_named(self._config, role)
        }
        return PreTrainedTokenizerFast(
            tokenizer_file=str(self._file), model_max_length=self._spec.context, clean_up_tokenization_spaces=False,
            **roles,
        )  # fmt: skip

    def _id(self, role: str) -> int | None:
        token = token_named(self._config, role)
        return None if token is None else self._bare.token_to_id(token)


def load_tokenizer(folder: Path, spec: TokenizerSpec) -> Any:
    """The tokenizer of a folder, callable with texts.

    Raises:
        ModelError: The tokenizer that the configuration names is missing or cannot be read.
    """
    if not spec.own:
        return open_clip_tokenizer().SimpleTokenizer(
            context_length=spec.context, **({} if spec.clean is None else {"clean": spec.clean})
        )
    file, config = folder / FILE, _config(folder)
    plain = config.get("tokenizer_class") in PLAIN and config.keys() <= NEUTRAL
    if file.is_file() and plain and not spec.clips:
        return FolderTokenizer(file, config, spec)
    if not any(folder.glob("tokenizer*")) and not any((folder / name).exists() for name in ("vocab.txt", "vocab.json")):
        raise ModelError(
            f"{folder} has no tokenizer: neither {FILE} nor another's files, and its configuration says it has one.",
            f"Copy {FILE} and tokenizer_config.json of the published model into it.",
        )
    return _of_transformers(folder, spec)


def _config(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json`, with the tokens that only `special_tokens_map.json` names."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            found |= read_json(folder / name, "configuration of a tokenizer")
    return found


def _of_transformers(folder: Path, spec: TokenizerSpec) -> Any:
    """A transformers tokenizer in open_clip's wrapper."""
    try:
        with Readable(folder), data_only(folder) as copy, quietly(), closed_to_code():
            tokenizer = open_clip_tokenizer().HFTokenizer(
                str(copy), context_length=spec.context, clean=spec.clean or "whitespace",
                strip_sep_token=spec.strip_sep, tokenizer_mode="clips" if spec.clips else None,
                trust_remote_code=False, local_files_only=True,
            )  # fmt: skip
            tokenizer(["a"])  # some errors appear only now
            return tokenizer
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise ModelError(f"The tokenizer in {folder} cannot be loaded: {first_line(error)}.") from error


@functools.cache
def open_clip_tokenizer() -> ModuleType:
    """open_clip's tokenizer module, without the package around it, which imports several large libraries.

    Raises:
        ModelError: open_clip is not installed, or is an unknown release.
    """
    if "open_clip.tokenizer" in sys.modules:
        return sys.modules["open_clip.tokenizer"]
    package = importlib.util.find_spec("open_clip")
    for place in [] if package is None else package.submodule_search_locations or []:
        file = Path(place) / "tokenizer.py"
        spec = importlib.util.spec_from_file_location("_underdrawing_open_clip_tokenizer", file)
        if file.is_file() and spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise ModelError("open_clip is installed incompletely.", "Run: pip install --force-reinstall open-clip-torch")
