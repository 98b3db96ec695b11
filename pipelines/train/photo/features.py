"""Precomputed inputs of photo training: features of the frozen models, computed once and stored in a folder.

Features are stored of each photo as it is and of some augmented copies: other crops and proportions, mirrored, relit,
smaller. Proportions matter, since the model squeezes every photo into a square. A kill costs the last few hundred
photos.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.corpus.images import decode_image
from indexer.embed.bridge.text_model import TextModel
from indexer.embed.photo.embedder import MAX_TOKENS, PREPROCESS
from indexer.embed.photo.image_encoder import EARLY_WIDTH, PLACES, WIDTH, ImageEncoder
from indexer.errors import CallError, ItemError
from indexer.files.atomic import atomic_path, atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Rows = npt.NDArray[np.int64]
PART = 256
"""Photos whose features are written together."""
BATCH = 32
PROPORTIONS = 1.5
"""Limit of an augmented copy's aspect ratio relative to the photo's."""


@dataclass(frozen=True)
class PhotoFeatures:
    """Features in files, of which memory holds only what is read.

    Attributes:
        late: By view, (n, 1 + 9, 1280) float16.
        early: By view, (n, 9, 280) float16.
        bad: Positions of unusable photos, whose features are zero.
    """

    late: Sequence[npt.NDArray[np.float16]]
    early: Sequence[npt.NDArray[np.float16]]
    bad: Rows

    @property
    def views(self) -> int:
        """Number of views, including the unchanged photos."""
        return len(self.late)

    def read(self, rows: Rows, views: Rows) -> tuple[Tensor, Tensor]:
        """Features of photos, each in one view, in float32: (m, 1 + 9, 1280) and (m, 9, 280)."""
        import torch

        late = np.empty((len(rows), 1 + PLACES, WIDTH), np.float32)
        early = np.empty((len(rows), PLACES, EARLY_WIDTH), np.float32)
        for place, (row, view) in enumerate(zip(rows, views, strict=True)):
            late[place], early[place] = self.late[view][row], self.early[view][row]
        return torch.from_numpy(late), torch.from_numpy(early)


def photo_features(
    encoder: ImageEncoder,
    images: Callable[[], Iterable[Any]],
    least: Sequence[float],
    changed: npt.NDArray[np.bool_],
    *,
    views: int,
    seed: int,
    folder: Path,
) -> PhotoFeatures:
    """Features of all photos; existing ones are not computed again.

    Args:
        encoder: The image encoder.
        images: Gives the n image sources, the same ones each time.
        least: n, the least share of its area that an augmented copy of a photo shows.
        changed: n, whether augmented copies of a photo are wanted; the features of others are zero there.
        views: Augmented copies of a photo.
        seed: Seed of the augmentation.
        folder: Where features are stored.

    Raises:
        CallError: The folder has features of another corpus or encoder, or no photo can be used.
        StoreError: The disk cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {"encoder": encoder.digest, "photos": len(least), "seed": seed, "preprocessing": PREPROCESS.describe()}
    file = folder / "about.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != about:
        raise CallError(f"{folder} has features of another corpus or image encoder.", "Choose another folder.")
    atomic_write(file, json.dumps(about).encode())
    for view in range(1 + views):
        wanted = np.ones(len(least), np.bool_) if view == 0 else changed
        _see(encoder, images, least, wanted, view, seed, folder)
    stored = [[np.load(folder / f"{kind}-{view}.npy", mmap_mode="r") for view in range(1 + views)] for kind in _KINDS]
    bad = np.array(json.loads((folder / "bad.json").read_text(encoding="utf-8")), np.int64)
    if len(bad) == len(least):
        raise CallError(
            f"None of the corpus's {len(bad):,} photos can be used.", "`underdrawing index` says why for each."
        )
    return PhotoFeatures(stored[0], stored[1], bad)


_KINDS = {"late": (1 + PLACES, WIDTH), "early": (PLACES, EARLY_WIDTH)}


