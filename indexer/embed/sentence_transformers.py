"""Models of sentence-transformers as embedders: `st:FOLDER_OR_HUB_ID`, text-only, with two encoders, or joint.

Inputs are distinguished by their type, never by what a text looks like: sentence-transformers itself takes a text that
names an existing image for that image. Queries and documents get the model's own prompts. A fused item is read jointly
if the model can; otherwise it is the equally weighted sum of its unit parts. The fingerprint says which. The image part
of several images is the mean of their unit vectors.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.embed.base import Dtype, Embedder, Fingerprint, Prepared
from indexer.embed.checkpoints import checkpoint_digest, checkpoint_folder, quietly
from indexer.embed.model_files import SPARE, closed_to_code, data_only, numbers_in
from indexer.embed.sentence_transformers_files import require_harmless
from indexer.embed.several import image_arrays, images_of, mean_of_several
from indexer.errors import CallError, MissingExtraError, ModelError, first_line
from indexer.forks import Lock
from indexer.types import ImageSource, Item, Modality, Role, Vectors
from indexer.vectors.unit import unit_rows

JOINT = ("image", "text")
"""sentence-transformers' name for a fused item."""
IMAGES_TOGETHER = 16
"""Batch size of a model that takes images: they wait at their full size, since it resizes them itself."""


