"""Hostile tables cost neither memory nor minutes, and no library's exception escapes."""

import gzip
import json
import random
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.corpus import lines as lines_module
from indexer.corpus import open_corpus, parquet_types
from indexer.corpus import parquet as parquet_module
from indexer.corpus.jsonl import JsonlCorpus
from indexer.corpus.parquet_pages import survey
from indexer.corpus.records import Record
from indexer.reasons import Reason
from indexer.types import PassedOver, Rejected


@pytest.fixture
def little_arrow_memory():
    """A pool's peak while a corpus is read, in bytes."""

    def read(path, most):
        before = pa.total_allocated_bytes()
        found, peak = [], 0
        for entry in open_corpus(path):
            peak = max(peak, pa.total_allocated_bytes() - before)
            found.append(replace(entry, document=None) if isinstance(entry, Record) else entry)
        assert peak < most
        return found

    return read


def repeated(value, count):
    """A list column of one row, of one value many times: a few bytes in a file."""
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))
    return pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), values)


class TestLines:
    @pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.xz", "a.json.zst", "a.ndjson.bz2"])
    def test_a_compressed_file_of_no_bytes_was_cut(self, tmp_path, read, name):
        (tmp_path / name).write_bytes(b"")
        _, [reject] = read(tmp_path / name)
        assert (reject.reason, reject.hides) == ("truncated", "")

    def test_blank_lines_without_end(self, tmp_path, monkeypatch, read):
        monkeypatch.setattr(lines_module, "MAX_SILENT_BYTES", 10_000_000)
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"text": "a"}\n' + b"\n" * 50_000_000 + b'{"text": "b"}\n'))
        records, [reject] = read(path)
        assert (len(records), reject.reason, reject.hides) == (1, "too-many-bytes", "")
        assert "byte 14 on" in reject.detail

    def test_some_blank_lines_are_nothing(self, tmp_path, read):
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"text": "a"}\n' + b" \n\r\n" * 3_000_000 + b'{"text": "b"}\n'))
        records, rejects = read(path)
        assert ([each.document.id for each in records], rejects) == (["a-1", "a-6000002"], [])

    def test_a_line_without_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lines_module, "MAX_SILENT_BYTES", 10_000_000)
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"text": "a"}\n' + b"x" * 50_000_000 + b'\n{"text": "b"}\n'))
        tracemalloc.start()
        try:
            record, reject = JsonlCorpus(path, max_line_bytes=100_000)
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
        finally:
            tracemalloc.stop()
        assert isinstance(record, Record)
        assert (reject.reason, "line 2" in reject.detail) == ("too-many-bytes", True)

    def test_a_long_line_costs_itself(self, tmp_path):
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"text": "a"}\n' + b"x" * 5_000_000 + b'\n{"text": "b"}\n'))
        first, long, last = JsonlCorpus(path, max_line_bytes=100_000)
        assert (first.document.text, long.reason, last.document.text) == ("a", "too-long", "b")
        assert "byte 14" in long.detail

    @pytest.mark.parametrize("inner", ["[],", "{},", "1,", '"",'])
    def test_a_line_of_millions_of_values(self, tmp_path, read, inner):
        path = tmp_path / "a.jsonl"
        path.write_text('{"text": "a", "x": [' + inner * 4_100_000 + '1]}\n{"text": "b"}\n')
        tracemalloc.start()
        try:
            records, [reject] = read(path)
            assert tracemalloc.get_traced_memory()[1] < 80_000_000
        finally:
            tracemalloc.stop()
        assert ([each.document.text for each in records], reject.reason) == (["b"], "too-long")

    @pytest.mark.parametrize("place", ["text", "image", "fields", "x", "id", "caption"])
    @pytest.mark.parametrize("depth", [90, 400, 900, 100_000])
    @pytest.mark.parametrize("brackets", ["[]", "{}"])
    def test_values_in_values(self, tmp_path, read, place, depth, brackets):
        opening, closing = ("[", "]") if brackets == "[]" else ('{"a":', "}")
        path = tmp_path / "a.jsonl"
        path.write_text(f'{{"t": 1, "{place}": {opening * depth}1{closing * depth}}}\n{{"text": "b"}}\n')
        records, rejects = read(path)
        assert records[-1].document.text == "b"
        assert len(records) + len(rejects) == 2


