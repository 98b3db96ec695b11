"""A bad line is rejected by its number and affects no other; a file is never read into memory as a whole."""

import base64
import gzip
import json
import tracemalloc

import pytest

from indexer.corpus import open_corpus
from indexer.corpus.jsonl import JsonlCorpus


@pytest.fixture
def lines(tmp_path):
    """Write lines, given as bytes, text or objects, to a file."""

    def write(*entries, name="docs.jsonl"):
        raw = [
            e if isinstance(e, bytes) else e.encode() if isinstance(e, str) else json.dumps(e).encode() for e in entries
        ]
        content = b"\n".join(raw) + b"\n"
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return tmp_path / name

    return write


class TestDocuments:
    @pytest.mark.parametrize("name", ["docs.jsonl", "docs.ndjson", "docs.jsonl.gz", "DOCS.JSONL"])
    def test_line(self, lines, read, name):
        path = lines({"id": "a", "text": "hello", "price": 5, "fields": {"style": "ink"}}, name=name)
        [record], rejects = read(path)
        document = record.document
        assert (document.id, document.text, document.image) == ("a", "hello", None)
        assert document.fields == {"price": 5, "style": "ink"}
        assert document.uri == f"{path.as_uri()}#line=1"
        assert rejects == []

    def test_image_is_relative_to_the_file(self, lines, read, tmp_path):
        path = lines({"id": "a", "image": "pictures/a.png"}, {"id": "b", "image": str(tmp_path / "b.png")})
        records, _ = read(path)
        assert [record.document.image for record in records] == [tmp_path / "pictures/a.png", tmp_path / "b.png"]

    def test_encoded_image(self, lines, read):
        [record], _ = read(lines({"id": "a", "image_base64": base64.b64encode(b"\x89PNG").decode()}))
        assert (record.document.image, record.document.fields) == (b"\x89PNG", {})

    def test_ids(self, lines, read):
        path = lines({"id": 7, "text": "a"}, "", {"text": "b"}, {"id": None, "text": "c"}, name="my.docs.jsonl.gz")
        records, _ = read(path)
        assert [record.document.id for record in records] == ["7", "my.docs-3", "my.docs-4"]

    def test_fields_go_before_other_keys(self, lines, read):
        [record], _ = read(lines({"text": "a", "n": 1, "fields": {"n": 2}}))
        assert record.document.fields == {"n": 2}

    def test_duplicate_ids_are_passed_on(self, lines, read):
        records, rejects = read(lines({"id": "a", "text": "1"}, {"id": "a", "text": "2"}))
        assert ([record.document.text for record in records], rejects) == (["1", "2"], [])

    def test_text_of_a_million_characters(self, lines, read):
        [record], _ = read(lines({"id": "a", "text": "x" * 1_000_000}))
        assert len(record.document.text) == 1_000_000

    def test_nested_fields(self, lines, read):
        nested = {"a": [1, {"b": None, "c": [True, 2.5, "é"]}]}
        [record], _ = read(lines({"text": "a", "fields": nested}))
        assert record.document.fields == nested

    def test_nan_is_null(self, lines, read):
        [record], _ = read(lines(b'{"text": "a", "n": [NaN, 1]}'))
        assert record.document.fields == {"n": [None, 1]}

    def test_windows_line_ends_and_byte_order_mark(self, lines, read):
        records, rejects = read(lines(b'\xef\xbb\xbf{"id": "a", "text": "1"}\r', b'{"id": "b", "text": "2"}\r', b"\r"))
        assert ([record.document.id for record in records], rejects) == (["a", "b"], [])

    def test_last_line_without_an_end(self, tmp_path, read):
        (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "b"}')
        assert len(read(tmp_path / "a.jsonl")[0]) == 2


class TestStamps:
    def stamp(self, path):
        [record] = open_corpus(path)
        return record.stamp

    def test_only_content_counts(self, lines):
        stamps = {
            self.stamp(lines({"id": "a", "text": "t", "m": 1, "n": 2})),
            self.stamp(lines('  {"n": 2, "m": 1,  "text": "t", "id": "b"}')),
            self.stamp(lines({"id": "a", "text": "t", "fields": {"m": 1, "n": 2}}, name="b.jsonl")),
        }
        assert len(stamps) == 1

    def test_every_part_counts(self, lines):
        entries = [
            {"text": "t"},
            {"text": "u"},
            {"text": "t", "n": 1},
            {"text": "t", "image": "a.png"},
            {"image": "a.png"},
            {"text": "t", "image_base64": ""},
            {"text": "t", "image_base64": "AAAA"},
        ]
        stamps = [self.stamp(lines(entry)) for entry in entries]
        assert len(set(stamps)) == len(entries) - 1  # an image of no bytes is refused by the decoder

    def test_image_file_counts(self, lines, tmp_path):
        path = lines({"text": "t", "image": "a.png"})
        stamps = {self.stamp(path)}
        for content in b"1", b"22":
            (tmp_path / "a.png").write_bytes(content)
            stamps.add(self.stamp(path))
        assert len(stamps) == 3


