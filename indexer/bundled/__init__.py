"""Where the bundled data lies: the emoji corpus, the EmojiCIR queries, and the models trained on them.

What this module does not know: how any of it is read.
"""

from __future__ import annotations

from pathlib import Path

from indexer.errors import CallError, UnknownNameError

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "emoji.parquet"
"""10,577 drawings of 3,786 emoji, 64 px, with names, keywords and fields. See README.md beside it."""
QUERIES = FOLDER / "emojicir.parquet"
"""EmojiCIR's composed queries with their targets."""

GONE = {
    "emoji-gme": "Take a bridge or a published model (docs/joint.md) and index again; or, for what is indexed already, "
    "lay indexer/bundled/emoji-gme of release 0.1.0 beside the collection and open it with model='mllm:FOLDER'.",
}
"""By name, what to do in place of a model that came with an earlier release."""


def model_folder(name: str) -> Path:
    """The folder of a bundled model.

    Raises:
        UnknownNameError: There is none of that name; it lists those there are.
        CallError: There was one in an earlier release.
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
        raise CallError(f"The bundled {kind} {name} is gone since 0.2.", GONE[name])
    if name not in known:
        raise UnknownNameError(f"bundled {kind}", name, known)
    return FOLDER / name


def generic_texts() -> list[str]:
    """Short texts about anything: what a query's text vector is on average, which centring subtracts."""
    return (FOLDER / "generic_texts.txt").read_text(encoding="utf-8").split("\n")[:-1]


def change_texts() -> list[str]:
    """Sentences that say a change and nothing else, as a composed query's sentence does; indexes are tuned by them."""
    return (FOLDER / "change_texts.txt").read_text(encoding="utf-8").split("\n")[:-1]
