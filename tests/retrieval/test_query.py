"""Valid queries, and how invalid ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from indexer.errors import QueryError
from indexer.types import Item
from retrieval import Query, Weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs something to look for"),
        ({"not_texts": ("dog",)}, "needs something to look for"),
        ({"caption": "a cat"}, "needs something to look for"),
        ({"image": "a.png", "like": "b"}, "both `image` and `like`"),
        ({"text": ""}, "`text` is empty"),
        ({"text": " \t\n"}, "`text` is empty"),
        ({"text": b"cat"}, "`text` is bytes"),
        ({"text": "cat", "caption": " "}, "`caption` is empty"),
        ({"text": "cat", "not_texts": ("dog", "")}, "`not_texts` is empty"),
        ({"text": "cat", "not_texts": (Path("dog"),)}, "`not_texts` is"),
        ({"text": "cat", "not_images": (3,)}, "`not_images` is int"),
        ({"image": ""}, "`image` is an empty path"),
        ({"image": 3.5}, "`image` is float"),
        ({"like": ""}, "`like` is ''"),
        ({"like": 3}, "`like` is 3"),
        ({"text": "cat", "weights": {"text": 1}}, "`weights` is dict"),
    ],
)
def test_what_cannot_be_asked(given, message):
    with pytest.raises(QueryError, match=message):
        Query(**given)


def test_an_image_is_a_path_bytes_or_a_picture():
    picture = Image.new("RGB", (2, 2))
    assert Query(image="a/b.png").image == Path("a/b.png")
    assert Query(image=Path("b.png")).items["image"] == (Item(image=Path("b.png")),)
    assert Query(image=b"bytes").items["image"] == (Item(image=b"bytes"),)
    assert Query(image=picture).items["image"][0].image is picture


def test_parts_have_the_names_of_their_branches():
    query = Query(text="at night", like="x", not_texts=("dog", "cat"), not_images=(b"one",))
    assert query.items == {
        "text": (Item(text="at night"),),
        "image": (),
        "not_text_1": (Item(text="dog"),),
        "not_text_2": (Item(text="cat"),),
        "not_image_1": (Item(image=b"one"),),
    }


def test_a_lone_negative_needs_no_tuple():
    query = Query(text="cat", not_texts="dog", not_images="dog.png")
    assert query.not_texts == ("dog",)
    assert query.not_images == (Path("dog.png"),)


def test_texts_are_stripped_and_what_no_tokenizer_reads_is_replaced():
    assert Query(text="  a\0b ").text == "a\N{REPLACEMENT CHARACTER}b"
    assert Query(text="a\ud800b").text == "a\N{REPLACEMENT CHARACTER}b"
    assert Query(text="a\U0001f600b").text == "a\U0001f600b"


def test_a_long_text_can_be_asked():
    assert len(Query(text="cat " * 1_000_000).text) == 4 * 1_000_000 - 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", True])
def test_a_weight_is_a_finite_number(value):
    with pytest.raises(QueryError, match="weight text"):
        Weights(text=value)


def test_weights_fill_in_what_they_say_nothing_about():
    weights = Weights(text=2.0).over(Weights(text=1.0, image=0.0, negative=0.5))
    assert weights == Weights(text=2.0, image=0.0, negative=0.5)
    assert weights["image"] == 0.0
    with pytest.raises(QueryError, match="alpha is needed"):
        weights["alpha"]


def test_weights_travel_as_json():
    weights = Weights(alpha=0.8, negative=0.0)
    assert Weights(**json.loads(json.dumps(weights.given()))) == weights


def test_other_wordings_are_one_part_with_the_text():
    query = Query(text=" a and b ", wordings="b and a")
    assert query.sentences == ("a and b", "b and a")
    assert query.items["text"] == (Item(text="a and b"), Item(text="b and a"))
    assert Query(text="a").items["text"] == (Item(text="a"),)
    assert Query(like="x").sentences == ()
    with pytest.raises(QueryError, match="no `text` that they paraphrase"):
        Query(like="x", wordings=("b",))
    with pytest.raises(QueryError, match="`wordings` is empty"):
        Query(text="a", wordings=("",))
