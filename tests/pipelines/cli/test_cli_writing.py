"""`underdrawing search` with `caption`: options reach the models, and the caption is shown."""

from __future__ import annotations

import json

import pytest
from PIL import Image

TEXT = "now in Red, please!"


@pytest.fixture
def search(run, shop, tmp_path, monkeypatch):
    """Search with a table of captions; pictures are named by the photographs that `shop` was made of."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "captions.json").write_text(json.dumps({"ref.png": "a square", "red.png": "a red square"}))
    Image.new("RGB", (16, 16), "red").save(tmp_path / "ref.png")

    def one(*arguments, models=("--captioner", f"table:{tmp_path / 'captions.json'}", "--rewriter", "join")):
        given = [tmp_path / "ref.png" if each == "REF" else each for each in arguments]
        done = run("search", shop, *given, *models)
        assert done.exit_code == 0, done.output
        return done

    return one


def answer(done):
    return json.loads(done.stdout)


def test_options_of_writing_choose_caption_and_the_sentence_is_told(search, tmp_path):
    told = answer(search(TEXT, "--image", "REF", "--json"))
    assert told["method"] == "caption"
    assert told["written"] == {
        "sentence": "a square, now in Red, please!",
        "caption": "a square",
        "captioner": f"table:{tmp_path / 'captions.json'}",
        "rewriter": "join",
        "cached": False,
    }
    assert told["artifacts"] == {"caption": told["written"]}
    assert told["took_ms"]["write"] > 0
    assert told["hits"][0]["id"] == "red.png"
    assert set(told["hits"][0]["branches"]) == {"written"}
    assert answer(search(TEXT, "--image", "REF", "--json"))["written"]["cached"] is True
    assert answer(search(TEXT, "--image", "REF", "--json", "--rewrite"))["written"]["cached"] is False


def test_a_stored_reference_is_put_into_words(search):
    told = answer(search("in blue", "--like", "red.png", "--json"))
    assert told["written"]["sentence"] == "a red square, in blue"
    assert "red.png" not in [hit["id"] for hit in told["hits"]]


def test_a_caption_that_is_told_needs_no_captioner(search):
    told = answer(search(TEXT, "--image", "REF", "--caption", "a lamp", "--json", models=("--rewriter", "join")))
    assert (told["written"]["caption"], told["written"]["captioner"]) == ("a lamp", None)
    shifted = answer(search(TEXT, "--image", "REF", "--method", "shift", "--caption", "a lamp", "--json", models=()))
    assert "caption" in shifted["hits"][0]["branches"]
    assert "written" not in shifted


def test_table_and_page_show_the_sentence(search, tmp_path):
    page = tmp_path / "found.html"
    shown = " ".join(search(TEXT, "--image", "REF", "--html", page).stdout.split())
    assert "searched for: a square, now in Red, please! (by join; the reference, by table:" in shown
    assert ": a square)" in shown
    assert "<q>a square, now in Red, please!</q>" in page.read_text(encoding="utf-8")
    assert "; from the cache)" in " ".join(search(TEXT, "--image", "REF").stdout.split())
    told = " ".join(search(TEXT, "--image", "REF", "--caption", "<b>", models=("--rewriter", "join")).stdout.split())
    assert "(by join; the reference, as given: <b>)" in told
    search(TEXT, "--image", "REF", "--caption", "<b>", "--html", page, models=("--rewriter", "join"))
    assert "<b>" not in page.read_text(encoding="utf-8")


def test_what_cannot_be_written_is_a_note(search, tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "unknown.png")
    told = answer(search("red", "--image", tmp_path / "unknown.png", "--json"))
    assert told["written"]["sentence"] == "red"
    assert "has no caption of unknown.png" in told["notes"][0]
    assert "searched for: red\n" in search("red", "--image", tmp_path / "unknown.png").stdout


MODELS = ["--captioner", "table:CAPTIONS", "--rewriter", "join"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", *MODELS], ["needs a text and a reference", "no reference", "--method text"]),
        (["--like", "red.png", *MODELS], ["needs a text and a reference", "no text", "--method image"]),
        (["x", "--like", "red.png", "--method", "sum", *MODELS], ["sum does not read --captioner", "--method caption"]),
        (["x", "--like", "red.png", "--method", "sum", "--rewrite"], ["sum does not read --rewrite"]),
        (["x", "--like", "red.png", "--caption", "y"], ["sum does not read --caption", "--method caption or --method shift"]),
        (["x", "--like", "red.png", "--method", "caption"], ["needs a captioner", "--captioner"]),
        (["x", "--like", "red.png", *MODELS[:2]], ["needs a rewriter", "api:MODEL"]),
        (["x", "--like", "red.png", *MODELS, "--steps", "3"], ["cig does not read --captioner"]),
        (["x", "--like", "red.png", *MODELS[:3], "join:{text}"], ["lacks {caption}"]),
        (["x", "--like", "red.png", *MODELS[:3], "api:m@ftp://nowhere"], ["ftp://nowhere is not the URL of an API"]),
        (["x", "--like", "red.png", "--caption", " ", "--rewriter", "join"], ["--caption is empty"]),
    ],
)  # fmt: skip
def test_a_call_in_vain_is_refused_with_the_remedy(call, shop, tmp_path, arguments, said):
    (tmp_path / "captions.json").write_text("{}")
    given = [each.replace("CAPTIONS", str(tmp_path / "captions.json")) for each in arguments]
    left, stdout, stderr = call("search", shop, *given)
    assert (left, stdout) == (2, "")
    for each in said:
        assert each in stderr


def test_models_that_cannot_be_loaded_are_errors(call, shop, tmp_path):
    query = ("search", shop, "x", "--like", "red.png")
    (tmp_path / "empty").mkdir()
    for models, said in (
        (("--captioner", f"table:{tmp_path / 'none.json'}", "--rewriter", "join"), "none.json cannot be read"),
        (("--captioner", tmp_path / "empty", "--rewriter", "join"), "config.json is missing"),
        (("--caption", "x", "--rewriter", tmp_path / "empty"), "has no safetensors weights"),
        (("--caption", "x", "--rewriter", "/no/where"), "neither a folder nor a hub id"),
    ):
        left, stdout, stderr = call(*query, *models)
        assert (left, stdout) == (1, "")
        assert said in stderr
