"""Every Parquet column type becomes JSON or is refused; a bad row affects only itself; row groups are streamed."""

import datetime
import decimal
import json
import uuid
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import indexer
from indexer.corpus import open_corpus
from indexer.corpus.images import decode_image
from indexer.corpus.parquet import ParquetCorpus


@pytest.fixture
def parquet(tmp_path):
    """Write columns to a file."""

    def write(columns, name="table.parquet", **options):
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, tmp_path / name, **options)
        return tmp_path / name

    return write


def field(path):
    [record] = open_corpus(path)
    json.dumps(dict(record.document.fields), allow_nan=False)
    return record.document.fields["x"]


class TestDocuments:
    def test_row(self, parquet, read):
        path = parquet({"id": ["a", "b"], "text": ["one", "two"], "price": [1, None]})
        records, rejects = read(path)
        documents = [record.document for record in records]
        assert [(d.id, d.text, d.image, d.fields) for d in documents] == [
            ("a", "one", None, {"price": 1}),
            ("b", "two", None, {"price": None}),
        ]
        assert documents[1].uri == f"{path.as_uri()}#row=1"
        assert rejects == []

    @pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(3)])
    def test_image_as_bytes(self, parquet, read, kind):
        records, _ = read(parquet({"image": pa.array([b"abc", None], kind), "text": ["t", "t"]}))
        assert [record.document.image for record in records] == [b"abc", None]

    def test_image_as_path(self, parquet, read, tmp_path):
        [record], _ = read(parquet({"image": ["pictures/a.png"]}))
        assert record.document.image == tmp_path / "pictures/a.png"

    def test_image_as_hugging_face_writes_it(self, parquet, read, tmp_path):
        cells = [{"bytes": b"abc", "path": "a.png"}, {"bytes": None, "path": "b.png"}, None]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        records, _ = read(parquet({"image": pa.array(cells, kind), "text": ["t"] * 3}))
        assert [record.document.image for record in records] == [b"abc", tmp_path / "b.png", None]

    def test_ids(self, parquet, read):
        for column in (
            pa.array([7, None, 9]),
            pa.array(["7", None, "9"]),
            pa.array(["7", None, "9"]).dictionary_encode(),
        ):
            records, _ = read(parquet({"id": column, "text": ["t"] * 3}, name="my.table.parquet"))
            assert [record.document.id for record in records] == ["7", "my.table-1", "9"]

    def test_rows_are_counted_through_all_row_groups(self, parquet, read):
        records, _ = read(parquet({"text": [str(n) for n in range(100)]}, row_group_size=7))
        assert [record.document.id for record in records] == [f"table-{n}" for n in range(100)]

    def test_folder_of_files(self, parquet, read, tmp_path):
        for name in "b.parquet", "a.parquet", "_metadata.parquet":
            parquet({"text": ["t", "t"]}, name=name)
        records, _ = read(tmp_path)
        assert [record.document.id for record in records] == ["a-0", "a-1", "b-0", "b-1"]
        assert open_corpus(tmp_path).source == str(tmp_path)

    def test_bundled_emoji(self):
        for record in islice(open_corpus(Path(indexer.__path__[0], "bundled", "emoji.parquet")), 300):
            assert decode_image(record.document.image).mode == "RGB"
            assert isinstance(record.document.fields["keywords"], list)
            assert {"concept", "vendor", "emoji", "group", "subgroup"} <= record.document.fields.keys()


