"""A frozen language model that reads words mixed with vectors in place of words.

An encoder (BERT and relatives) is pooled by the mean of its last hidden states, as sentence-transformers does for
MiniLM; a decoder (Llama and relatives) by the state of its last token, which has seen all others. An image comes before
the text, after whatever the tokenizer puts first:

    [CLS] image ... text ... [SEP]            image ... text ... <|im_end|>

A model is named by a folder, a hub id, a GGUF file, or `package:NAME/PATH`, a file or folder of an installed Python
package, which is not imported. A checkpoint with missing or unexpected weights is refused. No checkpoint code runs.

This module does not know images, connectors or items.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.embed.checkpoints import checkpoint_folder, gguf_in
from indexer.embed.loading import loading
from indexer.embed.mllm.loading import weight_files
from indexer.embed.pairs import load_pair
from indexer.embed.weights import weights_digest
from indexer.errors import CallError, ModelError
from indexer.types import HelpfulEnum

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PACKAGE = "package:"
CHARACTERS_A_TOKEN = 16
"""Characters of a text that are read per token of the limit: no tokenizer needs more for words."""
READ_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
"""Files besides the weights that vectors depend on; other files of a folder do not matter."""
_HEADS = re.compile(r"^(lm_head|cls|vocab_\w+|pooler|score|classifier|predictions)\b|position_ids$|^qa_outputs\b")
"""Weights that a checkpoint may have or lack, since no hidden state depends on them."""


class Pooling(HelpfulEnum):
    """How the hidden states of all tokens are pooled."""

    MEAN = "mean"
    LAST = "last"


class TextModel:
    """A model of transformers without a head, and its tokenizer. It is never trained.

    Args:
        model: The model.
        tokenizer: transformers' own, a fast one.
        name: The name that it was loaded by.
        digest: sha256 over its weights, configuration and tokenizer.
        pooling: How it is pooled; None for the default of its kind.

    Attributes:
        width: Length of a hidden state, and of a text's vector.
        word_width: Length of a word's vector.
        before: Tokens that every text starts with.
        after: Tokens that every text ends with.
        limit: Tokens that it can read.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, digest: str, pooling: Pooling | None) -> None:
        self.name, self.digest = name, digest
        self.model = model.eval().requires_grad_(False)
        self.model.config.use_cache = False
        self.pooling = pooling or (Pooling.MEAN if _is_encoder(model.config) else Pooling.LAST)
        backend = tokenizer.backend_tokenizer
        # Length limits in the folder are for its own use; and a user's words are never special tokens.
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend
        if not hasattr(model.config, "hidden_size"):
            raise ModelError(
                f"{name} holds a {model.config.model_type}, which is not a text model.",
                "Name a text encoder or decoder.",
            )
        self.width = int(model.config.hidden_size)
        self.word_width = int(model.get_input_embeddings().weight.shape[1])
        self.limit = _positions(model)
        self.before, self.after = self._around()
        # The token whose state is read; it also ensures that there is a token at all.
        if not self.after and (self.pooling is Pooling.LAST or not self.before):
            end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
            if end is None:
                raise ModelError(f"The tokenizer of {name} has no end token, whose state is needed.")
            self.after = [int(end)]

    @classmethod
    def load(cls, name: str, dtype: torch.dtype, device: str, pooling: Pooling | None = None) -> TextModel:
        """Load a model.

        Args:
            name: A folder, hub id, GGUF file, or `package:NAME/PATH`.
            dtype: Arithmetic of its weights.
            device: Where it runs.
            pooling: How it is pooled; None for the default of its kind.

        Raises:
            ModelError: It does not exist, cannot be read, or does not fit its configuration.
            MissingExtraError: It is a GGUF file, and the package gguf is not installed.
        """
        source = find_text_model(name)
        with loading():
            model, tokenizer = _load(source, dtype)
            return cls(model.to(device), tokenizer, name=name, digest=text_model_digest(source), pooling=pooling)

    @property
    def specials(self) -> int:
        """Tokens of an item besides its images and words."""
        return len(self.before) + len(self.after)

    def table(self) -> Tensor:
        """The vectors of all words, (vocabulary, word_width)."""
        weights: Tensor = self.model.get_input_embeddings().weight
        return weights

    def ids(self, text: str, most: int) -> list[int]:
        """The tokens of a text, at most `most` of them."""
        cut = text[: CHARACTERS_A_TOKEN * most].replace("\0", " ")
        return list(self._backend.encode(cut, add_special_tokens=False).ids[:most])

    def read(self, texts: Sequence[Sequence[int]], images: Tensor | None, shown: Sequence[int]) -> Tensor:
        """Read items together; vectors depend on the other items only in their last digits.

        Args:
            texts: n lists of tokens, without special tokens; empty for an image alone.
            images: (m, tokens, word_width), the images of all items, in order; None if there are none.
            shown: n, the number of images of each item.

        Returns:
            (n, width), pooled, not normalized.
        """
        import torch

        device = self.table().device
        places = 0 if images is None else images.shape[1]
        rows, starts = [], len(self.before)
        for text, has in zip(texts, shown, strict=True):
            rows.append([*self.before, *[0] * (places * has), *text, *self.after])
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(longest, device=device) < lengths[:, None]
        words: Tensor = self.model.get_input_embeddings()(ids)
        if images is not None:
            inside = torch.zeros_like(mask)
            ends = starts + places * torch.tensor([int(has) for has in shown], device=device)
            columns = torch.arange(longest, device=device)
            inside |= (columns >= starts) & (columns < ends[:, None])
            # In row-major order, these positions are those of the images, one image after the other.
            words = words.masked_scatter(inside[:, :, None], images.to(words.dtype))
        hidden: Tensor = self.model(inputs_embeds=words, attention_mask=mask.long()).last_hidden_state
        if self.pooling is Pooling.LAST:
            return hidden[torch.arange(len(rows), device=device), lengths - 1]
        masked = hidden.float() * mask[:, :, None]
        return masked.sum(1) / lengths[:, None]

    def states(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The hidden state of each token of text-only items, special tokens included.

        Args:
            texts: n lists of tokens, without special tokens.

        Returns:
            (n, tokens, width) float32, and which of them belong to the text, (n, tokens) bool.
        """
        import torch

        device = self.table().device
        rows = [[*self.before, *text, *self.after] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(longest, device=device) < lengths[:, None]
        found: Tensor = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return found.float(), mask

    def _around(self) -> tuple[list[int], list[int]]:
        whole = self._backend.encode("a", add_special_tokens=True).ids
        bare = self._backend.encode("a", add_special_tokens=False).ids
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return whole[:start], whole[start + len(bare) :]
        raise ModelError(f"The tokenizer of {self.name} changes a text when it adds its special tokens.")


def find_text_model(name: str) -> Path:
    """The folder or GGUF file that a name stands for.

    Raises:
        ModelError: It does not exist.
        MissingExtraError: It is a GGUF file, and the package gguf is not installed.
    """
    if name.startswith(PACKAGE):
        package, _, inside = name.removeprefix(PACKAGE).partition("/")
        try:
            spec = importlib.util.find_spec(package) if package.isidentifier() else None
        except ValueError:  # a module without a file, such as __main__
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(
                f"{name}: no package {package!r} is installed.",
                f"Write {PACKAGE}NAME/PATH, where NAME is its import name, and install it with pip first.",
            )
        root = Path(spec.submodule_search_locations[0])
        found = root / inside
        if not found.exists():
            raise ModelError(
                f"{name}: the installed package {package} has no {inside or 'files'}.", f"Its files are in {root}."
            )
        return gguf_in(found, "bridge") or found
    return gguf_in(name, "bridge") or checkpoint_folder(name)


def text_model_digest(source: Path) -> str:
    """sha256 over everything that vectors depend on: weights, configuration and tokenizer.

    Raises:
        ModelError: There are no weights.
    """
    if source.is_file():
        return weights_digest(source)
    files = [*weight_files(source), *(source / name for name in READ_FILES if (source / name).exists())]
    told = [f"{file.name} {weights_digest(file)}" for file in files]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _load(source: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """A headless model and its tokenizer, with every weight loaded."""
    from transformers import AutoModel, AutoTokenizer

    if not source.is_file():
        weight_files(source)  # otherwise transformers would look for pickled weights
    tokenizer, model, report = load_pair(AutoModel, AutoTokenizer, source, dtype=dtype)
    left = [
        str(each[0] if isinstance(each, tuple) else each)
        for part in ("missing_keys", "unexpected_keys", "mismatched_keys")
        for each in report[part]
    ]
    strange = sorted(name for name in left if not _HEADS.search(name))
    if strange:
        raise ModelError(
            f"The weights in {source} do not fit its configuration: {len(strange)} are missing, unexpected, or of "
            f"another shape, such as {strange[0]}.",
            "Fetch the checkpoint again, or check that config.json belongs to it.",
        )
    if model.config.is_encoder_decoder:
        raise ModelError(f"{source} holds a {model.config.model_type}, not an encoder or a decoder alone.")
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise CallError(f"The tokenizer in {source} is a slow Python tokenizer; a tokenizer.json is needed.")
    return model, tokenizer


def _positions(model: Any) -> int:
    """The number of tokens it can read; RoBERTa and relatives count positions from after the padding token's id."""
    limit = int(getattr(model.config, "max_position_embeddings", None) or 2**20)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return limit - int(module.padding_idx) - 1
    return limit


def _is_encoder(config: Any) -> bool:
    """Whether its tokens attend to later ones: a model trained on masked words is an encoder."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