class SentenceTransformersEmbedder(Embedder):
    """A loaded `SentenceTransformer`.

    Args:
        model: The model.
        folder: Where its files are.
        name: The name that it was loaded by.
        dtype: The arithmetic of its forward pass.
    """

    def __init__(self, model: Any, folder: Path, *, name: str, dtype: Dtype) -> None:
        self.name = name
        self.device = str(model.device)
        self._model, self._folder, self._dtype = model, folder, dtype
        self._encoding = Lock()
        self._joint = bool(model.supports(JOINT))
        takes = {each for each in (Modality.TEXT, Modality.IMAGE) if model.supports(each.value)}
        self._typed = Modality.IMAGE in takes
        self.modalities = frozenset(takes | ({Modality.FUSED} if self._joint or len(takes) == 2 else set()))
        self.batch_size = IMAGES_TOGETHER if self._typed else Embedder.batch_size
        if not self.modalities:
            raise ModelError(f"{name} takes neither texts nor images, only {', '.join(map(str, model.modalities))}.")
        found = model.get_embedding_dimension()
        self.dim = int(found) if found else int(self._encode_inputs([{"text": "a"}], Role.DOCUMENT).shape[1])

    @classmethod
    def load(cls, source: str, *, name: str, dtype: Dtype, device: str) -> SentenceTransformersEmbedder:
        """Load a folder or a hub id.

        Args:
            source: A folder that sentence-transformers saved, or a hub id (fetched on first use).
            name: The name that it is loaded by.
            dtype: The arithmetic of its forward pass.
            device: Where it runs.

        Raises:
            MissingExtraError: sentence-transformers is not installed, or too old.
            CallError: float16 on a CPU.
            ModelError: There is no such model, it brings code of its own, or it cannot be loaded.
        """
        try:
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.base.modules import InputModule  # noqa: F401  # since 6.0, which refuses code
        except ImportError:
            raise MissingExtraError("sentence-transformers 6", "sentence-transformers", f"The model {name}") from None
        import torch
        from safetensors import SafetensorError

        if dtype is Dtype.FLOAT16 and device == "cpu":
            raise CallError("float16 is slow and imprecise on a CPU.", "Use float32 or bfloat16, or a GPU.")
        folder = checkpoint_folder(source)
        require_harmless(folder)
        try:
            with data_only(folder) as copy, quietly(), closed_to_code():
                model = SentenceTransformer(
                    str(copy), device=device, trust_remote_code=False, local_files_only=True,
                    model_kwargs={"use_safetensors": True},
                )  # fmt: skip
        except (LookupError, TypeError, AttributeError, ValueError, OSError, RuntimeError, ImportError,
                AssertionError, ArithmeticError, SafetensorError) as error:  # fmt: skip
            raise ModelError(f"{name} cannot be loaded from {folder}: {first_line(error)}.") from error
        asked, there = sum(each.numel() for each in model.parameters()), numbers_in(folder)
        if asked > SPARE * there:  # the library fills missing weights with random numbers
            raise ModelError(
                f"The weights in {folder} are {there:,} numbers; its configuration needs {asked:,}.",
                "Copy the whole folder again.",
            )
        return cls(model.to(getattr(torch, dtype.value)).eval(), folder, name=name, dtype=dtype)

    @functools.cached_property
    def _fingerprint(self) -> Fingerprint:
        fused = "joint" if self._joint else "0.5 image + 0.5 text of unit parts"
        return Fingerprint(
            model=self.name,
            weights=checkpoint_digest(self._folder),
            preprocessing="sentence-transformers, by the model's files",
            template=f"prompts {json.dumps(self._model.prompts, sort_keys=True)}; fused = {fused}",
            dtype=self._dtype.value,
            dim=self.dim,
        )

    def fingerprint(self) -> Fingerprint:
        """Digests of weights and configurations; later calls use a cache by (path, size, time)."""
        return self._fingerprint

    def preparer(self) -> StPrepare:
        """Decoding only: the model does the rest."""
        return StPrepare()

    def forward(self, prepared: Sequence[Prepared], role: Role, instruction: str | None = None) -> Vectors:
        """One call for each kind of item; instructions are ignored, as the model has its own prompts."""
        several = np.array([len(images_of(each)) > 1 for each in prepared], bool)
        vectors = np.zeros((len(prepared), self.dim), np.float32)
        vectors[~several] = self._read([each for each, is_so in zip(prepared, several, strict=True) if not is_so], role)
        if several.any():
            vectors[several] = self._means([each for each, is_so in zip(prepared, several, strict=True) if is_so], role)
        return unit_rows(vectors)

    def _read(self, prepared: Sequence[Prepared], role: Role) -> Vectors:
        vectors = np.zeros((len(prepared), self.dim), np.float32)
        for row, share, inputs in self._calls(prepared):
            vectors[row] += np.float32(share) * self._encode_inputs(inputs, role)
        return unit_rows(vectors)

    def _means(self, prepared: Sequence[Prepared], role: Role) -> Vectors:
        """Items of several images, (n, dim): their mean, equally weighted with the text, if there is one."""

        def encode(images: Sequence[npt.NDArray[Any]]) -> Vectors:
            return self._read([Prepared(Modality.IMAGE, {"image": image}) for image in images], role)

        vectors = mean_of_several(prepared, encode, IMAGES_TOGETHER)
        texts = [row for row, each in enumerate(prepared) if "text" in each.arrays]
        if texts:
            said = [Prepared(Modality.TEXT, {"text": prepared[row].arrays["text"]}) for row in texts]
            vectors[texts] = 0.5 * vectors[texts] + 0.5 * self._read(said, role)
        return unit_rows(vectors)

    def _calls(self, prepared: Sequence[Prepared]) -> list[tuple[list[int], float, list[dict[str, Any]]]]:
        """Rows, their weight, and their inputs: alike, so that none is turned into a chat."""
        from PIL import Image

        alike: dict[tuple[tuple[str, ...], float], tuple[list[int], list[dict[str, Any]]]] = {}
        for row, each in enumerate(prepared):
            parts: dict[str, Any] = {}
            if "image" in each.arrays:
                parts["image"] = Image.fromarray(each.arrays["image"])
            if "text" in each.arrays:
                parts["text"] = str(each.arrays["text"])
            apart = len(parts) == 2 and not self._joint
            for own in [{name: value} for name, value in parts.items()] if apart else [parts]:
                rows, inputs = alike.setdefault((tuple(own), 0.5 if apart else 1.0), ([], []))
                rows.append(row)
                inputs.append(own)
        return [(rows, share, inputs) for (_, share), (rows, inputs) in alike.items()]

    def _encode_inputs(self, inputs: list[dict[str, Any]], role: Role) -> Vectors:
        encode = self._model.encode_query if role is Role.QUERY else self._model.encode_document
        # Plain strings for text models: not all of these take anything else, and none reads a text as a path.
        given = inputs if self._typed else [each["text"] for each in inputs]
        with self._encoding:  # its tokenizer changes its state when called
            rows = encode(given, batch_size=len(given), show_progress_bar=False, convert_to_tensor=True)
        return unit_rows(rows.float().cpu().numpy())


@dataclass(frozen=True)
class StPrepare:
    """Converts items to arrays, in any process."""

    def __call__(self, item: Item) -> Prepared:
        """Decode the image: (height, width, 3) uint8.

        Raises:
            ItemError: The image cannot be decoded.
        """
        arrays: dict[str, Any] = image_arrays(item, _pixels)
        if item.text is not None:
            # NumPy drops trailing NULs of its strings, and tokenizers ignore them.
            arrays["text"] = np.array(item.text.replace("\0", " "))
        return Prepared(item.modality, arrays)


def _pixels(image: ImageSource) -> npt.NDArray[np.uint8]:
    from indexer.corpus.images import decode_image

    return np.asarray(decode_image(image), np.uint8)


def load(rest: str, *, name: str, dtype: Dtype, device: str) -> SentenceTransformersEmbedder:
    """`st:FOLDER` or `st:HUB_ID`; see `SentenceTransformersEmbedder.load`."""
    return SentenceTransformersEmbedder.load(rest, name=name, dtype=dtype, device=device)
