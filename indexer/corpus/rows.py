"""Conversion of table rows to documents, shared by JSON lines, JSON arrays, CSV and Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from indexer.corpus.columns import Columns, Parts, find_id, find_parts
from indexer.corpus.records import Entry, Record, make_record, of_document, record_or_rejected
from indexer.reasons import Reason, refusal
from indexer.types import PassedOver, Rejected

_MOST_REPORTED = 100
"""Columns of one table that are reported as other possible images."""


class Rows:
    """Makes the entries of one table.

    Args:
        uri: URI of the table.
        columns: What the caller named.
        folder: What paths in the table are relative to.
        image_columns: Columns known to hold images, whatever they are called.
        only_objects: See `find_parts`.
    """

    def __init__(
        self,
        uri: str,
        columns: Columns,
        folder: Path,
        *,
        image_columns: tuple[str, ...] = (),
        only_objects: bool = False,
    ) -> None:
        self._uri, self._columns, self._folder = uri, columns, folder
        self._image_columns, self._only_objects = image_columns, only_objects
        self._reported: set[str] = set()
        self._unseen = {name for name in columns.named.values() if name}
        self._parts: Parts | None = None

    def entries(self, row: Mapping[str, Any], id_of_place: str, uri: str) -> Iterator[Entry]:
        """The record of a row or its reject, and the parts that were passed over.

        Args:
            row: Values by the names of their columns.
            id_of_place: The id if the row has none.
            uri: URI of the row.
        """
        self._parts = None
        if self._unseen:
            self._unseen.difference_update(row)
        yield record_or_rejected(uri, partial(self._record, row, id_of_place, uri), hides="")
        if self._parts is None:
            return
        for other, chosen in self._parts.other_images.items():
            if other not in self._reported and len(self._reported) < _MOST_REPORTED:
                self._reported.add(other)
                yield PassedOver(
                    f"{self._uri}#column={quote(other, errors='replace')}", f"column {other} beside {chosen}"
                )

    def unseen(self) -> Iterator[Rejected]:
        """After the last row: rejects for columns that the caller named and no row had."""
        for name in sorted(self._unseen):
            yield Rejected(self._uri, Reason.NO_COLUMN.value, f"No row has the column {name!r}, which the call names.")

    def _record(self, row: Mapping[str, Any], id_of_place: str, uri: str) -> Record:
        _, own = find_id(row, self._columns)
        with of_document(id_of_place if own is None else own) as id:
            parts = find_parts(
                row,
                self._columns,
                self._folder,
                image_columns=self._image_columns,
                only_objects=self._only_objects,
            )
            if parts.text in (None, "") and not parts.images:
                names = ", ".join(repr(name[:40]) for name in list(row)[:12])
                raise refusal(
                    Reason.EMPTY,
                    f"The document has neither text nor image; its columns are {names or 'none'}. If one of them is, "
                    "name it: `text_column` or `image_column`.",
                )
            record = make_record(
                id=id,
                text=parts.text,
                images=parts.images,
                fields=parts.fields,
                uri=uri,
                derived=own is None,
            )
        self._parts = parts
        return record
