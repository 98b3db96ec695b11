"""What a model was asked and what it answered, kept so that nothing is asked twice.

    FOLDER/asked.jsonl     one JSON object a line, appended and synced a batch at a time

A kill, or a full disk, leaves whole lines and at most the start of one, which counts for nothing and is cut off before
the next is written. Failures are answers too, so that a second run comes to what the first would have come to.

What this module does not know: any model, what answers mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexer.errors import CorruptionError, WritingError
from indexer.files.atomic import append_lines, read_lines

Answer = str | WritingError


class Ledger:
    """The answers by key.

    Args:
        file: Where they are; it need not be there yet.

    Raises:
        CorruptionError: A line that was written whole is damaged.
        StoreError: The file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self.path = file
        self._answers: dict[str, Answer] = {}
        for number, line in enumerate(read_lines(file), 1):
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
        append_lines(self.path, lines.encode())
        self._answers.update(answers)


def _entry(answer: Answer) -> dict[str, Any]:
    return {"answer": answer} if isinstance(answer, str) else {"failed": answer.message}


def _answer(entry: Mapping[str, Any]) -> Answer:
    if "failed" in entry:
        return WritingError(str(entry["failed"]))
    return str(entry["answer"])
