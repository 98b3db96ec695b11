"""Bridges as embedders: a frozen image encoder and a frozen text model joined by a trained connector, `bridge:FOLDER`.

The connector turns the image encoder's patch features into vectors in place of words. The text model reads them and the
words of a text as one sequence. So one model reads a text, an image or both, and a fused item is not the sum of its
parts.

The folder holds `bridge.json`, which names the image encoder and the text model with the digests of both, and
`connector.safetensors`, all trained weights. A bridge is refused if either model differs from the one it was trained
with.

This module does not know how a bridge is trained, or any particular image encoder or text model.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from indexer.embed.base import Dtype, Embedder, Fingerprint, PatchEncoder, Prepared
from indexer.embed.bridge.connector import ConnectorConfig, build_bridge
from indexer.embed.bridge.text_model import Pooling, TextModel
from indexer.embed.mllm.batches import by_tokens
from indexer.embed.model_files import harmless, read_json
from indexer.embed.several import images_of
from indexer.embed.weights import load_trained, weights_digest
from indexer.errors import CallError, ModelError, first_line
from indexer.files.atomic import atomic_path, atomic_write
from indexer.reasons import Reason, refusal
from indexer.types import Item, Modality, Role, Vectors
from indexer.vectors.unit import unit_rows

CONFIG, WEIGHTS = "bridge.json", "connector.safetensors"
WHOLE = "Copy the whole folder again, as underdrawing train bridge wrote it."
MIN_TEXT = 8
"""Tokens reserved for the text of an item with several images."""
TOKENS = 4096
"""Tokens of a batch, padding included."""


@dataclass(frozen=True)
class BridgeSpec:
    """The content of `bridge.json`.

    Attributes:
        tower: The name of the image encoder, an embedder that is a `PatchEncoder`.
        tower_weights: sha256 of its weights.
        tower_preprocessing: How it prepares images.
        layer: Which of its layers to read; -1 is the last.
        text: The name of a `TextModel`.
        text_digest: sha256 of its files.
        pooling: How its output is pooled.
        max_tokens: Tokens of an item's text that are read.
        connector: The connector's shape.
    """

    tower: str
    tower_weights: str
    tower_preprocessing: str
    layer: int
    text: str
    text_digest: str
    pooling: Pooling
    max_tokens: int
    connector: ConnectorConfig

    @classmethod
    def read(cls, folder: Path) -> BridgeSpec:
        """From a bridge's folder.

        Raises:
            ModelError: The folder has no such file, or it cannot be read.
        """
        file = folder / CONFIG
        if not file.exists():
            raise ModelError(f"{folder} is not a bridge: it lacks {CONFIG}.", "underdrawing train bridge makes one.")
        try:
            values = _named(cls, harmless(read_json(file, "description of a bridge"), file), f"{file}")
            connector = _named(ConnectorConfig, values["connector"], f"{file}, connector")
            return cls(**values | {"pooling": Pooling(values["pooling"]), "connector": ConnectorConfig(**connector)})
        except ValueError as error:
            raise ModelError(f"{file} cannot be used: {first_line(error)}.", WHOLE) from error
        except CallError as error:  # a name or a size
            raise ModelError(f"{file}: {error}", WHOLE) from error

    def require_same(self, encoder: Fingerprint, text_digest: str) -> None:
        """Refuse another image encoder or text model than those that the bridge was trained with.

        Raises:
            ModelError: Names the model that differs, and both digests.
        """
        for what, name, wanted, found in (
            ("weights of the image encoder", self.tower, self.tower_weights, encoder.weights),
            ("preprocessing of the image encoder", self.tower, self.tower_preprocessing, encoder.preprocessing),
            ("text model", self.text, self.text_digest, text_digest),
        ):
            if wanted != found:
                raise ModelError(
                    f"The {what} {name} is not what this bridge was trained with: {found[:80]!r}, not {wanted[:80]!r}.",
                    f"Name the one it was trained with in its {CONFIG}, or train a bridge for this one.",
                )


def load(rest: str, *, name: str, dtype: Dtype, device: str) -> BridgeEmbedder:
    """`bridge:FOLDER`; see `BridgeEmbedder.load`."""
    from indexer.embed import load_embedder

    return BridgeEmbedder.load(Path(rest), load_embedder, name=name, dtype=dtype, device=device)


class BridgeEmbedder(Embedder):
    """An image encoder, a text model, and the connector between them.

    Args:
        encoder: The image encoder.
        text: The text model.
        bridge: The trained modules of `build_bridge`.
        spec: Their description.
        weights: sha256 of the trained modules.
        name: The name that it was loaded by.
        dtype: Arithmetic of the forward pass.
        device: Where it runs.
    """

    modalities = frozenset(Modality)
    fuses_natively = True

    def __init__(
        self,
        encoder: PatchEncoder,
        text: TextModel,
        bridge: Any,
        spec: BridgeSpec,
        weights: str,
        *,
        name: str,
        dtype: Dtype,
        device: str,
    ) -> None:
        self.name, self.spec, self.dim = name, spec, text.width
        self._encoder, self._text, self._bridge = encoder, text, bridge
        self._weights, self._dtype, self.device = weights, dtype, device
        self._most = text_room(text, spec.connector, spec.max_tokens)

    @classmethod
    def load(
        cls, folder: Path, load_encoder: Callable[..., Any], *, name: str, dtype: Dtype, device: str
    ) -> BridgeEmbedder:
        """Load a bridge, its image encoder and its text model.

        Args:
            folder: A folder that `save_bridge` wrote.
            load_encoder: Loads an embedder by its name, as `indexer.embed.load_embedder` does.
            name: The name that it was loaded by.
            dtype: Arithmetic of the forward pass.
            device: Where it runs.

        Raises:
            CallError: The device does not support the dtype.
            ModelError: The folder is not a bridge, or one of the three parts cannot be loaded, or they do not match.
            MissingExtraError: A package that one of them needs is missing.
        """
        import torch

        if dtype is Dtype.FLOAT16 and device == "cpu":
            raise CallError("float16 is slow and imprecise on a CPU.", "Use float32 or bfloat16, or a GPU.")
        spec = BridgeSpec.read(folder)
        computed = getattr(torch, dtype.value)
        bridge = load_parts(folder, spec.connector).to(device)
        bridge["connector"].to(computed)  # the projection stays in float32: see `save_bridge`
        encoder = require_patch_encoder(load_encoder(spec.tower, dtype=dtype, device=device), spec.tower)
        text = TextModel.load(spec.text, computed, device, spec.pooling)
        spec.require_same(encoder.fingerprint(), text.digest)
        digest = weights_digest(folder / WEIGHTS)
        return cls(encoder, text, bridge, spec, digest, name=name, dtype=dtype, device=device)

    @functools.cached_property
    def _fingerprint(self) -> Fingerprint:
        spec = self.spec
        digests = "\n".join((self._weights, spec.tower_weights, spec.text_digest))
        # "a picture": this text is part of the fingerprint, so it stays as the first release wrote it.
        around = f"{self._text.before}, {spec.connector.tokens} of a picture, text, {self._text.after}"
        return Fingerprint(
            model=self.name,
            weights=hashlib.sha256(digests.encode()).hexdigest(),
            preprocessing=f"{spec.tower_preprocessing} layer={spec.layer}",
            template=f"{around} max_tokens={spec.max_tokens} pooling={spec.pooling}",
            dtype=self._dtype.value,
            dim=self.dim,
        )

    def fingerprint(self) -> Fingerprint:
        """Image encoder, text model and connector by content, and how images and texts are combined."""
        return self._fingerprint

    def preparer(self) -> BridgePrepare:
        """The preparer of the image encoder, which decodes and resizes."""
        room = self._text.limit - self._text.specials - MIN_TEXT
        return BridgePrepare(self._encoder.preparer(), room // self.spec.connector.tokens or 1)

    def forward(self, prepared: Sequence[Prepared], role: Role, instruction: str | None = None) -> Vectors:
        """Embed any mix of items, in batches of a few thousand tokens; roles and instructions have no effect."""
        import torch

        shown = [len(images_of(each)) for each in prepared]
        room = self._text.limit - self._text.specials
        texts = [
            self._text.ids(str(each.arrays["text"]), min(self._most, room - has * self.spec.connector.tokens))
            if "text" in each.arrays
            else []
            for each, has in zip(prepared, shown, strict=True)
        ]
        lengths = [
            self._text.specials + len(text) + has * self.spec.connector.tokens
            for text, has in zip(texts, shown, strict=True)
        ]
        vectors = np.empty((len(prepared), self.dim), np.float32)
        for places in by_tokens(lengths, TOKENS):
            seen = [
                Prepared(Modality.IMAGE, {"image": pixels}) for place in places for pixels in images_of(prepared[place])
            ]
            with torch.inference_mode():
                words = self._words(seen) if seen else None
                read = self._text.read([texts[place] for place in places], words, [shown[place] for place in places])
                rows = projected(self._bridge, read.float())
            vectors[places] = unit_rows(rows.cpu().numpy())
        return vectors

    def _words(self, seen: Sequence[Prepared]) -> Any:
        import torch

        features = torch.from_numpy(self._encoder.patch_features(seen, self.spec.layer))
        parameter = next(self._bridge["connector"].parameters())
        return self._bridge["connector"](features.to(parameter.device, parameter.dtype))


@dataclass(frozen=True)
class BridgePrepare:
    """Converts items to arrays, in any process.

    Attributes:
        inner: The image encoder's preparer.
        most: Images that the text model can read in one item.
    """

    inner: Callable[[Item], Prepared]
    most: int = 1

    def __call__(self, item: Item) -> Prepared:
        """Decode and resize the image.

        Raises:
            ItemError: The image cannot be used, or a text-only item is empty.
        """
        if item.image is None and not str(item.text).strip("\0 \t\r\n"):
            raise refusal(Reason.EMPTY, "The text is empty and there is no image.")
        if len(item.images) > max(1, self.most):
            raise refusal(
                Reason.TOO_MANY_IMAGES,
                f"It has {len(item.images):,} images; the text model can read {self.most:,} in one item.",
            )
        return self.inner(item)


_JSON: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "Pooling": str, "Connector": str}
"""The Python type of a field whose JSON value is not an object."""


def _named(kind: Any, values: Any, where: str) -> dict[str, Any]:
    """The fields of a dataclass from a JSON object.

    Raises:
        ModelError: It is not an object, or a field is missing, unknown, or of the wrong type.
    """
    if not isinstance(values, dict):
        raise ModelError(f"{where}: {str(values)[:40]!r} is not an object.", WHOLE)
    known = {field.name: field for field in fields(kind)}
    lacking = [
        name for name, field in known.items()
        if name not in values and field.default is MISSING and field.default_factory is MISSING
    ]  # fmt: skip
    strange = [name for name in values if name not in known]
    told = [f"{name!r} is missing" for name in lacking] + [f"{name!r} is unknown" for name in strange]
    for name in values.keys() & known.keys():
        wanted = _JSON.get(str(known[name].type), dict)
        if type(values[name]) is not wanted:
            told.append(f"{name!r} is {values[name]!r}, and should be of the type {wanted.__name__}")
    if told:
        raise ModelError(f"{where}: {', '.join(told)}.", f"Its names are {', '.join(known)}. {WHOLE}")
    return values


def projected(bridge: Any, read: Any) -> Any:
    """The output of the text model, (n, width), after the projection, if there is one."""
    return bridge["project"](read) if "project" in bridge else read


def require_patch_encoder(embedder: Any, name: str) -> PatchEncoder:
    """The embedder, if it can be part of a bridge.

    Raises:
        ModelError: It does not expose patch features.
    """
    if not isinstance(embedder, PatchEncoder):
        raise ModelError(
            f"{name} cannot be used in a bridge: it does not expose patch features.",
            "Name a model of the CLIP family, such as bundled:emoji-clip.",
        )
    return embedder


def text_room(text: TextModel, connector: ConnectorConfig, most: int) -> int:
    """Tokens of a text that fit beside an image.

    Raises:
        ModelError: There is no room for any.
    """
    room = text.limit - text.specials - connector.tokens
    if room < 1:
        raise ModelError(
            f"{text.name} reads {text.limit} tokens, and an image alone has {connector.tokens}.",
            "Train a bridge with the connector qformer, which has fewer.",
        )
    return min(most, room)


def load_parts(folder: Path, config: ConnectorConfig) -> Any:
    """The trained modules, in evaluation mode and float32, on the CPU; raises as `load_trained`."""
    remedy = "Both files come from one run; copy the whole folder."
    return load_trained(folder / WEIGHTS, partial(build_bridge, config), CONFIG, remedy)


def save_bridge(folder: Path, spec: BridgeSpec, parts: Mapping[str, Any]) -> None:
    """Write a folder that `bridge:FOLDER` loads; the weights are written last, so a folder with weights is complete.

    Weights are stored in float32: a whitening projection subtracts a mean many times as long as what remains.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / CONFIG, json.dumps(asdict(spec), indent=2).encode() + b"\n")
    state = {name: each.detach().cpu().float().contiguous() for name, each in parts.items()}
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
