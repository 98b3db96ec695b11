"""Textual inversion: an image's feature becomes a pseudo-word, and a text encoder reads it in a sentence.

    Phi                feature (d,) -> word embedding (w,): the network that recipes train
    PseudoWordReader   a text encoder that takes pseudo-words at marked places of a text
    Inversion          a trained Phi with the template that its pseudo-words are read in

A place is marked by its position, not by a character: the texts before and after it are tokenized separately, so no
user text can be mistaken for it.

This module does not know where image features come from, or how a Phi is trained.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.embed.clip.tokenizer import FolderTokenizer
from indexer.embed.loading import loading
from indexer.embed.model_files import read_json
from indexer.errors import CallError, ModelError, first_line
from indexer.files.atomic import atomic_path, atomic_write, file_digest

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG = "inversion.json"
WEIGHTS = "inversion.safetensors"
WORD = "{word}"
PUBLISHED_TEMPLATE = "a photo of {word} that {text}"

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class InversionConfig:
    """The description of a Phi, besides its weights.

    Attributes:
        feature_dim: Length of the image features it reads.
        hidden_dim: Width of its two hidden layers.
        word_dim: Width of the text encoder's word embeddings.
        normalized: Whether it reads unit vectors; published ones read raw features.
        template: The text that its pseudo-words are read in; `{word}` once, and `{text}` for the user's sentence.
        text_tower: sha256 of the weights of the model whose text encoder it was trained for, or empty.
        recipe: How it was trained.
    """

    feature_dim: int
    hidden_dim: int
    word_dim: int
    normalized: bool = False
    template: str = PUBLISHED_TEMPLATE
    text_tower: str = ""
    recipe: str = ""

    def __post_init__(self) -> None:
        check_template(self.template)


def check_template(template: str) -> None:
    """Check that a template has `{word}` once.

    Raises:
        CallError: It has none or several.
    """
    if template.count(WORD) != 1:
        raise CallError(f"The template {template!r} has {WORD} {template.count(WORD)} times; it must have it once.")


def build_phi(config: InversionConfig, dropout: float = 0.0) -> nn.Module:
    """Linear, GELU, dropout, twice, and a last Linear, without normalization or residual connections.

    The architecture of SEARLE (Baldrati et al. 2023, arXiv:2303.15247) and LinCIR (Gu et al. 2024, arXiv:2312.01998).
    """
    from torch import nn

    class Phi(nn.Module):
        """(n, feature_dim) features to (n, word_dim) pseudo-words."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(config.feature_dim, config.hidden_dim), nn.GELU(), nn.Dropout(dropout),
                nn.Linear(config.hidden_dim, config.hidden_dim), nn.GELU(), nn.Dropout(dropout),
                nn.Linear(config.hidden_dim, config.word_dim),
            )  # fmt: skip

        def forward(self, features: Tensor) -> Tensor:
            words: Tensor = self.layers(features)
            return words

    return Phi()


