"""The files of a folder that describe others: the text and the JSON beside an image, by its stem or full name.

    dog.jpg    dog.txt, or else dog.md        its text               (dog.jpg.txt and dog.jpg.md take precedence)
               dog.json                       its id, text, fields   (shared by all images of that stem)
               dog.jpg.json                   the same; its keys override those of dog.json
               dog.jpg.supplemental-metadata.json, also truncated, dog.jpg(1).json for dog(1).jpg: Google Takeout

A text that describes no image is a document of its own, and may have its JSON too.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from indexer.corpus.suffixes import DETAILS, TEXTS, is_image_name, split_name

_TAKEOUT_WORD = "supplemental-metadata"
_TAKEOUT_LENGTH = 46
"""Takeout truncates the name of a JSON file, without `.json`, to so many characters."""


@dataclass(slots=True)
class _Group:
    """The files of one stem."""

    images: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # known by their content only
    texts: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def text(self, stem: str) -> str | None:
        """The text for images of this stem: `.txt` before `.md`, and the exact spelling of the stem first."""
        last_first = reversed(self.texts)
        return max(last_first, key=lambda name: (_spelt(name, stem), split_name(name)[1] == TEXTS[0]), default=None)

    def detail(self, stem: str) -> str | None:
        """The JSON for images of this stem."""
        return max(self.details, key=lambda name: _spelt(name, stem), default=None)


def _spelt(name: str, stem: str) -> bool:
    return split_name(name)[0] == stem


def _key(stem: str) -> str:
    """Names are compared in one normal form: macOS keeps them decomposed, other systems as they were typed."""
    return stem if stem.isascii() else unicodedata.normalize("NFC", stem)


class Sidecars:
    """The files of one folder, as they describe each other.

    Args:
        names: Names of the files, without folders and system files.
        looks_like_image: Called, at most once for each name, if the name does not tell.
    """

    def __init__(self, names: Iterable[str], looks_like_image: Callable[[str], bool]) -> None:
        self._look = looks_like_image
        self._looked: dict[str, bool] = {}
        self._groups: dict[str, _Group] = defaultdict(_Group)
        self._none = _Group()
        details = []
        for name in names:
            stem, suffix = split_name(name)
            if suffix in TEXTS:
                self._groups[_key(stem)].texts.append(name)
            elif suffix == DETAILS:
                self._groups[_key(stem)].details.append(name)
                details.append(name)
            elif (known := is_image_name(name)) is not False:
                group = self._groups[_key(stem)]
                (group.images if known else group.unknown).append(name)
        self._cut = self._long_names() if any(len(split_name(each)[0]) == _TAKEOUT_LENGTH for each in details) else {}
        self._takeout: dict[str, str] = {}
        for each in details:
            if (image := self._takeout_image(split_name(each)[0])) is not None:
                self._takeout[_key(image)] = each

    def is_image(self, name: str) -> bool:
        """Whether a file is an image, SVG included, by its name or else by its content."""
        known = is_image_name(name)
        if known is None:
            known = self._looked.get(name)
        if known is None:
            known = self._looked[name] = self._look(name)
        return known

    def text_of(self, image: str) -> str | None:
        """The file with an image's text."""
        stem = split_name(image)[0]
        return self._group(image).text(image) or self._group(stem).text(stem)

    def details_of(self, name: str) -> list[str]:
        """The JSON files of an image, or of a text that is a document; later ones take precedence."""
        stem = split_name(name)[0]
        found = (self._group(stem).detail(stem), self._takeout.get(_key(name)), self._group(name).detail(name))
        return list(dict.fromkeys(each for each in found if each is not None))

    def is_document(self, name: str) -> bool:
        """Whether a file is a document, not only a part of one."""
        stem, suffix = split_name(name)
        if suffix in TEXTS:
            return next(self._images(stem), None) is None and not self._is_here(stem)
        return self.is_image(name)

    def describes(self, name: str) -> bool:
        """Whether a file is a part of a document."""
        stem, suffix = split_name(name)
        if suffix in TEXTS:
            return any(self.text_of(image) == name for image in self._described(stem))
        return suffix == DETAILS and any(name in self.details_of(each) for each in self._documents(stem))

    def _documents(self, stem: str) -> Iterator[str]:
        """The documents that a JSON file, named `stem` and `.json`, may describe."""
        yield from self._described(stem)
        full = (name for name in self._group(split_name(stem)[0]).texts if _key(name) == _key(stem))
        texts = (*self._group(stem).texts, *full)
        yield from (name for name in texts if self.is_document(name))
        if (image := self._takeout_image(stem)) is not None:
            yield image

    def _described(self, stem: str) -> Iterator[str]:
        """The images that a file of that stem may describe."""
        yield from self._images(stem)
        if self._is_here(stem):
            yield stem

    def _images(self, stem: str) -> Iterator[str]:
        group = self._group(stem)
        yield from group.images
        yield from (name for name in group.unknown if self.is_image(name))

    def _is_here(self, name: str) -> bool:
        """Whether an image of this name is in the folder."""
        group, key = self._group(split_name(name)[0]), _key(name)
        return any(_key(each) == key for each in group.images) or any(
            _key(each) == key and self.is_image(each) for each in group.unknown
        )

    def _group(self, stem: str) -> _Group:
        return self._groups.get(_key(stem), self._none)

    def _takeout_image(self, stem: str) -> str | None:
        """The image that a Takeout JSON file belongs to, by the file's name without `.json`."""
        name, copy = stem, ""
        if match := re.fullmatch(r"(.+)(\(\d+\))", stem):
            name, copy = match[1], match[2]
        before, dot, word = name.rpartition(".")
        names = [before, name] if dot and _TAKEOUT_WORD.startswith(word) else [name]
        for each in names:
            base, point, suffix = each.rpartition(".")
            image = f"{base}{copy}{point}{suffix}" if point else f"{each}{copy}"
            if image != stem and self._is_here(image):
                return image
        return self._cut.get(stem) if len(stem) == _TAKEOUT_LENGTH else None

    def _long_names(self) -> dict[str, str]:
        images = (name for group in self._groups.values() for name in group.images)
        return {name[:_TAKEOUT_LENGTH]: name for name in images if len(name) >= _TAKEOUT_LENGTH}
