"""Filters on in-memory columns agree with the oracle and with SQL; fields without a column use SQL."""

from __future__ import annotations

import threading

import pytest
from filter_oracle import matches
from hypothesis import given, settings
from hypothesis import strategies as st
from test_filters import CASES, FORMS, MIDNIGHT, TYPES, crowd, fill, operands, stocked, texts_alone  # noqa: F401

from indexer import Document
from indexer.errors import FilterError, SnapshotGoneError
from indexer.metadata import filter_columns as columns
from indexer.metadata.filter_columns import Columns
from indexer.metadata.filters import parse

FEW = ["a", "b", "ключ", "0"]
plain = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.1, 0.5, 1.0, 2.0**53 - 1, 1e-300, -1.5])
    | st.floats(-10, 10)
    | st.sampled_from(
        [
            "2024-01-02",
            "2024-01-02T01:00+01:00",
            "caf\u00e9",
            "cafe\u0301",
            "",
            "a",
            "A",
            "é",
            "😀",
            "\uffff",
            "1",
            "true",
            "it's",
            '"',
            "\\",
        ]
    )
)
flat = st.dictionaries(st.sampled_from(FEW), plain, max_size=4)
near = st.dictionaries(st.sampled_from(["$id", "$text"]), texts_alone, min_size=1, max_size=1) | st.dictionaries(
    st.sampled_from(FEW),
    operands | plain | st.fixed_dictionaries({}, optional={
        "$lt": st.integers(-3, 3) | st.floats(-10, 10) | st.sampled_from(["a", "é"]),
        "$gte": st.sampled_from([0.1, 0.5, 2**53, -(2**63), 1, "A", ""]),
        "$in": st.lists(plain, max_size=4),
        "$nin": st.lists(plain, max_size=4),
    }).filter(bool),
    max_size=2,
)  # fmt: skip
wheres = st.recursive(
    near,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"$and": some}),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"$or": some}),
        inner.map(lambda one: {"$not": one}),
    ),
    max_leaves=4,
)


@pytest.fixture
def sql(monkeypatch):
    """How often SQL was asked for a filter's matches."""
    from indexer.metadata.catalog import Catalog

    asked, matching = [], Catalog.matching
    monkeypatch.setattr(
        Catalog, "matching", lambda own, where, *rest: asked.append(where) or matching(own, where, *rest)
    )
    return asked


def warm(shop, *names):
    """Have the fields in columns: each is asked for twice, by filters that are not remembered."""
    for name in names:
        for number in range(2):
            shop.snapshot().matching({name: {"$ne": f"nothing {number}"}})


@settings(max_examples=10)
@given(st.lists(flat, min_size=10, max_size=30), st.lists(wheres, min_size=15, max_size=15))
def test_columns_answer_what_the_oracle_says(crowd, documents, filters):  # noqa: F811
    crowd.catalog.columns = Columns(crowd.database)
    names, snapshot = fill(crowd, documents)
    warm(crowd, *FEW, "$id", "$text")
    for where in filters:
        below = snapshot.published.next_vector
        mask = crowd.catalog.columns.matching(parse(where), snapshot.space.id, below)
        assert mask is not None
        assert mask.shape == (below,)
        expected = [vector for vector, fields in names.items() if matches(fields, where)]
        assert [vector for vector in names if mask[vector]] == expected, where
        assert snapshot.matching(where).tolist() == expected, where


def test_sql_is_asked_the_first_time_alone(stocked, sql):  # noqa: F811
    shop = stocked({"n": 1, "s": "x"}, {"n": 2}, {"n": 3})
    sql.clear()
    snapshot = shop.snapshot()
    assert [len(snapshot.matching({"n": {"$gt": bound}})) for bound in range(4)] == [3, 2, 1, 0]
    assert sql == [parse({"n": {"$gt": 0}})]
    snapshot.matching({"n": 1, "s": "x"})
    snapshot.matching({"n": 2, "s": "x"})
    assert sql[1:] == [parse({"n": 1, "s": "x"})]


def test_types_are_kept_apart_in_columns_too(stocked, sql):  # noqa: F811
    shop = stocked(*TYPES[:6])
    warm(shop, "x", "x.y", "x.0")
    sql.clear()
    snapshot = shop.snapshot()
    numbers = snapshot.vector_ids([str(n) for n in range(6)]).tolist()
    for where, expected in CASES:
        assert [numbers.index(each) for each in snapshot.matching(where)] == [n for n in expected if n < 6], where
    assert sql == [parse({"$or": [{"x": True}, {"x": "1"}], "y": {"$exists": False}})]


def test_times_unicode_forms_and_parts_of_texts_are_answered_from_columns(stocked, sql):  # noqa: F811
    shop = stocked(*({"t": text, "s": FORMS[n % 2]} for n, text in enumerate(MIDNIGHT)), {"t": "x", "s": "cafes"})
    warm(shop, "t", "s", "$id", "$text")
    sql.clear()
    for where, count in [
        ({"t": MIDNIGHT[0]}, len(MIDNIGHT)),
        ({"t": {"$in": [MIDNIGHT[3], "x"]}}, len(MIDNIGHT) + 1),
        ({"t": {"$lt": {"$date": "2024-01-02T00:00:01Z"}}}, len(MIDNIGHT)),
        ({"t": {"$gt": "2024-01-02T00:00:00Z"}}, 1),
        ({"s": FORMS[0]}, len(MIDNIGHT)),
        ({"s": {"$contains": "caf"}}, len(MIDNIGHT) + 1),
        ({"s": {"$startsWith": FORMS[1]}}, len(MIDNIGHT)),
        ({"$id": {"$in": ["1", "2"]}}, 2),
        ({"$text": {"$contains": "x"}}, len(MIDNIGHT) + 1),
    ]:
        assert len(shop.snapshot().matching(where)) == count, where
    assert not sql


