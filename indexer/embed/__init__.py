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
    FAKE = "fake"


EXAMPLES = "bundled:emoji-clip, open_clip:ViT-B-32/laion2b_s34b_b79k, open_clip:/a/folder, fake:64"


def load_embedder(name: str, *, dtype: str | Dtype = Dtype.FLOAT32, device: str = "cpu") -> Embedder:
    """The embedder of that name.

    Args:
        name: `family:rest`, one of `bundled:NAME`, `open_clip:ARCHITECTURE/TAG`, `open_clip:FOLDER`, `fake:DIM`.
            One of the CLIP family may end in `?draft=N`: JPEGs are decoded at a fraction of their size where the short
            side stays N times the model's. Large photographs decode several times faster, to vectors a little other.
        dtype: Arithmetic of the forward pass.
        device: `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        CallError: The name does not parse.
        UnknownNameError: An unknown family, bundled model, dtype or architecture.
        ModelError: The weights cannot be found, fetched or read.
    """
    family, colon, rest = name.partition(":")
    if not colon or not rest:
        raise CallError(f"The model name {name!r} has no family.", f"Write FAMILY:NAME, such as {EXAMPLES}.")
    dtype = Dtype(dtype)
    if "?" in rest:
        return _drafted(name, load_embedder(name.partition("?")[0], dtype=dtype, device=device))
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


def _drafted(name: str, embedder: Embedder) -> Embedder:
    """The embedder with what stands behind the question mark of its name."""
    from indexer.embed.clip import ClipEmbedder

    option, _, times = name.partition("?")[2].partition("=")
    if option != "draft" or times not in ("1", "2", "3", "4") or not isinstance(embedder, ClipEmbedder):
        raise CallError(
            f"{name!r}: behind a question mark stands draft=N, with N from 1 to 4, for a model of the CLIP family.",
            f"Write {embedder.name}?draft=2, or {embedder.name}.",
        )
    drafted = embedder.with_draft(int(times))
    drafted.name = name
    return drafted
