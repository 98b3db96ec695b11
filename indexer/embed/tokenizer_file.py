"""Tokenizers from `tokenizer.json`, read by the tokenizers library alone, without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from indexer.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"


def read_tokenizer(file: Path) -> Tokenizer:
    """A tokenizer, without length limits.

    Raises:
        ModelError: The file is missing or damaged, or does not describe a tokenizer.
    """
    from tokenizers import Tokenizer

    if not file.is_file():
        raise ModelError(
            f"{file.parent} has no {file.name}, the tokenizer.",
            "Write it once with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).",
        )
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text)
        if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
            raise ValueError("it describes no tokenizer")
    except RecursionError:
        raise ModelError(f"{file} is nested too deeply for a tokenizer.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {str(error)[:200]}.", "Copy the whole folder again.") from error
    with Readable(file):
        tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class Readable:
    """Converts the library's errors, which have no class of their own, to ours."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None and (kind is Exception or kind.__name__ == "PanicException"):
            reason = str(error).splitlines()[0][:200]
            raise ModelError(f"{self._file} cannot be read: {reason}.", "Copy the whole folder again.") from error


def token_named(config: Any, role: str) -> str | None:
    """The token of a role such as `pad_token` in a transformers configuration: a string, or an object."""
    found = config.get(role)
    if isinstance(found, dict):
        found = found.get("content")
    return found if isinstance(found, str) else None
