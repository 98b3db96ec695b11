"""The rules of the fake embedder, from which other tests derive expected results."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from indexer.embed import load_embedder
from indexer.errors import CallError, ItemError, ItemsError, UnknownNameError
from indexer.types import Item, Role


def test_a_text_is_the_sum_of_its_words_whatever_their_order_and_case() -> None:
    fake = load_embedder("fake:64")
    one, two, word, other = fake.encode_document([Item(each) for each in ("Red cat", "cat, RED", "cat", "tree")])
    np.testing.assert_array_equal(one, two)
    assert one @ word > 0.5 > abs(float(one @ other))


def test_rows_are_of_unit_length_and_repeat_in_any_process() -> None:
    fake = load_embedder("fake:8")
    vectors = fake.encode_query([Item("a"), Item(image=Image.new("RGB", (9, 9), "red"))])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors.dtype == np.float32
    again = pickle.loads(pickle.dumps(fake.preparer()))(Item("a"))
    np.testing.assert_allclose(fake.forward([again], Role.QUERY), vectors[:1])


def test_pictures_of_like_colours_meet_and_of_others_do_not() -> None:
    fake = load_embedder("fake:256")
    red, wine, blue = fake.encode_document(
        [Item(image=Image.new("RGB", (8, 8), colour)) for colour in ((250, 0, 0), (240, 10, 10), (0, 0, 250))]
    )
    np.testing.assert_array_equal(red, wine)
    assert abs(float(red @ blue)) < 0.4


def test_a_bad_item_costs_its_own_row() -> None:
    fake = load_embedder("fake:8")
    items = [Item("good"), Item(image=b"bad"), Item("fine")]
    embedded = fake.try_encode(items, Role.DOCUMENT)
    assert embedded.rows.tolist() == [0, 2]
    assert isinstance(embedded.errors[1], ItemError)
    np.testing.assert_array_equal(embedded.vectors, fake.encode_document([items[0], items[2]]))
    with pytest.raises(ItemsError, match="1 of 3 items cannot be embedded; item 1"):
        fake.encode_document(items)


def test_no_items_are_no_rows() -> None:
    assert load_embedder("fake:8").encode_query([]).shape == (0, 8)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("fake", CallError, "has no family"),
        ("fake:many", CallError, "the dimension must be a number"),
        ("fake:0", CallError, "1 to 65536"),
        ("paper:7", UnknownNameError, "bundled, open_clip, mllm, bridge, photo, st, fake"),
        ("bundled:nothing", UnknownNameError, "emoji-clip"),
        ("", CallError, "has no family"),
    ],
)
def test_a_wrong_name_says_what_is_right(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_embedder(name)


def test_an_item_of_nothing_or_with_a_path_as_a_string_is_refused() -> None:
    with pytest.raises(CallError, match="needs a text, an image, or both"):
        Item()
    with pytest.raises(CallError, match="a string is never taken for a path"):
        Item(image="cat.png")  # type: ignore[arg-type]
