"""The same value is stored alike from Parquet, JSON lines, a JSON list, CSV, an archive and a `Document`."""

import csv
import datetime as dt
import decimal
import json
import math
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.corpus import open_corpus
from indexer.validate import checked_fields


def field(path):
    [record] = open_corpus(path)
    return record.document.fields["x"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.int64(2024), pa.int64()),
        (np.int8(-3), pa.int8()),
        (2**63 - 1, pa.uint64()),
        (np.float32(3.1), pa.float32()),
        (np.float16(1.5), pa.float16()),
        (float("nan"), pa.float64()),
        (-0.0, pa.float64()),
        (decimal.Decimal("19.99"), pa.decimal128(6, 2)),
        (decimal.Decimal("12345678901234567"), pa.decimal128(20, 0)),
        (dt.datetime(2024, 1, 2, 3, 4, 5, 678), pa.timestamp("us")),  # noqa: DTZ001
        (dt.datetime(2024, 1, 2, tzinfo=dt.UTC), pa.timestamp("s", "UTC")),
        (np.datetime64("2024-01-02T03:04:05.123456789"), pa.timestamp("ns")),
        (dt.date(2024, 2, 29), pa.date32()),
        (dt.time(1, 2, 3, 4), pa.time64("us")),
        (dt.timedelta(seconds=1.5), pa.duration("us")),
        (np.bool_(True), pa.bool_()),
        ("text", pa.large_string()),
        (None, pa.null()),
        ([1, None, 3], pa.list_(pa.int8())),
        (np.array([1.5, 2.5]), pa.list_(pa.float64())),
        ([dt.date(2024, 1, 1)], pa.list_(pa.date32())),
        ({"a": {"b": float("nan"), "c": [True]}}, None),
        (uuid.UUID(int=7), None),
    ],
    ids=str,
)
def test_parquet_and_document(tmp_path, value, kind):
    path = tmp_path / "a.parquet"
    if isinstance(value, uuid.UUID):
        if not hasattr(pa, "uuid"):
            pytest.skip("this Arrow has no type for UUIDs")
        column = pa.array([value.bytes], pa.uuid())
    else:
        column = pa.array([value], kind) if kind is not None else pa.array([value])
    pq.write_table(pa.table({"text": ["t"], "x": column}), path)
    told, direct = field(path), checked_fields({"x": value})["x"]
    assert json.dumps(told) == json.dumps(direct)
    assert type(told) is type(direct)


@pytest.mark.parametrize("value", [5, -5, 1.5, 1e3, True, False, "text", "2024-01-02", "007", "5 kg", 2**62])
def test_csv_and_json(tmp_path, value):
    written = json.dumps(value) if not isinstance(value, str) else value
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "x"], ["t", written]])
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "t", "x": value}) + "\n")
    (tmp_path / "a.json").write_text(json.dumps([{"text": "t", "x": value}]))
    told = [field(tmp_path / f"a.{kind}") for kind in ("csv", "jsonl", "json")]
    assert [json.dumps(each) for each in told] == [json.dumps(checked_fields({"x": value})["x"])] * 3


@pytest.mark.parametrize(
    ("value", "kind"),
    [(math.inf, pa.float64()), (2**63, pa.uint64()), (10**18, pa.timestamp("us"))],
)
def test_what_one_door_refuses_the_other_does_too(tmp_path, value, kind):
    pq.write_table(pa.table({"text": ["t"], "x": pa.array([value], kind)}), tmp_path / "a.parquet")
    [reject] = open_corpus(tmp_path / "a.parquet")
    assert reject.reason == "bad-fields"
