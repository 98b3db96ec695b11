"""Tables that describe image files, such as `metadata.jsonl` with `file_name`: their rows are joined to these images.

The table is in the folder of the images, or above it. Each image that it names gets the row's text and fields, and its
id if the row has one. If several rows name one image and differ in their text only, the texts are joined, one per line;
another row that names it is rejected. Several tables may describe one image: all of them apply, the nearest first, then
by name. An image that no row names is a document too, and a row whose image is missing is rejected. A row of several
images is a document of its own, and its images are not documents themselves.

Rows wait in a temporary SQLite file, not in memory, until the walk reaches their images.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Self

from indexer.corpus.paths import portable_name, printable, stat_file
from indexer.corpus.records import Corpus, Entry, Record, make_record
from indexer.errors import ItemError
from indexer.reasons import Reason
from indexer.types import ImageSource, Rejected

_TEXTS = ("text", "caption")
_MOST_TEXT = 65_536
"""Characters after which no more texts are joined."""


@dataclass(frozen=True)
class Row:
    """What a table says about a file.

    Attributes:
        uri: URI of the row, the first if there are several.
        id: As a user wrote it, or None.
        text: One line per row.
        fields: Fields of the document.
        part: Whether the file is one of several images of the row's document, and not a document itself.
    """

    uri: str
    id: str | None
    text: str | None
    fields: Mapping[str, Any]
    part: bool = False

    @classmethod
    def of(cls, record: Record) -> Row:
        """The row that a record was made from."""
        document = record.document
        return cls(document.uri or "", None if record.derived else document.id, document.text, document.fields)

    @property
    def stamp(self) -> str:
        """A digest that changes when the row does."""
        return hashlib.sha256(self.dumped().encode()).hexdigest()[:16]

    def dumped(self) -> str:
        """As JSON."""
        return json.dumps([self.uri, self.id, self.text, dict(self.fields), self.part])

    def over(self, other: Row) -> Row:
        """Two rows of two tables as one: this one's id and fields take precedence, and the texts are joined."""
        if self.part or other.part:
            return other if self.part else self
        texts = dict.fromkeys(text for text in (self.text, other.text) if text is not None)
        id = other.id if self.id is None else self.id
        return Row(f"{self.uri} {other.uri}", id, "\n".join(texts) or None, {**other.fields, **self.fields})

    def joined(self, other: Row) -> Row | None:
        """Two rows as one, if they differ in their text only."""
        mine, others = (
            [each.id, {key: value for key, value in each.fields.items() if key not in _TEXTS}] for each in (self, other)
        )
        if mine != others or self.text is None or other.text is None or len(self.text) > _MOST_TEXT:
            return None
        return Row(self.uri, self.id, f"{self.text}\n{other.text}", self.fields)


class NamedFiles:
    """What the active tables say about files, by the files' paths below the root of a walk."""

    def __init__(self) -> None:
        # One file for all tables, however many there are; it is created once SQLite's memory does not suffice.
        self._rows = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._rows.execute("PRAGMA synchronous = OFF")
        self._rows.execute(
            "CREATE TABLE rows (key BLOB, depth INTEGER, number INTEGER, name BLOB, row TEXT, met INTEGER DEFAULT 0, "
            "UNIQUE (key, number))"
        )
        self._rows.execute("CREATE INDEX by_number ON rows (number)")
        self._tables = 0

    def close(self) -> None:
        """Delete the temporary file."""
        self._rows.close()

    def take(self, path: str) -> Row | None:
        """The row of a file, by its path below the root; from now on it counts as met."""
        if not self._tables:
            return None
        key = _key(path)
        found = self._rows.execute("SELECT row FROM rows WHERE key = ? ORDER BY depth DESC, number", (key,)).fetchall()
        if not found:
            return None
        self._rows.execute("UPDATE rows SET met = 1 WHERE key = ?", (key,))
        return reduce(Row.over, (_row(dumped) for (dumped,) in found))

    def read(self, table: Corpus, path: Path, prefix: str) -> FileTable:
        """Activate a table: read it, and hold its rows until it is closed.

        Args:
            table: Its reader.
            path: The table's file.
            prefix: Prefix of the ids in its folder.
        """
        self._tables += 1
        return FileTable(self._rows, self._tables, table, path, prefix)


