"""What a model was asked and what it answered, kept so that nothing is asked twice.

    FOLDER/asked.jsonl     one JSON object a line, appended and synced a batch at a time

A kill leaves whole lines and at most the start of one, which is cut off when the ledger is opened again. Failures are
answers too, so that a second run comes to what the first would have come to.

What this module does not know: any model, what answers mean.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexer.errors import CorruptionError, StoreError, WritingError
from indexer.files import make_folder

Answer = str | WritingError


class Ledger:
    """The answers by key.

    Args:
        file: Where they are; it need not be there yet.

    Raises:
        CorruptionError: A line that was written whole is damaged.
        StoreError: The file cannot be read or written.
    """

    def __init__(self, file: Path) -> None:
        self.path = file
        self._answers: dict[str, Answer] = {}
        try:
            make_folder(file.parent)
            content = file.read_bytes() if file.exists() else b""
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(file, whole)
        except OSError as error:
            raise StoreError(f"{file} cannot be used: {error.strerror or error}.") from error
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                self._answers[entry["key"]] = _answer(entry)
            except (ValueError, KeyError, TypeError) as error:
                raise CorruptionError(
                    f"Line {number} of {file} is damaged.", "Remove the line; what it answered is asked again."
                ) from error

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer to a question that was asked; None for one that was not."""
        return self._answers.get(key)

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Keep answers, durably.

        Raises:
            StoreError: The disk refuses.
        """
        lines = "".join(json.dumps({"key": key} | _entry(each)) + "\n" for key, each in answers.items())
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written: {error.strerror or error}.", "Is the disk full?"
            ) from error
        self._answers.update(answers)


def _entry(answer: Answer) -> dict[str, Any]:
    return {"answer": answer} if isinstance(answer, str) else {"failed": answer.message}


def _answer(entry: Mapping[str, Any]) -> Answer:
    if "failed" in entry:
        return WritingError(str(entry["failed"]))
    return str(entry["answer"])
