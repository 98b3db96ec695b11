"""Decide which documents of a source no longer exist. Unseen ones may still lie under what could not be read.

What this module does not know: corpora, the collection.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from indexer.errors import CallError

MOST_PREFIXES = 100_000
"""The most unreadable places to record; beyond, any document may lie under one."""


class Hidden:
    """Prefixes of ids, or of URIs, of documents that may lie under what could not be read."""

    def __init__(self) -> None:
        self._prefixes: set[str] = set()
        self._sorted: list[str] | None = None

    def add(self, prefix: str) -> None:
        """Add a prefix; the empty one covers everything."""
        self._sorted = None
        if prefix == "" or len(self._prefixes) >= MOST_PREFIXES:
            self._prefixes = {""}
        elif "" not in self._prefixes:
            self._prefixes.add(prefix)

    def covers(self, identifier: str) -> bool:
        """Whether an id, or a URI, begins with one of them."""
        if self._sorted is None:
            self._sorted = _shortest(self._prefixes)
        # No prefix begins with another, so only the last one that sorts before the id can match.
        place = bisect_right(self._sorted, identifier)
        return place > 0 and identifier.startswith(self._sorted[place - 1])


def require_few(source: str, gone: int, known: int, most: float) -> None:
    """Refuse to delete more than the agreed share of a source's documents.

    Raises:
        CallError: It would be more.
    """
    share = gone / max(1, known)
    if share <= most:
        return
    enough = min(1.0, -(-share * 100 // 1) / 100)
    raise CallError(
        f"{source} no longer has {gone:,} of the {known:,} documents that came from it ({share:.0%}), more than the "
        f"{most:.0%} that are pruned without asking: none was pruned. Its current documents are indexed.",
        f"Is a disk or a folder missing? If they are meant to go: `prune_most={enough:g}`.",
    )


def _shortest(prefixes: Iterable[str]) -> list[str]:
    """The prefixes, sorted, without those that begin with another."""
    shortest: list[str] = []
    for each in sorted(prefixes):
        if not shortest or not each.startswith(shortest[-1]):
            shortest.append(each)
    return shortest
