"""Grouping of archive members into samples, by their names alone.

A name is a key, a dot and a suffix. WebDataset ends the key at the first dot, so `0001.jpg`, `0001.seg.png` and
`0001.cls` are one sample; but keys may contain dots, and `22.05.png` and `22.05.txt` are one sample, too. So:

* `0001.jpg`: one dot, so no choice.
* `0001.jpg.txt`: a text or JSON file with the whole name of an image belongs to that image.
* `0001.seg.png`: belongs to `0001` if there is a member `0001.*` with one suffix, and is an extra there. If `0001`
  has no image of its own, its images are those that have more suffixes.
* `22.05.png`: if nothing is called `22.*`, the key ends at the last dot. It also does if `22.05.*` is an image with a
  text, or if `05` is a number and `22` has an image of its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from indexer.corpus.records import IMAGE_SUFFIXES
from indexer.corpus.suffixes import DRAWING, UNREAD_IMAGES


class Part(Enum):
    """What a member contributes to its document."""

    IMAGE = "image"
    TEXT = "text"
    DETAILS = "details"


_PARTS = {"txt": Part.TEXT, "text": Part.TEXT, "caption": Part.TEXT, "json": Part.DETAILS} | {
    suffix.removeprefix("."): Part.IMAGE
    for suffix in (
        *IMAGE_SUFFIXES,
        DRAWING,
        *UNREAD_IMAGES,
    )  # the decoder refuses SVG, the reader unknown formats
}
_IMAGE, _TEXT, _DETAILS, _OTHER = 1, 2, 4, 8
_BITS = {Part.IMAGE: _IMAGE, Part.TEXT: _TEXT, Part.DETAILS: _DETAILS, None: _OTHER}
_NAME = re.compile(r"(?:\./)*((?:.*/)?[^./][^/]*)", re.DOTALL)


@dataclass(slots=True)
class Sample:
    """The members of one key, by their positions in the list of names.

    Attributes:
        key: The name that they share.
        images, texts, details: The parts of the document; texts and images with one suffix come first.
        extras: Members that are not part of it, with their suffixes.
    """

    key: str
    images: list[int] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    details: list[int] = field(default_factory=list)
    extras: list[tuple[int, str]] = field(default_factory=list)

    @property
    def parts(self) -> list[int]:
        """The positions of all parts of the document."""
        return [*self.images, *self.texts, *self.details]

    @property
    def places(self) -> list[int]:
        """The positions of all members, in order."""
        return sorted([*self.parts, *(place for place, _ in self.extras)])


def part_of(name: str) -> Part | None:
    """The part that a member would be by its last suffix."""
    return _PARTS.get(name.rpartition(".")[2].lower()) if _split(name) else None


def group(names: Sequence[str]) -> tuple[list[Sample], list[tuple[int, str]]]:
    """Group names into samples, in the order of their first members.

    Returns:
        The samples, and the positions of names that belong to none, with their kinds.
    """
    keys = _Keys(names)
    found: dict[tuple[str, int], _Members] = {}
    seen: dict[str, int] = defaultdict(int)
    outside: list[tuple[int, str]] = []
    for place, name in enumerate(names):
        if (split := _split(name)) is None:
            outside.append((place, "hidden file" if name.rpartition("/")[2].startswith(".") else "no suffix"))
            continue
        path, tokens = split
        key, suffix = keys.of(path, tokens)
        # A repeated name begins another sample of that key, as in two concatenated archives.
        found.setdefault((key, seen[name]), _Members([])).append((place, suffix))
        seen[name] += 1
    return [members.sample(key) for (key, _), members in found.items()], outside


class _Keys:
    """What decides, for a list of names, where keys end."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parts: dict[str, int] = defaultdict(int)  # by the key up to the last dot; bits, to be small
        for name in names:
            if (split := _split(name)) is not None:
                path, tokens = split
                self._parts[".".join((path, *tokens[:-1]))] |= _BITS[_PARTS.get(tokens[-1].lower())]

    def of(self, path: str, tokens: list[str]) -> tuple[str, str]:
        """The key of a name, and its suffix in lower case."""
        whole = ".".join((path, *tokens[:-1]))
        last = tokens[-1].lower()
        if len(tokens) == 1:
            return whole, last
        if _PARTS.get(last) in (Part.TEXT, Part.DETAILS) and _PARTS.get(tokens[-2].lower()) is Part.IMAGE:
            key, suffix = self.of(path, tokens[:-1])
            return key, f"{suffix}.{last}"
        own = self._parts[whole]
        if own & _IMAGE and own & (_TEXT | _DETAILS):
            return whole, last
        for end in range(len(tokens) - 1, 0, -1):
            key = ".".join((path, *tokens[: end - 1]))
            if key not in self._parts:
                continue
            numbered = all(token.isdecimal() for token in tokens[end - 1 : -1])
            if numbered and self._parts[key] & _IMAGE:
                break
            return key, ".".join(tokens[end - 1 :]).lower()
        return whole, last


class _Members(list[tuple[int, str]]):
    """The members of one sample: positions and suffixes."""

    def sample(self, key: str) -> Sample:
        by_part: dict[Part, list[tuple[int, str]]] = {part: [] for part in Part}
        extras = []
        for place, suffix in self:
            part = _PARTS.get(suffix.rpartition(".")[2])
            if part is None or (part is Part.DETAILS and "." in suffix and not _is_sidecar(suffix)):
                extras.append((place, f".{suffix}"))
            else:
                by_part[part].append((place, suffix))
        chosen = {part: _chosen(part, members) for part, members in by_part.items()}
        for part, members in by_part.items():
            extras += [(place, f".{suffix}") for place, suffix in members if place not in chosen[part]]
        return Sample(key, chosen[Part.IMAGE], chosen[Part.TEXT], chosen[Part.DETAILS], sorted(extras))


def _chosen(part: Part, members: list[tuple[int, str]]) -> list[int]:
    """The positions that count: the first of each single suffix; else texts beside images; else all, by name."""
    for matches in (_is_plain, lambda suffix: "." not in suffix, _is_sidecar):
        if plain := [place for place, suffix in members if matches(suffix)]:
            return plain[:1]
    return [place for place, _ in sorted(members, key=lambda each: _natural(each[1]))]


def _natural(suffix: str) -> list[tuple[int, str]]:
    """A sort key: `2.png` comes before `10.png`."""
    return [(int(token), "") if token.isdecimal() else (-1, token) for token in re.split(r"([0-9]+)", suffix)]


def _is_plain(suffix: str) -> bool:
    return "." not in suffix and f".{suffix}" not in UNREAD_IMAGES


def _is_sidecar(suffix: str) -> bool:
    before, _, last = suffix.rpartition(".")
    return last in ("txt", "json") and _PARTS.get(before.rpartition(".")[2]) is Part.IMAGE


def _split(name: str) -> tuple[str, list[str]] | None:
    """The name up to its first dot, and its further parts. Dots in folders do not count. None without a suffix."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    folder, slash, base = match[1].rpartition("/")
    first, *tokens = base.split(".")
    if not tokens or not tokens[-1]:
        return None
    return f"{folder}{slash}{first}", tokens
