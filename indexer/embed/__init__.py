"""Embedders by name. Each is imported only when it is asked for; model libraries never at package import."""

from __future__ import annotations

from indexer.arguments import told
from indexer.embed.base import AdjustableImages, Dtype, Embedder, EmbedderFamily
from indexer.embed.devices import AUTO, settled_device
from indexer.embed.loading import loading
from indexer.embed.preprocess import Preprocessing
<<<<<<< HEAD
from indexer.errors import CallError, ModelError
from indexer.types import HelpfulEnum


class ModelFamily(HelpfulEnum):
    """The part of a model's name before the colon."""

    BUNDLED = "bundled"
    OPEN_CLIP = "open_clip"
    MLLM = "mllm"
    BRIDGE = "bridge"
    PHOTO = "photo"
    ST = "st"
    FAKE = "fake"
=======
from indexer.errors import CallError, PluginError
from indexer.registry import Builtin, Registry
>>>>>>> main

EMBEDDERS = Registry[EmbedderFamily](
    "model family",
    "underdrawing.embedders",
    {
        "bundled": Builtin("indexer.embed.bundled:load", "models that come with this package: bundled:emoji-clip"),
        "open_clip": Builtin(
            "indexer.embed.clip.embedder:load",
            "the CLIP family: open_clip:ViT-B-32/laion2b_s34b_b79k, or a folder of open_clip's layout",
        ),
        "mllm": Builtin(
            "indexer.embed.mllm.embedder:load",
            "multimodal language models: mllm:Qwen/Qwen3-VL-Embedding-2B, or a folder",
        ),
        "bridge": Builtin("indexer.embed.bridge.embedder:load", "what `train bridge` made: bridge:FOLDER"),
        "st": Builtin("indexer.embed.sentence_transformers:load", "sentence-transformers: a folder or a hub id"),
        "fake": Builtin("indexer.embed.fake:load", "no model, for tests: fake:64 gives vectors of 64 numbers"),
    },
)
"""Families of models by name. A package adds one by an entry point of the group `underdrawing.embedders`."""

EXAMPLES = (
    "bundled:emoji-clip, open_clip:ViT-B-32/laion2b_s34b_b79k, open_clip:/a/folder, mllm:Qwen/Qwen3-VL-Embedding-2B, "
    "mllm:/a/folder, bridge:/a/folder, photo:/a/folder, st:/a/folder, fake:64"
)


def load_embedder(
    name: str,
    *,
    dtype: str | Dtype = Dtype.FLOAT32,
    device: str = AUTO,
    preprocessing: str | Preprocessing = Preprocessing.OWN,
) -> Embedder:
    """The embedder of that name.

    Args:
        name: `family:rest`, one of `bundled:NAME`, `open_clip:ARCHITECTURE/TAG`, `open_clip:FOLDER`,
<<<<<<< HEAD
            `mllm:HUB/ID[@REVISION]`, `mllm:FOLDER`, `bridge:FOLDER` (what `train bridge` made), `photo:FOLDER` (what
            `train photo` made), `st:FOLDER` or `st:HUB_ID` (sentence-transformers), `fake:DIM`. Options may stand
            behind the name of an `mllm`, such as `?dim=512`; `indexer/embed/mllm/spec.py` has them. One of the CLIP
            family may end in `?draft=N`: JPEGs are decoded at a fraction of their size where the short side stays N
            times the model's. Large photographs decode several times faster, to vectors a little other.
=======
            `mllm:HUB/ID[@REVISION]`, `mllm:FOLDER`, `bridge:FOLDER` (what `train bridge` made), `st:FOLDER` or
            `st:HUB_ID` (sentence-transformers), `fake:DIM`; or of a family that another package adds. Options may
            stand behind the name of an `mllm`, such as `?dim=512`; `indexer/embed/mllm/spec.py` has them. One of the
            CLIP family may end in `?draft=N`: JPEGs are decoded at a fraction of their size where the short side stays
            N times the model's. Large photographs decode several times faster, to slightly different vectors.
>>>>>>> main
        dtype: Arithmetic of the forward pass.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; `auto` takes a GPU where there is one.
        preprocessing: What is done to images first; part of the fingerprint.

    Raises:
        CallError: The name does not parse, the model's images cannot be padded, or there is no device of that name.
        DeviceError: This machine has no such device.
        UnknownNameError: An unknown family, bundled model, dtype or architecture.
        PluginError: The package that offers the family cannot be imported, or gives no embedder.
        ModelError: The weights cannot be found, fetched or read.
        MissingExtraError: The model needs a package that is not installed.
    """
    if not isinstance(name, str):
        raise CallError(f"model is {told(name)}; it must be a name.", f"Write FAMILY:NAME, such as {EXAMPLES}.")
    family, colon, rest = name.partition(":")
    if not colon or not rest:
        raise CallError(f"The model name {name!r} has no family.", f"Write FAMILY:NAME, such as {EXAMPLES}.")
    settled = settled_device(device)
    with loading():
        model = EMBEDDERS.get(family)(rest, name=name, dtype=Dtype(dtype), device=settled)
    if not isinstance(model, Embedder):
        raise PluginError(f"The model family {family!r} gave {told(model)} for {name!r}, which is no Embedder.")
    if Preprocessing(preprocessing) is Preprocessing.OWN:
        return model
    if not isinstance(model, AdjustableImages):
        raise CallError(f"{name} prepares images in its own way only; target-pad is for models of the CLIP family.")
    return model.target_padded()
