"""Scaling to unit length, by hand: rows of unlike lengths, zero rows, and other dtypes."""

import numpy as np
import pytest

from indexer.errors import QueryError
from indexer.vectors.unit import query_rows, unit_rows

LONG, SHORT, NOTHING = [3.0, 4.0], [0.0, -0.25], [0.0, 0.0]
"""Lengths of 5, a quarter and 0."""


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_each_row_is_divided_by_its_own_length(dtype):
    found = unit_rows(np.array([LONG, SHORT, NOTHING], dtype).T.copy().T)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, -1], [0, 0]], atol=1e-7)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_query_is_divided_by_its_own_length(dtype):
    found = query_rows(np.array([LONG, SHORT, NOTHING], dtype).T.copy().T, zero=True)
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, -1], [0, 0]], atol=1e-7)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous


def test_what_is_nearly_of_unit_length_is_a_query_bit_for_bit():
    near = np.array([[0.6, 0.8 + 9e-6], [1 - 9e-6, 0], [0.6, 0.8]], np.float32)
    np.testing.assert_array_equal(query_rows(near), near)
    far = np.array([[1 + 2e-5, 0], [1 - 2e-5, 0]], np.float32)
    np.testing.assert_array_equal(query_rows(far), np.array([[1, 0], [1, 0]], np.float32))


def test_a_zero_query_is_counted_from_0():
    with pytest.raises(QueryError, match="Query vector 1 of 3 is zero"):
        query_rows(np.array([LONG, NOTHING, NOTHING]))
    with pytest.raises(QueryError, match="not a finite number"):
        query_rows(np.array([LONG, [0.0, np.inf]]), zero=True)
    assert query_rows(np.empty((0, 2))).shape == (0, 2)
