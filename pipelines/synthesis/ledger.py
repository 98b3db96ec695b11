"""A ledger of questions to a model and their answers, so that nothing is asked twice.

    FOLDER/asked.jsonl     one JSON object per line, appended and synced in batches

A kill or a full disk leaves complete lines and at most one partial line, which is ignored and cut off before the next
write. Failures are answers, too, so a second run has the same results as the first.
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
    """Answers by key.

    Args:
        file: Their path; it need not exist yet.

    Raises:
        CorruptionError: A complete line is damaged.
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
                    f"Line {number} of {file} is damaged.", "Remove the line; its question is asked again."
                ) from error

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer to a question; None if it was not asked."""
        return self._answers.get(key)

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Store answers durably.

        Raises:
            StoreError: The disk cannot be written.
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
