"""Every operator of `where`, on both databases, against an oracle in plain Python."""

from __future__ import annotations

import math

import pytest
from answers import asked, found
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import Collection, Document
from indexer.errors import FilterError
from indexer.store.publish import NewDocument
from indexer.types import Modality

NAMES = ["a", "b", "a b", "it's", "50%", "ключ", "tab\there", "a$b", "[0]", "0", "#-1", "😀"]
TEXTS = [
    "", "a", "A", "b", "é", "é", "z", "\u00ff", "😀", "\uffff", "50%", "_", "it's", '"', "\\", "\\u0000", "line\nbreak", "1", "1.5",
    "true", "null", "' OR '1'='1", "'; DROP TABLE documents; --", ":value", "%(value)s", "$.a",
]  # fmt: skip

numbers = (
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 1, 1.0, 2, 0.1, 0.5, 2**53 + 1, 2.0**53, 2**60, 2.0**60, 10**16, 1e16])
)
# Half of all names and values are of a few, so that filters and documents often meet.
scalars = st.sampled_from([0, 1, 1.0, True, False, "", "1", "a"]) | st.sampled_from(TEXTS) | numbers | st.booleans()
names = st.sampled_from(["a", "ключ"]) | st.sampled_from(NAMES)
values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(names, values, max_size=4)
paths = st.lists(names, min_size=1, max_size=2).map(".".join)
operands = st.one_of(
    st.none() | scalars,
    st.fixed_dictionaries({}, optional={
        "$eq": st.none() | scalars,
        "$ne": st.none() | scalars,
        "$lt": numbers | st.sampled_from(TEXTS),
        "$lte": numbers | st.sampled_from(TEXTS),
        "$gt": numbers | st.sampled_from(TEXTS),
        "$gte": numbers | st.sampled_from(TEXTS),
        "$in": st.lists(st.none() | scalars, max_size=4),
        "$nin": st.lists(st.none() | scalars, max_size=4),
        "$exists": st.booleans(),
        "$contains": scalars,
    }).filter(bool),
)  # fmt: skip
wheres = st.recursive(
    st.dictionaries(paths, operands, max_size=2),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"$and": some}),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"$or": some}),
        inner.map(lambda one: {"$not": one}),
    ),
    max_leaves=4,
)


def kind(value):
    """What compares with what: texts, numbers, truth values."""
    return bool if isinstance(value, bool) else float if isinstance(value, int | float) else type(value)


def same(one, other):
    return kind(one) is kind(other) and one == other


def matches(fields, where):
    """What `indexer/store/filters.py` says about filters, in Python."""
    return all(holds(fields, name, operand) for name, operand in where.items())


def holds(fields, name, operand):
    if name == "$and":
        return all(matches(fields, each) for each in operand)
    if name == "$or":
        return any(matches(fields, each) for each in operand)
    if name == "$not":
        return not matches(fields, operand)
    value = fields
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    tests = operand if isinstance(operand, dict) else {"$eq": operand}
    return all(OPERATORS[operator](value, wanted) for operator, wanted in tests.items())


def equals(value, wanted):
    if wanted is None:
        return value is None
    return same(value, wanted) or contains(value, wanted)


def contains(value, wanted):
    return isinstance(value, list) and any(same(each, wanted) for each in value)


def ordered(compare):
    return lambda value, wanted: kind(value) is kind(wanted) and compare(value, wanted)


OPERATORS = {
    "$eq": equals,
    "$ne": lambda value, wanted: not equals(value, wanted),
    "$lt": ordered(lambda value, wanted: value < wanted),
    "$lte": ordered(lambda value, wanted: value <= wanted),
    "$gt": ordered(lambda value, wanted: value > wanted),
    "$gte": ordered(lambda value, wanted: value >= wanted),
    "$in": lambda value, wanted: any(equals(value, each) for each in wanted),
    "$nin": lambda value, wanted: not any(equals(value, each) for each in wanted),
    "$exists": lambda value, wanted: (value is not None) is wanted,
    "$contains": contains,
}


def answer(shop, where):
    """The ids of the documents that a filter lets through."""
    snapshot = shop.snapshot()
    return sorted(document.id for document in snapshot.documents(snapshot.matching(where)))


