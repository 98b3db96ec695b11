"""A table that tells of image files, as `metadata.jsonl` with `file_name` does: its rows reach these images.

The table stands in the folder of the images, or above it. Each image that it names gets the row's text and fields, and
its id if the row has one. Of several rows that name one image and differ in their text alone, the texts are joined, a
line each; another row that names it again is a reject. Several tables may tell of one image: all of them reach it, and
the nearest goes before, then the first by its name. An image that no row names is a document all the same, and a row
whose image is missing is a reject.

Rows wait in a temporary SQLite file, not in memory, until the walk comes to their images.

What this module does not know: where a table says which file it means; its reader does.
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
from pathlib import Path
from typing import Any, Self

from indexer.corpus.paths import portable_name, printable, stat_file
from indexer.corpus.reasons import Reason
from indexer.corpus.records import Corpus, Entry, Record, make_record
from indexer.errors import ItemError
from indexer.types import Document, Rejected

_TEXTS = ("text", "caption")
_MOST_TEXT = 65_536
"""Characters after which no more texts are joined."""


@dataclass(frozen=True)
class Row:
    """What a table says of a file.

    Attributes:
        uri: Of the row, the first if there are several.
        id: As a user wrote it, or None.
        text: One line a row.
        fields: As of a document.
    """

    uri: str
    id: str | None
    text: str | None
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, record: Record) -> Row:
        """The row that a record was made from."""
        document = record.document
        return cls(document.uri or "", None if record.derived else document.id, document.text, document.fields)

    @property
    def stamp(self) -> str:
        """Changes when the row does."""
        return hashlib.sha256(self.dumped().encode()).hexdigest()[:16]

    def dumped(self) -> str:
        """As JSON."""
        return json.dumps([self.uri, self.id, self.text, dict(self.fields)])

    def over(self, other: Row) -> Row:
        """Both as one, of two tables: this one's id and fields go before, and the texts are joined."""
        texts = dict.fromkeys(text for text in (self.text, other.text) if text is not None)
        id = other.id if self.id is None else self.id
        return Row(f"{self.uri} {other.uri}", id, "\n".join(texts) or None, {**other.fields, **self.fields})

    def joined(self, other: Row) -> Row | None:
        """Both as one, if they differ in their text alone."""
        mine, others = (
            [each.id, {key: value for key, value in each.fields.items() if key not in _TEXTS}] for each in (self, other)
        )
        if mine != others or self.text is None or other.text is None or len(self.text) > _MOST_TEXT:
            return None
        return Row(self.uri, self.id, f"{self.text}\n{other.text}", self.fields)


class NamedFiles:
    """The rows of one table by the files that they name; close it when the walk has left its folder.

    Args:
        table: Its reader.
        path: The table's file.
        prefix: Of the ids of what is in its folder.
    """

    def __init__(self, table: Corpus, path: Path, prefix: str) -> None:
        self._table, self._path, self._prefix = table, path, prefix
        self._rows = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._rows.execute("PRAGMA synchronous = OFF")
        self._rows.execute("CREATE TABLE rows (key BLOB UNIQUE, name BLOB, row TEXT, met INTEGER DEFAULT 0)")
        self._rows.execute("BEGIN")
        for entry in table:
            if isinstance(entry, Record) and (name := self._name(entry.document)) is not None:
                self._put(name, Row.of(entry))
        self._rows.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the temporary file back."""
        self._rows.close()

    def take(self, path: str) -> Row | None:
        """The row that names a file, by the file's path below the root; from now on the file counts as met."""
        key = _key(path.removeprefix(self._prefix))
        row = self._get(key)
        if row is not None:
            self._rows.execute("UPDATE rows SET met = 1 WHERE key = ?", (key,))
        return row

    def others(self) -> Iterator[Entry]:
        """The entries of the table that reach no file of the folder: rejects, and documents of their own."""
        for entry in self._table:
            if not isinstance(entry, Record) or (name := self._name(entry.document)) is None:
                yield entry
                continue
            row, kept = Row.of(entry), self._get(_key(name))
            if kept is not None and kept.uri != row.uri and kept.joined(row) is None:
                detail = f"{printable(name)} was described before, by {kept.uri}; the first one counts."
                yield Rejected(row.uri, Reason.DUPLICATE_ID.value, detail)

    def unmet(self) -> Iterator[Entry]:
        """The files that the walk did not come to: hidden ones, and those that are missing."""
        with closing(self._rows.execute("SELECT name, row FROM rows WHERE NOT met ORDER BY rowid")) as found:
            for name, dumped in found:
                yield self._document(os.fsdecode(name), _row(dumped))

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

    def _name(self, document: Document) -> str | None:
        """The path of the file that a document's image is, below the table's folder; None if it is no such file."""
        if not isinstance(document.image, Path):
            return None
        name = Path(os.path.relpath(document.image, self._path.parent))
        return name.as_posix() if name.parts and name.parts[0] != os.pardir else None

    def _put(self, name: str, row: Row) -> None:
        key = _key(name)
        kept = self._get(key)
        if kept is None:
            values = (key, os.fsencode(name), row.dumped())
            self._rows.execute("INSERT INTO rows (key, name, row) VALUES (?, ?, ?)", values)
        elif (joined := kept.joined(row)) is not None:
            self._rows.execute("UPDATE rows SET row = ? WHERE key = ?", (joined.dumped(), key))

    def _get(self, key: bytes) -> Row | None:
        found = self._rows.execute("SELECT row FROM rows WHERE key = ?", (key,)).fetchone()
        return None if found is None else _row(found[0])


def _row(dumped: str) -> Row:
    return Row(*json.loads(dumped))


def _key(name: str) -> bytes:
    """Names are compared in one normal form: macOS keeps them decomposed, and tables compose them."""
    return os.fsencode(unicodedata.normalize("NFC", name))
