"""In-memory columns of fields, which answer filters without reading every document.

Filters rarely repeat exactly (another price, another user), and SQL reads every document again for each. So the second
time that a field is used, its values are read into a column, by vector id. A document never changes, since a new
version is a new document: a column only grows by documents that were added.

A column holds booleans, numbers and texts of a field, or documents' ids or texts. A field with lists, objects, numbers
that float64 cannot distinguish from their neighbors, or very many texts stays with SQL, which gives the same answers.

What this module does not know: what a filter means (`filter_engine.py`), which documents live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from indexer.forks import Lock
from indexer.metadata.connections import undisturbed
from indexer.metadata.database import Database, to_json
from indexer.metadata.filter_engine import SIGNS, Fields, evaluate
from indexer.metadata.filter_nodes import ID, Place
from indexer.metadata.filter_sql import typed
from indexer.metadata.filter_values import Bound, Moment, TextBound, Values, moment, nfc
from indexer.metadata.filters import Filter
from indexer.metadata.schema import DocumentRow, VectorRow

Mask: TypeAlias = npt.NDArray[np.bool_]

MOST_BYTES = 1 << 28
"""Bytes of all columns of a collection; a column that does not fit in stays with SQL."""
MOST_FIELDS = 1000
"""The most fields whose use is counted: names may come from users."""
MOST_WORDS = 1 << 16
"""The most distinct texts in a column."""
WORD_BYTES = 200
"""Bytes that a dictionary takes per text, besides its characters."""
WHOLE = 2.0**53
"""From here on, float64 cannot represent all whole numbers."""
MISSING, FALSE, TRUE, NUMBER, TEXT = range(5)
KINDS = {None: MISSING, "null": MISSING, "false": FALSE, "true": TRUE, "integer": NUMBER, "real": NUMBER,
         "number": NUMBER, "text": TEXT, "string": TEXT}  # fmt: skip
"""Kinds by the database's name of the type; the kind of PostgreSQL's "boolean" depends on the value."""


@dataclass(frozen=True)
class _Column:
    """One field of every document, by vector id.

    Attributes:
        kinds: (n,) uint8, the kind of each value.
        numbers: (n,) float64, 0 for other kinds; empty if there are no numbers.
        codes: (n,) int32, the code of each text in `words`; 0 for other kinds; empty if there are no texts.
        words: The distinct texts, in form C, with their codes; ids are unchanged.
        word_bytes: The bytes that those take.
    """

    kinds: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int32]
    words: Mapping[str, int]
    word_bytes: int = 0

    @cached_property
    def moments(self) -> Mapping[str, Moment]:
        """The instants of the texts that name one."""
        found = ((word, moment(word)) for word in self.words)
        return {word: at for word, at in found if at is not None}

    @property
    def size(self) -> int:
        """Bytes in memory."""
        kinds = self.kinds.nbytes if any(self.kinds.strides) else 0
        return kinds + self.numbers.nbytes + self.codes.nbytes + self.word_bytes

    def grown(self, below: int, rows: Iterable[Sequence[Any]], form: Callable[[str], str] = nfc) -> _Column | None:
        """The column extended by rows (vector id, type, value), ids below `below`; None if it cannot hold them."""
        known = len(self.kinds)
        kinds, numbers, codes = np.zeros(below, np.uint8), np.zeros(below), np.zeros(below, np.int32)
        kinds[:known] = self.kinds
        numbers[: len(self.numbers)], codes[: len(self.codes)] = self.numbers, self.codes
        words, word_bytes = dict(self.words), self.word_bytes
        for place, name, value in rows:
            kind = (TRUE if value else FALSE) if name == "boolean" else KINDS.get(name)
            if kind is None:
                return None
            kinds[place] = kind
            if kind == NUMBER:
                if not -WHOLE < value < WHOLE:
                    return None
                numbers[place] = value
            elif kind == TEXT:
                value = form(value)
                if value not in words:
                    words[value] = len(words)
                    word_bytes += WORD_BYTES + 4 * len(value)
                    if len(words) > MOST_WORDS or word_bytes > MOST_BYTES:
                        return None
                codes[place] = words[value]
        if not kinds.any():  # a field that no document has takes no memory
            return _Column(np.broadcast_to(np.uint8(MISSING), below), _EMPTY.numbers, _EMPTY.codes, {})
        has_numbers = bool((kinds == NUMBER).any())
        return _Column(
            kinds, numbers if has_numbers else _EMPTY.numbers, codes if words else _EMPTY.codes, words, word_bytes
        )


_EMPTY = _Column(np.empty(0, np.uint8), np.empty(0), np.empty(0, np.int32), {})


class Columns:
    """The columns of one collection. Threads may share them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._asked: set[tuple[int, Place]] = set()
        self._read_now: set[tuple[int, Place]] = set()
        self._columns: dict[tuple[int, Place], _Column | None] = {}
        """Columns by space and place; None for a field that stays with SQL."""

    def matching(self, where: Filter, space: int, below: int) -> Mask | None:
        """The vectors whose documents match, or None if SQL must answer.

        Args:
            where: A filter.
            space: The vectors' space.
            below: The end of the ids, exclusive; a generation's `next_vector`.

        Returns:
            (below,) bool by vector id; undefined for ids without a document.
        """
        try:
            return evaluate(where.node, _InMemory(self, space, below))
        except _AskSqlError:
            return None

    def get(self, space: int, place: Place, below: int) -> _Column | None:
        """The column of a field, extended as far as needed.

        It is None, and SQL must answer, if the field is used for the first time, if another thread is reading its
            column, or if no column can hold it.
        """
        key = (space, place)
        with self._lock:
            if key not in self._asked:
                if len(self._asked) < MOST_FIELDS:
                    self._asked.add(key)
                return None
            found = self._columns.get(key, _EMPTY)
            if found is None or len(found.kinds) >= below:
                return found
            if key in self._read_now:
                return None
            self._read_now.add(key)
        try:
            grown = self._grown(found, space, place, below)
        finally:
            with self._lock:
                self._read_now.discard(key)
        with self._lock:
            others = sum(each.size for other, each in self._columns.items() if each is not None and other != key)
            if grown is not None and others + grown.size > MOST_BYTES:
                grown = None
            self._columns[key] = grown
            return grown

    def constants(self, numbers: Sequence[float]) -> list[float]:
        """A filter's numbers as the database parses them: its parser may differ from Python's in the last digit.

        Numbers that no column holds and that float64 would confuse with others are clamped beyond all it holds.
        """
        clamped = [max(-2 * WHOLE, min(2 * WHOLE, each)) for each in numbers]
        if all(isinstance(each, int) for each in numbers):
            return clamped
        rows = self._database.read_directly("SELECT value FROM json_each(?)", (to_json(clamped),))
        return clamped if rows is None else [row[0] for row in rows]

    @undisturbed
    def _grown(self, found: _Column, space: int, place: Place, below: int) -> _Column | None:
        kind, value = typed(place, self._database.engine.dialect.name)
        query = (
            select(VectorRow.id, kind, value)
            .join(DocumentRow, VectorRow.document == DocumentRow.key)
            .where(VectorRow.space == space, VectorRow.id >= len(found.kinds), VectorRow.id < below)
        )
        with self._database.read() as connection, connection.execution_options(yield_per=10_000).execute(query) as rows:
            return found.grown(below, rows, _as_it_is if place == ID else nfc)


