"""Whole rankings of document ids, and the ranks of given documents, as benchmarks need them.

What this module does not know: methods, how queries are resolved, hits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from indexer.arguments import flag, names, one_each
from retrieval.arguments import all_resolved, checked_k
from retrieval.documents import Ranking, hidden_from, rankings_of, vector_ids_of
from retrieval.methods.base import Composed, Resolved
from retrieval.ranking import Scope, find, places, score

if TYPE_CHECKING:
    from indexer.snapshot import Snapshot

Answer = TypeVar("Answer")


class Rankings(ABC):
    """The part of a retriever that ranks resolved queries. A subclass composes them and pins a view."""

    @abstractmethod
    def _compose(self, view: Snapshot, resolved: Sequence[Resolved]) -> list[Composed]:
        """Resolved queries with the retriever's weights."""

    @abstractmethod
    def _on_view(self, work: Callable[[Snapshot], Answer]) -> Answer:
        """Run the work on the newest generation, and once more if that is compacted away meanwhile."""

    def rank(
        self,
        encoded: Sequence[Resolved],
        k: int,
        exclude: Sequence[Sequence[str]] | None = None,
        *,
        keep_references: bool = False,
        keep_ties: bool = False,
    ) -> list[Ranking]:
        """The k best document ids of each query; documents are not read.

        Args:
            encoded: The result of `encode`.
            k: At least 1.
            exclude: For each query, the document ids to leave out.
            keep_references: Let a query find its own `like`, which is left out otherwise.
            keep_ties: Also return ids that tie with the last of the k, up to 1,000 more.
        """
        k, encoded = checked_k(k), all_resolved(encoded)
        flag(keep_references, "keep_references")
        flag(keep_ties, "keep_ties")

        def work(snapshot: Snapshot) -> list[Ranking]:
            if not len(snapshot):
                return [Ranking((), ())] * len(encoded)
            hidden = hidden_from(snapshot, encoded, exclude, keep_references)
            functions = [each.scoring for each in self._compose(snapshot, encoded)]
            return rankings_of(snapshot, find(snapshot, functions, k, Scope(hidden=hidden)), None if keep_ties else k)

        return self._on_view(work)

    def places(
        self,
        encoded: Sequence[Resolved],
        documents: Sequence[Sequence[str]],
        exclude: Sequence[Sequence[str]] | None = None,
        *,
        keep_references: bool = False,
    ) -> list[tuple[int, ...]]:
        """The ranks of given documents among all: ascending, 1 for the best.

        Ties rank before them. Every document is scored, but the ranking itself is not built.

        Args:
            encoded: The result of `encode`.
            documents: For each query, the ids whose ranks are wanted.
            exclude: As for `rank`.
            keep_references: As for `rank`.

        Raises:
            CallError: A document does not exist.
        """
        encoded = all_resolved(encoded)
        documents = [names(each, "documents") for each in one_each(documents, "documents", len(encoded))]
        flag(keep_references, "keep_references")

        def work(snapshot: Snapshot) -> list[tuple[int, ...]]:
            hidden = hidden_from(snapshot, encoded, exclude, keep_references)
            functions = [each.scoring for each in self._compose(snapshot, encoded)]
            return places(snapshot, functions, vector_ids_of(snapshot, documents), Scope(hidden=hidden))

        return self._on_view(work)

    def rank_among(self, encoded: Sequence[Resolved], documents: Sequence[Sequence[str]]) -> list[Ranking]:
        """Order given documents for each query; none is left out.

        Args:
            encoded: The result of `encode`.
            documents: For each query, the ids to order.

        Raises:
            CallError: A document does not exist.
        """
        encoded = all_resolved(encoded)
        documents = [names(each, "documents") for each in one_each(documents, "documents", len(encoded))]

        def work(snapshot: Snapshot) -> list[Ranking]:
            ids = vector_ids_of(snapshot, documents)
            composed = self._compose(snapshot, encoded)
            found = [score(snapshot, each.scoring, own) for each, own in zip(composed, ids, strict=True)]
            return rankings_of(snapshot, found, None)

        return self._on_view(work)

    def require(self, documents: Iterable[str]) -> None:
        """Check that documents exist.

        Raises:
            CallError: Some do not; the error names them.
        """
        wanted = names(documents, "documents")
        self._on_view(lambda view: view.vector_ids(sorted(wanted)))
