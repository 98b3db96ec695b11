"""The search that every index offers, for calls that may make no sense; inside the store, `nearest` is asked directly.

What this module does not know: any index.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from indexer.errors import CallError, QueryError
from indexer.types import Ids, Vectors
from indexer.vectors.protocol import Neighbors

SHORTEST, LONGEST = 1e-15, 1e15
"""Lengths of queries between which products in float32 neither vanish nor overflow."""


class CheckedIndex(ABC):
    """A `VectorIndex` that checks what it is asked."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many vectors it holds."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Their length; 0 where there are none."""

    @abstractmethod
    def nearest(self, queries: Vectors, k: int, allowed: Ids | None = None) -> Neighbors:
        """`search` for a call that is known to make sense."""

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> Neighbors:
        """The k best of each query, as `VectorIndex.search` promises, ties at the last place included.

        An approximate index gives near the k best.

        Args:
            queries: (n, dim) float32. A zero query is answered, by ties.
            k: At least 1; may exceed `size`.
            allowed: Ascending ids to choose from, or None for all. Ids that are not held are ignored.

        Raises:
            QueryError: k is below 1, the dimension is another, a value is not finite, or a query is too long or too
                short for float32 to rank.
            CallError: `allowed` does not ascend.
        """
        if k < 1:
            raise QueryError(f"k is {k}; a search returns at least 1 neighbor.")
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or (self.size and queries.shape[1] != self.dim):
            raise QueryError(
                f"The queries have the shape {queries.shape}; this index takes (n, {self.dim}).",
                "Embed queries with the model of the collection.",
            )
        if not np.isfinite(queries).all():
            raise QueryError("A query vector holds a value that is not a finite number.")
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        odd = lengths[(lengths > LONGEST) | ((lengths < SHORTEST) & (lengths > 0))]
        if len(odd):
            raise QueryError(
                f"A query vector has a length of {odd[0]:.1e}.",
                f"Bring it to unit length: beyond {SHORTEST:.0e} and {LONGEST:.0e}, single precision does not rank.",
            )
        if allowed is not None and not (allowed[1:] > allowed[:-1]).all():
            raise CallError("The allowed ids must ascend, each once.", "Pass np.unique(ids).")
        return self.nearest(queries, k, allowed)
