"""Arithmetic of unit vectors.

What this module does not know: where vectors come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.errors import QueryError
from indexer.types import Vectors

UNIT = 1e-5
"""Tolerance of a unit row's length in float32."""


def unit_rows(vectors: npt.NDArray[Any]) -> Vectors:
    """Rows scaled to unit length, as float32; a zero row stays zero.

    Args:
        vectors: (n, dim), any float dtype.
    """
    rows = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(norms > 0, norms, 1), np.float32)


def query_rows(vectors: npt.NDArray[Any], *, zero: bool = False) -> Vectors:
    """Query vectors scaled to unit length: (n, dim) float32.

    Lengths are computed in float64 from rows divided by their largest value, so that nothing overflows or underflows.
        Rows of unit length stay the same, bit for bit.

    Args:
        vectors: (n, dim), any float dtype.
        zero: Whether zero rows are allowed; they stay zero.

    Raises:
        QueryError: A row is zero, which has no direction, or holds a value that is not a finite number.
    """
    wide = np.asarray(vectors, np.float64)
    if not np.isfinite(wide).all():
        raise QueryError("A query vector holds a value that is not a finite number.")
    largest = np.abs(wide).max(axis=1, keepdims=True, initial=0)
    if not zero and not largest.all():
        place = int(np.flatnonzero(largest == 0)[0])
        raise QueryError(f"Query vector {place} of {len(wide)} is zero: it has no direction, so nothing is near it.")
    scaled = wide / np.where(largest > 0, largest, 1)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    other = np.abs(lengths * largest - 1) > UNIT
    return np.ascontiguousarray(np.where(other, scaled / np.where(lengths > 0, lengths, 1), wide), np.float32)
