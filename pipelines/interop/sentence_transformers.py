"""An adapter that makes our embedders models of sentence-transformers.

    model = as_sentence_transformer("bundled:emoji-clip")
    scores = model.similarity(model.encode_query("a red heart"), model.encode_document([{"image": "heart.png"}]))

An input is a text, a PIL image, or a dictionary with `text`, `image` or both; within one, an image may be a path or
encoded bytes. A bare string is a text, whatever file it names. A call takes inputs of one kind: that is the library's
rule. `encode_query` is the query's side, `encode` and `encode_document` the document's. A prompt is the instruction of
a query where the model reads one, and else stands before the text.

It stands among the programs: other libraries' trainers and evaluators use it, nothing here does.

What this module does not know: any model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.embed import load_embedder
from indexer.embed.base import Dtype, Embedder
from indexer.embed.devices import AUTO, settled_device
from indexer.errors import CallError, MissingExtraError
from indexer.types import Item, Modality, Role

try:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule
except ImportError:
    raise MissingExtraError(
        "sentence-transformers 6", "sentence-transformers", "A model in the hands of sentence-transformers"
    ) from None


def as_sentence_transformer(
    model: str | Embedder, *, dtype: str | Dtype = Dtype.FLOAT32, device: str = AUTO
) -> SentenceTransformer:
    """An embedder as a `SentenceTransformer`: with `encode`, `encode_query`, `encode_document`, `similarity`, `save`.

    What it saves is the embedder's name, not its weights; `SentenceTransformer(folder, trust_remote_code=True)` loads
    it where this package is installed.

    Args:
        model: An embedder, or what `load_embedder` takes.
        dtype: Its arithmetic, for one that is loaded here.
        device: Where it runs, the same.
    """
    device = settled_device(device)
    return SentenceTransformer(
        modules=[EmbedderModule(model, dtype, device)], device=device, similarity_fn_name="cosine"
    )


class EmbedderModule(InputModule):  # type: ignore[misc]  # the library is untyped here
    """An embedder as the one module of a `SentenceTransformer`; it gives vectors of unit length.

    Args:
        model: An embedder, or what `load_embedder` takes.
        dtype: Its arithmetic, for one that is loaded here.
        device: Where it runs, the same.
    """

    config_keys = ["model", "dtype"]
    forward_kwargs = {"task"}

    def __init__(self, model: str | Embedder, dtype: str | Dtype = Dtype.FLOAT32, device: str = AUTO, **_: Any) -> None:
        super().__init__()
        self.embedder = model if isinstance(model, Embedder) else load_embedder(model, dtype=dtype, device=device)
        self.model = self.embedder.name
        self.dtype = self.embedder.fingerprint().dtype

    @property
    def modalities(self) -> list[Any]:
        """What the embedder takes, by the library's names."""
        names = {Modality.TEXT: "text", Modality.IMAGE: "image", Modality.FUSED: ("image", "text")}
        return [name for modality, name in names.items() if modality in self.embedder.modalities]

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Decode and tokenize.

        Args:
            inputs: See the module.
            prompt: See the module.
            kwargs: Its `task` is `query`, `document` or missing.

        Raises:
            CallError: An input is of another kind, or the model does not take it.
            ItemError: An image cannot be decoded.
        """
        instruction = None
        if prompt and kwargs.get("task") == "query" and getattr(self.embedder, "reads_instructions", False):
            prompt, instruction = None, prompt
        items = [_item(each, prompt or "") for each in inputs]
        self.embedder.require({item.modality for item in items})
        prepare = self.embedder.preparer()
        return {"prepared": [prepare(item) for item in items], "instruction": instruction}

    def forward(self, features: dict[str, Any], task: str | None = None, **_: Any) -> dict[str, Any]:
        """Embed; the rows are `sentence_embedding`, (n, dim) float32."""
        import torch

        role = Role.QUERY if task == "query" else Role.DOCUMENT
        prepared, size = features["prepared"], self.embedder.batch_size
        rows = [
            self.embedder.forward(prepared[start : start + size], role, features["instruction"])
            for start in range(0, len(prepared), size)
        ]
        return features | {"sentence_embedding": torch.from_numpy(np.concatenate(rows))}

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return self.embedder.dim

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the embedder's name and arithmetic."""
        self.save_config(output_path)


def _item(value: Any, prompt: str) -> Item:
    if isinstance(value, str):
        return Item(text=prompt + value)
    if isinstance(value, Mapping) and value and set(value) <= {"text", "image"}:
        image, text = value.get("image"), value.get("text")
        return Item(
            text=None if text is None else prompt + text, image=Path(image) if isinstance(image, str) else image
        )
    if hasattr(value, "getbands"):
        return Item(image=value)
    raise CallError(
        f"A {type(value).__name__} is no input of an embedder.",
        "Give a text, a PIL image, or a dictionary with text, image or both.",
    )
