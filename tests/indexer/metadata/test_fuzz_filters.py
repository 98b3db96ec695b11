"""Random filters are refused, or answered alike by SQL and by a plain Python evaluation."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from indexer import Collection
from indexer.errors import FilterError
from indexer.metadata.publish import NewDocument
from indexer.types import Modality
from indexer.vectors.unit import unit_rows

pytestmark = pytest.mark.fuzz

EXAMPLES, MINUTES = 30, 5
OPERATORS = [
    "$eq",
    "$ne",
    "$lt",
    "$lte",
    "$gt",
    "$gte",
    "$in",
    "$nin",
    "$exists",
    "$contains",
    "$startsWith",
    "$date",
    "$like",
    "$",
    "",
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["a", "b", "ä", "\0", "\ud800", "'", '"', "%", "1"])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2), max_leaves=4)  # fmt: skip
names = st.sampled_from(
    ["n", "t", "l", "o", "o.x", "o.y", "missing", "", ".", "a.", "$or", "$", "$id", "$text", 'x"', "\\", "\\$", "'"]
) | st.text(max_size=4)
fields = st.dictionaries(names, values | st.dictionaries(st.sampled_from(OPERATORS), values, max_size=2), max_size=2)
filters = st.recursive(
    fields | values,
    lambda inner: st.dictionaries(
        st.sampled_from(["$and", "$or", "$not", "$nor", "n"]), inner | st.lists(inner, max_size=3), max_size=2
    ),
    max_leaves=5,
)
DOCUMENTS = [
    {},
    {"n": 1, "t": "a", "l": [1, "a", None], "o": {"x": 1, "y": None}},
    {"n": 2.5, "t": "ä", "l": [], "o": {}},
    {"n": None, "t": "", "l": ["b"], "o": {"x": "a"}},
    {"n": True, "t": "'", "l": {"x": 1}, "o": [1]},
    {"n": -1, "t": "%", "l": "a", "o": "x"},
    {"n": 10**30, "t": "1", "l": [[1]], "o": {"x": {"y": 1}}},
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def snapshot(request, tmp_path_factory):
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres")
    with Collection.open(tmp_path_factory.mktemp("filters") / "shop", "fake:4", database=url) as shop:
        rows = [NewDocument(str(n), None, None, None, None, Modality.TEXT, own) for n, own in enumerate(DOCUMENTS)]
        with shop.writer() as writer:
            writer.commit(rows, unit_rows([[1, 0, 0, 0]] * len(rows)))
        yield shop.snapshot()


def ask(snapshot, where):
    """A filter and its opposite share the documents between them."""
    try:
        matching = set(snapshot.matching(where).tolist())
    except FilterError as error:
        assert error.message  # noqa: PT017  (most filters are refused)
        return
    everything = set(range(len(DOCUMENTS)))
    assert matching <= everything
    if isinstance(where, dict) and depth(where) < 15:
        assert set(snapshot.matching({"$not": where}).tolist()) == everything - matching


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0)


@settings(max_examples=EXAMPLES, deadline=None)
@given(where=filters)
def test_any_filter(snapshot, where):
    ask(snapshot, where)


@pytest.mark.slow
def test_any_filter_at_length(snapshot):
    """For `MINUTES` on each database."""
    end, rounds = time.monotonic() + 60 * MINUTES, 0
    while time.monotonic() < end:

        @seed(rounds)
        @settings(max_examples=500, deadline=None, database=None)
        @given(where=filters)
        def some(where):
            ask(snapshot, where)

        some()
        rounds += 1
    print(f"{500 * rounds} filters")  # noqa: T201