<<<<<<< HEAD


def _load(family: str, rest: str, name: str, dtype: Dtype, device: str) -> Embedder:
    kind = ModelFamily(family)
    if "?" in rest and not Path(rest).is_dir() and kind not in (ModelFamily.MLLM, ModelFamily.BRIDGE, ModelFamily.ST):
        return _drafted(name, _load(family, rest.partition("?")[0], name.partition("?")[0], dtype, device))
    match kind:
        case ModelFamily.FAKE:
            from indexer.embed.fake import FakeEmbedder

            if not rest.isdecimal():
                raise CallError(f"{name!r}: the fake's dimension is a number.", "Write fake:64.")
            return FakeEmbedder(int(rest))
        case ModelFamily.BUNDLED:
            return _bundled(rest, name, dtype, device)
        case ModelFamily.MLLM:
            from indexer.embed.mllm.embedder import MllmEmbedder

            return MllmEmbedder.load(rest, name=name, dtype=dtype, device=device)
        case ModelFamily.BRIDGE:
            from indexer.embed.bridge.embedder import BridgeEmbedder

            return BridgeEmbedder.load(Path(rest), load_embedder, name=name, dtype=dtype, device=device)
        case ModelFamily.PHOTO:
            from indexer.embed.photo.embedder import PhotoEmbedder

            return PhotoEmbedder.load(Path(rest), name=name, dtype=dtype, device=device)
        case ModelFamily.ST:
            from indexer.embed.sentence_transformers import SentenceTransformersEmbedder

            return SentenceTransformersEmbedder.load(rest, name=name, dtype=dtype, device=device)
        case ModelFamily.OPEN_CLIP:
            from indexer.embed.clip.embedder import ClipEmbedder

            if Path(rest).is_dir():
                return ClipEmbedder.from_folder(Path(rest), name=name, dtype=dtype, device=device)
            architecture, slash, tag = rest.rpartition("/")
            if not slash or rest.startswith((".", "/", "~")):
                raise ModelError(
                    f"{name!r} names neither a folder nor an architecture with its weights.",
                    f"Write one of: {EXAMPLES}. `underdrawing doctor --models` lists what open_clip knows.",
                )
            return ClipEmbedder.from_pretrained(architecture, tag, name=name, dtype=dtype, device=device)


def _bundled(rest: str, name: str, dtype: Dtype, device: str) -> Embedder:
    from indexer.bundled import model_folder

    folder = model_folder(rest)
    if (folder / "open_clip_config.json").exists():
        from indexer.embed.clip.embedder import ClipEmbedder

        return ClipEmbedder.from_folder(folder, name=name, dtype=dtype, device=device)
    if (folder / "connectors.json").exists():
        from indexer.embed.photo.embedder import PhotoEmbedder

        return PhotoEmbedder.load(folder, name=name, dtype=dtype, device=device)
    from indexer.embed.mllm.embedder import MllmEmbedder

    return MllmEmbedder.load(str(folder), name=name, dtype=dtype, device=device)


def _drafted(name: str, embedder: Embedder) -> Embedder:
    """The embedder with what stands behind the question mark of its name."""
    from indexer.embed.clip.embedder import ClipEmbedder

    option, _, times = name.partition("?")[2].partition("=")
    if option != "draft" or times not in ("1", "2", "3", "4") or not isinstance(embedder, ClipEmbedder):
        raise CallError(
            f"{name!r}: behind a question mark stands draft=N, with N from 1 to 4, for a model of the CLIP family.",
            f"Write {embedder.name}?draft=2, or {embedder.name}.",
        )
    drafted = embedder.with_draft(int(times))
    drafted.name = name
    return drafted
=======
>>>>>>> main