@pytest.mark.parametrize("value", [[1], {"y": 1}, 2**53, -(2.0**60)])
def test_what_no_column_can_hold_stays_with_sql(stocked, sql, value):  # noqa: F811
    shop = stocked({"n": 1}, {"n": value}, {})
    for bound in range(4):
        sql.clear()
        snapshot = shop.snapshot()
        found = [each.id for each in snapshot.documents(snapshot.matching({"n": {"$lte": bound}}))]
        assert found == [*(["0"] if bound else []), *(["1"] if isinstance(value, float) else [])]
        assert sql


def test_a_column_of_very_many_texts_is_not_kept(stocked, sql, monkeypatch):  # noqa: F811
    monkeypatch.setattr(columns, "MOST_WORDS", 2)
    shop = stocked({"s": "a"}, {"s": "b"}, {"s": "c"})
    warm(shop, "s")
    sql.clear()
    assert len(shop.snapshot().matching({"s": "b"})) == 1
    assert sql


def test_what_does_not_fit_beside_the_others_stays_with_sql(stocked, sql, monkeypatch):  # noqa: F811
    shop = stocked({"a": 1, "b": 2, "c": "x" * 1000})
    warm(shop, "a")
    [size] = [each.size for each in shop.catalog.columns._columns.values()]
    monkeypatch.setattr(columns, "MOST_BYTES", 2 * size + 300)
    warm(shop, "b", "c")
    assert [str(key[1]) for key, each in shop.catalog.columns._columns.items() if each] == ["a", "b"]
    sql.clear()
    for number in range(3):
        assert shop.snapshot().matching({"a": 1, "b": {"$lt": 3 + number}}).size == 1
    assert not sql
    assert shop.snapshot().matching({"c": {"$gt": "a"}}).size == 1
    assert sql


def test_fields_that_nobody_has_take_no_room_and_not_all_are_watched(stocked, sql, monkeypatch):  # noqa: F811
    shop = stocked({"a": 1})
    monkeypatch.setattr(columns, "MOST_FIELDS", 3)
    warm(shop, "x", "y", "a", "z")
    kept = shop.catalog.columns._columns
    assert [str(key[1]) for key in kept] == ["x", "y", "a"]
    assert [each.size == 0 for each in kept.values()] == [True, True, False]
    sql.clear()
    assert shop.snapshot().matching({"x": {"$exists": False}}).size == 1
    assert shop.snapshot().matching({"x": 1}).size == 0
    assert not sql


def test_others_ask_sql_while_a_column_is_read(stocked, sql, monkeypatch):  # noqa: F811
    shop = stocked({"a": 1, "b": 2})
    warm(shop, "a")
    shop.snapshot().matching({"b": 1})
    grown, found = Columns._grown, []

    def slowly(own, *arguments):
        # What another thread would see at this moment: the lock is free, `a` is answered, `b` goes to SQL.
        assert own._lock._lock.acquire(timeout=1)
        own._lock._lock.release()
        sql.clear()
        found.append(shop.snapshot().matching({"a": {"$lt": 5}}).size)
        assert not sql
        found.append(shop.snapshot().matching({"b": {"$lt": 5}}).size)
        assert sql
        return grown(own, *arguments)

    monkeypatch.setattr(Columns, "_grown", slowly)
    assert shop.snapshot().matching({"b": {"$lt": 6}}).size == 1
    assert found == [1, 1]


def test_columns_grow_with_what_is_added_and_forget_what_dies(stocked, sql):  # noqa: F811
    shop = stocked({"n": 1, "s": "a"}, {"n": 2, "s": "b"})
    warm(shop, "n", "s")
    old = shop.snapshot()
    shop.add([Document("2", text="x", fields={"n": 2, "s": "c"}), Document("0", text="x", fields={"n": 2, "s": "b"})])
    shop.delete(["1"])
    sql.clear()
    snapshot = shop.snapshot()
    assert sorted(each.id for each in snapshot.documents(snapshot.matching({"n": {"$in": [2]}}))) == ["0", "2"]
    assert [each.id for each in snapshot.documents(snapshot.matching({"s": "b"}))] == ["0"]
    assert [each.id for each in old.documents(old.matching({"n": {"$in": [1]}}))] == ["0"]
    assert old.matching({"s": {"$lte": "a"}}).size == snapshot.matching({"s": {"$gt": "b"}}).size == 1
    assert not sql
    shop.compact()
    assert len(shop.snapshot().matching({"n": {"$in": [2, 5]}})) == 2
    with pytest.raises(SnapshotGoneError, match="compacted away"):
        old.matching({"n": {"$in": [2, 6]}})


def test_a_bad_filter_is_refused_as_ever(stocked):  # noqa: F811
    shop = stocked({"n": 1})
    warm(shop, "n")
    with pytest.raises(FilterError, match="takes a text, a number"):
        shop.snapshot().matching({"n": {"$lt": None}})
    assert shop.snapshot().matching({}).size == 1


def test_threads_may_ask_while_columns_grow(stocked):  # noqa: F811
    shop = stocked(*({"n": number} for number in range(50)))
    wrong = []

    def ask(start):
        for number in range(start, 50, 4):
            snapshot = shop.snapshot()
            found = [each.fields["n"] for each in snapshot.documents(snapshot.matching({"n": {"$gte": number}}))]
            if sorted(found)[: 50 - number] != list(range(number, 50)):
                wrong.append((number, found))

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for number in range(5):
        shop.add([Document(f"more {number}", text="x", fields={"n": 100 + number})])
    for thread in threads:
        thread.join()
    assert not wrong
