"""Pairs of captions that differ in a few words, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_corpus import corpus

from indexer.errors import CallError
from pipelines.train.common.captions import Captions, Templates
from pipelines.train.common.differences import Differences, differences
from pipelines.train.common.losses import masked

CAPTIONS = ["man running: dark skin", "woman running: dark skin", "man running", "red car", "man running: dark skin"]
FEATURES = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [0, 1]], np.float32)
ROWS = np.array([10, 11, 12, 13, 14])


def pairs(captions: list[str] = CAPTIONS, keep: float = 0.4, **more: object) -> Differences:
    return Differences(captions, ROWS[: len(captions)], FEATURES[: len(captions)], keep, **more)


def drawn(found: Differences, count: int = 300) -> set[tuple[int, int, str]]:
    before, after, said = found.draw(count, np.random.default_rng(0))
    return {(int(b), int(a), words) for b, a, words in zip(before, after, said, strict=True)}


def test_pairs_share_words_and_say_only_those_the_second_has() -> None:
    found = {(before, said) for before, _, said in drawn(pairs())}
    assert found == {(10, "woman"), (14, "woman"), (11, "man"), (12, "dark skin")}


def test_of_pictures_with_one_caption_the_one_most_like_the_first_is_meant() -> None:
    after_woman = {after for before, after, said in drawn(pairs()) if (before, said) == (11, "man") and after != 12}
    assert after_woman == {14}
    assert {after for before, after, _ in drawn(pairs()) if before == 12} == {10}


def test_the_share_of_common_words_is_a_bound_and_so_is_the_number_said() -> None:
    assert {said for _, _, said in drawn(pairs(keep=0.7))} == {"woman", "man"}
    few = {said for _, _, said in drawn(pairs(most=1))}
    assert few == {"woman", "man"}


def test_captions_that_have_nothing_in_common_make_no_pairs() -> None:
    with pytest.raises(CallError, match="No two of the 2 captions have 40% of their words in common. Lower `keep`"):
        pairs(["red car", "blue sky"])
    with pytest.raises(CallError, match="No two of the 1 captions"):
        pairs(["red car", "red car"])


def test_what_is_said_often_does_not_drown_the_rest() -> None:
    many = [f"{thing} plain" for thing in "abcdefgh"] + [f"{thing} dark" for thing in "abcdefgh"]
    captions = [f"the {text} thing" for text in many]
    found = Differences(captions, np.arange(16), np.eye(16, dtype=np.float32), 0.75)
    said = found.draw(4000, np.random.default_rng(0))[2]
    times = {words: said.count(words) for words in set(said)}
    # 8 pairs say "plain" and 14 say "a"; each counts by its root.
    assert times["plain"] / times["a"] == pytest.approx((8 / 14) ** 0.5, rel=0.25)


def test_pictures_of_one_caption_may_differ_in_looks() -> None:
    looks = [["Noto"], ["Noto"], ["Noto"], ["Noto"], ["3D", "Fluent"]]
    found = drawn(pairs(looks=looks, look_share=1.0))
    assert found == {(10, 14, "3D"), (10, 14, "Fluent"), (14, 10, "Noto")}
    assert drawn(pairs(looks=[["Noto"]] * 5, look_share=1.0)) == drawn(pairs())


def test_some_pairs_are_told_by_what_else_is_true_of_the_second_picture_alone() -> None:
    tags = [frozenset({"human", "he"}), frozenset({"human", "she"}), frozenset(), frozenset(), frozenset({"human"})]
    found = {(before, said) for before, _, said in drawn(pairs(tags=tags, tag_share=1.0))}
    # Where the second has nothing of its own, its caption's words are said.
    assert found == {(10, "she"), (14, "she"), (11, "man"), (12, "he"), (12, "human")}


def test_pairs_of_a_corpus_stay_in_its_part() -> None:
    data = Captions(Templates({"{text}": 1.0}), "split", "maker")
    for record in corpus():
        data.add(record.document)
    assert data.looks[:2] == [["s"], ["c"]]
    rows = data.rows("validation")
    found = differences(data, rows, torch.eye(8), 0.4)
    assert drawn(found) == {(6, 7, "circle"), (7, 6, "square")}


@pytest.mark.parametrize(
    ("caption", "pieces"),
    [
        ("a red cat", [" a ", ""]),
        ("red cat", ["", ""]),
        ("a man with a dark coat, running", [" a ", " with a ", ", ", ""]),
        ("dogs and cats", ["", " and ", ""]),
        ("man's well-known hat", ["", ""]),
        ("with the", ["", ""]),
        ("", ["", ""]),
        ("!!!", ["", ""]),
        ("cat (red)", ["", " (", ")"]),
    ],
)
def test_content_words_give_way_to_words(caption: str, pieces: list[str]) -> None:
    assert [" ".join(piece.split()) for piece in masked(caption)] == [" ".join(piece.split()) for piece in pieces]