def _see(
    encoder: ImageEncoder,
    images: Callable[[], Iterable[Any]],
    least: Sequence[float],
    wanted: npt.NDArray[np.bool_],
    view: int,
    seed: int,
    folder: Path,
) -> None:
    """Compute one view, resuming where an earlier run stopped."""
    progress = folder / f"done-{view}.json"
    done, bad = json.loads(progress.read_text(encoding="utf-8")) if progress.exists() else (0, [])
    if done < len(least):
        arrays = {}
        for kind, shape in _KINDS.items():
            file = folder / f"{kind}-{view}.npy"
            if done == 0:
                np.lib.format.open_memmap(file, "w+", np.float16, (len(least), *shape)).flush()
            arrays[kind] = np.lib.format.open_memmap(file, "r+")
        left = islice(enumerate(images()), done, None)
        while part := list(islice(left, PART)):
            rows, pixels = [], []
            for row, image in part:
                if not wanted[row]:
                    continue
                try:
                    photo = decode_image(image)
                except ItemError:
                    bad.append(row)
                    continue
                rng = np.random.default_rng([seed, view, row])
                rows.append(row)
                pixels.append(PREPROCESS.pixels(photo if view == 0 else changed_copy(photo, least[row], rng)))
            for start in range(0, len(rows), BATCH):
                own = rows[start : start + BATCH]
                late, early = encoder.features(np.stack(pixels[start : start + BATCH]))
                arrays["late"][own], arrays["early"][own] = late.cpu().numpy(), early.cpu().numpy()
            for array in arrays.values():
                array.flush()
            done += len(part)
            atomic_write(progress, json.dumps((done, bad)).encode())
        if done != len(least):
            raise CallError("The corpus changed while it was read.", "Run the same command again.")
    if view == 0:
        atomic_write(folder / "bad.json", json.dumps(bad).encode())


def changed_copy(photo: Image, least: float, rng: np.random.Generator) -> Image:
    """A crop of a photo in other proportions, perhaps mirrored, relit or reduced.

    Args:
        photo: RGB.
        least: Least share of its area that is shown; 1 for all of it.
        rng: Random generator of this copy.
    """
    from PIL import ImageEnhance
    from PIL.Image import Resampling, Transpose

    width, height = photo.size
    area, ratio = rng.uniform(least, 1), np.exp(rng.uniform(-1, 1) * np.log(PROPORTIONS))
    wide, high = min(1.0, (area * ratio) ** 0.5), min(1.0, (area / ratio) ** 0.5)
    left, top = rng.uniform(0, 1 - wide), rng.uniform(0, 1 - high)
    box = (left * width, top * height, (left + wide) * width, (top + high) * height)
    side = int(rng.integers(64, 160)) if rng.random() < 0.15 else PREPROCESS.size[0]
    copy = photo.resize((side, side), Resampling.BICUBIC, box)
    if rng.random() < 0.5:
        copy = copy.transpose(Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        if rng.random() < 0.5:
            copy = enhance(copy).enhance(rng.uniform(0.8, 1.2))
    return copy


@dataclass(frozen=True)
class TextStates:
    """The text model's states of many texts, in a file, of which memory holds only what is read.

    Attributes:
        states: (tokens of all texts, width) float16.
        starts: (n + 1,) where each text begins, and where the last one ends.
        means: (n, width) float32 unit rows: the mean state of each text.
    """

    states: npt.NDArray[np.float16]
    starts: Rows
    means: npt.NDArray[np.float32]

    def read(self, texts: Rows) -> tuple[Tensor, Tensor]:
        """States of some texts (m, tokens, width) float32, and which belong to each text, (m, tokens) bool."""
        import torch

        lengths = self.starts[texts + 1] - self.starts[texts]
        states = np.zeros((len(texts), int(lengths.max()), self.states.shape[1]), np.float32)
        for place, (text, length) in enumerate(zip(texts, lengths, strict=True)):
            states[place, :length] = self.states[self.starts[text] : self.starts[text] + length]
        return torch.from_numpy(states), torch.from_numpy(np.arange(states.shape[1]) < lengths[:, None])


def text_states(model: TextModel, texts: Sequence[str], folder: Path) -> TextStates:
    """States of all texts, computed once and stored in the folder.

    Raises:
        StoreError: The disk cannot be written.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(repr((model.digest, MAX_TOKENS, list(texts))).encode()).hexdigest()[:16]
    files = {kind: folder / f"{kind}-{key}.npy" for kind in ("states", "starts", "means")}
    if not files["means"].exists():  # written last
        ids = [model.ids(text, MAX_TOKENS - model.specials) for text in texts]
        lengths = np.array([len(each) + model.specials for each in ids], np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        means = np.empty((len(texts), model.width), np.float32)
        with atomic_path(files["states"]) as temporary, torch.inference_mode():
            stored = np.lib.format.open_memmap(temporary, "w+", np.float16, (int(starts[-1]), model.width))
            order = np.argsort(lengths, kind="stable")  # similar lengths need little padding
            for begin in range(0, len(order), PART):
                part = order[begin : begin + PART]
                states, mask = model.states([ids[place] for place in part])
                mean = (states * mask[:, :, None]).sum(1)
                means[part] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
                for place, found in zip(part, states.cpu().numpy(), strict=True):
                    stored[starts[place] : starts[place + 1]] = found[: lengths[place]]
            stored.flush()
        for kind, array in (("starts", starts), ("means", means)):
            with atomic_path(files[kind]) as temporary, temporary.open("wb") as stream:
                np.save(stream, array)
    return TextStates(np.load(files["states"], mmap_mode="r"), np.load(files["starts"]), np.load(files["means"]))
