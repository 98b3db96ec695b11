"""One validator for every way in: `add` and the readers accept and refuse the same values for the same reasons."""

from __future__ import annotations

import json
import tracemalloc
from array import array
from collections import OrderedDict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from answers import contents, png

from indexer import Collection, Document, index_corpus
from indexer.corpus.records import make_record
from indexer.embed.fake import FakeEmbedder
from indexer.errors import ItemError
from indexer.ingest.prepare import Ingest, Preparer, Ready
from indexer.metadata.database import to_json
from indexer.types import Parts, Rejected
from indexer.validate import MAX_FIELDS_BYTES, canonical_json, checked_fields, checked_id, checked_text


class Color(Enum):
    RED = "red"
    FAR = np.int64(3)


class Size(IntEnum):
    LARGE = 3


class Kind(StrEnum):
    STAMP = "stamp"


Point = namedtuple("Point", "x y")  # noqa: PYI024

TAKEN = [
    (None, None), (True, True), (np.True_, True), ("a", "a"), (np.str_("a"), "a"), (Kind.STAMP, "stamp"),
    (5, 5), (np.int8(-5), -5), (np.uint64(2**63 - 1), 2**63 - 1), (-(2**63), -(2**63)), (Size.LARGE, 3),
    (1.5, 1.5), (np.float32(3.5), 3.5), (np.float16(0.5), 0.5), (np.longdouble(2), 2.0), (1e300, 1e300), (-0.0, 0.0),
    (float("nan"), None), (np.float32("nan"), None), (Decimal("NaN"), None), (np.datetime64("NaT"), None),
    (np.timedelta64("NaT"), None), (pd.NaT, None), (pd.NA, None),
    (Decimal("19.99"), 19.99), (Decimal("5.00"), 5.0), (Decimal(2**62 + 1), 2**62 + 1),
    (Decimal(2**53 + 1), 2**53 + 1), (Decimal(-(2**53) - 1), -(2**53) - 1),
    *((np.datetime64("1970-01-01T00:00:01.5", unit), "1970-01-01T00:00:01.500000") for unit in ("ms", "us", "ns", "ps", "fs", "as")),
    (datetime(2024, 1, 2), "2024-01-02T00:00:00"), (datetime(2024, 1, 2, 3, 4, 5, 6, UTC), "2024-01-02T03:04:05.000006+00:00"),  # noqa: DTZ001
    (datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=-5))), "2024-01-02T00:00:00-05:00"),
    (pd.Timestamp("2024-01-02 03:04:05.123456789", tz="UTC"), "2024-01-02T03:04:05.123456+00:00"),
    (date(2024, 1, 2), "2024-01-02"), (time(3, 4), "03:04:00"),
    (np.datetime64("2024-01-02"), "2024-01-02"), (np.datetime64("2024-01-02T03:04:05.123456789"), "2024-01-02T03:04:05.123456"),
    (timedelta(minutes=1), 60.0), (np.timedelta64(1500, "ms"), 1.5), (pd.Timedelta("2s"), 2.0),
    (UUID(int=7), "00000000-0000-0000-0000-000000000007"), (PurePosixPath("a/b"), "a/b"), (Color.RED, "red"), (Color.FAR, 3),
    ((1, 2), [1, 2]), (Point(1, 2), [1, 2]), (deque([1]), [1]), (range(3), [0, 1, 2]), ({3, 1, 2}, [1, 2, 3]),
    (frozenset("ba"), ["a", "b"]), (OrderedDict(a=np.int64(1)), {"a": 1}), ({1: "x", np.int64(2): "y"}, {"1": "x", "2": "y"}),
    (np.array([1, 2]), [1, 2]), (np.array(3), 3), (np.array([[0.5], [np.nan]]), [[0.5], [None]]),
    (np.array(["2024-01-02T03:04:05.123456789"], "datetime64[ns]"), ["2024-01-02T03:04:05.123456"]),
    (np.array([("a", 1)], [("n", "U1"), ("c", "i4")]), [{"n": "a", "c": 1}]),
    (array("i", [1, 2]), [1, 2]), (pd.Series([1.0, float("nan")]), [1.0, None]), (torch.tensor([1.5, 2.0]), [1.5, 2.0]),
    (torch.tensor(3), 3), ([{"a": (np.float32(1), pd.NA)}], [{"a": [1.0, None]}]),
]  # fmt: skip

