"""Arithmetic of unit vectors.

What this module does not know: where vectors come from or go.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.types import Vectors


def unit_rows(vectors: npt.NDArray[Any]) -> Vectors:
    """Rows scaled to unit length, as float32; a zero row stays zero.

    Args:
        vectors: (n, dim), any float dtype.
    """
    rows = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(norms > 0, norms, 1), np.float32)
