"""Questions to a language model about passages, and the validation of its answers.

First it writes a question that the passage answers; then it names the thing in the question, and writes the question
again with a word that points at an image instead. Answers are two lines, with or without labels, or a JSON object;
anything else is refused with a reason. Prompts are text files: `question.txt` and `rewrite.txt`, in which user and
model take turns, and `deictic.txt`, the pointing words, one per line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import ModelError, WriterAwayError, WritingError
from indexer.types import JsonValue
from pipelines.synthesis.ledger import Answer, Ledger
from pipelines.synthesis.recipe import Drop
from retrieval.providers.cache import digest_of, evened
from retrieval.providers.language import Chat, Question
from retrieval.providers.language.answers import MOST, filled, read_prompt, read_turns, without_thoughts

BATCH = 32
"""Questions asked together; a kill can lose this many."""
NEW_WORDS = 4
"""Limit of words that are new in the rewritten question: "the thing in the picture" has this many."""
KEPT = 0.5
"""Least share of the question's words, without those for the thing, that the rewritten question has."""

_LABEL = re.compile(r"^\W*(?:question|query|answer|thing|name|entity|rewritten|line \d)\W*:\s*", re.IGNORECASE)
_NUMBER = re.compile(r"^\W*\d+[.)]\s+")
_ASKS = ("?", "？", "؟")
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_QUOTES = "\"'`*“”‘’«» "


@dataclass(frozen=True)
class Asked:
    """A question that a passage answers, and the answer."""

    query: str
    reply: str


@dataclass(frozen=True)
class Pointing:
    """The thing that a question names, and the question with an image in its place."""

    thing: str
    query: str


@dataclass(frozen=True)
class Prompts:
    """The prompts of a folder."""

    question: tuple[str, ...]
    rewrite: tuple[str, ...]
    deictic: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Prompts:
        """The three files.

        Raises:
            ModelError: One cannot be read, or its last turn lacks the placeholder.
        """
        question, rewrite = read_turns(folder / "question.txt"), read_turns(folder / "rewrite.txt")
        for name, turns, value in (("question", question, "{passage}"), ("rewrite", rewrite, "{query}")):
            if value not in turns[-1]:
                raise ModelError(
                    f"The last part of {folder / name}.txt lacks {value}.", "Write it where the value belongs."
                )
        words = tuple(evened(line) for line in read_prompt(folder / "deictic.txt").splitlines() if line.strip())
        return cls(question, rewrite, words)

    @property
    def digest(self) -> str:
        """Of all three."""
        return digest_of([list(self.question), list(self.rewrite), list(self.deictic)])

    def about(self, passage: str) -> Question:
        """The messages that ask for a question."""
        return Question((*self.question[:-1], filled(self.question[-1], passage=passage)))

    def again(self, asked: Asked) -> Question:
        """The messages that ask for the question with an image."""
        return Question((*self.rewrite[:-1], filled(self.rewrite[-1], query=asked.query, answer=asked.reply)))

    def asked(self, answer: Answer) -> Asked | Drop:
        """The question in an answer, or why it is invalid."""
        if isinstance(answer, WritingError):
            return Drop.UNWRITTEN
        found = _two(answer, ("question", "query"), ("answer", "reply"))
        if found is None or not found[0].endswith(_ASKS):
            return Drop.UNREADABLE_QUESTION
        examples = {_plain(line) for turn in self.question[1::2] for line in turn.splitlines()}
        return Drop.PARROTED if _plain(found[0]) in examples else Asked(*found)

    def pointing(self, answer: Answer, asked: Asked) -> Pointing | Drop:
        """The thing and the rewritten question in an answer, or why they are invalid."""
        if isinstance(answer, WritingError):
            return Drop.UNWRITTEN
        found = _two(answer, ("thing", "entity"), ("rewritten", "question", "query"))
        if found is None or not found[1].endswith(_ASKS):
            return Drop.UNREADABLE_REWRITE
        thing, query = _ARTICLE.sub("", found[0]), found[1]
        if not _names(asked.query, thing):
            return Drop.THING_NOT_IN_QUESTION
        if _names(query, thing):
            return Drop.THING_STILL_NAMED
        if not any(_times(query, word) > _times(asked.query, word) for word in self.deictic):
            return Drop.NOT_DEICTIC
        before, after = set(_words(asked.query)), set(_words(query))
        rest = before - set(_words(thing))
        if len(after - before) > NEW_WORDS or len(rest & after) < KEPT * len(rest):
            return Drop.STRAYED
        return Pointing(thing, query)


def ask(chat: Chat, ledger: Ledger, questions: Sequence[Question], tokens: int) -> list[Answer]:
    """The answers in order, from the ledger or else from the model, whose answers are stored.

    Args:
        chat: The language model.
        ledger: Where answers are stored.
        questions: At most `BATCH`, since a kill loses them.
        tokens: Limit of an answer.

    Raises:
        WriterAwayError: The model cannot be reached; earlier answers are stored.
        StoreError: An answer cannot be stored.
    """
    identity = dict(chat.chat_identity())
    keys = [digest_of([list(each.turns), tokens, identity]) for each in questions]
    missing = {key: each for key, each in zip(keys, questions, strict=True) if ledger.get(key) is None}
    if missing:
        told = dict(zip(missing, chat.ask(list(missing.values()), tokens=tokens), strict=True))
        away = next((each for each in told.values() if isinstance(each, WriterAwayError)), None)
        ledger.add({key: each for key, each in told.items() if not isinstance(each, WriterAwayError)})
        if away is not None:
            if not len(ledger):
                raise away
            raise WriterAwayError(
                f"{away.message} {len(ledger):,} answers are stored in {ledger.path}.",
                f"{away.remedy or ''} Run the same command again and it continues where it stopped.".strip(),
            )
    return [ledger[key] for key in keys]


def _two(answer: str, first: Sequence[str], second: Sequence[str]) -> tuple[str, str] | None:
    """The two texts of an answer, from a JSON object with these names or from its two lines; None otherwise."""
    said = without_thoughts(answer)
    found: tuple[str, ...]
    if "{" in said:
        found = _members(said[said.index("{") : said.rfind("}") + 1], first, second)
    else:
        found = tuple(_LABEL.sub("", _NUMBER.sub("", line)) for line in said.splitlines() if line.strip())
    found = tuple(evened(each.strip(_QUOTES)) for each in found)
    if len(found) != 2 or not all(_words(each) and len(each) <= MOST for each in found):
        return None
    return found[0], found[1]


def _members(text: str, *names: Sequence[str]) -> tuple[str, ...]:
    try:
        members: JsonValue = json.loads(text)
    except ValueError:
        return ()
    if not isinstance(members, dict):
        return ()
    values = [next((members[name] for name in own if name in members), None) for own in names]
    return tuple(each for each in values if isinstance(each, str))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _plain(text: str) -> str:
    return " ".join(_words(text))


def _names(text: str, thing: str) -> bool:
    """Whether a text contains the words of another, consecutively."""
    return _times(text, thing) > 0


def _times(text: str, thing: str) -> int:
    """How often."""
    own, said = _words(thing), _words(text)
    return sum(said[place : place + len(own)] == own for place in range(len(said) - len(own) + 1)) if own else 0
