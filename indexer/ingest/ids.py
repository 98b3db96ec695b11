"""Resolve the id under which a record is stored, also if that id is taken.

An id is unique in a collection, and two sources may use the same one:

* An id that was *made* from a place (a path, a key of an archive, a line) names the place within its source only. If
  another source's document has it, the record gets `NAME-HASH/ID`: the last part of its own source's name and the
  first six digits of the source's sha256. The same record gets the same id in every run, whichever source came first.
* An id that the user *wrote* means one document. If another source's document has it, the record is rejected, or
  replaces that document if the caller agreed.
* A source may have *moved*: if the other document's file is gone and the content is the same, it is the same document.
  It becomes this source's, with its vector.

What this module does not know: decoding, models, commits.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from urllib.parse import unquote, urlsplit

from indexer.corpus.paths import portable_name, printable
from indexer.corpus.records import Record
from indexer.metadata.database import Database
from indexer.metadata.holdings import Holder, holders, job_sources
from indexer.reasons import Reason
from indexer.types import Rejected

BY_ADD = "add"
"""Stands for the source of documents that `Collection.add` put there."""
MAX_NAME = 64
MOST_EARLIER = 16
"""The most missing sources, newest first, under whose longer ids documents of a moved source are looked for."""


@dataclass(frozen=True)
class Resolved:
    """A record with the id under which it is stored.

    Attributes:
        record: The record with that id.
        stamp: The stamp of this source's stored version; None if there is none.
        replaces: The other source whose document it replaces, with consent; None if there is none.
        moved_from: The document with its id, if that document's file is gone: if the content proves to be the same,
            the record takes it over, else it becomes `otherwise`.
        otherwise: See `moved_from`.
    """

    record: Record
    stamp: str | None = None
    replaces: str | None = None
    moved_from: Holder | None = None
    otherwise: Resolved | Rejected | None = None

    @property
    def id(self) -> str:
        """The id."""
        return self.record.document.id

    @property
    def ids(self) -> list[str]:
        """All ids under which it may be stored."""
        return [self.id, *(self.otherwise.ids if isinstance(self.otherwise, Resolved) else ())]


class Ids:
    """The ids of one source in a collection.

    Args:
        database: The collection's.
        source: The corpus.
        replace: Whether records with written ids replace other sources' documents.
    """

    def __init__(self, database: Database, source: str, replace: bool) -> None:
        self._database, self._source, self._replace = database, source, replace
        self._prefix = qualifier(source)
        gone = (each for each in job_sources(database) if each != source and not os.path.lexists(each))  # noqa: PTH110
        self._earlier = [qualifier(each) for each in islice(gone, MOST_EARLIER)]

    def resolve(self, records: Sequence[Record]) -> list[Resolved | Rejected]:
        """Resolve how each record is stored; their ids are checked and differ."""
        held = holders(self._database, [each.document.id for each in records])
        # A second statement: with both lists in one, most records, which have their id, would double it for nothing.
        longer = [each.document.id for each in records if each.derived and not self._is_own(held.get(each.document.id))]
        prefixes = [self._prefix, *self._earlier]
        held |= holders(self._database, [f"{prefix}{each}" for each in longer for prefix in prefixes])
        return [self._resolve(each, held) for each in records]

    def plain(self, identifier: str) -> str:
        """The source's own id for a stored id."""
        for prefix in (self._prefix, *self._earlier):
            if identifier.startswith(prefix):
                return identifier[len(prefix) :]
        return identifier

    def _is_own(self, holder: Holder | None) -> bool:
        return holder is not None and holder.source == self._source

    def _resolve(self, record: Record, held: dict[str, Holder]) -> Resolved | Rejected:
        own = held.get(record.document.id)
        if own is not None and self._is_own(own):
            return Resolved(record, own.stamp)
        longer = held.get(f"{self._prefix}{record.document.id}") if record.derived else None
        if longer is not None and self._is_own(longer):
            return Resolved(self._longer(record), longer.stamp)
        earlier = [
            (with_id(record, identifier), held[identifier])
            for identifier in (f"{prefix}{record.document.id}" for prefix in self._earlier if record.derived)
            if identifier in held
        ]
        for moved, holder in earlier:
            if self._is_own(holder):
                return Resolved(moved, holder.stamp)
        found = Resolved(record) if own is None else self._beside(record, own, longer)
        for moved, holder in reversed([*([] if own is None else [(record, own)]), *earlier]):
            if holder.source is not None and holder.content is not None and _is_gone(holder.uri):
                found = Resolved(moved, moved_from=holder, otherwise=found)
        return found

    def _beside(self, record: Record, own: Holder, longer: Holder | None) -> Resolved | Rejected:
        """Resolve a record whose id another source's document has."""
        if record.derived and longer is None:
            return Resolved(self._longer(record))
        if self._replace:
            return Resolved(record, replaces=BY_ADD if own.source is None else own.source)
        whose = "was put there by add" if own.source is None else f"came from {printable(own.source)}"
        return Rejected(
            printable(record.document.uri or record.document.id[:200]),
            Reason.OTHER_SOURCE.value,
            f"The id {record.document.id[:200]!r} is taken: its document {whose}. It was kept. "
            "Give this one another id, or replace that one: `replace=True`.",
        )

    def _longer(self, record: Record) -> Record:
        return with_id(record, f"{self._prefix}{record.document.id}")


def qualifier(source: str) -> str:
    """The prefix of a source's ids if they are taken, such as `photos-3f9a1c/`."""
    name = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    name = portable_name(name).replace("\0", "")[:MAX_NAME] or "source"
    return f"{name}-{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}/"


def with_id(record: Record, identifier: str) -> Record:
    """The record with another id."""
    return replace(record, document=replace(record.document, id=identifier))


def _is_gone(uri: str | None) -> bool:
    """Whether a document came from a file that no longer exists. A file that cannot be checked counts as existing."""
    if uri is None or not uri.startswith("file:///"):
        return False
    path = Path(unquote(urlsplit(uri).path, errors="surrogateescape"))
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False