class TestFields:
    @pytest.mark.parametrize(
        ("value", "kind", "expected"),
        [
            (datetime.date(2024, 2, 29), pa.date32(), "2024-02-29"),
            (datetime.datetime(2024, 2, 29, 1, 2, 3), pa.timestamp("s"), "2024-02-29T01:02:03"),  # noqa: DTZ001
            (
                datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
                pa.timestamp("us", "UTC"),
                "2024-01-01T00:00:00+00:00",
            ),
            (1_700_000_000_123_456_789, pa.timestamp("ns"), "2023-11-14T22:13:20.123456"),
            (5_000_000_999, pa.duration("ns"), 5.0),
            (1_500, pa.duration("ms"), 1.5),
            (datetime.time(1, 2, 3), pa.time32("s"), "01:02:03"),
            (3_723_000_000_001, pa.time64("ns"), "01:02:03"),
            (decimal.Decimal("19.99"), pa.decimal128(5, 2), 19.99),
            (float("nan"), pa.float64(), None),
            (1.5, pa.float32(), 1.5),
            (True, pa.bool_(), True),
            (2**63 - 1, pa.uint64(), 2**63 - 1),
            ([1, None], pa.list_(pa.int8()), [1, None]),
            ([[datetime.date(2024, 1, 1)]], pa.list_(pa.list_(pa.date32())), [["2024-01-01"]]),
            ({"a": {"b": float("nan")}}, pa.struct([("a", pa.struct([("b", pa.float64())]))]), {"a": {"b": None}}),
            ([("k", 1)], pa.map_(pa.string(), pa.int8()), [["k", 1]]),
            (None, pa.null(), None),
        ],
    )
    def test_column_type(self, parquet, value, kind, expected):
        assert field(parquet({"text": ["t"], "x": pa.array([value], kind)})) == expected

    def test_uuid(self, parquet):
        value = uuid.uuid4()
        column = pa.array([value.bytes], pa.uuid()) if hasattr(pa, "uuid") else [str(value)]
        assert field(parquet({"text": ["t"], "x": column})) == str(value)

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (b"abc", pa.binary()),
            (b"abc", pa.large_binary()),
            (b"abc", pa.binary(3)),
            ([b"abc"], pa.list_(pa.binary())),
            ({"bytes": b"abc", "path": "a"}, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ([("k", b"abc")], pa.map_(pa.string(), pa.binary())),
        ],
    )
    def test_columns_of_bytes_are_left_out(self, parquet, read, value, kind):
        [record], rejects = read(parquet({"text": ["t"], "thumbnail": pa.array([value], kind), "n": [1]}))
        assert (record.document.fields, rejects) == ({"n": 1}, [])

    def test_names_with_dots(self, parquet, read):
        [record], _ = read(parquet({"text": ["t"], "a.b": [1], "a": [{"b": 2}]}))
        assert record.document.fields == {"a.b": 1, "a": {"b": 2}}


class TestStamps:
    def test_only_content_counts(self, parquet):
        columns = {"text": ["t", "u"], "image": [b"1", b"2"], "n": [1, 2]}
        before = [record.stamp for record in open_corpus(parquet(columns, compression="zstd"))]
        reversed_columns = {name: column[::-1] for name, column in reversed(columns.items())}
        assert [r.stamp for r in open_corpus(parquet(reversed_columns, name="b.parquet"))] == before[::-1]
        columns["image"][1] = b"3"
        after = [record.stamp for record in open_corpus(parquet(columns))]
        assert (after[0], after[1] == before[1]) == (before[0], False)