class _AskSqlError(Exception):
    """A field of the filter has no column."""


class _InMemory(Fields[Mask]):
    """Conditions as masks by vector id; raises `_AskSqlError`."""

    def __init__(self, columns: Columns, space: int, below: int) -> None:
        self._columns, self._space, self._below = columns, space, below
        self._none: Mask = np.zeros(below, np.bool_)
        self._got: dict[Place, _Column] = {}

    def _get(self, place: Place) -> _Column:
        if place not in self._got:
            found = self._columns.get(self._space, place, self._below)
            if found is None:
                raise _AskSqlError
            self._got[place] = found
        return self._got[place]

    def _of(self, found: _Column, kind: int) -> Mask:
        mask: Mask = found.kinds[: self._below] == kind
        return mask

    def present(self, place: Place) -> Mask:
        return ~self._of(self._get(place), MISSING)

    def equal(self, place: Place, values: Values) -> Mask:
        found = self._get(place)
        texts = list(values.texts)
        if values.moments:
            wanted = set(values.moments)
            texts += [word for word, at in found.moments.items() if at in wanted]
        masks = [self._of(found, TRUE if value else FALSE) for value in values.truths]
        masks.append(self._texts(found, texts))
        if values.numbers and len(found.numbers):
            constants = np.asarray(self._columns.constants(values.numbers), np.float64)
            masks.append(self._of(found, NUMBER) & np.isin(found.numbers[: self._below], constants))
        return self.any(masks)

    def listed(self, place: Place, values: Values) -> Mask:
        self._get(place)
        return self._none

    def ordered(self, place: Place, sign: str, bound: Bound) -> Mask:
        found, compare = self._get(place), SIGNS[sign]
        if isinstance(bound, Moment):
            return self._texts(found, [word for word, at in found.moments.items() if compare(at, bound)])
        if isinstance(bound, TextBound):
            moments = found.moments if bound.moment is not None else {}
            words = [word for word in found.words if word not in moments and compare(word, bound.text)]
            return self._texts(found, words + [word for word, at in moments.items() if compare(at, bound.moment)])
        if not len(found.numbers):
            return self._none
        [constant] = self._columns.constants([bound])
        compared: Mask = compare(found.numbers[: self._below], constant)
        return self._of(found, NUMBER) & compared

    def holds(self, place: Place, text: str, start: bool) -> Mask:
        found = self._get(place)
        form = nfc if place == ID else _as_it_is
        return self._texts(
            found, [word for word in found.words if (form(word).startswith(text) if start else text in form(word))]
        )

    def all(self, conditions: Sequence[Mask]) -> Mask:
        return reduce(np.logical_and, conditions, ~self._none)

    def any(self, conditions: Sequence[Mask]) -> Mask:
        return reduce(np.logical_or, conditions, self._none)

    def opposite(self, condition: Mask) -> Mask:
        return ~condition

    def _texts(self, found: _Column, wanted: Sequence[str]) -> Mask:
        """The rows whose text is one of these."""
        codes = [found.words[word] for word in wanted if word in found.words]
        if not codes:
            return self._none
        chosen = np.zeros(len(found.words), np.bool_)
        chosen[codes] = True
        return self._of(found, TEXT) & chosen[found.codes[: self._below]]


def _as_it_is(text: str) -> str:
    return text
