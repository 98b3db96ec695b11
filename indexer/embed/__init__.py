"""Embedders by name. Each is imported only when it is asked for; no model library is imported with the package."""

from __future__ import annotations

from indexer.arguments import described
from indexer.embed.base import AdjustableImages, Dtype, Embedder, EmbedderFamily
from indexer.embed.devices import AUTO, settled_device
from indexer.embed.loading import loading
from indexer.embed.preprocess import Preprocessing
from indexer.errors import CallError, PluginError
from indexer.registry import Builtin, Registry

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
        "bridge": Builtin("indexer.embed.bridge.embedder:load", "a folder that `train bridge` made: bridge:FOLDER"),
        "photo": Builtin("indexer.embed.photo.embedder:load", "a folder that `train photo` made: photo:FOLDER"),
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
    """Load the embedder of a name.

    Args:
        name: `family:rest`, one of `bundled:NAME`, `open_clip:ARCHITECTURE/TAG`, `open_clip:FOLDER`,
            `mllm:HUB/ID[@REVISION]`, `mllm:FOLDER`, `bridge:FOLDER` (what `train bridge` made), `photo:FOLDER` (what
            `train photo` made), `st:FOLDER` or `st:HUB_ID` (sentence-transformers), `fake:DIM`; or of a family that
            another package adds. Options may follow the name of an `mllm`, such as `?dim=512`;
            `indexer/embed/mllm/spec.py` lists them. A CLIP name may end in `?draft=N`: JPEGs are decoded at a fraction
            of their size while the short side stays N times the model's. Large photographs decode several times faster,
            to slightly different vectors.
        dtype: Arithmetic of the forward pass.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`; `auto` takes a GPU if there is one.
        preprocessing: What is done to images first; part of the fingerprint.

    Raises:
        CallError: The name does not parse, the model's images cannot be padded, or no such device exists.
        DeviceError: This machine has no such device.
        UnknownNameError: An unknown family, bundled model, dtype or architecture.
        PluginError: The package that offers the family cannot be imported, or returns no embedder.
        ModelError: The weights cannot be found, fetched or read.
        MissingExtraError: The model needs a package that is not installed.
    """
    if not isinstance(name, str):
        raise CallError(f"model is {described(name)}; it must be a name.", f"Write FAMILY:NAME, such as {EXAMPLES}.")
    family, colon, rest = name.partition(":")
    if not colon or not rest:
        raise CallError(f"The model name {name!r} has no family.", f"Write FAMILY:NAME, such as {EXAMPLES}.")
    settled = settled_device(device)
    with loading():
        model = EMBEDDERS.get(family)(rest, name=name, dtype=Dtype(dtype), device=settled)
    if not isinstance(model, Embedder):
        raise PluginError(
            f"The model family {family!r} gave {described(model)} for {name!r}, which is not an Embedder."
        )
    if Preprocessing(preprocessing) is Preprocessing.OWN:
        return model
    if not isinstance(model, AdjustableImages):
        raise CallError(f"{name} has its own preparation of images; target-pad is for models of the CLIP family.")
    return model.target_padded()