REFUSED = [
    (b"bytes", "bad-fields", "hex"), (bytearray(b"x"), "bad-fields", "image"), (memoryview(b"x"), "bad-fields", "image"),
    (np.bytes_(b"x"), "bad-fields", "hex"), (float("inf"), "bad-fields", "infinite"), (np.float32("-inf"), "bad-fields", "infinite"),
    (Decimal("Infinity"), "bad-fields", "infinite"), (2**63, "bad-fields", "64"), (-(2**63) - 1, "bad-fields", "64"),
    (np.uint64(2**64 - 1), "bad-fields", "64"), (10**5000, "bad-fields", "bits"), (Decimal(10) ** 20, "bad-fields", "bits"),
    (1j, "bad-fields", "complex"), (np.complex64(1), "bad-fields", "complex"), (Fraction(1, 3), "bad-fields", "Fraction"),
    (object(), "bad-fields", "object"), (np.timedelta64(1, "Y"), "bad-fields", "seconds"),
    (np.timedelta64(1, "M"), "bad-fields", "seconds"), (np.timedelta64(1), "bad-fields", "seconds"),
    (np.datetime64("30000-01-01"), "bad-fields", "9999"), ("a\0b", "nul", "character 1"), ("\udcff", "not-unicode", "surrogate"),
    (Path("\udcff"), "not-unicode", "surrogate"), ({"a": "\ud800"}, "not-unicode", "surrogate"), ({1.5: 1}, "bad-fields", "1.5"),
    ({1: 1, "1": 2}, "bad-fields", "Two fields"), ({"\ud800": 1}, "not-unicode", "name of a field"),
    ("x" * (MAX_FIELDS_BYTES + 1), "too-long", "1,048,576"), (["é" * 300_000] * 2, "too-long", "1,048,576"),
    (range(10**12), "too-long", "1,048,576"), (np.broadcast_to(0, 10**9), "too-long", "1,048,576"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "stored"), TAKEN, ids=[f"{type(value).__name__} {place}" for place, (value, _) in enumerate(TAKEN)]
)
def test_a_value_becomes_plain_json(value, stored):
    told = checked_fields({"x": value})["x"]
    assert (told, type(told)) == (stored, type(stored))
    assert json.loads(canonical_json(told)) == told  # so nothing of another type is left inside
    assert str(told) == str(stored)  # -0.0 equals 0.0


@pytest.mark.parametrize(("value", "reason", "word"), REFUSED, ids=[str(type(value))[7:] for value, _, _ in REFUSED])
def test_what_json_has_no_form_for_is_refused_with_its_field(value, reason, word):
    with pytest.raises(ItemError, match=word) as caught:
        checked_fields({"fine": 1, "odd": value})
    assert caught.value.reason == reason
    assert "odd" in caught.value.detail or "name of a field" in caught.value.detail


def test_lists_in_themselves_and_others_too_deep_are_refused():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(ItemError, match="'x' is nested more than 100 deep"):
        checked_fields({"x": endless})


@pytest.mark.parametrize(
    ("id", "stored"),
    [("a", "a"), (5, "5"), (-5, "-5"), (np.int64(5), "5"), (np.str_("a"), "a"), (2**80, str(2**80)), (UUID(int=1), str(UUID(int=1)))],
)  # fmt: skip
def test_ids_are_texts_and_whole_numbers(id, stored):
    assert checked_id(id) == stored
    assert type(checked_id(id)) is str


