"""Every operator of `where`, on both databases, against an oracle in plain Python."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest
from answers import asked, found
from filter_oracle import described, escaped, instant, matches
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import Collection, Document
from indexer.errors import FilterError
from indexer.metadata.filters import parse
from indexer.metadata.publish import NewDocument
from indexer.types import Modality

NAMES = [
    "a", "b", "a b", "it's", "50%", "ключ", "tab\there", "a$b", "[0]", "0", "#-1", "😀", "a.b", "$a", "$id", 'a"b', "a\\b", "\\",
    "", ".x", "$", '"', "\u00e9", "cafe\u0301", "\x01",
]  # fmt: skip
ORDINARY = NAMES[:12]
TEXTS = [
    "", "a", "A", "b", "é", "é", "z", "\u00ff", "😀", "\uffff", "50%", "_", "it's", '"', "\\", "\\u0000", "line\nbreak", "1", "1.5",
    "true", "null", "' OR '1'='1", "'; DROP TABLE documents; --", ":value", "%(value)s", "$.a", "caf\u00e9", "cafe\u0301",
    "\u212a", "K", "2024-01-02", "2024-01-02T00:00:00Z", "2024-01-02T01:00:00+01:00", "2024-01-01 23:59:59.5", "2024-02-30",
    "2024-01-02T00:00:00.000000001Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-0130", "2024-01-02T00:00,5", "2024-1-2",
    "2024-01-02T00:00:00,50-01",
]  # fmt: skip

numbers = (
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, 1, 1.0, 2, 0.1, 0.5, 2**53 + 1, 2.0**53, 2**60, 2.0**60, 10**16, 1e16, -0.0])
    | st.sampled_from([2**63, -(2**63) - 1, 2**63 + 1, 2.0**63, 2**64, 10**30, 1e30, 10**30 + 1, 10**400])
)
# Half of all names and values are of a few, so that filters and documents often meet.
scalars = st.sampled_from([0, 1, 1.0, True, False, "", "1", "a"]) | st.sampled_from(TEXTS) | numbers | st.booleans()
names = st.sampled_from(["a", "ключ", "a.b"]) | st.sampled_from(NAMES)
values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(names, values, max_size=4)
paths = st.lists(names.map(escaped), min_size=1, max_size=2).map(".".join) | st.sampled_from(
    ["a.b", "a.b.a", "$id", "$text"]
)
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
        "$startsWith": st.sampled_from(TEXTS),
    }).filter(bool),
    st.sampled_from(["$eq", "$lt", "$gte"]).flatmap(lambda operator: st.fixed_dictionaries({
        operator: st.fixed_dictionaries({"$date": st.sampled_from([text for text in TEXTS if instant(text)])})
    })),
)  # fmt: skip
texts_alone = st.sampled_from(TEXTS) | st.fixed_dictionaries({}, optional={
    "$ne": st.sampled_from(TEXTS),
    "$gt": st.sampled_from(TEXTS),
    "$in": st.lists(st.sampled_from(TEXTS), max_size=3),
    "$contains": st.sampled_from(TEXTS),
    "$startsWith": st.sampled_from(TEXTS),
    "$exists": st.booleans(),
}).filter(bool)  # fmt: skip
wheres = st.recursive(
    st.dictionaries(paths.filter(lambda path: path not in ("$id", "$text")), operands, max_size=2)
    | st.dictionaries(st.sampled_from(["$id", "$text"]), texts_alone, max_size=2),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"$and": some}),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"$or": some}),
        inner.map(lambda one: {"$not": one}),
    ),
    max_leaves=4,
)


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
    """Put documents of these fields in place of those there are; gives them by vector, and the snapshot."""
    numbers = [str(number) for number in range(len(fields))]
    texts = [(None, *TEXTS)[number % (len(TEXTS) + 1)] for number in range(len(fields))]
    with shop.writer() as writer:
        documents = [
            NewDocument(n, t, None, None, None, Modality.TEXT, f)
            for n, t, f in zip(numbers, texts, fields, strict=True)
        ]
        writer.commit(documents, asked(*numbers), deleted=[str(number) for number in range(60)])
    snapshot = shop.snapshot()
    told = map(described, numbers, texts, fields)
    return dict(zip(snapshot.vector_ids(numbers).tolist(), told, strict=True)), snapshot


@settings(max_examples=8)
@given(st.lists(objects, min_size=20, max_size=40), st.lists(wheres, min_size=12, max_size=12))
def test_every_filter_lets_through_what_the_oracle_says(crowd, documents, filters):
    documents, snapshot = fill(crowd, documents)
    for where in filters:
        expected = [vector for vector, fields in documents.items() if matches(fields, where)]
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
        own = escaped(name)
        assert answer(shop, {f"{own}.{own}": number}) == ["0"], name
        assert answer(shop, {own: {"$exists": False}}) == ["1"], name
        assert answer(shop, {f"{own}.{own}": {"$ne": number}}) == ["1"], name
        assert answer(shop, {f"{own}.{own}.{own}": {"$exists": True}}) == [], name


def test_a_dotted_name_needs_no_escape_and_reaches_into_objects_where_no_field_is_called_so(stocked):
    shop = stocked({"price.usd": 5}, {"price": {"usd": 7}}, {"price.usd": None, "price": {"usd": 9}}, {"price": 5})
    assert answer(shop, {"price.usd": {"$lt": 8}}) == ["0", "1"]
    assert answer(shop, {"price.usd": {"$exists": False}}) == ["3"]
    assert answer(shop, {"price.usd": {"$ne": 5}}) == ["1", "2", "3"]
    assert answer(shop, {"price\\.usd": {"$exists": True}}) == ["0"]


def test_whole_numbers_are_exact_whatever_their_size(crowd):
    """Also those that earlier releases stored, beyond 64 bits."""
    big = [
        2**63 - 1,
        2**63 - 2,
        -(2**63),
        2**70,
        [2**62 + 1],
        -(2**63) - 1,
        2**70 + 1,
        2.0**70,
        [2**80, 1],
        10**30,
        1e30,
    ]
    documents, snapshot = fill(crowd, [{"n": each} for each in big])

    def places(where):
        return [list(documents).index(vector) for vector in snapshot.matching(where)]

    assert places({"n": 2**63 - 1}) == [0]
    assert places({"n": {"$gt": 2**63 - 2}}) == [0, 3, 6, 7, 9, 10]
    assert places({"n": {"$lt": 0}}) == [2, 5]
    assert places({"n": {"$gte": -(2**63), "$lt": 0}}) == [2]
    assert places({"n": {"$in": [2**62 + 1, 2**63 - 2]}}) == [1, 4]
    assert places({"n": 2**62}) == []
    assert places({"n": 2**70}) == places({"n": 2.0**70}) == [3, 7]
    assert places({"n": {"$in": [2**70 + 1, 5]}}) == [6]
    assert places({"n": {"$gt": 2**70}}) == [6, 9, 10]
    assert places({"n": {"$contains": 2**80}}) == [8]
    assert places({"n": {"$contains": 2**80 + 1}}) == []
    assert places({"n": 10**30}) == [9]  # 1e30 is another number
    assert places({"n": {"$lt": 10**400}}) == [0, 1, 2, 3, 5, 6, 7, 9, 10]


def test_whole_numbers_are_told_from_the_fractions_beside_them(stocked):
    shop = stocked({"n": 2**53}, {"n": 2**53 + 1}, {"n": 2.0**53}, {"n": [2**53 + 1]})
    assert answer(shop, {"n": 2.0**53}) == ["0", "2"]
    assert answer(shop, {"n": {"$gt": 2.0**53}}) == ["1"]
    assert answer(shop, {"n": {"$in": [2**53 + 1]}}) == ["1", "3"]


def test_zero_has_no_sign(stocked):
    shop = stocked({"n": -0.0}, {"n": 0}, {"n": [-0.0]})
    for zero in (0, -0.0, 0.0):
        assert answer(shop, {"n": zero}) == answer(shop, {"n": {"$in": [zero, 7]}}) == ["0", "1", "2"]
        assert answer(shop, {"n": {"$lt": zero}}) == []


MIDNIGHT = [
    "2024-01-02T00:00:00Z", "2024-01-02T00:00:00+00:00", "2024-01-02", "2024-01-02T00:00", "2024-01-02 00:00:00",
    "2024-01-02T05:30:00+05:30", "2024-01-01T16:00:00-0800", "2024-01-02t00:00:00.000z", "2024-01-02T02:00+02",
]  # fmt: skip
AFTER = ["2024-01-02T00:00:00.000000001Z", "2024-01-02T00:00:00,5", "2024-01-01T23:59:59-01:00"]
NO_TIMES = ["2024-02-30", "2024-01-02T24:00:00Z", "2024", "20240102", "2024-01-02T00:00:00+2:00", "2024-01-02 noon"]


def test_times_compare_as_instants_however_they_are_written(stocked):
    shop = stocked(*({"t": text} for text in MIDNIGHT + AFTER + NO_TIMES), {"t": [*MIDNIGHT[:1], "x"]}, {"t": 5})
    midnight, after = [
        [str(n) for n, text in enumerate(MIDNIGHT + AFTER) if text in some] for some in (MIDNIGHT, AFTER)
    ]
    listed, later = str(len(MIDNIGHT + AFTER + NO_TIMES)), sorted(after)
    for text in MIDNIGHT:
        for operand in (text, {"$date": text}):
            assert answer(shop, {"t": operand}) == sorted([*midnight, listed]), operand
            assert answer(shop, {"t": {"$in": [operand, "y"]}}) == sorted([*midnight, listed]), operand
        assert answer(shop, {"t": {"$gte": {"$date": text}}}) == sorted(midnight + after), text
        assert answer(shop, {"t": {"$gt": {"$date": text}}}) == later, text
        assert answer(shop, {"t": {"$lt": {"$date": text}}}) == [], text
        assert set(later) <= set(answer(shop, {"t": {"$gt": text}})), text
        assert not set(midnight) & set(answer(shop, {"t": {"$gt": text}})), text
    assert answer(shop, {"t": {"$contains": {"$date": "2024-01-02"}}}) == [listed]


@pytest.mark.parametrize("text", NO_TIMES)
def test_a_text_that_names_no_time_is_a_text(stocked, text):
    shop = stocked({"t": text}, {"t": "2023-12-31"}, {"t": "2024-01-02T00:00:00Z"})
    assert answer(shop, {"t": text}) == ["0"]
    assert "0" not in answer(shop, {"t": {"$gt": {"$date": "2000-01-01"}}})
    with pytest.raises(FilterError, match="no ISO 8601|takes an ISO 8601"):
        answer(shop, {"t": {"$lt": {"$date": text}}})


@pytest.mark.parametrize(
    "operand",
    [
        date(2024, 1, 2),
        datetime(2024, 1, 2),  # noqa: DTZ001  (what has no zone is in UTC)
        datetime(2024, 1, 2, 2, tzinfo=timezone(timedelta(hours=2))),
        {"$date": datetime(2024, 1, 2, tzinfo=UTC)},
    ],
)
def test_times_of_python_are_operands(stocked, operand):
    shop = stocked({"t": "2024-01-02T00:00:00Z"}, {"t": "2024-01-02T00:00:00.5Z"}, {"t": "x"})
    assert answer(shop, {"t": operand}) == ["0"]
    assert answer(shop, {"t": {"$gt": operand}}) == ["1"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"n": np.int64(3)}, ["0"]),
        ({"n": {"$lt": np.float32(3.5)}}, ["0"]),
        ({"n": {"$in": np.array([3, 9])}}, ["0"]),
        ({"n": {"$in": {3, 9}}}, ["0"]),
        ({"n": {"$in": (3, 9)}}, ["0"]),
        ({"n": Decimal("3")}, ["0"]),
        ({"n": Decimal("4.5")}, ["1"]),
        ({"s": np.str_("x")}, ["0"]),
        ({"s": {"$exists": np.True_}}, ["0"]),
        ({"b": np.True_}, ["1"]),
    ],
)
def test_values_of_numpy_and_decimal_are_operands(stocked, where, expected):
    assert answer(stocked({"n": 3, "s": "x"}, {"n": 4.5, "b": True}), where) == expected


FORMS = ["caf\u00e9", "cafe\u0301"]


@pytest.mark.parametrize("asked_form", FORMS)
@pytest.mark.parametrize("stored", FORMS)
def test_names_and_texts_match_in_either_unicode_form(stocked, stored, asked_form):
    shop = stocked({stored: stored, "l": [stored], "n": {stored: 1}}, {"x": 1})
    for where in (
        {asked_form: asked_form}, {asked_form: {"$in": [asked_form, "x"]}}, {"l": asked_form}, {"l": {"$contains": asked_form}},
        {asked_form: {"$startsWith": asked_form[:-1] if asked_form == "" else asked_form}}, {asked_form: {"$gte": asked_form}},
        {f"n.{asked_form}": 1}, {asked_form: {"$contains": asked_form[2:]}}, {"x": {"$exists": False}},
    ):  # fmt: skip
        assert answer(shop, where) == ["0"], where
    assert answer(shop, {asked_form: {"$ne": asked_form}}) == ["1"]


@pytest.mark.parametrize("stored", FORMS)
def test_names_of_earlier_collections_match_in_either_unicode_form(crowd, stored):
    documents, snapshot = fill(crowd, [{stored: {stored: stored}}, {}])
    for form in FORMS:
        assert snapshot.matching({f"{form}.{form}": form}).tolist() == list(documents)[:1]
        assert snapshot.matching({form: {"$exists": False}}).tolist() == list(documents)[1:]


def test_parts_of_texts(stocked):
    shop = stocked({"s": "cats and dogs"}, {"s": ["cats", "dogs"]}, {"s": "Cats"}, {"s": 5}, {"s": ["cat", 1]}, {})
    assert answer(shop, {"s": {"$contains": "cat"}}) == ["0", "4"]
    assert answer(shop, {"s": {"$contains": "cats"}}) == ["0", "1"]
    assert answer(shop, {"s": {"$contains": 1}}) == ["4"]
    assert answer(shop, {"s": {"$startsWith": "cat"}}) == ["0", "1", "4"]
    assert answer(shop, {"s": {"$startsWith": "dog"}}) == ["1"]
    assert answer(shop, {"s": {"$contains": ""}}) == ["0", "2"]
    assert answer(shop, {"s": {"$contains": "%"}}) == []
    assert answer(shop, {"s": {"$startsWith": "C_"}}) == []


def test_documents_by_id_and_by_text(shop):
    shop.add([
        Document("a", text="a red heart"), Document("b/1", text="a blue Heart"), Document("b/caf\u00e9", text="2024-01-02"),
        Document("b/cafe\u0301", text="heart"),
    ])  # fmt: skip
    for where, expected in [
        ({"$id": "a"}, ["a"]),
        ({"$id": {"$in": ["a", "b/1", "none"]}}, ["a", "b/1"]),
        ({"$id": {"$nin": ["a", "b/1"]}}, ["b/cafe\u0301", "b/caf\u00e9"]),
        ({"$id": {"$startsWith": "b/"}}, ["b/1", "b/cafe\u0301", "b/caf\u00e9"]),
        ({"$id": "b/caf\u00e9"}, ["b/cafe\u0301", "b/caf\u00e9"]),
        ({"$id": {"$gt": "b/1"}}, ["b/cafe\u0301", "b/caf\u00e9"]),
        ({"$id": {"$contains": "/"}}, ["b/1", "b/cafe\u0301", "b/caf\u00e9"]),
        ({"$id": {"$exists": True}}, ["a", "b/1", "b/cafe\u0301", "b/caf\u00e9"]),
        ({"$text": {"$contains": "heart"}}, ["a", "b/cafe\u0301"]),
        ({"$text": {"$startsWith": "a "}}, ["a", "b/1"]),
        ({"$text": "heart"}, ["b/cafe\u0301"]),
        ({"$text": "2024-01-02T00:00:00Z"}, []),  # texts are never times
        ({"$not": {"$text": {"$contains": "a"}}}, ["b/caf\u00e9"]),
        ({"$or": [{"$id": "a"}, {"$text": {"$contains": "blue"}}]}, ["a", "b/1"]),
    ]:
        assert answer(shop, where) == expected, where


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
    assert answer(shop, {"$or": [{"a.n": {"$in": [number, "x", True, None]}} for number in range(100)]}) == ["0", "1"]
    assert answer(shop, {"$or": [{"n": {"$gte": f"2024-01-{1 + number % 9:02}"}} for number in range(100)]}) == []
    assert answer(shop, {".".join(["n"] * 100): {"$exists": True}}) == []


def test_a_filter_hides_and_does_not_starve(stocked):
    shop = stocked(*({"n": number} for number in range(30)))
    assert len(found(shop, "x", k=7, where={"n": {"$gte": 20}})) == 7
    assert found(shop, "x", k=7, where={"n": 99}) == []


DEEP: list = []
for _ in range(20_000):
    DEEP = [DEEP]
DEEP_OBJECT: dict = {}
for _ in range(20_000):
    DEEP_OBJECT = {"a": DEEP_OBJECT}
ENDLESS: dict = {}
ENDLESS["$not"] = ENDLESS


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("x = 1", "Write for example"),
        ([{"x": 1}], "Write for example"),
        ({1: 2}, "name is a text, not int 1"),
        (
            {"$nor": []},
            r"Did you mean '\$or'.*Known: \$and, \$or, \$not, \$id, \$text, or a field's name; write \\\$nor",
        ),
        ({"$price": 5}, r"or a field's name; write \\\$price"),
        ({"$and": {}}, r"\$and takes a list of filters"),
        ({"$or": []}, r"\$or takes a list of filters"),
        ({"$or": "x"}, r"\$or takes a list of filters"),
        ({"$not": [{"x": 1}]}, "Write for example"),
        (
            {"x": {"$like": "a%"}},
            r"Known: \$eq, \$ne, \$lt, \$lte, \$gt, \$gte, \$in, \$nin, \$exists, \$contains, \$startsWith",
        ),
        ({"x": {"$startswith": "a"}}, r"Did you mean '\$startsWith'"),
        ({"x": {"y": 1}}, r"'y' on 'x' is not known here"),
        ({"x": {5: 1}}, r"int 5 on 'x' is not known here"),
        ({"x": {}}, r"is empty\. Known operators: \$eq"),
        ({"a\\": 1}, "ends in a backslash.*Write two"),
        ({"a\0b": 1}, "not a field name.*NUL"),
        ({"a\ud800": 1}, "not a field name.*surrogate"),
        ({".".join("a" * 101): 1}, "at most 100 names"),
        ({"x": [1]}, r"\$eq takes a text, a number, a boolean or a date, not list"),
        ({"x": {"$eq": {"y": 1}}}, r"\$eq takes a text, a number, a boolean or a date, not dict"),
        ({"x": b"bytes"}, r"\$eq takes a text, a number, a boolean or a date, not bytes"),
        ({"x": {"$lt": True}}, "compares numbers, texts or times; bool"),
        ({"x": {"$lt": None}}, r"\$lt takes a text.*NoneType"),
        ({"x": {"$in": "abc"}}, r"\$in takes a list, not 'abc'"),
        ({"x": {"$nin": 1}}, r"\$nin takes a list, not int"),
        ({"x": {"$in": [[1]]}}, r"\$in takes a text, a number"),
        ({"x": {"$in": list(range(10_001))}}, "at most 10000 values; there are 10001"),
        ({"x": {"$exists": 1}}, r"\$exists takes true or false, not int"),
        ({"x": {"$contains": None}}, r"\$contains takes a text, a number"),
        ({"x": {"$startsWith": 5}}, r"\$startsWith takes a text, not int 5"),
        ({"x": {"$date": 5}}, r"\$date takes an ISO 8601 date or time, not int 5"),
        ({"x": {"$date": "2024-02-30"}}, r"\$date takes an ISO 8601 date or time, not '2024-02-30'"),
        ({"x": {"$date": "2024-01-02", "$gt": 1}}, r"takes a text, a number, a boolean or a date, not dict"),
        ({"$id": 5}, r"\$eq on \$id takes texts, not int 5"),
        ({"$id": {"$gt": 5}}, r"\$gt on \$id compares texts; int 5"),
        ({"$text": {"$contains": 5}}, r"\$contains on \$text takes text"),
        ({"$text": {"$in": ["a", 5]}}, r"\$in on \$text takes texts"),
        ({"x": math.nan}, "finite number"),
        ({"x": {"$gt": math.inf}}, "finite number"),
        ({"x": np.float64("nan")}, "finite number"),
        ({"x": Decimal("Infinity")}, "finite number"),
        ({"x": 1 << 20_000}, "at most 13000 bits; one has 20001"),
        ({"x": [1 << 20_000]}, "not list"),
        ({"x": "a\0b"}, "NUL"),
        ({"x": {"$gt": "\udc00"}}, "surrogate"),
        ({"x": "a" * 1_000_001}, "more than 1,000,000 characters"),
        ({"x" * 1_000_001: 1}, "more than 1,000,000 characters"),
        ({"$or": [{"x": number} for number in range(101)]}, r"more than 100 conditions.*Use \$in"),
        ({"$or": [{} for _ in range(101)]}, "more than 100 conditions"),
        ({"x": DEEP}, r"\$eq takes a text"),
        ({"x": {"$in": DEEP}}, r"\$in takes a text"),
        ({"x": {"$gt": DEEP_OBJECT}}, r"\$gt takes a text"),
        ({"x": DEEP_OBJECT}, "'a' on 'x' is not known"),
        (DEEP_OBJECT, "'a' on 'a' is not known"),
        (DEEP, "A filter is an object"),
        ({"$and": DEEP}, "A filter is an object"),
        (ENDLESS, "more than 16 deep"),
    ],
)
def test_what_does_not_parse_is_refused_in_one_line_that_says_what_would(where, told):
    with pytest.raises(FilterError, match=told) as caught:
        parse(where)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_nested_too_deep_is_refused():
    where = {"x": 1}
    for _ in range(17):
        where = {"$not": where}
    with pytest.raises(FilterError, match="more than 16 deep"):
        parse(where)
