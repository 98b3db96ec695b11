"""`underdrawing spaces`: another model for a collection, from the shell."""

from __future__ import annotations

import json

import pytest

from indexer import Collection, Document


@pytest.fixture
def shop(tmp_path):
    with Collection.open(tmp_path / "shop", "fake:16") as opened:
        opened.add([Document("a", text="cat"), Document("b", text="dog")])
    return tmp_path / "shop"


@pytest.fixture
def told(run):
    def call(*arguments, code=0):
        done = run("spaces", *arguments, "--json")
        assert done.exit_code == code, done.stderr
        return json.loads(done.stdout)

    return call


def names(answer):
    return {each["name"]: (each["documents"], each["missing"], each["default"]) for each in answer["spaces"]}


def test_a_model_is_changed(told, shop):
    added = told(shop, "add", "fake:32", "--name", "small")
    assert (added["embedded"], added["rejected"], added["reasons"]) == (2, [], {})
    assert names(added) == {"fake:16": (2, 0, True), "small": (2, 0, False)}
    assert names(told(shop, "default", "small")) == {"small": (2, 0, True), "fake:16": (2, 0, False)}
    dropped = told(shop, "drop", "fake:16")
    assert (dropped["dropped"], names(dropped)) == (2, {"small": (2, 0, True)})


def test_it_is_told_for_eyes(run, shop):
    done = run("spaces", shop, "add", "fake:32", "--parts", "image")
    assert "Embedded 0 documents" in done.stdout
    assert "2 cannot be: empty 2." in done.stdout
    lines = run("spaces", shop).stdout.splitlines()
    assert [line.split(None, 1) for line in lines] == [
        ["fake:16", "fake:16, 16 dimensions; 2 documents; the default"],
        ["fake:32", "fake:32, 32 dimensions; 0 documents, 2 without a vector"],
    ]


def test_what_was_left_is_filled(told, shop):
    told(shop, "add", "fake:32")
    with Collection.open(shop) as opened:
        opened.add(Document("c", text="fish"), spaces=["fake:16"])
    assert told(shop, "fill", "fake:32")["embedded"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add"], "spaces add needs a model"),
        (["drop", "fake:16"], "'fake:16' is the default space"),
        (["default", "fake:17"], "space 'fake:17' is not known"),
        (["fill"], "spaces fill needs the name of a space"),
    ],
)
def test_wrong_calls_end_with_two(run, shop, arguments, message):
    done = run("spaces", shop, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_search_of_two_spaces_fuses_their_rankings(run, told, shop):
    told(shop, "add", "fake:32", "--name", "small")
    call = ["search", shop, "cat", "--json", "--space", "fake:16", "--space", "small"]
    done = run(*call, "--fusion", "scores")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["method"], [hit["id"] for hit in found["hits"]]) == ("late-fusion", ["a", "b"])
    assert found["hits"][0]["branches"].keys() == {"fake:16", "small"}
    done = run("search", shop, "cat", "--space", "small", "--fusion", "scores")
    assert (done.exit_code, "--fusion is read where several spaces" in done.stderr) == (2, True)


def test_a_default_space_that_is_dropped_has_the_shells_remedy(run, told, shop):
    alone = run("spaces", shop, "drop", "fake:16")
    assert (alone.exit_code, "add another first" in alone.stderr) == (2, True)
    told(shop, "add", "fake:32", "--name", "a second")
    done = run("spaces", shop, "drop", "fake:16")
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "set_default_space" not in said
    assert said.endswith(f"Make another one the default first: underdrawing spaces {shop} default 'a second'")


def test_an_unknown_action_is_said_without_the_parsers_own_words(run, shop):
    done = run("spaces", shop, "frob", "x")
    assert (done.exit_code, "'frob' is not one of" in done.stderr) == (2, True)
    assert "Value error" not in done.stderr