class TestParquet:
    # Without Arrow's own schema in the file, which says that a column is a dictionary, as other writers leave it out.

    @pytest.mark.parametrize("with_schema", [True, False])
    def test_a_dictionary_that_lists_repeat(self, tmp_path, little_arrow_memory, monkeypatch, with_schema):
        monkeypatch.setattr(parquet_types, "MAX_BYTES", 100_000_000)
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"text": ["t"], "x": repeated("x" * 1_000_000, 400)}), path, store_schema=with_schema)
        assert path.stat().st_size < 100_000
        [reject] = little_arrow_memory(path, 30_000_000)
        assert (reject.reason, reject.hides) == ("too-many-bytes", "a-0")
        assert "'x' has 400,000,000 bytes" in reject.detail

    def test_a_dictionary_that_rows_repeat(self, tmp_path, little_arrow_memory):
        values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(33, np.int32)), pa.array([bytes(20_000_000)]))
        pq.write_table(pa.table({"image": values}), tmp_path / "a.parquet", store_schema=False)
        found = little_arrow_memory(tmp_path / "a.parquet", 400_000_000)
        assert sum(isinstance(each, Record) for each in found) == 33

    def test_lists_of_millions(self, tmp_path, little_arrow_memory):
        values = pa.array(np.zeros(2_000_000 * 10, np.int64))
        column = pa.ListArray.from_arrays(pa.array(np.arange(11) * 2_000_000, pa.int32()), values)
        pq.write_table(
            pa.table({"id": [str(n) for n in range(10)], "text": ["t"] * 10, "x": column}), tmp_path / "a.parquet"
        )
        del values, column
        found = little_arrow_memory(tmp_path / "a.parquet", 250_000_000)
        assert [(each.reason, each.hides) for each in found] == [("too-long", str(n)) for n in range(10)]
        assert all("2,000,001 values in one row" in each.detail for each in found)

    @pytest.mark.parametrize("limit", ["MAX_PAGE_BYTES", "MAX_CHUNK_VALUES"])
    def test_what_pages_claim_is_bounded(self, tmp_path, monkeypatch, read, limit):
        columns = {"text": ["t", "u"], "x": [["a" * 1_000] * 5, ["b"] * 5_000]}
        pq.write_table(
            pa.table(columns), tmp_path / "a.parquet", row_group_size=1, compression="zstd", use_dictionary=False
        )
        monkeypatch.setattr(parquet_module, limit, 15_000 if limit == "MAX_PAGE_BYTES" else 4_000)
        records, [reject] = read(tmp_path / "a.parquet")
        assert ([each.document.id for each in records], reject.reason) == (["a-0"], "too-many-bytes")
        assert "row 1, up to row 1" in reject.detail
        assert "smaller row groups" in reject.detail
        assert reject.hides == "a-"

    def test_page_headers_are_counted_as_the_footer_counts(self, tmp_path):
        chance = random.Random(0)
        rows = 3_000
        columns = {
            "text": [chance.choice("abc") for _ in range(rows)],
            "x": [[chance.random() for _ in range(chance.randrange(9))] for _ in range(rows)],
            "y": [chance.randbytes(chance.randrange(900)) for _ in range(rows)],
            "z": pa.array([None if n % 3 else {"a": n} for n in range(rows)]),
        }
        for version in "1.0", "2.0":
            for options in ({}, {"compression": "zstd"}, {"use_dictionary": False}, {"write_statistics": False}):
                path = tmp_path / "a.parquet"
                pq.write_table(pa.table(columns), path, data_page_version=version, data_page_size=2_000, **options)
                metadata = pq.read_metadata(path)
                with path.open("rb") as file:
                    for number in range(metadata.num_columns):
                        chunk = metadata.row_group(0).column(number)
                        start = min(x for x in (chunk.dictionary_page_offset, chunk.data_page_offset) if x)
                        pages = survey(file, start, chunk.total_compressed_size)
                        assert pages.values == chunk.num_values
                        assert 0 < pages.largest <= chunk.total_uncompressed_size

    def test_mutated_files(self, tmp_path):
        """Bytes that were changed anywhere are records, rejects or passed over, and never another exception."""
        chance = random.Random(0)
        columns = {
            "id": [str(n) for n in range(40)],
            "image": [{"bytes": chance.randbytes(50), "path": f"{n}.png"} for n in range(40)],
            "x": [["a", "b"]] * 40,
            "when": pa.array([n * 10**6 for n in range(40)], pa.timestamp("us", "UTC")),
        }
        path = tmp_path / "a.parquet"
        seen = set()
        for compression in "none", "zstd":
            pq.write_table(pa.table(columns), path, row_group_size=20, compression=compression)
            content = path.read_bytes()
            for _ in range(200):
                mutant = bytearray(content)
                for _ in range(chance.choice([1, 4, 16])):
                    mutant[chance.randrange(len(mutant))] = chance.randrange(256)
                path.write_bytes(mutant)
                for entry in open_corpus(path):
                    assert isinstance(entry, Record | PassedOver) or Reason(entry.reason)
                    seen.add(entry.reason if isinstance(entry, Rejected) else type(entry).__name__)
        assert {"Record", "damaged"} <= seen


def test_mutated_lines(tmp_path):
    chance = random.Random(0)
    row = {"id": "a", "text": "t", "image": "a.png", "n": [1, 2.5, None, {"x": "é"}], "fields": {"y": True}}
    content = (json.dumps(row) + "\n").encode() * 5
    for suffix in "jsonl", "json", "csv", "tsv":
        path = tmp_path / f"a.{suffix}"
        for _ in range(300):
            mutant = bytearray(content)
            for _ in range(chance.choice([1, 4, 16])):
                mutant[chance.randrange(len(mutant))] = chance.choice(b'"\\[]{},:\n\r\0\xff0aetu')
            path.write_bytes(mutant)
            for entry in open_corpus(path):
                assert isinstance(entry, Record | PassedOver | Rejected)
