"""A frozen language model that reads words and, among them, vectors in the place of words.

An encoder (BERT and its kin) is read by the mean of its last hidden states, as sentence-transformers reads MiniLM; a
decoder (Llama and its kin) by that of its last token, which has seen all the others. An image stands before the text,
behind whatever the tokenizer itself puts first:

    [CLS] image ... text ... [SEP]            image ... text ... <|im_end|>

Named by a folder, a hub id, a GGUF file, or `package:NAME/PATH`, a file or folder of an installed Python package, which
is not imported. A checkpoint that lacks a weight, or has one too many, is refused. No code of a checkpoint is run.

What this module does not know: images, connectors, items.
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
"""Of a text, so many characters a token of the limit are looked at: no tokenizer needs more for words."""
READ_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
"""Beside the weights, what vectors depend on; what else lies in a folder does not matter."""
_HEADS = re.compile(r"^(lm_head|cls|vocab_\w+|pooler|score|classifier|predictions)\b|position_ids$|^qa_outputs\b")
"""Weights that a checkpoint may have or lack: no hidden state depends on them."""


class Pooling(HelpfulEnum):
    """What becomes of the hidden states of all tokens."""

    MEAN = "mean"
    LAST = "last"


class TextModel:
    """transformers' own model without a head, and its tokenizer. Nothing of it is ever trained.

    Args:
        model: The model.
        tokenizer: transformers' own, a fast one.
        name: What it was asked for by.
        digest: sha256 over its weights, configuration and tokenizer.
        pooling: How it is read; None for what suits its kind.

    Attributes:
        width: Numbers of a hidden state, and of the vector of a text.
        word_width: Numbers of a word's vector.
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
        # What a folder says of lengths is for its own use; and a user's words are never special tokens.
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend
        if not hasattr(model.config, "hidden_size"):
            raise ModelError(
                f"{name} holds a {model.config.model_type}, which is no text model.",
                "Name an encoder or decoder of texts.",
            )
        self.width = int(model.config.hidden_size)
        self.word_width = int(model.get_input_embeddings().weight.shape[1])
        self.limit = _positions(model)
        self.before, self.after = self._around()
        # A token of its own to be read at, and never nothing at all to read.
        if not self.after and (self.pooling is Pooling.LAST or not self.before):
            end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
            if end is None:
                raise ModelError(f"The tokenizer of {name} has no token for the end of a text, which is to be read.")
            self.after = [int(end)]

    @classmethod
    def load(cls, name: str, dtype: torch.dtype, device: str, pooling: Pooling | None = None) -> TextModel:
        """Load a model.

        Args:
            name: A folder, hub id, GGUF file, or `package:NAME/PATH`.
            dtype: Of its weights.
            device: Where it runs.
            pooling: How it is read; None for what suits its kind.

        Raises:
            ModelError: There is none, it cannot be read, or it does not fit its configuration.
            MissingExtraError: A GGUF file, and the package gguf is not installed.
        """
        source = find_text_model(name)
        with loading():
            model, tokenizer = _load(source, dtype)
            return cls(model.to(device), tokenizer, name=name, digest=text_model_digest(source), pooling=pooling)

    @property
    def specials(self) -> int:
        """Tokens of an item besides its image and words."""
        return len(self.before) + len(self.after)

    def table(self) -> Tensor:
        """The vectors of all words, (vocabulary, word_width)."""
        weights: Tensor = self.model.get_input_embeddings().weight
        return weights

    def ids(self, text: str, most: int) -> list[int]:
        """The tokens of a text, at most so many of them."""
        cut = text[: CHARACTERS_A_TOKEN * most].replace("\0", " ")
        return list(self._backend.encode(cut, add_special_tokens=False).ids[:most])

    def read(self, texts: Sequence[Sequence[int]], images: Tensor | None, shown: Sequence[int]) -> Tensor:
        """Read items together; vectors do not depend on what else is read, but for their last digits.

        Args:
            texts: n lists of tokens, without what goes around them; of an image alone an empty one.
            images: (m, tokens, word_width), the images of all items, in order; None if there are none.
            shown: n, how many each item has.

        Returns:
            (n, width), as read: not of unit length.
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
            # In row-major order the places are those of the images, one image after the other.
            words = words.masked_scatter(inside[:, :, None], images.to(words.dtype))
        hidden: Tensor = self.model(inputs_embeds=words, attention_mask=mask.long()).last_hidden_state
        if self.pooling is Pooling.LAST:
            return hidden[torch.arange(len(rows), device=device), lengths - 1]
        kept = hidden.float() * mask[:, :, None]
        return kept.sum(1) / lengths[:, None]

    def states(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """What it has of each token of texts alone, special tokens included.

        Args:
            texts: n lists of tokens, without what goes around them.

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
        raise ModelError(f"The tokenizer of {self.name} changes a text when it puts its special tokens around it.")


