"""The options of `search` are the fields of a request, and its errors name options."""

from __future__ import annotations

import json
import re

import pytest

from pipelines.cli.request import FLAGS, FORMER, NOT_ASKED, flags_of, with_options
from pipelines.cli.search import filtered_by
from retrieval.request import SearchRequest, fields_of


def test_every_field_is_an_option_with_its_help(run):
    shown = " ".join(run("search", "--help").stdout.replace("│", " ").split())
    for name, info in fields_of(SearchRequest).items():
        if name in NOT_ASKED:
            continue
        flag = "TEXT" if name == "text" else flags_of(name)[-1]
        assert flag in shown, name
        assert " ".join(info.help.split()[:4]) in shown, name
    assert "<bool>" not in shown
    for former in (*FORMER.values(), "--drawings"):
        assert f"{former} " not in shown


def test_options_are_named_as_fields_are():
    assert set(FLAGS) <= set(fields_of(SearchRequest))
    assert set(FORMER) <= set(fields_of(SearchRequest))


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("The method sum does not read `steps`.", "The method sum does not read --steps."),
        ("Choose `method=cig` or `not_images`.", "Choose --method cig or --not-image."),
        ("`keep_reference=True` keeps it; `text` is empty.", "--keep-reference keeps it; TEXT is empty."),
        ("`nothing` is known, `k` is 0.", "`nothing` is known, --k is 0."),
    ],
)
def test_a_sentence_names_options(sentence, told):
    assert with_options(sentence) == told


def test_options_of_the_last_release_work(run, shop):
    done = run("search", shop, "square", "--centre", "off", "--json")
    assert done.exit_code == 0, done.output
    refused = run("search", shop, "square", "--centre", "sideways")
    assert refused.exit_code == 2
    assert "'sideways'" in refused.stderr
    refused = run("search", shop, "square", "--drawings", "folder")
    assert "needs a text and a reference" in refused.stderr


def test_weights_by_name_are_those_of_their_own_options(run, shop):
    def scores(*arguments):
        done = run("search", shop, "square", "--like", "red.png", "--json", *arguments)
        assert done.exit_code == 0, done.output
        return [hit["score"] for hit in json.loads(done.stdout)["hits"]]

    assert scores("--weight", "image=0.9", "--weight", "text=0.1") == scores(
        "--image-weight", 0.9, "--text-weight", 0.1
    )
    assert scores("--weight", "image=0.9") != scores()
    for wrong, said in (("image", "is 'image'; it is a name and a number"), ("imgae=1", "Did you mean 'image'")):
        refused = run("search", shop, "square", "--weight", wrong)
        assert refused.exit_code == 2
        assert said in refused.stderr


def test_excluded_documents_are_left_out(run, shop):
    done = run("search", shop, "square", "--exclude", "red.png", "--exclude", "blue.png", "--json")
    assert sorted(hit["id"] for hit in json.loads(done.stdout)["hits"]) == ["green.png", "note.txt"]


def test_fields_of_the_filter_are_shown_first(run, shop, tmp_path):
    line = next(
        line
        for line in run("search", shop, "square", "--where", '{"tags": "red"}').stdout.splitlines()
        if "red.png" in line
    )
    assert line.index("tags") < line.index("price")
    page = tmp_path / "page.html"
    run("search", shop, "square", "--where", '{"tags": "red"}', "--html", page)
    assert re.search("tags: .*price: ", page.read_text(encoding="utf-8"))
    plain = next(line for line in run("search", shop, "square").stdout.splitlines() if "red.png" in line)
    assert plain.index("price") < plain.index("tags")


def test_fields_of_a_filter_are_found_wherever_they_stand():
    where = {"$or": [{"b": 1}, {"$not": {"c.d": 2}}], "a": {"$gt": 1}, "$id": "x"}
    assert filtered_by(where) == ("b", "c.d", "c", "a")