@pytest.fixture
def stocked(shop):
    """Fill the collection with documents of these fields, named by number; more than once if need be."""

    def stock(*fields):
        shop.delete([document.id for document in shop.snapshot().documents(shop.snapshot().matching({}))])
        shop.add([Document(str(number), text="x", fields=each) for number, each in enumerate(fields)])
        return shop

    return stock


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def crowd(request, tmp_path_factory):
    """Collections to be filled and asked again and again: one for all examples of a test."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres")
    with Collection.open(tmp_path_factory.mktemp("crowd") / "shop", "fake:16", database=url) as shop:
        yield shop


def fill(shop, fields):
    """Put documents of these fields in place of those there are; gives their fields by vector, and the snapshot."""
    numbers = [str(number) for number in range(len(fields))]
    with shop.writer() as writer:
        documents = [
            NewDocument(n, "", None, None, None, Modality.TEXT, f) for n, f in zip(numbers, fields, strict=True)
        ]
        writer.commit(documents, asked(*numbers), deleted=[str(number) for number in range(40)])
    snapshot = shop.snapshot()
    return dict(zip(snapshot.vector_ids(numbers).tolist(), fields, strict=True)), snapshot


@settings(max_examples=8)
@given(st.lists(objects, min_size=20, max_size=40), st.lists(wheres, min_size=12, max_size=12))
def test_every_filter_lets_through_what_the_oracle_says(crowd, documents, filters):
    names, snapshot = fill(crowd, documents)
    for where in filters:
        expected = [vector for vector, fields in names.items() if matches(fields, where)]
        assert snapshot.matching(where).tolist() == expected, where


TYPES = [
    {"x": 1}, {"x": 1.0}, {"x": True}, {"x": "1"}, {"x": None}, {}, {"x": []}, {"x": {"y": 5}}, {"x": {"0": 2}},
    {"x": [2, [5], {"y": 5}, 1]},
]  # fmt: skip
CASES = [
    ({"x": 1}, [0, 1, 9]),
    ({"x": True}, [2]),
    ({"x": "1"}, [3]),
    ({"x": None}, [4, 5]),
    ({"x": {"$ne": 1}}, [2, 3, 4, 5, 6, 7, 8]),
    ({"x": {"$ne": None}}, [0, 1, 2, 3, 6, 7, 8, 9]),
    ({"x": {"$lt": 2}}, [0, 1]),
    ({"x": {"$lt": "2"}}, [3]),
    ({"x": {"$gte": 1, "$lte": 1.0}}, [0, 1]),
    ({"x": {"$in": [1, "1"]}}, [0, 1, 3, 9]),
    ({"x": {"$in": [None, True]}}, [2, 4, 5]),
    ({"x": {"$in": []}}, []),
    ({"x": {"$nin": []}}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ({"x": {"$nin": [1, None]}}, [2, 3, 6, 7, 8]),
    ({"x": {"$exists": True}}, [0, 1, 2, 3, 6, 7, 8, 9]),
    ({"x": {"$exists": False}}, [4, 5]),
    ({"x": {"$contains": 1}}, [9]),
    ({"x.y": 5}, [7]),
    ({"x.0": 2}, [8]),
    ({"$not": {"x": 1}}, [2, 3, 4, 5, 6, 7, 8]),
    ({"$not": {}}, []),
    ({}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ({"$or": [{"x": True}, {"x": "1"}], "y": {"$exists": False}}, [2, 3]),
]


def test_types_are_kept_apart_and_what_is_missing_is_null(stocked):
    shop = stocked(*TYPES)
    for where, expected in CASES:
        assert answer(shop, where) == [str(each) for each in expected], where


def test_what_was_asked_before_lets_no_invalid_filter_through(stocked):
    snapshot = stocked({"1": 2}).snapshot()
    kept = snapshot.matching({"1": 2})
    assert not kept.flags.writeable
    with pytest.raises(FilterError):
        snapshot.matching({1: 2})


def test_any_name_is_found(stocked):
    shop = stocked({name: {name: number} for number, name in enumerate(NAMES)}, {})
    for number, name in enumerate(NAMES):
        assert answer(shop, {f"{name}.{name}": number}) == ["0"], name
        assert answer(shop, {name: {"$exists": False}}) == ["1"], name
        assert answer(shop, {f"{name}.{name}.{name}": {"$exists": True}}) == [], name


def test_whole_numbers_are_exact_to_64_bits(stocked):
    shop = stocked({"n": 2**63 - 1}, {"n": 2**63 - 2}, {"n": -(2**63)}, {"n": 2.0**70}, {"n": [2**62 + 1]})
    assert answer(shop, {"n": 2**63 - 1}) == ["0"]
    assert answer(shop, {"n": {"$gt": 2**63 - 2}}) == ["0", "3"]
    assert answer(shop, {"n": {"$lt": 0}}) == ["2"]
    assert answer(shop, {"n": {"$in": [2**62 + 1, 2**63 - 2]}}) == ["1", "4"]
    assert answer(shop, {"n": 2**62}) == []


@settings(max_examples=8)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=20, max_size=40, unique=True))
def test_fractions_are_equal_to_themselves_and_ordered(crowd, fractions):
    names, snapshot = fill(crowd, [{"n": each} for each in fractions])
    for wanted in fractions[:4]:
        for operator, compare in {"$eq": float.__eq__, "$lt": float.__lt__, "$gte": float.__ge__}.items():
            expected = [vector for vector, fields in names.items() if compare(fields["n"], wanted)]
            assert snapshot.matching({"n": {operator: wanted}}).tolist() == expected, (operator, wanted)


def test_many_values_in_one_list(stocked):
    shop = stocked(*({"n": number, "s": f"s{number}", "l": [number, "x"]} for number in range(12)))
    many = list(range(5, 10_000))
    assert len(answer(shop, {"n": {"$in": many}})) == 7
    assert len(answer(shop, {"l": {"$nin": many}})) == 5
    assert answer(shop, {"s": {"$in": [f"s{number}" for number in range(11, 10_000)]}}) == ["11"]


def test_as_many_conditions_as_are_allowed(stocked):
    shop = stocked({"n": 3}, {"n": 99})
    assert answer(shop, {"$and": [{"n": {"$nin": [number, "x", True, False, None]}} for number in range(4, 104)]}) == [
        "0"
    ]
    assert answer(shop, {"$or": [{"n": {"$in": [number, "x", True, False, None]}} for number in range(100)]}) == [
        "0",
        "1",
    ]
    nested = {"n": 3}
    for _ in range(15):
        nested = {"$not": nested}
    assert answer(shop, nested) == ["1"]


def test_a_filter_hides_and_does_not_starve(stocked):
    shop = stocked(*({"n": number} for number in range(30)))
    assert len(found(shop, "x", k=7, where={"n": {"$gte": 20}})) == 7
    assert found(shop, "x", k=7, where={"n": 99}) == []


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("x = 1", "Write for example"),
        ([{"x": 1}], "Write for example"),
        ({1: 2}, "name is a text, not int '1'"),
        ({"$nor": []}, r"Known: \$and, \$or, \$not, or a field's name"),
        ({"$and": {}}, r"\$and takes a list of filters"),
        ({"$or": []}, r"\$or takes a list of filters"),
        ({"$or": "x"}, r"\$or takes a list of filters"),
        ({"$not": [{"x": 1}]}, "Write for example"),
        ({"x": {"$like": "a%"}}, r"Known: \$eq, \$ne, \$lt, \$lte, \$gt, \$gte, \$in, \$nin, \$exists, \$contains"),
        ({"x": {"y": 1}}, r"'y' is not known here"),
        ({"x": {}}, r"is empty\. Known operators: \$eq"),
        ({"": 1}, "no field name: no empty part"),
        ({"a..b": 1}, "no field name: no empty part"),
        ({'a"b': 1}, "no field name.*quote"),
        ({"a\\b": 1}, "no field name.*backslash"),
        ({"a\0b": 1}, "no field name.*NUL"),
        ({"a\ud800": 1}, "no field name.*surrogate"),
        ({"x": [1]}, r"\$eq takes a text, a number or a truth value, not list"),
        ({"x": {"$eq": {"y": 1}}}, r"\$eq takes a text, a number or a truth value, not dict"),
        ({"x": b"bytes"}, r"\$eq takes a text, a number or a truth value, not bytes"),
        ({"x": {"$lt": True}}, "Order is among numbers or among texts; bool"),
        ({"x": {"$lt": None}}, "Order is among numbers or among texts; NoneType"),
        ({"x": {"$in": "abc"}}, r"\$in and \$nin take a list, not str"),
        ({"x": {"$nin": 1}}, r"\$in and \$nin take a list, not int"),
        ({"x": {"$in": [[1]]}}, r"\$in and \$nin takes a text, a number"),
        ({"x": {"$in": list(range(10_001))}}, "at most 10000 values; there are 10001"),
        ({"x": {"$exists": 1}}, r"\$exists takes true or false, not int"),
        ({"x": {"$contains": None}}, r"\$contains takes a text, a number or a truth value"),
        ({"x": math.nan}, "finite number"),
        ({"x": {"$gt": math.inf}}, "finite number"),
        ({"x": 2**63}, "64-bit integer"),
        ({"x": "a\0b"}, "NUL"),
        ({"x": {"$gt": "\udc00"}}, "surrogate"),
        ({"$or": [{"x": number} for number in range(101)]}, r"more than 100 conditions.*Use \$in"),
        ({"$or": [{} for _ in range(101)]}, "more than 100 conditions"),
    ],
)
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_what_does_not_parse_is_refused_and_says_what_would(where, told, dialect):
    from indexer.store.filters import compile_where

    with pytest.raises(FilterError, match=told):
        compile_where(where, dialect)


def test_nested_too_deep_is_refused():
    from indexer.store.filters import compile_where

    where = {"x": 1}
    for _ in range(17):
        where = {"$not": where}
    with pytest.raises(FilterError, match="more than 16 deep"):
        compile_where(where, "sqlite")