class PseudoWordReader:
    """A text encoder whose word embeddings can be replaced at chosen places of a text.

    It uses the encoder's own forward pass: a hook on the token embedding overwrites rows, and nothing else changes.
    Without a place it is the encoder itself, bit for bit, also for other threads.

    Args:
        embedding: The encoder's token embedding, an `nn.Embedding`.
        tokenizer: open_clip's or transformers'.
        context: Tokens of a text, start and end included.
        pad: The id that fills a text to its length; None for the tokenizer's own.
    """

    def __init__(self, embedding: Any, tokenizer: Any, context: int, pad: int | None = None) -> None:
        self.embedding = embedding
        self.word_dim = int(embedding.weight.shape[1])
        self.context = context
        self._now = _reads_words(embedding)
        pieces = _Pieces.of(tokenizer)
        self._pieces = pieces if pad is None else replace(pieces, pad=pad)
        self._place = self._pieces.ids("a")[-1]  # any id: its embedding is overwritten

    def tokenize(self, template: str, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenize texts in a template; see `tokenize_pieces` for results and errors.

        Args:
            template: `{word}` any number of times, `{text}` too.
            texts: What `{text}` stands for.
        """
        return self.tokenize_pieces([[p.replace("{text}", text) for p in template.split(WORD)] for text in texts])

    def tokenize_pieces(self, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Tokenize texts with a pseudo-word between any two of their pieces.

        A long text loses its end, never its first pseudo-word or the end token.

        Args:
            texts: The pieces of each; a single piece is a text without a pseudo-word.

        Returns:
            Token ids (n, context) int64, and the places of pseudo-words, (n, context) bool.

        Raises:
            CallError: The text before the first pseudo-word fills the context.
        """
        import torch

        room = self.context - self._pieces.special
        rows, masks = [], []
        for pieces in texts:
            ids, places = list(self._pieces.ids(pieces[0])), [False] * self.context
            if len(pieces) > 1 and len(ids) >= room:
                raise CallError(
                    f"The text before the word has {len(ids)} tokens; there is room for {room - 1}.",
                    "Write a template whose {word} comes before the sentence.",
                )
            start = self._pieces.offset
            for piece in pieces[1:]:
                if len(ids) < room:
                    places[start + len(ids)] = True
                ids += [self._place, *self._pieces.ids(piece)]
            rows.append(self._pieces.wrapped(ids[:room], self.context))
            masks.append(places)
        shape = (len(texts), self.context)
        return torch.tensor(rows, dtype=torch.int64).view(shape), torch.tensor(masks, dtype=torch.bool).view(shape)

    @contextmanager
    def reading(self, places: Tensor, words: Tensor) -> Iterator[None]:
        """Within this block, a forward pass of the encoder reads pseudo-words at some places.

        Args:
            places: (n, context) bool; truncated like the token ids.
            words: (n, word_dim), the pseudo-word of each text.
        """
        outer = getattr(self._now, "read", None)
        self._now.read = (places, words) if bool(places.any()) else None
        try:
            yield
        finally:
            self._now.read = outer


def _reads_words(embedding: Any) -> threading.local:
    """Make an embedding read pseudo-words; `read`, separate for each thread, says which and where.

    The hook stays: hooks must not change while other threads run the module.
    """
    import torch

    now = threading.local()

    def replace(_module: Any, _inputs: Any, embedded: Tensor) -> Tensor:
        read = getattr(now, "read", None)
        if read is None:
            return embedded
        places, words = read
        here = places[:, : embedded.shape[1], None]
        return torch.where(here, words[:, None].to(embedded), embedded)

    embedding.register_forward_hook(replace)
    return now


@dataclass(frozen=True)
class _Pieces:
    """How a tokenizer turns a piece of text into ids, and the special tokens around a whole text."""

    encode: Any
    start: int | None
    end: int | None
    pad: int

    @classmethod
    def of(cls, tokenizer: Any) -> _Pieces:
        if hasattr(tokenizer, "sot_token_id"):  # open_clip's SimpleTokenizer
            return cls(lambda text: tokenizer.encode(text), tokenizer.sot_token_id, tokenizer.eot_token_id, 0)
        if isinstance(tokenizer, FolderTokenizer):
            return cls(tokenizer.encode, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id or 0)
        inner = getattr(tokenizer, "tokenizer", tokenizer)  # open_clip's HFTokenizer wraps transformers' own
        clean = getattr(tokenizer, "clean_fn", None) or (lambda text: text)
        # A copy: a transformers tokenizer remembers how it last padded, which would affect other threads.
        inner = copy.deepcopy(inner)
        return cls(
            lambda text: inner.encode(clean(text), add_special_tokens=False),
            inner.bos_token_id,
            inner.eos_token_id,
            inner.pad_token_id or 0,
        )

    @property
    def special(self) -> int:
        return (self.start is not None) + (self.end is not None)

    @property
    def offset(self) -> int:
        """The position of the first token of a text."""
        return int(self.start is not None)

    def ids(self, text: str) -> list[int]:
        text = text.strip()
        return list(self.encode(text)) if text else []

    def wrapped(self, body: list[int], context: int) -> list[int]:
        """The complete row: start, text, end, padding."""
        row = [each for each in (self.start, *body, self.end) if each is not None]
        return row + [self.pad] * (context - len(row))


class Inversion:
    """A trained Phi, from image features to pseudo-words. Weights are in float32, on the CPU unless moved."""

    def __init__(self, config: InversionConfig, phi: Any, digest: str) -> None:
        self.config = config
        self.digest = digest
        self.phi = phi.eval()

    def words(self, features: Matrix) -> Matrix:
        """(n, feature_dim) features to (n, word_dim) pseudo-words.

        Raises:
            CallError: The features have another width.
        """
        import torch

        if features.shape[1] != self.config.feature_dim:
            raise CallError(
                f"The inversion reads features of {self.config.feature_dim} numbers; "
                f"this model's have {features.shape[1]}.",
                "Use an inversion that was trained for this model: underdrawing train inversion.",
            )
        device = next(self.phi.parameters()).device
        with torch.inference_mode():
            words: Matrix = self.phi(torch.from_numpy(np.ascontiguousarray(features)).to(device)).float().cpu().numpy()
        return words

    def save(self, folder: Path) -> None:
        """Write the configuration, then the weights in half precision."""
        import torch
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / CONFIG, json.dumps(asdict(self.config), indent=2).encode() + b"\n")
        halved = {key: value.to(torch.float16).contiguous() for key, value in self.phi.state_dict().items()}
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(halved, temporary)


