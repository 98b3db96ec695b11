"""`underdrawing evaluate`: result files become tables; incomparable results are refused."""

from __future__ import annotations

import csv
import io
import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from indexer.errors import CallError
from pipelines.cli.app import app
from pipelines.evaluation.comparison import Format, grouped, read_results, told
from pipelines.evaluation.plot import plot

PROTOCOL = {"gallery": "original", "reference": "kept", "preprocessing": "own"}


def result(method, value, **more):
    measures = {"R@10": {"value": value, "interval_95": [value - 0.02, value + 0.02]}}
    return {
        "benchmark": "fashioniq", "split": "val", "limit": None, "method": method, "model": "fake:64", "queries": 100,
        "weights": {"text": 0.5}, "weights_source": "chosen", "protocol": PROTOCOL, "measures": measures,
        "seconds": {"encode": 0.5, "rank": 0.5},
    } | more  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def one(name, document):
        (tmp_path / name).write_text(document if isinstance(document, str) else json.dumps(document))
        return tmp_path / name

    return one


@pytest.fixture
def pair(write):
    return [write("a.json", result("text", 0.123)), write("b.json", result("sum_of", 0.25, ms_per_query=3.5))]


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def test_markdown_has_a_row_for_each_result_and_the_best_is_bold(pair):
    [group] = grouped(read_results(pair), apart=False)
    lines = told([group], Format.MARKDOWN).splitlines()
    assert lines[0] == (
        "benchmark fashioniq, split val, queries 100, gallery original, reference kept, preprocessing own, model fake:64"
    )
    assert lines[2:6] == [
        "| method | R@10 | ms/query |",
        "| --- | ---: | ---: |",
        "| text | 12.3 ± 2.0 | 10.0 |",
        "| sum_of | **25.0 ± 2.0** | 3.5 |",
    ]
    assert "* text: text 0.5 (chosen)" in lines


def test_csv_can_be_read_and_has_the_setting(pair):
    rows = list(csv.DictReader(io.StringIO(told(grouped(read_results(pair), apart=False), Format.CSV))))
    assert [row["method"] for row in rows] == ["text", "sum_of"]
    assert (rows[0]["gallery"], rows[0]["R@10"], rows[0]["R@10 low"], rows[0]["ms_per_query"]) == (
        "original", "12.30", "10.30", "10.000",
    )  # fmt: skip


def test_latex_escapes_what_latex_reads(pair):
    text = told(grouped(read_results(pair), apart=False), Format.LATEX)
    assert "sum\\_of & \\textbf{25.0 $\\pm$ 2.0} & 3.5 \\\\" in text
    assert text.count("\\toprule") == text.count("\\end{tabular}") == 1


def test_results_of_one_method_are_told_apart(write):
    same = [
        write("a.json", result("sum", 0.1)),
        write("b.json", result("sum", 0.2, weights={"text": 0.7})),
        write("c.json", result("sum", 0.2, model="fake:32")),
    ]
    [group] = grouped(read_results(same), apart=False)
    assert group.labels == ["sum, fake:64 (text 0.5)", "sum, fake:64 (text 0.7)", "sum, fake:32"]


@pytest.mark.parametrize(
    ("change", "told_as"),
    [
        ({"protocol": PROTOCOL | {"gallery": "val"}}, "gallery is original in .*a.json and val in .*b.json"),
        ({"split": "dress"}, "split is val in .*a.json and dress in"),
        ({"limit": 10, "queries": 10}, "limit is – in .*a.json and 10 in .*; queries is 100 in"),
        ({"protocol": PROTOCOL | {"captions": "both"}}, "captions is – in .*a.json and both in"),
    ],
)
def test_different_protocols_are_refused_with_the_field_that_differs(write, change, told_as):
    rows = read_results([write("a.json", result("text", 0.1)), write("b.json", result("sum", 0.2, **change))])
    with pytest.raises(CallError, match=told_as):
        grouped(rows, apart=False)
    assert [len(group.rows) for group in grouped(rows, apart=True)] == [1, 1]


def test_a_choice_apart_is_refused_on_the_command_line_too(write):
    files = [
        write("a.json", result("text", 0.1)),
        write("b.json", result("sum", 0.2, protocol=PROTOCOL | {"reference": "removed"})),
    ]
    refused = run(*files)
    assert refused.exit_code == 2
    assert "reference is kept in" in refused.stderr
    assert "Use --apart" in refused.stderr
    allowed = run(*files, "--apart", "--format", "markdown")
    assert allowed.exit_code == 0
    assert allowed.stdout.count("| method |") == 2


def test_the_terminal_loses_no_digit_in_a_narrow_window(pair, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    shown = run(*pair)
    assert shown.exit_code == 0, shown.output
    assert "25.0±2.0" in shown.stdout
    assert "text: text 0.5 (chosen)" in shown.stdout


def test_tables_and_plots_are_written(pair, tmp_path):
    done = run(*pair, "--format", "latex", "--out", tmp_path / "t.tex", "--plot", tmp_path / "p.png")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "t.tex").read_text().startswith("% benchmark fashioniq")
    assert done.stdout == ""
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 500
    assert "p.png: R@10" in done.stderr


def test_a_panel_is_drawn_for_each_setting(write, tmp_path):
    rows = read_results([write("a.json", result("text", 0.1)), write("b.json", result("sum", 0.2, split="dress"))])
    groups = grouped(rows, apart=True)
    heights = []
    for number, own in enumerate((groups[:1], groups)):
        plot(own, tmp_path / f"{number}.png")
        with Image.open(tmp_path / f"{number}.png") as picture:
            heights.append(picture.height)
    assert heights[1] == 2 * heights[0]


def test_emojicirs_results_are_read(write):
    flat = {
        key: value for key, value in result("sum", 0.2).items() if key != "protocol"
    } | {"gallery": "the whole corpus", "reference": "removed", "corpus": "abc"}  # fmt: skip
    file = write("e.json", {"benchmark": "emojicir", "results": [flat, flat | {"method": "text"}]})
    [group] = grouped(read_results([file]), apart=False)
    assert group.setting["gallery"] == "the whole corpus"
    assert group.labels == ["sum", "text"]
    with pytest.raises(CallError, match="corpus is abc"):
        grouped(read_results([file, write("f.json", flat | {"corpus": "def"})]), apart=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "a.json is no JSON"),
        ("[1, 2]", "a.json is not the result of an evaluation"),
        (json.dumps({"benchmark": "cirr", "split": "test1", "submission": []}), "it lacks method"),
        (json.dumps(result("sum", 0.1) | {"measures": {"R@1": 3}}), "a.json is damaged"),
    ],
)
def test_a_file_that_is_no_result_is_named(write, content, message):
    with pytest.raises(CallError, match=message):
        read_results([write("a.json", content)])


def test_what_cannot_be_read_or_drawn_ends_with_2(pair, tmp_path):
    for arguments, message in (
        ((tmp_path / "none.json",), "cannot be read"),
        ((*pair, "--plot", tmp_path / "p.gif"), "a plot is a .png, .svg or .pdf"),
        ((*pair, "--plot", tmp_path / "p.png", "--measure", "R@7"), "There are: R@10"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2
        assert message in done.stderr