class TestRejects:
    def not_utf8(self, *values):
        raw = pa.array(values, pa.binary())
        return pa.Array.from_buffers(pa.string(), len(values), raw.buffers())

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"text": ["t", "a\0b", "t"]}, "nul"),
            ({"text": ["t", "", "t"]}, "empty"),
            ({"text": ["t", None, "t"]}, "empty"),
            ({"text": ["t", "x" * 10_000_001, "t"]}, "too-long"),
            ({"text": ["t"] * 3, "id": ["a", "", "c"]}, "bad-id"),
            ({"text": ["t"] * 3, "id": ["a", "a\0", "c"]}, "nul"),
            ({"text": ["t"] * 3, "x": ["a", "a\0", "c"]}, "nul"),
            ({"text": ["t"] * 3, "x": [0.0, float("inf"), 0.0]}, "bad-fields"),
            ({"text": ["t"] * 3, "x": pa.array([0, 10**18, 0], pa.timestamp("us"))}, "bad-fields"),
            ({"text": ["t"] * 3, "image": [None, "https://example.org/a.png", None]}, "remote-uri"),
        ],
    )
    def test_a_bad_row_is_rejected_alone(self, parquet, read, columns, reason):
        path = parquet(columns)
        records, [reject] = read(path)
        assert len(records) == 2
        assert (reject.uri, reject.reason) == (f"{path.as_uri()}#row=1", reason)

    def test_text_that_is_not_utf_8(self, parquet, read):
        records, [reject] = read(parquet({"text": self.not_utf8(b"good", b"caf\xe9")}))
        assert ([r.document.text for r in records], reject.reason) == (["good"], "not-utf-8")

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"text": [[1]]}, "bad-text"),
            ({"text": [5]}, "bad-text"),
            ({"id": [1.5], "text": ["t"]}, "bad-id"),
            ({"image": [5]}, "bad-image"),
            ({"image": [[1, 2]]}, "bad-image"),
            ({"thumbnail": [b"abc"]}, "empty"),
        ],
    )
    def test_column_of_the_wrong_type(self, parquet, read, columns, reason):
        records, [reject] = read(parquet(columns))
        assert (records, reject.reason) == ([], reason)

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"hello" * 100, b"PAR1" + bytes(100) + b"PAR1"])
    def test_no_parquet(self, read, tmp_path, content):
        path = tmp_path / "a.parquet"
        path.write_bytes(content)
        records, [reject] = read(path)
        assert (records, reject.uri, reject.reason) == ([], path.as_uri(), "damaged")

    def test_damage_behind_the_first_rows(self, parquet, read):
        path = parquet({"text": [str(n) * 50 for n in range(1_000)]}, row_group_size=100, compression="gzip")
        group = pq.ParquetFile(path).metadata.row_group(5).column(0)
        content = bytearray(path.read_bytes())
        start = group.dictionary_page_offset or group.data_page_offset
        content[start : start + group.total_compressed_size] = bytes(group.total_compressed_size)
        path.write_bytes(content)
        records, [reject] = read(path)
        assert [record.document.id for record in records] == [f"table-{n}" for n in range(1_000) if not 500 <= n < 600]
        assert (reject.uri, reject.reason) == (path.as_uri(), "damaged")
        assert "beyond row 500, up to row 599" in reject.detail
        assert reject.hides == "table-"

    def test_a_damaged_file_does_not_cost_the_next(self, parquet, read, tmp_path):
        (tmp_path / "a.parquet").write_bytes(b"hello")
        parquet({"text": ["t"]}, name="b.parquet")
        records, rejects = read(tmp_path)
        assert [record.document.id for record in records] == ["b-0"]
        assert [reject.reason for reject in rejects] == ["damaged"]


class TestMemory:
    def test_a_row_group_is_not_held_whole(self, parquet):
        images = [bytes([n]) * 200_000 for n in range(100)]
        table = pa.table({"image": images})
        pages = {"data_page_size": 1, "write_batch_size": 1}  # a page for each row; older writers look once a batch
        path = parquet(table, row_group_size=100, compression="none", use_dictionary=False, **pages)
        del table
        before = pa.total_allocated_bytes()
        peak = 0
        for record in open_corpus(path):
            peak = max(peak, pa.total_allocated_bytes() - before)
            assert len(record.document.image) == 200_000
        assert peak < 10_000_000, "of 20 MB"


def test_what_ids_of_rows_begin_with_can_be_given(tmp_path):
    pq.write_table(pa.table({"id": [None, "own"], "text": ["x", "y"]}), tmp_path / "a.parquet")
    corpus = ParquetCorpus([tmp_path / "a.parquet"], "a", name="data/a")
    assert [each.document.id for each in corpus] == ["data/a-0", "own"]
