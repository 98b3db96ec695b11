"""CSV and TSV tables: a bad row affects only itself, even if a quote swallows others."""

import csv
import gzip
import tracemalloc

import pytest

from indexer.corpus import csv_table as reader
from indexer.corpus import open_corpus


@pytest.fixture
def table(tmp_path):
    """Write a table."""

    def write(content, name="table.csv"):
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
        return tmp_path / name

    return write


def rows(read, path):
    records, rejects = read(path)
    told = [(each.document.id, each.document.text, dict(each.document.fields)) for each in records]
    return told, [(each.uri.rpartition("#")[2], each.reason) for each in rejects]


class TestDocuments:
    @pytest.mark.parametrize("name", ["table.csv", "table.csv.gz", "TABLE.CSV"])
    def test_row(self, table, read, name):
        path = table("id,text,price\na,one,5\nb,two,\n", name)
        assert rows(read, path) == ([("a", "one", {"price": 5}), ("b", "two", {"price": None})], [])
        assert open_corpus(path).source == str(path)

    @pytest.mark.parametrize(
        ("content", "name"),
        [
            ("text,n\na,1\n", "t.csv"),
            ("text;n\na;1\n", "t.csv"),
            ("text\tn\na\t1\n", "t.csv"),
            ("text|n\na|1\n", "t.csv"),
            ("text\tn\na\t1\n", "t.tsv"),
            ("\ufefftext,n\r\na,1\r\n", "t.csv"),
            ("\n\ntext,n\n\na,1\n\n", "t.csv"),
            ('"text","n"\n"a","1"', "t.csv"),
            ('text,"n"\na,1', "t.csv"),
            (" text , n \na,1", "t.csv"),
        ],
    )
    def test_forms(self, table, read, content, name):
        [(_, text, fields)], rejects = rows(read, table(content, name))
        assert (text, fields, rejects) == ("a", {"n": 1}, [])

    def test_values_may_have_line_ends_and_quotes(self, table, read):
        path = table('id,text\na,"one\n""two"", three"\nb,x\n')
        assert rows(read, path)[0] == [("a", 'one\n"two", three', {}), ("b", "x", {})]

    def test_rows_without_an_id_are_named_by_their_line(self, table, read):
        told, _ = rows(read, table('text\n"a\nb"\n\nc\n'))
        assert [id for id, _, _ in told] == ["table-2", "table-5"]

    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            ("5", 5),
            ("-5", -5),
            ("0", 0),
            ("007", "007"),
            ("+5", "+5"),
            ("1.50", 1.5),
            ("1e3", 1000.0),
            ("1e999", "1e999"),
            ("1_000", "1_000"),
            ("9" * 18, int("9" * 18)),
            ("9" * 30, "9" * 30),
            (str(2**63 - 1), 2**63 - 1),
            (str(2**63), str(2**63)),
            ("-0", 0),
            ("true", True),
            ("FALSE", False),
            ("yes", "yes"),
            ("", None),
            (" ", None),
            ("NaN", "NaN"),
            ("2024-01-02", "2024-01-02"),
            ("٥", "٥"),
        ],
    )
    def test_values(self, table, read, value, stored):
        [(_, _, fields)], _ = rows(read, table(f"text,x\nt,{value}\n"))
        assert (fields["x"], type(fields["x"])) == (stored, type(stored))

    def test_ids_and_texts_stay_as_they_are_written(self, table, read):
        assert rows(read, table("id,text,caption\n007,1.50,true\n")) == ([("007", "1.50", {"caption": "true"})], [])

    def test_odd_headers(self, table, read, passed_over):
        path = table("text,n,,n,fields\na,1,2,3,x\n")
        assert rows(read, path)[0] == [("table-2", "a", {"n": 1, "fields": "x"})]
        assert sorted(passed_over(path).values()) == ["column without a name", "repeated column"]

    @pytest.mark.parametrize("content", ["", "\n\n", "text,n\n"])
    def test_nothing_in_it(self, table, read, content):
        assert read(table(content)) == ([], [])

    def test_quotes_in_tab_separated_values_mean_themselves(self, table, read):
        path = table('text\tn\n"Hi" she said\t1\n"5\t2\nplain\t3\n"quoted\ttab"\t4\n', "t.tsv")
        told, rejects = rows(read, path)
        assert [(text, fields["n"]) for _, text, fields in told] == [
            ('"Hi" she said', 1),
            ('"5', 2),
            ("plain", 3),
            ("quoted\ttab", 4),
        ]
        assert rejects == []


class TestRejects:
    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ("a", "bad-row"),
            ("a,b,c", "bad-row"),
            ('a,"b"c', "bad-row"),
            ('a,"b', "bad-row"),
            ('"a,b', "bad-row"),
            ("a,\0", "nul"),
            (b"a,caf\xe9", "not-utf-8"),
            ("a,", "empty"),
            ("i" * 2_000 + ",b", "too-long"),
        ],
    )
    def test_a_bad_row_costs_itself(self, table, read, row, reason):
        raw = row if isinstance(row, bytes) else row.encode()
        told, rejects = rows(read, table(b"id,text\nbefore,x\n" + raw + b"\nafter,y\n" + b"last,z\n"))
        assert [id for id, _, _ in told] == ["before", "after", "last"]
        assert rejects == [("line=3", reason)]

    def test_a_quote_that_is_never_closed_swallows_nothing(self, table, read, monkeypatch):
        monkeypatch.setattr(reader, "MAX_ROW_BYTES", 1_000)
        body = "".join(f"{n},text {n}\n" for n in range(500))
        told, rejects = rows(read, table(f'id,text\nx,"open\n{body}'))
        assert [id for id, _, _ in told] == [str(n) for n in range(500)]
        assert rejects == [("line=2", "too-long")]

    def test_every_row_with_an_open_quote(self, table, read, monkeypatch):
        monkeypatch.setattr(reader, "MAX_ROW_BYTES", 1_000)
        told, rejects = rows(read, table("id,text\n" + 'x,"\n' * 301))
        assert {text for _, text, _ in told} == {"\nx,"}  # each quote closes the one of the row before
        assert (len(told), len(rejects)) == (150, 1)

    @pytest.mark.parametrize("content", [b"\xff\xfet\0e\0x\0t\0", b"te\xffxt\na\n", b'"text\na\n'])
    def test_a_header_that_cannot_be_read(self, table, read, content):
        records, [reject] = read(table(content))
        assert (records, reject.hides) == ([], "")

    def test_a_bad_row_may_hide_anything(self, table, read):
        _, [reject] = read(table("id,text\na\n"))
        assert reject.hides == ""
        _, [reject] = read(table("n,text\na\n"))
        assert reject.hides == "table-2"

    def test_the_modules_limit_is_not_lowered(self, table, read):
        before = csv.field_size_limit(10**9)
        try:
            read(table("text\na\n"))
            assert csv.field_size_limit() == 10**9
        finally:
            csv.field_size_limit(before)


def test_a_long_table_is_read_row_by_row(table):
    path = table("text\n" + ("x" * 100_000 + "\n") * 200)
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_corpus(path)) == 200
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
