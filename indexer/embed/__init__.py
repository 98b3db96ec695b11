"""Embedders by name. Each is imported only when it is asked for; model libraries never at package import."""

from __future__ import annotations

from pathlib import Path

from indexer.embed.protocol import Dtype, Embedder
from indexer.errors import CallError, ModelError
from indexer.types import HelpfulEnum


class ModelFamily(HelpfulEnum):
    """The part of a model's name before the colon."""

    BUNDLED = "bundled"
    OPEN_CLIP = "open_clip"
    ST = "st"
    FAKE = "fake"


EXAMPLES = "bundled:emoji-clip, open_clip:ViT-B-32/laion2b_s34b_b79k, open_clip:/a/folder, st:/a/folder, fake:64"


def load_embedder(name: str, *, dtype: str | Dtype = Dtype.FLOAT32, device: str = "cpu") -> Embedder:
    """The embedder of that name.

    Args:
        name: `family:rest`, one of `bundled:NAME`, `open_clip:ARCHITECTURE/TAG`, `open_clip:FOLDER`,
            `st:FOLDER` or `st:HUB_ID` (sentence-transformers), `fake:DIM`.
        dtype: Arithmetic of the forward pass.
        device: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        CallError: The name does not parse.
        UnknownNameError: An unknown family, bundled model, dtype or architecture.
        ModelError: The weights cannot be found, fetched or read.
        MissingExtraError: The model needs a package that is not installed.
    """
    family, colon, rest = name.partition(":")
    if not colon or not rest:
        raise CallError(f"The model name {name!r} has no family.", f"Write FAMILY:NAME, such as {EXAMPLES}.")
    dtype = Dtype(dtype)
    match ModelFamily(family):
        case ModelFamily.FAKE:
            from indexer.embed.fake import FakeEmbedder

            if not rest.isdecimal():
                raise CallError(f"{name!r}: the fake's dimension is a number.", "Write fake:64.")
            return FakeEmbedder(int(rest))
        case ModelFamily.BUNDLED:
            from indexer.bundled import model_folder
            from indexer.embed.clip import ClipEmbedder

            return ClipEmbedder.from_folder(model_folder(rest), name=name, dtype=dtype, device=device)
        case ModelFamily.ST:
            from indexer.embed.st import SentenceTransformersEmbedder

            return SentenceTransformersEmbedder.load(rest, name=name, dtype=dtype, device=device)
        case ModelFamily.OPEN_CLIP:
            from indexer.embed.clip import ClipEmbedder

            if Path(rest).is_dir():
                return ClipEmbedder.from_folder(Path(rest), name=name, dtype=dtype, device=device)
            architecture, slash, tag = rest.rpartition("/")
            if not slash or rest.startswith((".", "/", "~")):
                raise ModelError(
                    f"{name!r} names neither a folder nor an architecture with its weights.",
                    f"Write one of: {EXAMPLES}. `underdrawing doctor --models` lists what open_clip knows.",
                )
            return ClipEmbedder.from_pretrained(architecture, tag, name=name, dtype=dtype, device=device)
