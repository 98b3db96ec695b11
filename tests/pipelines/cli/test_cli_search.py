"""`underdrawing search`: its output for people, programs and browsers."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest

from indexer import Collection, Document
from pipelines.terminal import console

HIT = {"rank", "id", "score", "branches", "text", "uri", "fields"}
ANSWER = {"hits", "method", "model", "generation", "artifacts", "pseudo_target", "took_ms", "notes", "plan"}


@pytest.fixture
def found(run, shop):
    """Search, and read the JSON."""

    def search(*arguments):
        done = run("search", shop, *arguments, "--json")
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return search


def ids(answer):
    return [hit["id"] for hit in answer["hits"]]


def test_the_json_has_the_promised_keys_and_no_other(found, photos):
    answer = found("a red square", "--image", photos / "red.png", "-k", 2, "--keep-reference")
    assert set(answer) == ANSWER
    assert [set(hit) for hit in answer["hits"]] == [HIT, HIT]
    best = answer["hits"][0]
    assert (best["rank"], best["id"], best["text"]) == (1, "red.png", "a red square")
    assert best["fields"] == {"price": 30, "tags": ["square", "red"]}
    assert set(best["branches"]) == {"text", "image"}
    assert (answer["method"], answer["model"], answer["generation"]) == ("sum", "fake:64", 1)


def test_the_parts_of_the_call_reach_the_query(found, photos):
    assert ids(found("a note about lamps"))[0] == "note.txt"
    assert ids(found("--image", photos / "blue.png"))[0] == "blue.png"
    assert "red.png" not in ids(found("--like", "red.png"))
    assert ids(found("square", "--where", '{"price": {"$gt": 30}, "tags": "green"}')) == ["green.png"]
    assert ids(found("square", "--where", '{"price": {"$gt": 1000}}')) == []
    assert len(found("square", "-k", 3)["hits"]) == 3
    against = found("square", "--not", "red", "--not", "blue", "--not-image", photos / "red.png")
    assert set(against["hits"][0]["branches"]) == {"text", "not_text_1", "not_text_2", "not_image_1"}
    assert found("square", "--like", "red.png", "--method", "slerp")["method"] == "slerp"


def test_the_reference_is_left_out_and_told_unless_it_is_to_be_kept(found, photos):
    asked = ("square", "--image", photos / "red.png")
    left = found(*asked)
    assert "red.png" not in ids(left)
    assert any("Left out 'red.png'" in note and "--keep-reference" in note for note in left["notes"])
    assert "red.png" in ids(found(*asked, "--keep-reference"))
    assert "red.png" in ids(found("--image", photos / "red.png"))


def test_weights_reach_the_query(found, photos):
    composed = ("a note about lamps", "--image", photos / "red.png", "--keep-reference")
    assert ids(found(*composed, "--image-weight", 0))[0] == "note.txt"
    assert ids(found(*composed, "--text-weight", 0))[0] == "red.png"


def test_the_table_has_a_line_for_each_hit_and_says_how_it_was_found(run, shop, monkeypatch):
    monkeypatch.setattr(console.out, "_width", 100)
    done = run("search", shop, "a red square", "--like", "blue.png", "-k", 2)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert lines[1].split() == ["#", "score", "id", "text", "fields", "branches"]
    assert lines[3].lstrip().startswith("1 ")
    assert "red.png" in lines[3]
    assert re.search(r"text\s0\.\d\d, image\s0\.\d\d$", lines[3])
    assert lines[-3] == "2 hits · method sum · fake:64 · generation 1"
    assert lines[-2].startswith("encode ")
    assert lines[-1].startswith("score: cosine")
    assert max(map(len, lines)) <= 100


def test_a_branch_and_its_value_stay_on_one_line(run, shop, monkeypatch):
    monkeypatch.setattr(console.out, "_width", 80)
    shown = run("search", shop, "square", "--not", "circle", "--not", "a dog", "-k", "1").stdout
    assert re.search(r"not text 1 -?\d\.\d\d", shown)
    assert re.search(r"not text 2 -?\d\.\d\d", shown)


def test_drawing_is_timed_only_where_something_was_drawn(run, shop):
    assert "draw" not in run("search", shop, "square").stdout


def test_one_part_has_no_column_of_branches_and_notes_are_shown(run, shop):
    assert "branches" not in run("search", shop, "square").stdout
    done = run("search", shop, "square", "--method", "sum")
    assert "note: The query has no image" in done.stdout


def test_nothing_found_is_said_and_is_no_failure(run, shop):
    done = run("search", shop, "square", "--where", '{"price": -1}')
    assert done.exit_code == 0
    assert done.stdout.startswith("Nothing found.")


def test_what_is_stored_cannot_steer_the_terminal(run, tmp_path, monkeypatch):
    monkeypatch.setattr(console.out, "_width", 200)
    text = "\x1b[31mred\x1b[0m [bold]loud[/bold] :smile: \u9b5a\u9b5a\u9b5a two\nlines\x07"
    with Collection.open(tmp_path / "evil", model="fake:64") as evil:
        evil.add([Document("a[/]\x1bb", text, fields={"[link=x]k": "\x9b2J"})])
    shown = run("search", tmp_path / "evil", "red", "-k", 1).stdout
    assert {character for character in shown if unicodedata.category(character) == "Cc"} == {"\n"}
    assert "[bold]loud[/bold] :smile: \u9b5a" in shown
    assert "a[/]" in shown
    assert "[link=x]k" in shown


LONG = "photographs/2024/summer holidays by the sea/" + "x" * 90 + "/IMG 0001 (copy 2).jpeg"
IDS = [LONG, "a" * 300, "\u9b5a" * 60, "short"]


@pytest.mark.parametrize("columns", [20, 40, 80, 120, 250])
def test_ids_are_printed_whole_at_any_width(run, tmp_path, monkeypatch, columns):
    monkeypatch.setattr(console.out, "_width", columns)
    with Collection.open(tmp_path / "long", model="fake:64") as shop:
        shop.add([Document(name, "words " * 40, fields={"field": "value " * 20}) for name in IDS])
    for wanted in (IDS, IDS[-1:]):
        where = json.dumps({"$id": {"$in": wanted}})
        shown = run("search", tmp_path / "long", "words", "--not", "x", "--where", where).stdout.splitlines()
        for name in wanted:
            assert sum(name in line for line in shown) == 1, name
        assert "words" in " ".join(shown)


ACTING = [chr(code) for code in (*range(0x1, 0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F),
          *range(0x2066, 0x206A), 0x2028, 0x2029)]  # fmt: skip


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_no_character_that_a_terminal_acts_on_gets_there(run, tmp_path, how):
    text = "gpj." + "|".join(ACTING) + ".exe \u200d\U0001f469\u200d\U0001f4bb \u05d0"
    with Collection.open(tmp_path / "evil", model="fake:64") as shop:
        shop.add([Document(text, text, fields={text: text})])
    done = run("search", tmp_path / "evil", "red", "--where", json.dumps({"x" + text: None}), *how)
    assert done.exit_code == 0
    for shown in (done.stdout, done.stderr):
        assert not set(shown) & set(ACTING) - {"\n"}
    assert "\u05d0" in done.stdout
    if how:
        answer = json.loads(done.stdout)
        assert (answer["hits"][0]["id"], answer["hits"][0]["fields"]) == (text, {text: text})
    refused = run("search", tmp_path / "evil", "red", "--where", json.dumps({"x": {text: 1}}))
    lost = run("search", tmp_path / "evil", "red", "--like", text + "?")
    for done in (refused, lost):
        assert done.exit_code == 2
        assert not set(done.stdout + done.stderr) & set(ACTING) - {"\n"}


def test_an_image_by_url_is_refused_by_its_name(run, shop):
    for option in ("--image", "--not-image"):
        done = run("search", shop, "red", option, "https://example.org/a.jpg")
        assert done.exit_code == 2
        assert "https://example.org/a.jpg. URLs are not fetched" in done.stderr


def test_html_writes_a_page_beside_the_json(run, shop, tmp_path):
    page = tmp_path / "new" / "page.html"
    done = run("search", shop, "a <red> square", "--json", "--html", page)
    assert ids(json.loads(done.stdout))[0] == "red.png"
    assert str(page) in done.stderr
    content = page.read_text()
    assert "red.png" in content
    assert "<red>" not in content
    assert "data:image" in content


def test_a_model_that_the_collection_names_by_a_path_wants_trust(run, shop, tmp_path):
    from sqlalchemy import text

    from indexer import Collection

    with Collection.open(shop) as opened, opened.database.write() as connection:
        connection.execute(text("UPDATE spaces SET model = :name"), {"name": f"open_clip:{tmp_path}/model"})
    refused = run("search", shop, "red", "--method", "text")
    assert refused.exit_code == 2
    assert "names the model" in refused.stderr
    assert "--trust" in refused.stderr
    trusted = run("search", shop, "red", "--method", "text", "--trust")
    assert f"open_clip:{tmp_path}/model" in trusted.stderr
    assert "--trust" not in trusted.stderr


def test_a_search_for_nothing_names_its_options(run, tmp_path):
    done = run("search", tmp_path)
    assert done.exit_code == 2
    assert "this one has no TEXT, --image or --like." in " ".join(done.stderr.split())


def test_an_answer_is_shown_before_the_page_that_was_written(run, tmp_path):
    Collection.open(tmp_path / "shop", "fake:16").close()
    done = run("search", tmp_path / "shop", "a lamp", "--html", tmp_path / "found.html")
    assert 0 <= done.output.index("Nothing found.") < done.output.index("Wrote ")
