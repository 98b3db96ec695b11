"""The loader of bundled models by name: the files in a model's folder determine the family that loads it."""

from __future__ import annotations

from indexer.bundled import model_folder
from indexer.embed import EMBEDDERS
from indexer.embed.base import Dtype, Embedder
from indexer.embed.drafts import with_draft

LAYOUTS = {"open_clip_config.json": "open_clip", "preprocessor_config.json": "mllm", "connectors.json": "photo"}
"""The file that marks the folder layout of each family."""


def load(rest: str, *, name: str, dtype: Dtype, device: str) -> Embedder:
    """`bundled:NAME`; raises as `load_embedder`."""

    def loaded(plain: str, name: str) -> Embedder:
        folder = model_folder(plain)
        family = next(family for mark, family in LAYOUTS.items() if (folder / mark).exists())
        return EMBEDDERS.get(family)(str(folder), name=name, dtype=dtype, device=device)

    return with_draft(rest, name, loaded)
