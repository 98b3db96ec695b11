"""The files of a folder to read: all, or those that match a pattern such as `photos/**/*.jpg`.

Patterns are the shell's: `*`, `?` and `[...]` match part of a name, `**` any number of folders, `{a,b}` and
`{000..012}` each of these names in turn. If a pattern matches a folder, everything in it is selected. Upper and lower
case differ; `*` and `**` do not match hidden names.
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
    """The names in one folder that are selected.

    Attributes:
        patterns: For each pattern, what the names of the folders on the way down must match.
        reached: For this folder, how far each pattern has been matched; past its end, everything is selected.
    """

    patterns: tuple[tuple[str, ...], ...]
    reached: frozenset[tuple[int, int]]

    def below(self, name: str) -> Selection | None:
        """The selection in a subfolder, or None if it is empty."""
        reached = {after for state in self.reached for after in self._after(state, name)}
        return Selection(self.patterns, frozenset(self._closed(reached))) if reached else None

    def has(self, name: str) -> bool:
        """Whether a file of this folder is selected. A final `**` selects the contents of a folder, not a file."""
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
        """The positions, with those after a `**`, which may match no folder at all."""
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
        """What patterns select in the folder that they begin in."""
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
    """The part before the first `{...}`."""
    braces = _BRACES.search(pattern)
    return pattern if braces is None else pattern[: braces.start()]


def expand(pattern: str) -> Iterator[str]:
    """The names that a pattern with braces stands for: `{08..11}` counts with its start's width, `{a,b}` lists."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    first, last, names = braces.groups()
    values = names.split(",") if names else (f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1))
    for value in values:
        yield from expand(pattern[: braces.start()] + value + pattern[braces.end() :])


def select(pattern: str) -> tuple[Path, Selection]:
    """The deepest folder that a pattern with wildcards names in full, and what it selects there."""
    several = [Path(each).absolute().parts for each in expand(pattern)]
    plain = [list(takewhile(lambda part: not has_wildcards(part), parts[:-1])) for parts in several]
    depth = 0
    while all(len(parts) > depth and parts[depth] == plain[0][depth] for parts in plain):
        depth += 1
    return Path(*plain[0][:depth]), Selection.of([parts[depth:] for parts in several])
