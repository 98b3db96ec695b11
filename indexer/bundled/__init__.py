"""Paths of the bundled data: the emoji corpus, the EmojiCIR queries, and the models trained on them."""

from __future__ import annotations

from pathlib import Path

from indexer.errors import CallError, UnknownNameError

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "emoji.parquet"
"""10,577 images of 3,786 emoji, 64 px, with names, keywords and fields. README.md in this folder describes it."""
QUERIES = FOLDER / "emojicir.parquet"
"""EmojiCIR's composed queries and their targets."""

GONE = {
    "emoji-gme": "Use a bridge or a published model (docs/joint.md) and index again. To open an existing collection, "
    "put indexer/bundled/emoji-gme of release 0.1.0 beside it and open it with model='mllm:FOLDER'.",
}
"""Bundled models that were removed, and what to do in place of each."""


def model_folder(name: str) -> Path:
    """The folder of a bundled model.

    Raises:
        UnknownNameError: No such model; the message lists the bundled ones.
        CallError: An earlier release had this model.
    """
    return _folder("model", name, "open_clip_config.json", "preprocessor_config.json", "connectors.json")


def inversion_folder(name: str) -> Path:
    """The folder of a bundled inversion; raises as `model_folder`."""
    return _folder("inversion", name, "inversion.json")


def generator_folder(name: str) -> Path:
    """The folder of a bundled generator; raises as `model_folder`."""
    return _folder("generator", name, "model_index.json")


def _folder(kind: str, name: str, *marks: str) -> Path:
    known = sorted(path.name for path in FOLDER.iterdir() if any((path / mark).exists() for mark in marks))
    if name in GONE:
        raise CallError(f"The bundled {kind} {name} was removed in 0.2.", GONE[name])
    if name not in known:
        raise UnknownNameError(f"bundled {kind}", name, known)
    return FOLDER / name


def generic_texts() -> list[str]:
    """Short texts about anything. Their mean is subtracted from a query's text vector when a view is centered."""
    return (FOLDER / "generic_texts.txt").read_text(encoding="utf-8").split("\n")[:-1]


def change_texts() -> list[str]:
    """Sentences that state a change and nothing else, like those of composed queries; indexes are tuned with them."""
    return (FOLDER / "change_texts.txt").read_text(encoding="utf-8").split("\n")[:-1]