BAD_LINES = [
    (b"{", "bad-json", "column 2"),
    (b"hello", "bad-json", "column 1"),
    (b"[]", "bad-json", "list"),
    (b'"text"', "bad-json", "str"),
    (b"null", "bad-json", "NoneType"),
    (b'{"text": "a"} {"text": "b"}', "bad-json", "column 15"),
    (b'{"text": NaN}', "empty", "neither"),
    (b'{"text": "a", "n": -Infinity}', "bad-fields", "infinite"),
    (b'{"text": "a", "n": 1e999}', "bad-fields", "infinite"),
    (b'{"text": "a", "n": ' + b"9" * 5_000 + b"}", "bad-json", "digits"),
    (b'{"text": "a", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "bad-json", "recursion"),
    (b'{"text": "caf\xe9"}', "not-utf-8", "byte 13"),
    (b"\0\0\0", "bad-json", "column 1"),
    (b'{"text": "a\\u0000b"}', "nul", "character 1"),
    (b'{"id": "a\\u0000b", "text": "t"}', "nul", "id"),
    (b'{"text": "a", "n": {"deep": ["\\u0000"]}}', "nul", "'n.deep'"),
    (b'{"text": "a", "\\u0000": 1}', "nul", "name of a field"),
    (b'{"text": "\\ud800"}', "not-unicode", "surrogate"),
    (b'{"id": "\\ud800", "text": "t"}', "not-unicode", "surrogate"),
    (b'{"text": "a", "n": "\\udfff"}', "not-unicode", "surrogate"),
    (b'{"id": "a"}', "empty", "neither"),
    (b'{"text": ""}', "empty", "neither"),
    (b'{"text": " \\t"}', "empty", "neither"),
    (b"{}", "empty", "neither"),
    (b'{"id": "", "text": "t"}', "bad-id", "non-empty"),
    (b'{"id": 1.5, "text": "t"}', "bad-id", "1.5"),
    (b'{"id": true, "text": "t"}', "bad-id", "True"),
    (b'{"id": ["a"], "text": "t"}', "bad-id", "['a']"),
    (b'{"id": "' + b"i" * 1_025 + b'", "text": "t"}', "too-long", "1,025"),
    (('{"id": "' + "語" * 1_000 + '", "text": "t"}').encode(), "too-long", "3,000 bytes"),
    (b'{"text": "a", "n": 9223372036854775808}', "bad-fields", "'n' holds a whole number of 64 bits"),
    (b'{"text": "a", "n": "' + b"n" * 1_048_576 + b'"}', "too-long", "most of them in 'n'"),
    (b'{"text": ["a", 5]}', "bad-text", "list"),
    (b'{"text": 5}', "bad-text", "int"),
    (b'{"text": "' + b"t" * 10_000_001 + b'"}', "too-long", "10,000,001"),
    (b'{"text": "a", "fields": "ink"}', "bad-fields", "str"),
    (b'{"image": "http://example.org/a.png"}', "remote-uri", "http://example.org/a.png"),
    (b'{"image": "s3://bucket/a.png", "text": "t"}', "remote-uri", "s3://"),
    (b'{"image": "data:image/png,AAAA"}', "bad-image", "data:"),
    (b'{"image": "data:image/png;base64,%%%"}', "bad-image", "base64"),
    (b'{"image": ""}', "bad-image", "not a path"),
    (b'{"image": "a\\u0000.png"}', "bad-image", "not a path"),
    (b'{"image": "\\ud800.png"}', "bad-image", "not a path"),
    (b'{"image": 5}', "bad-image", "int"),
    (b'{"image": {"size": 5}}', "bad-image", "size"),
    (b'{"image": {"bytes": "%%%"}}', "bad-image", "base64"),
    (b'{"image_base64": "%%%"}', "bad-image", "base64"),
    (b'{"image_base64": "AAA"}', "bad-image", "base64"),
    ('{"image_base64": "é"}'.encode(), "bad-image", "base64"),
]


class TestRejects:
    @pytest.mark.parametrize(("line", "reason", "detail"), BAD_LINES, ids=[str(n) for n in range(len(BAD_LINES))])
    def test_bad_line(self, lines, read, line, reason, detail):
        path = lines({"id": "before", "text": "b"}, line, {"id": "after", "text": "a"})
        records, [reject] = read(path)
        assert [record.document.id for record in records] == ["before", "after"]
        assert (reject.uri, reject.reason) == (f"{path.as_uri()}#line=2", reason)
        assert detail in reject.detail
        assert len(reject.detail) < 300
        reject.detail.encode()
        assert "\0" not in reject.detail

    @pytest.mark.parametrize(
        "line", [{"text": "a \\u0000 b"}, {"text": "a", "n": "C:\\u0000"}, {"text": "a", "n": "\\\\u0000"}]
    )
    def test_backslashes_are_no_nul(self, lines, read, line):
        [record], _ = read(lines(line))
        assert {"text": record.document.text, **record.document.fields} == line

    def test_text_and_id_at_their_limits(self, lines, read):
        [record], _ = read(lines({"id": "i" * 1_024, "text": "t" * 10_000_000}))
        assert (len(record.document.id), len(record.document.text)) == (1_024, 10_000_000)

    @pytest.mark.parametrize("length", [1_000, 1_001, 5_000, 1_000_000])
    def test_line_too_long(self, lines, read, length):
        path = lines({"id": "a", "text": "a"}, b"x" * length, {"id": "b", "text": "b"})
        records, [reject] = read(JsonlCorpus(path, max_line_bytes=1_000))
        assert [record.document.id for record in records] == ["a", "b"]
        assert (reject.uri, reject.reason) == (f"{path.as_uri()}#line=2", "too-long")

    def test_truncated_gzip(self, lines, read):
        path = lines(*({"id": n, "text": str(n * 7919 % 10_007)} for n in range(5_000)), name="a.jsonl.gz")
        path.write_bytes(path.read_bytes()[:-1_000])
        records, rejects = read(path)
        assert 1_000 < len(records) < 5_000
        assert (rejects[-1].uri, rejects[-1].reason) == (path.as_uri(), "truncated")

    @pytest.mark.parametrize(("place", "length"), [(5_000, 200), (-8, 4)])  # the deflated data, the checksum
    def test_damaged_gzip(self, lines, read, place, length):
        path = lines(*({"id": n, "text": str(n * 7919 % 10_007)} for n in range(5_000)), name="a.jsonl.gz")
        content = bytearray(path.read_bytes())
        content[place : place + length] = b"\xff" * length
        path.write_bytes(content)
        records, rejects = read(path)
        assert len(records) > 500
        assert (rejects[-1].uri, rejects[-1].reason) == (path.as_uri(), "damaged")

    def test_file_that_went_away(self, lines, read):
        path = lines({"id": "a", "text": "a"})
        corpus = open_corpus(path)
        path.unlink()
        assert [reject.reason for reject in read(corpus)[1]] == ["missing"]

    def test_permissions(self, lines, read, monkeypatch):
        corpus = open_corpus(lines({"id": "a", "text": "a"}))

        def deny(path, flags):
            raise PermissionError(13, "Permission denied", path)

        monkeypatch.setattr("os.open", deny)  # not by chmod, which does not bind root
        assert [reject.reason for reject in read(corpus)[1]] == ["unreadable"]


class TestMemory:
    def test_a_file_is_read_line_by_line(self, lines):
        path = lines(*({"id": n, "text": "x" * 100_000} for n in range(200)))  # 20 MB
        tracemalloc.start()
        try:
            records = iter(open_corpus(path))
            next(records)
            first = tracemalloc.get_traced_memory()[1]
            assert sum(1 for _ in records) == 199
            assert first < 2_000_000
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()

    def test_a_line_too_long_is_not_held(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b"x" * 20_000_000)
        tracemalloc.start()
        try:
            assert len(list(JsonlCorpus(path, max_line_bytes=1_000))) == 1
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


def test_what_ids_of_lines_begin_with_can_be_given(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"id": "own", "text": "y"}\n{"text": 5}\n')
    first, second, reject = JsonlCorpus(tmp_path / "a.jsonl", name="data/a.jsonl")
    assert [first.document.id, second.document.id, reject.hides] == ["data/a.jsonl-1", "own", "data/a.jsonl-3"]
