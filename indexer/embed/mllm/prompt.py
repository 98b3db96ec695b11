"""Prompts of a multimodal language model: the token ids of an item by the spec's template, and their positions.

The user's words are never read as special tokens: a text that contains `<|image_pad|>` or `<|im_end|>` is read
literally. An item that is too long loses the end of its text, never the template's end, whose last token is the vector.
The authors' scripts cut whatever is at the end; `Parity.AUTHORS` does so, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.embed.mllm.spec import MllmSpec, Padding, Parity, Positions
from indexer.embed.tokenizer_file import FILE as TOKENIZER_FILE
from indexer.embed.tokenizer_file import read_tokenizer
from indexer.errors import CallError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ints = npt.NDArray[np.int64]
Grid = tuple[int, int, int]
"""The frames, rows and columns of patches."""


@dataclass(frozen=True)
class ImageTokens:
    """The token ids around and inside an image."""

    start: int
    pad: int
    end: int


@dataclass(frozen=True)
class Prompt:
    """One item's tokens.

    Attributes:
        ids: Token ids.
        grids: Patch grids of its images, in order.
    """

    ids: tuple[int, ...]
    grids: tuple[Grid, ...]

    def __len__(self) -> int:
        return len(self.ids)


class PromptWriter:
    """Writes prompts by a spec.

    Args:
        tokenizer: The checkpoint's own.
        spec: Template and limits.
        image: The ids of image tokens.
        merge: Patches per side that become one token.
    """

    def __init__(self, tokenizer: Tokenizer, spec: MllmSpec, image: ImageTokens, merge: int) -> None:
        self._tokenizer, self._spec, self._image, self._merge = tokenizer, spec, image, merge
        special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()}
        pattern = "|".join(re.escape(each) for each in (*sorted(special, key=len, reverse=True), "{image}"))
        pieces = [each for each in re.split(f"({pattern})", spec.template) if each]
        self.opening, self.closing = _own_ends(tokenizer)
        # From here on this private tokenizer reads the names of special tokens as plain text.
        tokenizer.encode_special_tokens = True
        # Each special token splits the text, so the parts between them are tokenized separately.
        self._pieces: list[int | str] = [special.get(each, each) for each in pieces]

    def describe(self) -> str:
        """A stable line for the fingerprint: the parts of the spec that concern text."""
        spec = self._spec
        return (
            f"{spec.template!r} query={spec.query_instruction!r} fused={spec.fused_instruction!r} "
            f"document={spec.document_instruction!r} stop={spec.full_stop} positions={spec.positions} "
            f"tokens={spec.max_tokens} ends={self.opening}{self.closing}"
            f"{' cut=end' if spec.parity is Parity.AUTHORS else ''}"
        )

    def write(self, instruction: str, text: str | None, grids: Sequence[Grid]) -> Prompt:
        """The tokens of one item; its text is cut so that they are at most `max_tokens`.

        Several images follow each other at the template's image place, as in the authors' chat templates.

        Raises:
            CallError: The instruction leaves no room for anything else.
        """
        ids: list[int] = list(self.opening)
        place, spare = 0, (0, 0)
        for piece in self._joined(bool(grids)):
            if isinstance(piece, int):
                ids.append(piece)
            elif piece == "{image}":
                for grid in grids:
                    tokens = grid[0] * grid[1] * grid[2] // self._merge**2
                    ids += [self._image.start, *[self._image.pad] * tokens, self._image.end]
            elif "{text}" in piece:
                before, after = piece.replace("{instruction}", instruction).split("{text}")
                read, inside = self._read(before, text or "", after)
                place, spare = len(ids), inside
                ids += read
            else:
                ids += self._plain(piece.replace("{instruction}", instruction))
        if self._spec.parity is Parity.AUTHORS:
            ids = ids[: self._spec.max_tokens - len(self.closing)]
            spare = (0, 0)
        ids += self.closing
        excess = len(ids) - self._spec.max_tokens
        if excess > 0:
            first, last = spare
            kept = max(first, last - excess)
            del ids[place + kept : place + last]
        if len(ids) > self._spec.max_tokens and len(self._plain(instruction)) > self._spec.max_tokens // 2:
            raise CallError(
                f"The instruction alone has {len(self._plain(instruction)):,} tokens; the model reads "
                f"{self._spec.max_tokens:,} in all.",
                "Shorten it.",
            )
        return Prompt(tuple(ids), tuple(grids))

    def _joined(self, image: bool) -> list[int | str]:
        """The template's pieces; without an image, the words around its place are one piece."""
        if image:
            return self._pieces
        joined: list[int | str] = []
        for piece in self._pieces:
            if piece == "{image}":
                continue
            last = joined[-1] if joined else None
            if isinstance(piece, str) and isinstance(last, str):
                joined[-1] = last + piece
            else:
                joined.append(piece)
        return joined

    def _plain(self, text: str) -> list[int]:
        return self._encode(text).ids if text else []

    def _read(self, before: str, text: str, after: str) -> tuple[list[int], tuple[int, int]]:
        """The tokens of a piece with the user's text inside, and which of them belong to the text."""
        encoded = self._encode(before + text + after)
        start, end = len(before), len(before) + len(text)
        inside = [place for place, (low, high) in enumerate(encoded.offsets) if low >= start and high <= end]
        return encoded.ids, (inside[0], inside[-1] + 1) if text and inside else (0, 0)

    def _encode(self, text: str) -> Any:
        return self._tokenizer.encode(text, add_special_tokens=False)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint, from its file, without length limits.

    Raises:
        ModelError: It does not exist or cannot be read.
    """
    return read_tokenizer(folder / TOKENIZER_FILE)


def positions(prompt: Sequence[int], grids: Sequence[Grid], pad: int, merge: int, scheme: Positions) -> Ints:
    """Each token's position in time, height and width: (3, n) int64.

    In M-RoPE, text advances all three equally; an image's tokens share the time of the first and count rows and columns
    from there; what follows continues after the largest. Source: Qwen2-VL, arXiv:2409.12191.
    """
    places = np.tile(np.arange(len(prompt), dtype=np.int64), (3, 1))
    if scheme is Positions.SEQUENTIAL:
        return places
    ids, at = list(prompt), 0
    for grid in grids:
        first = ids.index(pad, at)
        shape = (grid[0], grid[1] // merge, grid[2] // merge)
        at = first + int(np.prod(shape))
        begin = places[0, first]
        places[:, first:at] = begin + np.indices(shape).reshape(3, -1)
        places[:, at:] = begin + max(shape[1:]) + np.arange(len(prompt) - at)
    return places


@dataclass(frozen=True)
class Batch:
    """A batch of prompts.

    Attributes:
        ids: (n, length) int64.
        mask: (n, length) int64, 1 for a token and 0 for padding.
        places: (3, n, length) int64, positions.
        last: (n,) int64, the index of each prompt's last token.
        grids: (images, 3) int64.
    """

    ids: Ints
    mask: Ints
    places: Ints
    last: Ints
    grids: Ints


def collate(prompts: Sequence[Prompt], pad: int, image: ImageTokens, merge: int, spec: MllmSpec) -> Batch:
    """Pad prompts to a batch, on the spec's side."""
    length = max(map(len, prompts))
    ids = np.full((len(prompts), length), pad, np.int64)
    mask = np.zeros((len(prompts), length), np.int64)
    places = np.zeros((3, len(prompts), length), np.int64)
    last = np.empty(len(prompts), np.int64)
    for row, prompt in enumerate(prompts):
        start = length - len(prompt) if spec.padding is Padding.LEFT else 0
        own = slice(start, start + len(prompt))
        ids[row, own], mask[row, own] = prompt.ids, 1
        places[:, row, own] = positions(prompt.ids, prompt.grids, image.pad, merge, spec.positions)
        last[row] = own.stop - 1
    grids = np.array([grid for prompt in prompts for grid in prompt.grids], np.int64).reshape(-1, 3)
    return Batch(ids, mask, places, last, grids)


def _own_ends(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before and after every text."""
    inner = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    for start in range(len(whole) - len(inner) + 1):
        if whole[start : start + len(inner)] == inner:
            return whole[:start], whole[start + len(inner) :]
    return [], []
