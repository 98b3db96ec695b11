"""Which files of a folder are meant: all, or those that a pattern such as `photos/**/*.jpg` names.

Patterns are the shell's: `*`, `?` and `[...]` stand for a part of a name, `**` for any number of folders, `{a,b}` and
`{000..012}` for each of these names in turn. A folder that a pattern names is meant with all that is in it. Upper and
lower case differ; `*` and `**` leave hidden names out.

What this module does not know: what is on the disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]+(?:,[^{},]+)*))\}")
_WILD = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Selection:
    """The names in one folder that are meant.

    Attributes:
        patterns: What the names of each folder on the way down must match.
        reached: For this folder, how far down each pattern has come; past its end, all is meant.
    """

    patterns: tuple[tuple[str, ...], ...]
    reached: frozenset[tuple[int, int]]

    def below(self, name: str) -> Selection | None:
        """What is meant in a folder of this folder, or None if nothing is."""
        reached = {after for state in self.reached for after in self._after(state, name)}
        return Selection(self.patterns, frozenset(self._closed(reached))) if reached else None

    def has(self, name: str) -> bool:
        """Whether a file of this folder is meant. A last `**` means what is in a folder, not a file in its place."""
        return any(
            self._ends(each, place, after)
            for each, place in self.reached
            for _, after in self._after((each, place), name)
        )

    def _ends(self, each: int, place: int, after: int) -> bool:
        parts = self.patterns[each]
        return after == len(parts) or (after == place and set(parts[place:]) == {"**"})

    def _after(self, state: tuple[int, int], name: str) -> Iterator[tuple[int, int]]:
        each, place = state
        if place == len(self.patterns[each]):
            yield state
            return
        part = self.patterns[each][place]
        if part == "**":
            if not name.startswith("."):
                yield state
        elif fnmatchcase(name, part) and (part.startswith(".") or not name.startswith(".")):
            yield each, place + 1

    def _closed(self, reached: set[tuple[int, int]]) -> set[tuple[int, int]]:
        """With the places behind a `**`, which may stand for no folder at all."""
        for each, place in tuple(reached):
            parts = self.patterns[each][place:]
            reached |= {(each, place + ahead) for ahead in range(1, 1 + len([*takewhile("**".__eq__, parts)]))}
        return reached

    @classmethod
    def named(cls, name: str) -> Selection:
        """One file, whatever characters are in its name."""
        return cls.of([["".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)]])

    @classmethod
    def of(cls, patterns: Sequence[Sequence[str]]) -> Selection:
        """What patterns mean in the folder that they begin in."""
        made = cls(tuple(map(tuple, patterns)), frozenset())
        return cls(made.patterns, frozenset(made._closed({(each, 0) for each in range(len(patterns))})))


ALL = Selection(((),), frozenset({(0, 0)}))


def has_braces(pattern: str) -> bool:
    """Whether a pattern stands for several names by `{...}`."""
    return _BRACES.search(pattern) is not None


def has_wildcards(pattern: str) -> bool:
    """Whether a pattern asks what is there, by `*`, `?` or `[...]`."""
    return _WILD.search(pattern) is not None


def before_braces(pattern: str) -> str:
    """What stands before the first `{...}`."""
    braces = _BRACES.search(pattern)
    return pattern if braces is None else pattern[: braces.start()]


def expand(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for by braces: `{08..11}` counts in the width of its start, `{a,b}` lists."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    first, last, names = braces.groups()
    values = names.split(",") if names else (f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1))
    for value in values:
        yield from expand(pattern[: braces.start()] + value + pattern[braces.end() :])


def select(pattern: str) -> tuple[Path, Selection]:
    """The deepest folder that a pattern with wildcards names in full, and what is meant in it."""
    several = [Path(each).absolute().parts for each in expand(pattern)]
    plain = [list(takewhile(lambda part: not has_wildcards(part), parts[:-1])) for parts in several]
    depth = 0
    while all(len(parts) > depth and parts[depth] == plain[0][depth] for parts in plain):
        depth += 1
    return Path(*plain[0][:depth]), Selection.of([parts[depth:] for parts in several])
