"""A document of a folder: an image or a text, with the text and the JSON beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from indexer.corpus.columns import own_id
from indexer.corpus.named_files import Row
from indexer.corpus.paths import MAX_BYTES, read_file, stat_file
from indexer.corpus.places import Place
from indexer.corpus.records import Entry, Record, decode_text, make_sample, parse_object, record_or_rejected
from indexer.corpus.sidecars import Sidecars
from indexer.corpus.suffixes import TEXTS, split_name
from indexer.errors import ItemError
from indexer.types import Rejected
from indexer.validate import MAX_TEXT

_MAX_TEXT_BYTES = 4 * MAX_TEXT  # UTF-8 takes at most four bytes per character
_TAKEOUT_KEY = "photoTakenTime"


@dataclass
class _Sidecar:
    """A text or JSON file beside a document, as it was read.

    Attributes:
        path: The file.
        state: Its part of the document's stamp: size and time, or a mark that it could not be read.
        content: A text or an object; None if there is a reject instead.
        reject: Why it cannot be used.
        hides: As in `Rejected`: an id that cannot be read may be any.
    """

    path: Path
    state: str = "unread"
    content: str | dict[str, Any] | None = None
    reject: Rejected | None = None
    hides: str | None = None

    @classmethod
    def read(cls, path: Path) -> _Sidecar:
        """Read it; an error becomes its own reject."""
        sidecar = cls(path)
        try:
            if split_name(path.name)[1] in TEXTS:
                sidecar.content = _read_text(path)
            else:
                sidecar.hides = ""
                content = read_file(path, MAX_BYTES)
                # A truncated one may or may not have had an id.
                is_whole = content.rstrip().endswith((b"}", b"]"))
                sidecar.hides = None if is_whole and b'"id"' not in content.lower() else ""
                sidecar.content = parse_object(content)
                sidecar.hides = _own_id([sidecar])
            sidecar.state = _state(path)
        except ItemError as error:
            sidecar.content = None
            sidecar.refuse(error)
        return sidecar

    def refuse(self, error: ItemError) -> None:
        """Note that it cannot be used."""
        self.reject = Rejected(self.path.as_uri(), error.reason, error.detail, hides=self.hides)


def read_sample(place: Place, name: str, sidecars: Sidecars, row: Row | None = None) -> Iterator[Entry]:
    """The document in a file of a folder, or its reject, and the rejects of its sidecars.

    Args:
        place: The folder.
        name: The file, an image or a text.
        sidecars: Which files of the folder describe it.
        row: What a table says about it; sidecars take precedence.
    """
    path, text_file = place.path / name, None
    if split_name(name)[1] not in TEXTS:
        text_file = sidecars.text_of(name)
    names = [*([] if text_file is None else [text_file]), *sidecars.details_of(name)]
    beside = [_Sidecar.read(place.path / each) for each in names]
    entry = record_or_rejected(path.as_uri(), partial(_record, path, place.id_of(name), beside, row))
    if isinstance(entry, Rejected):
        entry = replace(entry, hides=_own_id(beside) or (row and row.id) or place.id_of(name))
    yield entry
    yield from (each.reject for each in beside if each.reject is not None)


def _record(path: Path, id: str, beside: Sequence[_Sidecar], row: Row | None) -> Record:
    """The document with as many of its sidecars as can be used; the others get their rejects."""
    stamp = " ".join([_state(path), *(each.state for each in beside), *([] if row is None else [row.stamp])])
    is_text = split_name(path.name)[1] in TEXTS
    text = _read_text(path) if is_text else None
    readable = [each for each in beside if each.reject is None]
    error: ItemError | None = None
    for count in range(len(readable) + 1):
        for dropped in combinations(readable, count):
            kept = [each for each in readable if each not in dropped]
            try:
                record = _with_sidecars(path, id, text, kept, row, stamp)
            except ItemError as failure:
                last = failure
                error = error or failure
            else:
                for each in dropped:
                    each.refuse(error or last)
                return record
    raise last


def _with_sidecars(
    path: Path, id: str, text: str | None, kept: Sequence[_Sidecar], row: Row | None, stamp: str
) -> Record:
    details: dict[str, Any] = {}
    caption = text
    for each in kept:
        if isinstance(each.content, dict):
            details |= each.content
        elif each.content is not None:
            caption = each.content
    if not caption and _TAKEOUT_KEY in details and not details.get("caption"):
        description = details.get("description")
        caption = description if isinstance(description, str) else None
    record = make_sample(
        id=id if row is None or row.id is None else row.id,
        text=caption or (None if row is None else row.text),
        image=path if text is None else None,
        details=details,
        uri=path.as_uri(),
        stamp=stamp,
    )
    if row is None:
        return record
    fields = {**row.fields, **record.document.fields}
    derived = record.derived and row.id is None
    return replace(record, document=replace(record.document, fields=fields), derived=derived)


def _own_id(sidecars: Sequence[_Sidecar]) -> str | None:
    """The id that a user wrote into a JSON file, if any."""
    ids = [own_id(each.content) for each in sidecars if isinstance(each.content, dict)]
    own = [id for id in ids if id is not None]
    return str(own[-1]) if own else None


def _read_text(path: Path) -> str:
    return decode_text(read_file(path, _MAX_TEXT_BYTES)).strip()


def _state(path: Path) -> str:
    state = stat_file(path)
    return f"{state.st_size}-{state.st_mtime_ns}"
