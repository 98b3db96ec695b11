"""Which small segments a commit merges into its own, so that many small commits do not leave many small segments.

A commit that finds seven or more segments of its own order of size at the end of the collection writes their rows
together with its own: eight of one order become one of the next, as digits carry when one counts in base eight. So
there are at most seven segments of an order, each row is written once an order, and no commit writes more than
`MOST_BYTES`. It is the same commit as any other: one file, then one transaction.

What this module does not know: files, SQL.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from indexer.vectors.segments import SegmentFile

BASE = 8
MOST_ROWS, MOST_BYTES = 1 << 17, 1 << 28
"""Of a segment that a commit writes; a second or two of a disk's time."""
MANY = 64
"""Segments above which also those are taken that an index was built from, which then has to be built anew."""


def absorbed(segments: Sequence[SegmentFile], rows: int, row_bytes: int, indexed: Collection[str]) -> list[SegmentFile]:
    """The segments at the end of a collection that a commit takes into its own, oldest first.

    Args:
        segments: The living ones, in the order of their ids.
        rows: Of the commit.
        row_bytes: Of a row, on disk.
        indexed: The sha256 of segments that an index was built from.
    """
    first = total = 0
    for place, each in enumerate(segments):
        if each.sha256 in indexed and len(segments) <= MANY:
            first = place + 1
    end, total = len(segments), rows
    while True:
        start = end
        bound = BASE ** (_order(total) + 1)
        while start > first and segments[start - 1].rows < bound:
            start -= 1
        taken = sum(each.rows for each in segments[start:end])
        if end - start < BASE - 1 or total + taken > min(MOST_ROWS, MOST_BYTES // row_bytes):
            return list(segments[end:])
        end, total = start, total + taken


def _order(rows: int) -> int:
    """The number of digits of the rows in base eight, less one."""
    return (rows.bit_length() - 1) // 3