class FileTable:
    """One active table; close it when the walk has left its folder. `NamedFiles.read` makes them."""

    def __init__(self, rows: sqlite3.Connection, number: int, table: Corpus, path: Path, prefix: str) -> None:
        self._rows, self._number = rows, number
        self._table, self._path, self._prefix = table, path, prefix
        self._rows.execute("BEGIN")
        for entry in table:
            if isinstance(entry, Record) and len(entry.document.images) > 1:
                for image in entry.document.images:
                    if (name := self._name(image)) is not None:
                        self._put(name, Row(entry.document.uri or "", None, None, {}, part=True))
            elif isinstance(entry, Record) and (name := self._name(entry.document.image)) is not None:
                self._put(name, Row.of(entry))
        self._rows.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget its rows."""
        self._rows.execute("DELETE FROM rows WHERE number = ?", (self._number,))

    def others(self) -> Iterator[Entry]:
        """The entries of the table that match no file of the folder: rejects, and documents of their own."""
        for entry in self._table:
            several = isinstance(entry, Record) and len(entry.document.images) > 1
            if not isinstance(entry, Record) or several or (name := self._name(entry.document.image)) is None:
                yield entry
                continue
            row, kept = Row.of(entry), self._get(name)
            if kept is not None and kept.uri != row.uri and kept.joined(row) is None:
                detail = f"{printable(name)} was already described by {kept.uri}; the first one counts."
                yield Rejected(row.uri, Reason.DUPLICATE_ID.value, detail)

    def unmet(self) -> Iterator[Entry]:
        """The files that the walk did not reach: hidden or missing ones."""
        query = "SELECT name, row FROM rows WHERE number = ? AND NOT met ORDER BY rowid"
        with closing(self._rows.execute(query, (self._number,))) as found:
            for name, dumped in found:
                if not (row := _row(dumped)).part:  # its document reports that it is missing
                    yield self._document(os.fsdecode(name), row)

    def _document(self, name: str, row: Row) -> Entry:
        path, place = self._path.parent / name, portable_name(self._prefix + name)
        id = place if row.id is None else row.id
        try:
            state = stat_file(path)
            return make_record(
                id=id,
                text=row.text,
                image=path,
                fields=row.fields,
                uri=path.as_uri(),
                stamp=f"{state.st_size}-{state.st_mtime_ns} {row.stamp}",
                derived=row.id is None,
            )
        except ItemError as error:
            return Rejected(row.uri, error.reason, f"{printable(self._path.name)}: {error.detail}", hides=id)

    def _name(self, image: ImageSource | None) -> str | None:
        """The path of an image file below the table's folder; None if the image is not such a file."""
        if not isinstance(image, Path):
            return None
        name = Path(os.path.relpath(image, self._path.parent))
        return name.as_posix() if name.parts and name.parts[0] != os.pardir else None

    def _put(self, name: str, row: Row) -> None:
        kept = self._get(name)
        if kept is None:
            values = (_key(self._prefix + name), self._prefix.count("/"), self._number, os.fsencode(name), row.dumped())
            self._rows.execute("INSERT INTO rows (key, depth, number, name, row) VALUES (?, ?, ?, ?, ?)", values)
        elif (joined := row if kept.part else kept if row.part else kept.joined(row)) is not None:
            changed = (joined.dumped(), _key(self._prefix + name), self._number)
            self._rows.execute("UPDATE rows SET row = ? WHERE key = ? AND number = ?", changed)

    def _get(self, name: str) -> Row | None:
        query = "SELECT row FROM rows WHERE key = ? AND number = ?"
        found = self._rows.execute(query, (_key(self._prefix + name), self._number)).fetchone()
        return None if found is None else _row(found[0])


def _row(dumped: str) -> Row:
    return Row(*json.loads(dumped))


def _key(name: str) -> bytes:
    """A name in one normal form: macOS decomposes names, and tables compose them."""
    return os.fsencode(unicodedata.normalize("NFC", name))
