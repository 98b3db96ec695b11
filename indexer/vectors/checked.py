"""`search` with checked arguments, for every index; the store itself calls `nearest`, which checks nothing.

What this module does not know: any index.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from indexer.errors import CallError, QueryError
from indexer.types import Ids, Vectors
from indexer.vectors.protocol import Neighbors

SHORTEST, LONGEST = 1e-15, 1e15
"""The range of query lengths in which float32 products neither vanish nor overflow."""


class CheckedIndex(ABC):
    """A `VectorIndex` whose `search` checks its arguments."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many vectors it holds."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of a vector; 0 if there are none."""

    @abstractmethod
    def nearest(self, queries: Vectors, k: int, allowed: Ids | None = None) -> Neighbors:
        """`search` without the checks, for arguments known to be valid."""

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> Neighbors:
        """The k best of each query, as `VectorIndex.search` promises, ties at rank k included.

        An approximate index may miss some of them.

        Args:
            queries: (n, dim) float32. A zero query ties with every row.
            k: At least 1; may exceed `size`.
            allowed: Ascending ids to choose from, or None for all. Ids that are not held are ignored.

        Raises:
            QueryError: k is below 1, the dimension differs, a value is not finite, or a query is too long or too
                short to be ranked in float32.
            CallError: `allowed` is not in ascending order.
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
                f"Scale it to unit length: outside {SHORTEST:.0e} to {LONGEST:.0e}, single precision cannot rank.",
            )
        if allowed is not None and not (allowed[1:] > allowed[:-1]).all():
            raise CallError("The allowed ids must be in ascending order, each once.", "Pass np.unique(ids).")
        return self.nearest(queries, k, allowed)