def find_text_model(name: str) -> Path:
    """The folder or GGUF file that a name stands for.

    Raises:
        ModelError: There is none.
        MissingExtraError: It is a GGUF file, and the package gguf is not installed.
    """
    if name.startswith(PACKAGE):
        package, _, inside = name.removeprefix(PACKAGE).partition("/")
        try:
            spec = importlib.util.find_spec(package) if package.isidentifier() else None
        except ValueError:  # what is there but was not imported from anywhere, such as __main__
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(
                f"{name}: no package {package!r} is installed.",
                f"Write {PACKAGE}NAME/PATH, NAME being what it is imported by, and install it with pip first.",
            )
        root = Path(spec.submodule_search_locations[0])
        found = root / inside
        if not found.exists():
            raise ModelError(
                f"{name}: the installed package {package} has no {inside or 'files'}.", f"What it has lies in {root}."
            )
        return gguf_in(found, "bridge") or found
    return gguf_in(name, "bridge") or checkpoint_folder(name)


def text_model_digest(source: Path) -> str:
    """sha256 over all that vectors depend on: weights, configuration and tokenizer.

    Raises:
        ModelError: There are no weights.
    """
    if source.is_file():
        return weights_digest(source)
    files = [*weight_files(source), *(source / name for name in READ_FILES if (source / name).exists())]
    told = [f"{file.name} {weights_digest(file)}" for file in files]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _load(source: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """A headless model and its tokenizer, every weight in its place."""
    from transformers import AutoModel, AutoTokenizer

    if not source.is_file():
        weight_files(source)  # else transformers would look for weights that are unpickled
    tokenizer, model, report = load_pair(AutoModel, AutoTokenizer, source, dtype=dtype)
    left = [
        str(each[0] if isinstance(each, tuple) else each)
        for part in ("missing_keys", "unexpected_keys", "mismatched_keys")
        for each in report[part]
    ]
    strange = sorted(name for name in left if not _HEADS.search(name))
    if strange:
        raise ModelError(
            f"The weights in {source} do not fit its configuration: {len(strange)} are missing, too many, or of "
            f"another shape, such as {strange[0]}.",
            "Fetch the checkpoint again, or check that config.json belongs to it.",
        )
    if model.config.is_encoder_decoder:
        raise ModelError(f"{source} holds a {model.config.model_type}, an encoder with a decoder; one of them is read.")
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise CallError(f"The tokenizer in {source} is a slow one, in Python; a tokenizer.json is needed.")
    return model, tokenizer


def _positions(model: Any) -> int:
    """How many tokens it can read; RoBERTa and its kin count them from behind the number of the padding token."""
    limit = int(getattr(model.config, "max_position_embeddings", None) or 2**20)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return limit - int(module.padding_idx) - 1
    return limit


def _is_encoder(config: Any) -> bool:
    """Whether its tokens see those behind them: what is trained by masking words is an encoder."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
