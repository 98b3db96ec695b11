"""Values of filters one by one: Python's times, numbers at the databases' limits, and names."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest

from indexer import Collection, Document
from indexer.metadata.filter_nodes import ID, Place
from indexer.metadata.filter_values import Moment, moment, moment_of
from indexer.metadata.filters import split
from indexer.metadata.publish import NewDocument
from indexer.types import Modality
from indexer.vectors.unit import unit_rows


class Nanoseconds(datetime):
    """As pandas' timestamps."""

    nanosecond = 70


@pytest.mark.parametrize(
    ("value", "seconds", "fraction"),
    [
        (date(1970, 1, 2), 86_400, ""),
        (datetime(1970, 1, 1, 1, 2, 3), 3723, ""),  # noqa: DTZ001
        (datetime(1969, 12, 31, 23, 59, 59, 500_000, UTC), -1, "5"),
        (datetime(1970, 1, 1, 0, 0, 0, 1_000, UTC), 0, "001"),
        (datetime(1970, 1, 2, 3, 4, 5, 60, timezone(timedelta(hours=5, minutes=30))), 77_645, "00006"),
        (datetime(1970, 1, 2, 3, 4, 5, 60, timezone(-timedelta(hours=5, minutes=30))), 117_245, "00006"),
        (Nanoseconds(1970, 1, 1, 0, 0, 1, 20), 1, "00002007"),
    ],
)
def test_a_python_time_is_its_instant(value, seconds, fraction):
    assert moment_of(value) == Moment(seconds, fraction)
    if not isinstance(value, Nanoseconds):
        assert moment(value.isoformat()) == Moment(seconds, fraction)


SIGNS = {"$lt": lambda a, b: a < b, "$lte": lambda a, b: a <= b, "$gt": lambda a, b: a > b, "$gte": lambda a, b: a >= b}
EDGES = [2**63 - 1, 2**63, 2.0**63, 2**63 + 1, 2**64, 2.0**64, -(2**63) - 1, -(2.0**63), 2**70, 2**70 + 1, 2.0**70, 1.5]


@pytest.fixture(scope="module")
def edges(tmp_path_factory):
    """A document for each number; those beyond 64 bits as earlier releases stored them."""
    documents = [NewDocument(str(n), "x", None, None, None, Modality.TEXT, {"n": each}) for n, each in enumerate(EDGES)]
    with Collection.open(tmp_path_factory.mktemp("edges") / "shop", "fake:16") as shop:
        with shop.writer() as writer:
            writer.commit(documents, unit_rows(np.eye(len(EDGES), 16)))
        yield shop


def found(shop, where):
    snapshot = shop.snapshot()
    return {document.id for document in snapshot.documents(snapshot.matching(where))}


@pytest.mark.parametrize("bound", EDGES)
def test_numbers_at_the_edges_are_equal_and_ordered_as_in_python(edges, bound):
    for sign, compare in SIGNS.items():
        wanted = {str(n) for n, each in enumerate(EDGES) if compare(each, bound)}
        assert found(edges, {"n": {sign: bound}}) == wanted, sign
    same = {str(n) for n, each in enumerate(EDGES) if each == bound}
    assert found(edges, {"n": bound}) == found(edges, {"n": {"$in": [bound, 7]}}) == same


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (("a", "b"), "a.b"),
        (("a.b",), "a\\.b"),
        (("$a", "b\\"), "\\$a.b\\\\"),
        (("$id",), "\\$id"),
        (("a.b", "c.d"), "a\\.b.c\\.d"),
    ],
)
def test_a_place_is_shown_as_a_filter_writes_it(keys, shown):
    assert str(Place(keys)) == shown
    assert split(shown) == keys


def test_an_id_is_shown_as_it_is():
    assert str(ID) == "$id"


def test_notes_are_of_the_generation_that_is_asked(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:16") as shop:
        shop.add([Document("a", text="x", fields={"n": 1})])
        first = shop.snapshot()
        shop.delete(["a"])
        shop.add([Document("b", text="x", fields={"later": 1})])
        with Collection.open(tmp_path / "shop", "fake:16") as again:
            assert len(again.snapshot().filter_notes({"n": 1})) == 1
        assert first.filter_notes({"n": 1}) == ()
        assert len(first.filter_notes({"later": 1})) == 1


def test_names_inside_objects_are_proposed_down_to_a_depth(tmp_path):
    fields = {"none": None, "first": {"second": {"third": {"fourth": {"fifth": 1}}}}}
    with Collection.open(tmp_path / "shop", "fake:16") as shop:
        shop.add([Document("a", text="x", fields=fields)])
        for asked, near in {
            "first.secund": "'first.second'",
            "first.second.third.fourht": "'first.second.third.fourth'",
        }.items():
            [note] = shop.snapshot().filter_notes({asked: 1})
            assert f"Did you mean {near}" in note
        [note] = shop.snapshot().filter_notes({"first.second.third.fourth.fiftn": 1})
        assert "fifth'" not in note