BAD = [
    *(({"id": each}, "bad-id") for each in ("", None, 1.5, True, b"a", ["a"], np.bool_(True), np.float64(1))),
    *(({"id": each}, "too-long") for each in ("i" * 1_025, "語" * 1_000, 10**5000)),
    *(({"text": each}, "bad-text") for each in (5, b"a", ["a"], 1.5)),
    ({"text": "t" * 10_000_001}, "too-long"),
    ({"text": " \t\n"}, "empty"),
    *(({part: "a\0b"}, "nul") for part in ("id", "text", "uri")),
    *(({part: "a\udfffb"}, "not-unicode") for part in ("id", "text", "uri")),
    *(({"fields": {"odd": value}}, reason) for value, reason, _ in REFUSED[:12]),
    ({"fields": ["x"]}, "bad-fields"),
    ({"fields": None}, "bad-fields"),
]


class One:
    """A corpus of one record, made as every reader makes its own."""

    source = "one"

    def __init__(self, **parts):
        self._parts = parts

    def __iter__(self):
        try:
            yield make_record(image=None, **self._parts)
        except ItemError as error:
            yield Rejected("one", error.reason, error.detail)


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    """Both ways into a collection: a document, and a job of one record; each gives what it rejects."""
    with Collection.open(tmp_path_factory.mktemp("doors") / "shop", "fake:16") as shop:

        def both(parts):
            added = shop.add([Document(**parts)], skip_rejected=True)
            return added.rejected, index_corpus(One(**parts), shop).rejects

        yield both


@pytest.mark.parametrize(("part", "reason"), BAD, ids=range(len(BAD)))
def test_both_doors_refuse_the_same_for_the_same_reason(doors, part, reason):
    [added], [indexed] = doors({"id": "a", "text": "t", "fields": {}, "uri": "u"} | part)
    assert (added.reason, added.detail) == (indexed.reason, indexed.detail)
    assert added.reason == reason


def test_two_doors_store_the_same(open_shop, tmp_path):
    values = {
        "year": np.int64(2024), "price": np.float32(3.5), "seen": datetime(2024, 1, 2), "cost": Decimal("1.5"),  # noqa: DTZ001
        "gone": float("nan"), "took": timedelta(seconds=2), "days": [date(2024, 1, 2)], "day": np.datetime64("2024-01-02", "ns"),
    }  # fmt: skip
    pq.write_table(
        pa.table({"id": [5], "text": [" x "], **{key: [each] for key, each in values.items()}}), tmp_path / "t.parquet"
    )
    read, added = open_shop("read"), open_shop("added")
    assert index_corpus(tmp_path / "t.parquet", read).added == 1
    assert added.add([Document(np.int64(5), text=" x ", fields=values)]).added == 1
    told = {name: (each[0], each[1]) for name, each in contents(read).items()}
    assert told == {name: (each[0], each[1]) for name, each in contents(added).items()}
    assert told["5"][1] | {"year": 2024, "cost": 1.5, "gone": None, "seen": "2024-01-02T00:00:00"} == told["5"][1]


def test_a_blank_text_is_none_by_every_door(tmp_path):
    assert checked_text(" ") is checked_text(None) is None
    ready = Ingest([Preparer(1, FakeEmbedder(16).preparer(), Parts.AUTO)], tmp_path)(
        Document("a", text=" ", image=png(1, 2, 3))
    )
    assert isinstance(ready, Ready)
    assert ready.document.text is None


def test_large_fields_are_written_in_little_memory():
    value = {f"field {number}": 'é\\"' * 1_000_000 for number in range(3)}
    size = len(json.dumps(value, ensure_ascii=False))
    tracemalloc.start()
    told = to_json(value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert json.loads(told) == value
    assert peak < 6 * 2 * size  # Python holds two bytes a character, and joins once


@pytest.mark.parametrize(
    "value", [1e16, -1e300, 2.0**60, [1e22, {"a": (1e17,), "b\"": "1e+17"}], {"x": 1e15, "y": "1e+16"}, 5, None, "1e+22"]
)  # fmt: skip
def test_no_number_is_written_with_an_exponent_above_0(value):
    told = to_json(value)
    assert json.loads(told) == json.loads(json.dumps(value))
    assert "e+" not in told.replace('"1e+17"', "").replace('"1e+16"', "").replace('"1e+22"', "")
