"""Prompts for language models, and the one sentence in their answers.

Prompts are text files, in `prompts/` or a user's own. A name in braces is replaced by a value; other braces, and
braces within values, do not change.

What this module does not know: any model.
"""

from __future__ import annotations

import re
from pathlib import Path

from indexer.errors import ModelError, WritingError
from retrieval.providers.cache import evened
from retrieval.providers.language.protocol import Answer

PROMPTS = Path(__file__).with_name("prompts")
MOST = 400
"""The most characters of a sentence. A text encoder reads some 300; anything this long is an essay or a loop."""

_BETWEEN = re.compile(r"^---+[ \t]*$", re.MULTILINE)
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(r"^\W*(?:edited |new |target )?(?:sentence|caption|description)\W*:\s*", re.IGNORECASE)
_QUOTES = "\"'`*“”‘’«» "


def read_prompt(file: str | Path) -> str:
    """A prompt, by the name of a file in `prompts/` or by path, without white space at its ends.

    Raises:
        ModelError: The file cannot be read.
    """
    path = PROMPTS / file if isinstance(file, str) else file
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ModelError(f"The prompt {path} cannot be read: {error}.", "Give a text file in UTF-8.") from error


def read_turns(file: Path) -> tuple[str, ...]:
    """A prompt with examples: turns of user and model, separated by lines of `---`.

    Raises:
        ModelError: The file cannot be read, or its last turn is not the user's.
    """
    turns = tuple(each.strip() for each in _BETWEEN.split(read_prompt(file)))
    if len(turns) % 2 == 0 or not all(turns):
        raise ModelError(
            f"The prompt {file} has {len(turns)} turns, or an empty one.",
            "Separate the turns of user and model by lines of ---; the user has the first and the last.",
        )
    return turns


def without_thoughts(answer: str) -> str:
    """An answer without the model's thoughts."""
    return _THOUGHT.sub("", answer)


def filled(prompt: str, **values: str) -> str:
    """The prompt with values in place of names in braces."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), prompt)


def sentence_in(answer: str) -> Answer:
    """The sentence in a model's answer: its first line with words, without label, quotes and thoughts.

    An answer without words, or a very long one, has none.
    """
    lines = [_LABEL.sub("", line).strip(_QUOTES) for line in without_thoughts(answer).splitlines()]
    sentence = next((evened(line) for line in lines if any(letter.isalpha() for letter in line)), "")
    if not sentence:
        return WritingError(f"The answer has no words: {evened(answer)[:80]!r}.")
    if len(sentence) > MOST:
        return WritingError(f"The answer is not a sentence, but {len(sentence):,} characters: {sentence[:80]!r}...")
    return sentence
