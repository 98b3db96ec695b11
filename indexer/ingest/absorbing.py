"""Choose the small segments that a commit merges into its own, so that many small commits leave few segments.

If the last seven or more segments are of a commit's own order of size, the commit writes their rows together with its
own: eight of one order become one of the next, like a carry in base eight. So there are at most seven segments of each
order, each row is written once per order, and no commit writes more than `MOST_BYTES`. The commit is otherwise
unchanged: one file, then one transaction.

What this module does not know: files, SQL.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from indexer.vectors.segments import SegmentFile

BASE = 8
MOST_ROWS, MOST_BYTES = 1 << 17, 1 << 28
"""The largest segment that a commit writes: a second or two of disk time."""
MANY = 64
"""With more segments, those that an index was built from are merged, too; the index must then be rebuilt."""


def absorbed(segments: Sequence[SegmentFile], rows: int, row_bytes: int, indexed: Collection[str]) -> list[SegmentFile]:
    """The last segments of a collection that a commit merges into its own, oldest first.

    Args:
        segments: The living segments, in the order of their ids.
        rows: Rows of the commit.
        row_bytes: Bytes of a row on disk.
        indexed: The sha256 of the segments that an index was built from.
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
    """The number of digits of `rows` in base eight, minus one."""
    return (rows.bit_length() - 1) // 3