def load_inversion(source: str | Path) -> Inversion:
    """Load an inversion: bundled, from a folder of ours, or a published checkpoint in SEARLE's or LinCIR's layout.

    Args:
        source: `bundled:NAME`, a folder with `inversion.json`, or a `.pt`, `.pth`, `.bin` or `.safetensors` file.

    Raises:
        ModelError: It does not exist, the weights are not a Phi's, or they are unsafe to load.
        UnknownNameError: No bundled inversion of that name.
    """
    with loading():  # other loading libraries change the default dtype of all threads
        return _inversion(source)


def _inversion(source: str | Path) -> Inversion:
    if isinstance(source, str) and source.startswith("bundled:"):
        from indexer.bundled import inversion_folder

        path = inversion_folder(source.removeprefix("bundled:"))
    else:
        path = Path(source)
    if path.is_dir():
        weights = path / WEIGHTS
        return _loaded(_read_config(path), _phi_tensors(weights), weights)
    if not path.is_file():
        raise ModelError(
            f"There is no inversion at {path}.",
            "Name a folder made by `underdrawing train inversion`, a published Phi, or bundled:emoji-inversion.",
        )
    tensors = _phi_tensors(path)
    first, last = tensors["layers.0.weight"], tensors["layers.6.weight"]
    if first.ndim != 2 or last.ndim != 2:
        raise ModelError(f"{path} is not a Phi: layers of {tuple(first.shape)} and {tuple(last.shape)} do not fit.")
    return _loaded(InversionConfig(first.shape[-1], first.shape[0], last.shape[0]), tensors, path)


def _read_config(folder: Path) -> InversionConfig:
    file = folder / CONFIG
    if not file.exists():
        raise ModelError(f"{folder} is not an inversion: it lacks {CONFIG}.", "underdrawing train inversion makes one.")
    values = read_json(file, "configuration of an inversion")
    known = {each.name: _TYPES[str(each.type)] for each in fields(InversionConfig)}
    strange = [key for key, value in values.items() if key not in known or type(value) is not known[key]]
    try:
        if strange:
            raise CallError(f"{strange[0]!r} is {str(values[strange[0]])[:40]!r}")
        return InversionConfig(**values)
    except (TypeError, CallError) as error:
        raise ModelError(f"{folder} is not an inversion: its {CONFIG} cannot be used: {first_line(error)}.") from error


_TYPES: Mapping[str, type] = {"int": int, "bool": bool, "str": str}


def _loaded(config: InversionConfig, tensors: Mapping[str, Tensor], file: Path) -> Inversion:
    shapes = {name: tuple(tensors[f"layers.{name}.weight"].shape) for name in (0, 3, 6)}
    hidden, wanted = config.hidden_dim, (config.feature_dim, config.word_dim)
    if shapes != {0: (hidden, wanted[0]), 3: (hidden, hidden), 6: (wanted[1], hidden)}:
        # Checked before anything of these untrusted sizes is allocated.
        raise ModelError(
            f"The weights {file} do not fit their configuration: layers of {list(shapes.values())}, not features of "
            f"{wanted[0]}, {hidden} inside and words of {wanted[1]}."
        )
    phi = build_phi(config)
    try:
        phi.load_state_dict({key: value.float() for key, value in tensors.items()})
    except RuntimeError as error:
        raise ModelError(f"The weights {file} do not fit their configuration: {str(error).splitlines()[-1]}") from error
    return Inversion(config, phi, file_digest(file))


def _phi_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a Phi from safetensors or from a checkpoint that holds only plain tensors."""
    import pickle  # for its error: weights_only refuses anything but plain tensors

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors; loading it would run code from it.",
            "Have its author save a plain state dict, or convert it to safetensors if you trust it.",
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError, EOFError) as error:
        raise ModelError(f"{file} cannot be read as weights: {first_line(error)}.") from error
    # SEARLE and LinCIR store the state under the name of the class; others store it bare or wrapped once more.
    while isinstance(found, dict) and not any(str(key).endswith("layers.0.weight") for key in found):
        nested = [value for value in found.values() if isinstance(value, dict)]
        if not nested:
            raise ModelError(f"{file} holds no Phi: no layers.0.weight among its {len(found)} entries.")
        found = next((found[key] for key in ("Phi", "phi", "state_dict", "model") if key in found), nested[0])
    if not isinstance(found, dict):
        raise ModelError(f"{file} holds a {type(found).__name__}, not a Phi.")
    tensors = {str(k)[str(k).index("layers.") :]: value for k, value in found.items() if "layers." in str(k)}
    wanted = {f"layers.{number}.{kind}" for number in (0, 3, 6) for kind in ("weight", "bias")}
    if set(tensors) != wanted:
        odd = sorted(set(tensors) ^ wanted)
        raise ModelError(f"{file} is not a Phi of three layers; these differ: {', '.join(odd[:6])}.")
    if not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ModelError(f"{file} is not a Phi: not all of its weights are tensors.")
    return tensors
